package e2e

import (
	"fmt"

	"chantal/internal/testenv"
)

// note keeps what a repository published, for lists that name it.
func (w *world) note(name string, files testenv.Files) {
	if _, ok := files["repodata/repomd.xml"]; ok {
		w.made[name] = append([]testenv.Files{files}, w.made[name]...)
	}
}

// list does what concerns mirrors: copies of a repository, and lists of them.
func (w *world) list(verb string, args []string) error {
	switch {
	case verb == "mirrorlist" && len(args) > 1:
		w.server.Put(args[0], testenv.Mirrorlist(args[1:]...))
		return nil
	case verb == "copy" && len(args) == 2 && len(w.made[args[0]]) > 0:
		w.server.Publish(args[1], w.made[args[0]][0])
		return nil
	case verb == "metalink" && len(args) > 2 && len(w.made[args[1]]) > 0:
		var repomd [][]byte
		for _, files := range w.made[args[1]] {
			repomd = append(repomd, files["repodata/repomd.xml"].Content)
		}
		w.server.Put(args[0], testenv.Metalink(args[2:], repomd...))
		return nil
	}
	return fmt.Errorf("upstream cannot %s %v", verb, args)
}
