package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"chantal"
)

// Alias is a file that says which blob has another digest.
type Alias struct {
	Repo   string         // for md5 and sha1, which are kept per repository
	Digest chantal.Digest // not a sha256
	Blob   chantal.Digest // "" where the file is damaged
	rel    string
}

// Aliases yields the aliases on disk, those of repositories last, in the order
// of their names, and ends with the first error of yield or of the disk.
func (s *Store) Aliases(yield func(Alias) error) error {
	if err := s.aliasesBelow("alias", "", yield); err != nil {
		return err
	}
	repos, err := s.disk.List(filepath.Join(s.dir, "alias-repo"))
	if err != nil {
		return fmt.Errorf("listing aliases: %w", cause(err))
	}
	for _, r := range sorted(repos) {
		if err := s.aliasesBelow(filepath.Join("alias-repo", r), r, yield); err != nil {
			return err
		}
	}
	return nil
}

// aliasesBelow yields what lies in top/<algo>/ab/.
func (s *Store) aliasesBelow(top, repo string, yield func(Alias) error) error {
	algos, err := s.disk.List(filepath.Join(s.dir, top))
	if err != nil {
		return fmt.Errorf("listing aliases: %w", cause(err))
	}
	for _, algo := range sorted(algos) {
		shards, err := s.disk.List(filepath.Join(s.dir, top, algo))
		if err != nil {
			return fmt.Errorf("listing aliases: %w", cause(err))
		}
		for _, shard := range sorted(shards) {
			dir := filepath.Join(top, algo, shard)
			files, err := s.disk.List(filepath.Join(s.dir, dir))
			if err != nil {
				return fmt.Errorf("listing aliases: %w", cause(err))
			}
			for _, name := range sorted(files) {
				d, err := chantal.NewDigest(algo, name)
				if err != nil {
					continue
				}
				a := Alias{Repo: repo, Digest: d, rel: filepath.Join(dir, name)}
				text, err := s.disk.ReadFile(filepath.Join(s.dir, a.rel))
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err == nil {
					a.Blob, _ = chantal.NewDigest("sha256", string(text))
				}
				if err := yield(a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func sorted(entries []fs.DirEntry) []string {
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// DropAlias removes an alias that does not tell the truth: the file is then
// looked for upstream again, and the alias made anew.
func (s *Store) DropAlias(a Alias) error {
	if err := s.disk.Remove(filepath.Join(s.dir, a.rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("alias %s: %w", a.Digest, cause(err))
	}
	return nil
}

// Strays returns what lies among the blobs and is none: temporary files that an
// earlier run left and that cannot be removed, files of other people; and blobs
// that can be written to. One sentence each, sorted.
func (s *Store) Strays(ctx context.Context) ([]string, error) {
	select {
	case <-s.tidied:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var strays []string
	own := tempPrefix + s.run + "-"
	for i := range 256 {
		files, err := s.disk.List(s.shard(i))
		if err != nil {
			return nil, fmt.Errorf("listing blobs: %w", cause(err))
		}
		for _, f := range files {
			name := filepath.Join("blobs", filepath.Base(s.shard(i)), f.Name())
			_, blob := parseSum([]byte(f.Name()))
			switch fi, err := f.Info(); {
			case strings.HasPrefix(f.Name(), own) || strings.HasPrefix(f.Name(), partialPrefix) || errors.Is(err, fs.ErrNotExist):
			case strings.HasPrefix(f.Name(), tempPrefix):
				strays = append(strays, name+" is a temporary file of an earlier run, and it cannot be removed")
			case !blob || !f.Type().IsRegular() || f.Name()[:2] != filepath.Base(s.shard(i)):
				strays = append(strays, name+" is not Chantal's")
			case err == nil && fi.Mode().Perm()&0o022 != 0:
				strays = append(strays, fmt.Sprintf("%s may be written by others (%v): chmod 444 it", name, fi.Mode().Perm()))
			}
		}
	}
	slices.Sort(strays)
	return strays, nil
}
