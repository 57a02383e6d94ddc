package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"chantal"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// maxRoot is the size in bytes beyond which no root is read; apt itself stops
// at 10 MB.
const maxRoot = 16 << 20

// frame is what a clear-signed message holds (RFC 9580, section 7).
type frame struct {
	text      []byte // what was signed, as lines that end in a newline
	signed    []byte // the same in the form that the signature is over
	signature []byte // binary
}

// openFrame opens an InRelease. Whatever stands outside the frame was signed
// by nobody; apt refuses such files, and so does this.
func openFrame(b []byte) (frame, error) {
	block, rest := clearsign.Decode(b)
	if block == nil {
		return frame{}, fmt.Errorf("not a clear-signed message; it begins with %.60q", b)
	}
	if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return frame{}, errors.New("there is text before the signed message")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return frame{}, errors.New("there is text behind the signed message")
	}
	signature, err := io.ReadAll(block.ArmoredSignature.Body)
	if err != nil {
		return frame{}, fmt.Errorf("reading the signature: %w", err)
	}
	return frame{append(block.Plaintext, '\n'), block.Bytes, signature}, nil
}

// releaseFile is a parsed Release.
type releaseFile struct {
	date   time.Time // zero where there is none
	byHash bool
	noAll  bool           // the lists of packages of binary-all are part of every other architecture's
	files  []releaseEntry // in the order in which they are listed first
	known  int            // how many fields were there that a Release is known by
}

type releaseEntry struct {
	name    string // clean, relative to the folder of the Release
	size    int64
	digests []chantal.Digest
}

// weak reports whether the files are listed with nothing better than SHA-1,
// with which a signature proves little.
func (r *releaseFile) weak() bool {
	return len(r.files) > 0 && !slices.ContainsFunc(r.files, func(e releaseEntry) bool {
		return len(e.digests) > 0 && e.digests[0].Strong()
	})
}

// parseRelease reads the first stanza of text, all that apt reads of it.
func parseRelease(text []byte) (*releaseFile, error) {
	var (
		rel  releaseFile
		seen = make(map[string]int) // name → position in rel.files
		c    = newControl(bytes.NewReader(text))
		algo string
	)
	for begun := false; ; {
		err := c.next()
		if errors.Is(err, io.EOF) || err == nil && c.kind == blank && begun {
			break
		}
		if err != nil {
			return nil, err
		}
		begun = begun || c.kind == field
		switch {
		case c.kind == field:
			if algo, err = rel.setField(c); err != nil {
				return nil, err
			}
		case c.kind == continuation && c.name != nil && algo != "":
			if err := rel.list(c, algo, seen); err != nil {
				return nil, err
			}
		}
	}
	if rel.known == 0 {
		return nil, errors.New("not a Release file: it has none of the fields of one")
	}
	return &rel, nil
}

// setField takes up one field and returns the algorithm of the list that it
// begins, if it does.
func (r *releaseFile) setField(c *control) (algo string, err error) {
	value, err := c.needed()
	if err != nil {
		return "", err
	}
	switch string(c.name) {
	case "md5sum":
		algo = "md5"
	case "sha1", "sha256", "sha512":
		algo = string(c.name)
	case "date":
		r.date = parseDate(string(value))
	case "acquire-by-hash":
		r.byHash = bytes.EqualFold(value, []byte("yes"))
		return "", nil
	case "no-support-for-architecture-all":
		r.noAll = bytes.EqualFold(value, []byte("packages"))
		return "", nil
	case "origin", "label", "suite", "codename", "components", "architectures":
	default:
		return "", nil
	}
	r.known++
	return algo, nil
}

func (r *releaseFile) list(c *control, algo string, seen map[string]int) error {
	line, err := c.needed()
	if err != nil {
		return err
	}
	l, err := parseListed(line)
	if err != nil {
		return err
	}
	name, err := clean(l.name)
	if err != nil {
		return err
	}
	if isRoot(name) {
		return nil // no file can hold its own digest: these are of an earlier run
	}
	at, ok := seen[name]
	if !ok {
		at = len(r.files)
		seen[name] = at
		r.files = append(r.files, releaseEntry{name: name, size: l.size})
	}
	entry := &r.files[at]
	entry.digests, err = addDigest(entry.digests, algo, l.hex)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// parseDate reads the Date field. The zone has to be UTC in one of its
// spellings, as apt demands; any other date counts as none.
func parseDate(s string) time.Time {
	for _, layout := range [...]string{
		"Mon, _2 Jan 2006 15:04:05 UTC", "Mon, _2 Jan 2006 15:04:05 GMT", "Mon, _2 Jan 2006 15:04:05 -0700", "Mon, _2 Jan 2006 15:04:05 Z",
	} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// openRelease reads the Release in a root with that file name.
func openRelease(name string, root []byte) (*releaseFile, error) {
	if name == inRelease {
		opened, err := openFrame(root)
		if err != nil {
			return nil, err
		}
		root = opened.text
	}
	return parseRelease(root)
}

// parseRoot yields what an InRelease or a Release promises.
func parseRoot(ix index, r io.Reader, yield func(chantal.Promise) bool) error {
	text, err := io.ReadAll(io.LimitReader(r, maxRoot+1))
	if err != nil {
		return err
	}
	if len(text) > maxRoot {
		return fmt.Errorf("larger than %d bytes", maxRoot)
	}
	rel, err := openRelease(ix.name, text)
	if err != nil {
		return err
	}
	for _, e := range rel.files {
		p := chantal.Promise{Path: path.Join(ix.dir, e.name), Kind: chantal.Meta, Digests: e.digests, Size: e.size}
		if rel.byHash && len(e.digests) > 0 {
			d := e.digests[0]
			p.Alt = path.Join(path.Dir(p.Path), "by-hash", byHashFolder[d.Algo()], d.Hex())
		}
		if !yield(p) {
			return errStopped
		}
	}
	return nil
}
