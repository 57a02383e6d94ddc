package testenv

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// GzipBomb returns a .gz of size zero bytes: some thousandth of that.
func GzipBomb(size int64) ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.CopyN(z, zeros{}, size); err != nil {
		return nil, fmt.Errorf("gzip bomb: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("gzip bomb: %w", err)
	}
	return b.Bytes(), nil
}

// ZstdBomb returns a .zst of size zero bytes: some ten-thousandth of that.
func ZstdBomb(size int64) ([]byte, error) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		return nil, fmt.Errorf("zstd bomb: %w", err)
	}
	if _, err := io.CopyN(z, zeros{}, size); err != nil {
		return nil, fmt.Errorf("zstd bomb: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("zstd bomb: %w", err)
	}
	return b.Bytes(), nil
}

// XZBomb returns a small, well-formed .xz of a few bytes of text whose block
// header claims the largest dictionary, 4 GiB (the .xz file format, 5.3.1).
func XZBomb() []byte {
	text := []byte("Package: bomb\n\n")
	b := []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, 1} // checks are CRC32
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[6:8]))
	header := []byte{2, 0, 0x21, 1, 40, 0, 0, 0} // 12 bytes with its CRC; LZMA2, dictionary 2^32-1
	header = binary.LittleEndian.AppendUint32(header, crc32.ChecksumIEEE(header))
	block := append(header, 1, 0, byte(len(text)-1)) // one chunk, stored, which resets the dictionary
	block = append(append(block, text...), 0)
	unpadded := len(block) + 4
	for len(block)%4 != 0 {
		block = append(block, 0)
	}
	block = binary.LittleEndian.AppendUint32(block, crc32.ChecksumIEEE(text))
	b = append(b, block...)
	index := []byte{0, 1, byte(unpadded), byte(len(text))}
	index = binary.LittleEndian.AppendUint32(index, crc32.ChecksumIEEE(index))
	b = append(b, index...)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, 0, 1)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(footer))
	return append(append(b, footer...), 'Y', 'Z')
}
