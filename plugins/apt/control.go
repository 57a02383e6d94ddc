package apt

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"chantal"
)

const (
	bufferSize = 256 << 10
	maxValue   = 64 << 10 // bytes in one line of a field that is needed
	maxName    = 64       // bytes in the name of a field
)

// lineKind is what a line of a control file is.
type lineKind uint8

const (
	blank        lineKind = iota // the end of a stanza
	field                        // "Name: value"
	continuation                 // " value"
)

// control reads control files (Debian Policy, section 5.1) line by line and
// keeps nothing of what it has read. Lines may be of any length; of one longer
// than the buffer only the beginning is seen, which is enough to skip it.
type control struct {
	r     *bufio.Reader
	kind  lineKind
	name  []byte // the field's name in lower case; kept on its continuation lines
	line  []byte // all of it as it was read; valid until the next line
	value []byte // trimmed; valid until the next line
	long  bool   // value is only the beginning

	buf [maxName]byte // what name points into
}

func newControl(r io.Reader) *control { return &control{r: bufio.NewReaderSize(r, bufferSize)} }

// next reads one line. Its error is io.EOF at the end of the input, and
// io.ErrUnexpectedEOF where that is in the middle of a line: the files end in
// a newline, so this one was cut.
func (c *control) next() error {
	if c.long {
		if err := c.skip(); err != nil {
			return err
		}
	}
	line, err := c.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		c.long = true
	case errors.Is(err, io.EOF) && len(line) > 0:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	c.line = line
	if line[0] == ' ' || line[0] == '\t' {
		c.value = bytes.TrimSpace(line)
		c.kind = continuation
		if len(c.value) == 0 && !c.long {
			c.kind, c.name = blank, nil // Policy calls it an error, apt the end of the stanza
		}
		return nil
	}
	line = bytes.TrimRight(line, " \t\r\n")
	switch {
	case len(line) == 0:
		c.kind, c.name, c.value = blank, nil, nil
	case line[0] == '#':
		c.kind, c.name, c.value = continuation, nil, nil // a comment belongs to no field
	default:
		return c.splitField(line)
	}
	return nil
}

func (c *control) skip() error {
	for c.long {
		switch _, err := c.r.ReadSlice('\n'); {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		default:
			c.long = false
		}
	}
	return nil
}

func (c *control) splitField(line []byte) error {
	n := bytes.IndexByte(line[:min(len(line), maxName+1)], ':')
	if n <= 0 || line[0] == '-' {
		return fmt.Errorf("the line %.80q is no field of a control file", line)
	}
	for i, b := range line[:n] {
		switch {
		case 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
		case b <= ' ' || b >= 0x7f:
			return fmt.Errorf("the line %.80q is no field of a control file", line)
		}
		c.buf[i] = b
	}
	c.kind, c.name, c.value = field, c.buf[:n], bytes.TrimLeft(line[n+1:], " \t")
	return nil
}

// needed returns the value of a line that is needed, or an error if it is too
// long to be honest.
func (c *control) needed() ([]byte, error) {
	if c.long || len(c.value) > maxValue {
		return nil, fmt.Errorf("the field %s is longer than %d bytes", c.name, maxValue)
	}
	return c.value, nil
}

// listed is one line of a list of files: "HEX SIZE NAME".
type listed struct {
	hex  string
	size int64
	name string // not checked
}

func parseListed(line []byte) (listed, error) {
	hex, rest := cutWord(line)
	size, name := cutWord(rest)
	if len(name) == 0 {
		return listed{}, fmt.Errorf("the line %.200q does not list a file", line)
	}
	n, err := parseSize(size)
	if err != nil {
		return listed{}, err
	}
	return listed{string(hex), n, string(name)}, nil
}

// cutWord splits b behind its first word.
func cutWord(b []byte) (word, rest []byte) {
	i := bytes.IndexAny(b, " \t")
	if i < 0 {
		return b, nil
	}
	return b[:i], bytes.TrimLeft(b[i:], " \t")
}

func parseSize(b []byte) (int64, error) {
	n, err := strconv.ParseUint(string(b), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("the size %.40q is no number of bytes", b)
	}
	return int64(n), nil
}

// addDigest adds a digest to those of one file, keeping the strongest first.
// Of two by the same algorithm the first one stays.
func addDigest(digests []chantal.Digest, algo, hex string) ([]chantal.Digest, error) {
	d, err := chantal.NewDigest(algo, hex)
	if err != nil {
		return nil, err
	}
	at := len(digests)
	for i, e := range digests {
		if strings.HasPrefix(string(e), algo+":") {
			return digests, nil
		}
		if at == len(digests) && d.Stronger(e) {
			at = i
		}
	}
	digests = append(digests, d)
	copy(digests[at+1:], digests[at:])
	digests[at] = d
	return digests, nil
}
