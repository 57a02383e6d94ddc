package formattest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// HostilePaths returns names as hostile metadata or a hostile client gives
// them. None that a format takes up may leave the repository.
func HostilePaths() []string {
	return []string{
		"", ".", "..", "/", "//", "./", "../", "a/..", "a/../..",
		"/etc/passwd", "//etc/passwd", "../etc/passwd", "../../../../../../etc/passwd", "a/../../etc/passwd",
		"pool/../../../etc/passwd", "./../etc/passwd", "a/./../../etc/passwd", "..//etc/passwd", "a/..//../etc/passwd",
		"pool/a\x00.deb", "\x00", "pool/a\nb.deb", "pool/a\rb.deb", "pool/a\tb.deb", "pool/\x1b[2Ja.deb", "pool/a\x7fb.deb",
		"..\\..\\etc\\passwd", "C:\\Windows\\win.ini", "\\\\host\\share",
		"%2e%2e/%2e%2e/etc/passwd", "..%2fetc%2fpasswd", "a%00b", "file:///etc/passwd", "http://mirror.example.org/x",
		"...", ".../x", "..x/y", "x../y", "a//b", "a/./b", " ", " a", "a ", "-rf", "~root/x", "$HOME/x", "`id`",
		"\xff\xfe\xfd", "a\xc0\xaf..\xc0\xafb", "\u202egpj.deb", "é/ü.deb", strings.Repeat("a/", 3000) + "b", strings.Repeat("x", 70000),
		"dists", "dists/", "dists//InRelease", "dists/by-hash", "by-hash/SHA256/", "by-hash/SHA256/zz", "by-hash/../../x",
		"repodata", "repodata/", "repodata/repomd.xml/x", "simple", "simple/", "simple//", "simple/../", "+files/", "+files/sha256/..",
	}
}

// XZBomb returns a valid .xz file of less than 100 bytes whose header asks
// for a dictionary of 4 GiB. A reader without a limit allocates that much.
func XZBomb() []byte { return xzFile(40, []byte("nothing to see here\n")) }

// xzFile returns content as an .xz file of one block with one uncompressed
// LZMA2 chunk and no check (xz file format 1.1.0, sections 2 to 4).
// dictionary is LZMA2's encoded dictionary size: 40 stands for 4 GiB - 1.
func xzFile(dictionary byte, content []byte) []byte {
	crc := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
	padded := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

	flags := []byte{0, 0} // no check
	header := append([]byte("\xfd7zXZ\x00"), flags...)
	header = append(header, crc(flags)...)

	// Size in units of four bytes less one, one filter, LZMA2, its one byte.
	block := padded([]byte{2, 0, 0x21, 1, dictionary})
	block = append(block, crc(block)...)
	chunk := append([]byte{1, byte((len(content) - 1) >> 8), byte(len(content) - 1)}, content...)
	chunk = append(chunk, 0)

	index := binary.AppendUvarint([]byte{0, 1}, uint64(len(block)+len(chunk)))
	index = padded(binary.AppendUvarint(index, uint64(len(content))))
	index = append(index, crc(index)...)

	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, flags...)
	footer = append(crc(footer), footer...)
	footer = append(footer, 'Y', 'Z')

	return bytes.Join([][]byte{header, block, padded(chunk), index, footer}, nil)
}

// GzipBomb returns a .gz file of zeros, size bytes (rounded up to MiB) when
// decompressed and about a thousandth of that as it is: many members in a
// row (RFC 1952, section 2.2), so that making it takes no time.
func GzipBomb(size int64) []byte {
	const member = 1 << 20
	var one bytes.Buffer
	w, err := gzip.NewWriterLevel(&one, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(make([]byte, member))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a constant level and a buffer cannot fail
	}
	return bytes.Repeat(one.Bytes(), int((size+member-1)/member))
}

// ZstdBomb returns a .zst file of zeros, size bytes (rounded up to 128 KiB)
// when decompressed and 32,768 times less as it is: a frame of RLE blocks
// (RFC 8878, section 3.1.1.2).
func ZstdBomb(size int64) []byte {
	const block = 128 << 10
	b := zstdHeader(7 << 3) // a window of 2^(10+7) bytes
	for size > 0 {
		header := uint32(block<<3 | 1<<1) // type 1: one byte, repeated
		if size -= block; size <= 0 {
			header |= 1 // the last one
		}
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return b
}

// ZstdWindowBomb returns a small valid .zst file whose frame asks for a
// window of 3.75 TiB, the most the format can say.
func ZstdWindowBomb() []byte {
	header := uint32(5<<3 | 1) // type 0: five bytes as they are; the last block
	b := append(zstdHeader(0xff), byte(header), byte(header>>8), byte(header>>16))
	return append(b, "quiet"...)
}

// zstdHeader returns the magic number, a descriptor that promises neither
// checksum nor size, and the window descriptor.
func zstdHeader(window byte) []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window} }
