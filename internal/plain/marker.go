package plain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// About says what a folder is.
type About struct {
	Version int      `json:"chantal"` // of the marker's form: 1
	Ref     string   `json:"ref"`
	Repos   []string `json:"repos"`
	Link    Mode     `json:"link"`
}

// marker is the file that a folder made here has.
type marker struct {
	About
	text  []byte
	files map[string][sha256.Size]byte
}

// text writes a marker: what the folder is, and its files by path as sha256sum
// writes them.
func (a About) text(files map[string][sha256.Size]byte) []byte {
	a.Version = 1
	head, _ := json.Marshal(a) // strings and numbers do not fail
	var b bytes.Buffer
	b.Write(append(head, '\n'))
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%x  %s\n", files[path], path)
	}
	return b.Bytes()
}

func parseMarker(text []byte) (marker, error) {
	m := marker{text: text, files: map[string][sha256.Size]byte{}}
	head, rest, _ := bytes.Cut(text, []byte("\n"))
	if err := json.Unmarshal(head, &m.About); err != nil || m.Version != 1 {
		return m, errors.New("it is not one of this version; empty the folder, or name another one")
	}
	for line := range bytes.Lines(rest) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		var sum [sha256.Size]byte
		if len(line) < 2*len(sum)+3 {
			return m, errors.New("it is damaged; empty the folder, or name another one")
		}
		if _, err := hex.Decode(sum[:], line[:2*len(sum)]); err != nil {
			return m, errors.New("it is damaged; empty the folder, or name another one")
		}
		m.files[string(line[2*len(sum)+2:])] = sum
	}
	return m, nil
}
