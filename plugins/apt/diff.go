package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"

	"chantal"
)

// parseDiffIndex yields the patches of a .diff/Index. Its -Download lists say
// what the compressed patches are, under the names they are fetched by; the
// -Patches lists speak of them uncompressed, as which they are nowhere, so an
// Index that has no others promises nothing.
func parseDiffIndex(ix index, r io.Reader, yield func(chantal.Promise) bool) error {
	text, err := io.ReadAll(io.LimitReader(r, maxRoot+1))
	if err != nil {
		return err
	}
	if len(text) > maxRoot {
		return fmt.Errorf("larger than %d bytes", maxRoot)
	}
	var (
		c       = newControl(bytes.NewReader(text))
		seen    = make(map[string]int)
		patches releaseFile
		algo    string
	)
	for {
		err := c.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch {
		case c.kind == field:
			algo = downloadAlgo(c.name)
		case c.kind == continuation && c.name != nil && algo != "":
			if err := patches.list(c, algo, seen); err != nil {
				return err
			}
		}
	}
	for _, e := range patches.files {
		if !yield(chantal.Promise{Path: path.Join(ix.dir, e.name), Kind: chantal.Meta, Digests: e.digests, Size: e.size}) {
			return errStopped
		}
	}
	return nil
}

// downloadAlgo returns the algorithm of a -Download list, "" for other fields.
func downloadAlgo(lower []byte) string {
	switch string(lower) {
	case "sha512-download":
		return "sha512"
	case "sha256-download":
		return "sha256"
	case "sha1-download":
		return "sha1"
	case "md5sum-download":
		return "md5"
	}
	return ""
}
