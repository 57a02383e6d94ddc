package mirror

import (
	"io"
	"iter"

	"chantal"
)

// contents is a generation to read from, out of the store.
type contents struct {
	repo   *Repo
	state  state
	listed *listing
}

// contents returns what can be read of a generation. The error is a
// fs.ErrNotExist where its main root is not stored.
func (r *Repo) contents(s state) (*contents, error) {
	l, err := r.listing(s)
	if err != nil {
		return nil, err
	}
	return &contents{r, s, l}, nil
}

func (c *contents) Tree() chantal.Tree {
	tree := chantal.Tree{Name: c.state.Tree}
	for _, root := range c.state.gen.Roots {
		tree.Roots = append(tree.Roots, root.Path)
	}
	return tree
}

func (c *contents) Root(path string) []byte {
	root := c.state.gen.Root(path)
	if root == nil {
		return nil
	}
	body, err := c.repo.rootBody(root)
	if err != nil {
		return nil
	}
	return body
}

func (c *contents) Listed() []chantal.Promise { return c.listed.all }

func (c *contents) Promises(index chantal.Promise) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		if !c.repo.lists(index.Path) {
			return
		}
		lines, err := c.repo.linesOf(&index)
		if err != nil {
			yield(chantal.Promise{}, err)
			return
		}
		defer lines.Close()
		for line, err := range lines.from(0) {
			var p chantal.Promise
			if err == nil {
				p, err = parseLine(line)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

func (c *contents) Open(index chantal.Promise) (io.ReadCloser, error) {
	blob, err := c.repo.stored(&index)
	if err != nil {
		return nil, err
	}
	file, _, err := c.repo.m.Store.Open(blob.Digest)
	if err != nil {
		return nil, err
	}
	plain, err := decompress(index.Path, file, blob.Size)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &opened{plain, file}, nil
}

// opened closes what decompresses and what is decompressed.
type opened struct {
	io.ReadCloser
	file io.Closer
}

func (o *opened) Close() error {
	err := o.ReadCloser.Close()
	if closed := o.file.Close(); err == nil {
		err = closed
	}
	return err
}
