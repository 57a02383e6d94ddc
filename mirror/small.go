package mirror

import (
	"bytes"
	"io"
	"time"

	"chantal"
	"chantal/internal/cas"
)

const (
	smallSize  = 32 << 10    // bytes up to which a copy in memory costs less than opening the file again
	smallCount = 2048        // so all copies together take 64 MiB at most
	smallLife  = time.Minute // after which the store is asked again: it notes uses, and may have lost the blob
)

// smallBlob is a copy of a blob in memory.
type smallBlob struct {
	cas.Blob
	content []byte
	read    time.Time
}

// openSmall returns the content of a blob that is kept in memory; nil if it is
// not.
func (m *Mirror) openSmall(d chantal.Digest) (io.ReadSeekCloser, cas.Blob) {
	s, ok := m.small.Get(d)
	if !ok || m.Now().Sub(s.read) > smallLife {
		return nil, cas.Blob{}
	}
	return &inMemory{*bytes.NewReader(s.content)}, s.Blob
}

// keepSmall returns content, kept in memory if it is small. What cannot be
// read is left for the client to find out.
func (m *Mirror) keepSmall(content io.ReadSeekCloser, blob cas.Blob) io.ReadSeekCloser {
	if blob.Size > smallSize {
		return content
	}
	body := make([]byte, blob.Size)
	if _, err := io.ReadFull(content, body); err != nil {
		_, _ = content.Seek(0, io.SeekStart)
		return content
	}
	content.Close()
	m.small.Add(blob.Digest, &smallBlob{blob, body, m.Now()})
	return &inMemory{*bytes.NewReader(body)}
}

// inMemory is the content of a small file.
type inMemory struct{ bytes.Reader }

// Close does nothing.
func (*inMemory) Close() error { return nil }
