package cas

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"chantal"
)

// repoName reports whether name can be part of a path.
func repoName(name string) bool {
	if name == "" || name[0] == '.' || name[0] == '-' || len(name) > 200 {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// aliasPath returns where the SHA-256 for d is kept, relative to the store.
// md5 and sha1 can be forged, so what one repository promises with them says
// nothing about another's files.
func aliasPath(repo string, d chantal.Digest) (string, error) {
	h := d.Hex()
	if d.Strong() {
		return filepath.Join("alias", d.Algo(), h[:2], h), nil
	}
	if !repoName(repo) {
		return "", fmt.Errorf("%q cannot be the name of a repository", repo)
	}
	return filepath.Join("alias-repo", repo, d.Algo(), h[:2], h), nil
}

// aliasPaths returns the aliases that a file which fulfils w deserves: every
// strong digest but SHA-256 itself, and weak ones where nothing strong is
// promised, for then they are the only way to find it.
func aliasPaths(w Want) ([]string, error) {
	strong := false
	for _, d := range w.Digests {
		strong = strong || d.Strong()
	}
	var paths []string
	for _, d := range w.Digests {
		if d.Algo() == "sha256" || (strong && !d.Strong()) {
			continue
		}
		p, err := aliasPath(w.Repo, d)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// Resolve returns the SHA-256 for a digest of another algorithm, where a blob is
// known by it; the blob may be gone. Else the error is fs.ErrNotExist.
func (s *Store) Resolve(repo string, d chantal.Digest) (chantal.Digest, error) {
	rel, err := aliasPath(repo, d)
	if err != nil {
		return "", err
	}
	s.mu.RLock()
	to, ok := s.aliases[rel]
	s.mu.RUnlock()
	if ok {
		return to, nil
	}
	hex, err := s.disk.ReadFile(filepath.Join(s.dir, rel))
	if err != nil {
		return "", fmt.Errorf("alias %s: %w", d, cause(err))
	}
	if to, err = chantal.NewDigest("sha256", string(hex)); err != nil {
		return "", fmt.Errorf("alias %s is damaged (%v): %w", d, err, fs.ErrNotExist)
	}
	return to, nil
}

// writeAlias puts the alias on disk and returns the folders that have to be
// synced for it to stay.
func (s *Store) writeAlias(rel string, to chantal.Digest) (dirs []string, err error) {
	path := filepath.Join(s.dir, rel)
	if have, err := s.disk.ReadFile(path); err == nil && bytes.Equal(have, []byte(to.Hex())) {
		return nil, nil
	}
	dir := filepath.Dir(path)
	if err = s.makeDirs(dir); err != nil {
		return nil, err
	}
	dirs = []string{dir}
	s.mu.RLock()
	for d := filepath.Dir(dir); len(d) > len(s.dir); d = filepath.Dir(d) {
		if !s.settled[d] {
			dirs = append(dirs, d)
		}
	}
	s.mu.RUnlock()
	tmp := s.temp(dir)
	f, err := s.disk.Create(tmp, 0o444)
	if err != nil {
		return nil, err
	}
	_, err = f.Write([]byte(to.Hex()))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.disk.Rename(tmp, path)
	}
	if err != nil {
		s.disk.Remove(tmp)
		return nil, err
	}
	return dirs, nil
}
