package formattest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"chantal"
)

// NewContents returns a generation of the tree to read from. files holds its
// roots, and as much of what they list as is stored, decompressed, by path.
// The error is that of a root which cannot be parsed.
func NewContents(f chantal.Format, t chantal.Tree, files map[string][]byte) (chantal.Contents, error) {
	c := &contents{format: f, files: files, tree: chantal.Tree{Name: t.Name}}
	for _, root := range t.Roots {
		body, ok := files[root]
		if !ok {
			continue
		}
		c.tree.Roots = append(c.tree.Roots, root)
		seq := f.Parse(root, bytes.NewReader(body))
		if seq == nil || c.listed != nil {
			continue // the roots of a generation agree with each other
		}
		for p, err := range seq {
			if err != nil {
				return nil, fmt.Errorf("parse %s: %w", root, err)
			}
			c.listed = append(c.listed, p)
		}
	}
	return c, nil
}

// contents is a generation in memory.
type contents struct {
	format chantal.Format
	tree   chantal.Tree
	files  map[string][]byte
	listed []chantal.Promise
}

func (c *contents) Tree() chantal.Tree        { return c.tree }
func (c *contents) Root(path string) []byte   { return c.files[path] }
func (c *contents) Listed() []chantal.Promise { return c.listed }

func (c *contents) Promises(index chantal.Promise) iter.Seq2[chantal.Promise, error] {
	body, ok := c.files[index.Path]
	seq := c.format.Parse(index.Path, bytes.NewReader(body))
	switch {
	case seq == nil:
		return func(func(chantal.Promise, error) bool) {}
	case !ok:
		return func(yield func(chantal.Promise, error) bool) { yield(chantal.Promise{}, missing(index)) }
	}
	return seq
}

func (c *contents) Open(index chantal.Promise) (io.ReadCloser, error) {
	body, ok := c.files[index.Path]
	if !ok {
		return nil, missing(index)
	}
	return io.NopCloser(bytes.NewReader(body)), nil
}

func missing(index chantal.Promise) error {
	return &fs.PathError{Op: "open", Path: index.Path, Err: fs.ErrNotExist}
}
