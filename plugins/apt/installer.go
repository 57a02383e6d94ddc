package apt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"chantal"
)

// sums is what lists the images of the installer: a Release lists it, and no
// image.
const sums = "SHA256SUMS"

// listsImages reports whether the file at p lists images of the installer.
func listsImages(p string) bool {
	_, below, ok := cutDists(p)
	return ok && path.Base(p) == sums && strings.Contains(below, "/installer-")
}

// parseSums yields the images that a list made by sha256sum names, each
// relative to the folder of the list. Their size is not listed.
func parseSums(ix index, r io.Reader, yield func(chantal.Promise) bool) error {
	lines := bufio.NewReaderSize(r, maxValue)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("a line is longer than %d bytes", maxValue)
		case err != nil:
			return err
		}
		hex, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		d, err := chantal.NewDigest("sha256", hex)
		if err != nil {
			return err
		}
		// A blank or an asterisk tells in which mode the file was read.
		name, err := clean(strings.TrimLeft(rest, " *"))
		if err != nil {
			return err
		}
		p := chantal.Promise{Path: path.Join(ix.dir, name), Kind: chantal.Artifact, Digests: []chantal.Digest{d}, Size: -1}
		if !yield(p) {
			return errStopped
		}
	}
}
