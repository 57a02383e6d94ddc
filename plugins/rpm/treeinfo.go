package rpm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"chantal"
)

// treeInfos are the names of the file that describes a tree to install from,
// the usual one first. It is a root beside repomd.xml, and not of its tree: the
// two are written at different times, and the signature is over repomd.xml
// alone.
var treeInfos = [...]string{".treeinfo", "treeinfo"}

// isTreeInfo reports whether name is a treeinfo, which it is in any folder.
func isTreeInfo(name string) bool { return slices.Contains(treeInfos[:], path.Base(name)) }

// installTree returns the tree of the treeinfo in the folder dir.
func installTree(dir string) chantal.Tree {
	t := chantal.Tree{Name: path.Clean(dir)}
	for _, name := range treeInfos {
		t.Roots = append(t.Roots, path.Join(dir, name))
	}
	return t
}

// checkTreeInfo is Check for the tree of a treeinfo. Nobody signs them, so keys
// are not looked at. Where both names exist they are the same file.
func checkTreeInfo(t chantal.Tree, files map[string][]byte) (chantal.Verdict, error) {
	v := chantal.Verdict{}
	for _, root := range t.Roots {
		body, ok := files[root]
		if !ok {
			continue
		}
		info, err := readTreeInfo(bytes.NewReader(body))
		for i := 0; err == nil && i < len(info.files); i++ {
			_, err = info.files[i].promise(path.Dir(root))
		}
		if err != nil {
			return chantal.Verdict{}, fmt.Errorf("read %s: %w", root, err)
		}
		if len(v.Roots) == 0 {
			v.Date = info.made
		}
		v.Roots = append(v.Roots, root)
	}
	if len(v.Roots) == 0 {
		return chantal.Verdict{}, fmt.Errorf("%s is missing", t.Roots[0])
	}
	return v, nil
}

// treeInfo is what a treeinfo says of files.
type treeInfo struct {
	made  time.Time // zero where it does not say
	files []imageFile
}

type imageFile struct {
	name string // as written
	sum  checksum
}

// readTreeInfo reads a treeinfo (productmd, "TreeInfo file format"). Its
// sections images-ARCH and stage2 name files, and checksums says what most of
// them are. Repositories have metadata of their own, here and where they lie
// elsewhere, so their repomd.xml is not one of the files.
func readTreeInfo(r io.Reader) (treeInfo, error) {
	var (
		info    treeInfo
		at      = make(map[string]int) // name → position in files
		section string
		known   bool
		lines   = bufio.NewScanner(r)
	)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			known = known || section == "general" || section == "header"
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if line == "" || line[0] == '#' || line[0] == ';' || !ok {
			continue // comments, and values that go on
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		file := imageFile{name: value}
		switch {
		case section == "general" && strings.HasSuffix(key, "timestamp"), section == "tree" && key == "build_timestamp":
			seconds, _, _ := strings.Cut(value, ".")
			if n, err := strconv.ParseInt(seconds, 10, 64); err == nil && n > 0 {
				info.made = time.Unix(n, 0).UTC()
			}
			continue
		case section == "checksums":
			file.name = key
			file.sum.Type, file.sum.Value, _ = strings.Cut(value, ":")
		case section != "stage2" && !strings.HasPrefix(section, "images-"):
			continue
		}
		if file.name == "" || path.Base(file.name) == repomd || isTreeInfo(file.name) {
			continue
		}
		i, ok := at[file.name]
		if !ok {
			at[file.name] = len(info.files)
			info.files = append(info.files, file)
		} else if file.sum.Type != "" {
			info.files[i] = file
		}
	}
	if err := lines.Err(); err != nil {
		return info, err
	}
	if !known {
		return info, errors.New("it is no treeinfo: it has neither a header nor general information")
	}
	return info, nil
}

// promise returns what a treeinfo in the folder dir says of the file.
func (f imageFile) promise(dir string) (p chantal.Promise, err error) {
	p.Kind, p.Size = chantal.Artifact, -1
	if p.Path, err = inside(dir, f.name); err == nil && f.sum.Type != "" {
		p.Digests, err = digests(f.sum)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", f.name, err)
	}
	return p, err
}

// parseTreeInfo yields the files that a treeinfo names.
func parseTreeInfo(name string, r io.Reader) iter.Seq2[chantal.Promise, error] {
	return func(yield func(chantal.Promise, error) bool) {
		info, err := readTreeInfo(r)
		for i := 0; err == nil && i < len(info.files); i++ {
			var p chantal.Promise
			if p, err = info.files[i].promise(path.Dir(name)); err == nil && !yield(p, nil) {
				return
			}
		}
		if err != nil {
			yield(chantal.Promise{}, fmt.Errorf("read %s: %w", name, err))
		}
	}
}
