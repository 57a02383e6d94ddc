package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"chantal"
)

// validator returns what checks the YAML text of a configuration against
// Schema.
func validator(t *testing.T) func(text string) error {
	t.Helper()
	written, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(written))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("chantal.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("chantal.json")
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) error {
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return err
		}
		plain, err := json.Marshal(value)
		if err != nil {
			return err
		}
		value, err = jsonschema.UnmarshalJSON(bytes.NewReader(plain))
		if err != nil {
			return err
		}
		return compiled.Validate(value)
	}
}

// Examples of the documentation, the files of the other tests, and what config
// show prints: what Parse takes is valid.
func TestWhatIsAcceptedIsValid(t *testing.T) {
	validate := validator(t)
	texts := map[string]string{
		"numbers":   "cache: {max_size: 1000}\nhistory: 0\nscrub: {every: 0s, bandwidth: 0}\ndownload: {parallel: '8', bandwidth: unlimited}",
		"variables": "listen: ${LISTEN:-127.0.0.1:8180}\nclients: [\"${NET:-::1}\"]\nrepos: [{name: a, type: apt, upstream: '${UP:-http://mirror.example.org/}', sync: {sources: '${S:-true}'}}]",
		"nothing":   "listen:\nforward:\nclients:\nhistory: ''\ndownload: {bandwidth: }",
		"tokens":    "repos: [{name: a, type: pypi, upstream: 'https://index.example.org/', credentials: {token: 123}}]",
		"listeners": "listeners: [{address: '[::1]:81', ref: 'prod+signed~build'}, {address: ':82', ref: 2026-11-23T08:15:00Z}]",
		"init":      "{}",
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../../docs/configuration.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range yamlBlocks(file, string(text)) {
			texts[file+string(rune('a'+i))] = block
		}
	}
	accepted := 0
	for name, text := range texts {
		c, err := Parse(name, []byte(text), environment(map[string]string{
			"SET": "debian", "TOOLS_PASSWORD": "x", "INDEX_TOKEN": "x",
		}))
		if err != nil {
			if _, err := os.Stat(strings.TrimSuffix(name[:len(name)-1], ".yaml") + ".err"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		accepted++
		if err := validate(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		shown, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(string(shown)); err != nil {
			t.Errorf("%s as it is shown: %v\n%s", name, err, shown)
		}
	}
	if accepted < 9 {
		t.Errorf("only %d configurations were accepted", accepted)
	}
}

// yamlBlocks returns a YAML file, or the YAML blocks in a Markdown one.
func yamlBlocks(name, text string) (blocks []string) {
	if filepath.Ext(name) == ".yaml" {
		return []string{text}
	}
	for _, part := range strings.Split(text, "```yaml\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

func TestWhatIsWrongIsNotValid(t *testing.T) {
	validate := validator(t)
	repo := func(more string) string {
		return "repos: [{name: a, type: apt, upstream: 'http://mirror.example.org/', " + more + "}]"
	}
	if err := validate(repo("refresh: 1m")); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"listn: x", "listen: 8180", "listen: [a]", "clients: [nonsense]", "history: 30", "history: 30 days", "cache: 200GiB", "cache: {max_size: lots}",
		"forward: {other: allow}", "forward: {discover: maybe}", "download: {parallel: 0}", "download: {parallel: x}", "download: {bandwidth: fast}",
		"download: {bandwidth: [{from: 8, rate: 1}]}", "download: {bandwidth: [{from: '08:00', to: '09:00'}]}", "scrub: {retries: 1}", "egress: {proxy: nowhere}",
		"listeners: [{address: ':81'}]", "listeners: {address: ':81', ref: live}", "repos: {}", "repos: [x]", "just words",
		"repos: [{name: a, type: apt}]", "repos: [{type: apt, upstream: 'http://mirror.example.org/'}]", "repos: [{name: A, type: apt, upstream: 'http://mirror.example.org/'}]",
		"repos: [{name: a, type: deb, upstream: 'http://mirror.example.org/'}]", "repos: [{name: a, type: apt, upstream: 'ftp://mirror.example.org/'}]",
		"repos: [{name: a, type: pypi, upstream: 'http://index.example.org/', keyring: x}]", "repos: [{name: a, type: generic, upstream: 'http://index.example.org/', sync: {}}]",
		"repos: [{name: a, type: rpm, metalink: 'http://mirror.example.org/', mirrorlist: 'http://mirror.example.org/'}]",
		"repos: [{name: a, type: rpm, upstream: 'http://mirror.example.org/', list_refresh: 1h}]", "repos: [{name: , type: apt, upstream: 'http://mirror.example.org/'}]",
		repo("files: []"), repo("sync: {suits: [a]}"), repo("sync: {newest: 1}"), repo("sync: {wheels: true}"), repo("sync: {every: 1h, schedule: '1 2 * * *'}"),
		repo("sync: {schedule: '1 2'}"), repo("sync: {sources: perhaps}"), repo("credentials: {password: x}"), repo("credentials: {username: x, token: y}"), repo("credentials: {}"),
		repo("sync: {packages: [[a]]}"), repo("metalink: 'http://mirror.example.org/'"),
	} {
		if err := validate(text); err == nil {
			t.Errorf("valid: %s", text)
		}
		if _, err := Parse("f", []byte(text), environment(nil)); err == nil {
			t.Errorf("accepted: %s", text)
		}
	}
}

// Keys and what the schema says of them: in the documentation, with a sentence.
func TestEveryKeyIsDescribed(t *testing.T) {
	written, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(written, &s); err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(where string, s any)
	walk = func(where string, s any) {
		switch s := s.(type) {
		case []any:
			for _, below := range s {
				walk(where, below)
			}
		case map[string]any:
			properties, _ := s["properties"].(map[string]any)
			for _, key := range slices.Sorted(maps.Keys(properties)) {
				property := properties[key].(map[string]any)
				if says, _ := property["description"].(string); says == "" || strings.HasSuffix(says, ".") {
					t.Errorf("%s.%s is described as %q", where, key, says)
				}
				if !strings.Contains(string(docs), key) {
					t.Errorf("docs/configuration.md does not mention %s.%s", where, key)
				}
				keys++
				walk(where+"."+key, property)
			}
			walk(where, s["items"])
			walk(where, s["anyOf"])
		}
	}
	walk("", s)
	if keys < 70 {
		t.Errorf("only %d keys", keys)
	}
	retries := s["properties"].(map[string]any)["download"].(map[string]any)["properties"].(map[string]any)["retries"].(map[string]any)
	if retries["default"] != float64(Default().Download.Retries) {
		t.Errorf("download.retries has the default %v", retries["default"])
	}
}

// Every field of a selection can be said, by some type of repository.
func TestEveryFieldOfASelectionHasAKey(t *testing.T) {
	text, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("f", text, environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, repo := range c.Repos {
		v := reflect.ValueOf(repo.Sync.Selection)
		for i := range v.NumField() {
			said[v.Type().Field(i).Name] = said[v.Type().Field(i).Name] || !v.Field(i).IsZero()
		}
	}
	for name, is := range said {
		if !is {
			t.Errorf("%s is not set", name)
		}
	}
	want := &Sync{
		Selection: chantal.Selection{Newest: 2, Modules: []string{"nodejs:20", "php:*"}, Tree: true}, Every: 6 * day / 24,
		PackageLists: []ListFile{{"a.txt", 26, 86}, {"/etc/chantal/b.txt", 26, 86}},
	}
	if diff := cmp.Diff(want, c.Repos[1].Sync); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got := c.Repos[2].Sync; got.Wheels || !got.Sdists || !got.Prereleases {
		t.Errorf("got %+v", got)
	}
	rates := []Bandwidth{{8 * day / 24, 18 * day / 24, 10 << 20}, {22*day/24 + day/48, 6 * day / 24, 0}, {0, day, 50 << 20}}
	if diff := cmp.Diff(rates, c.Download.Bandwidth); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
