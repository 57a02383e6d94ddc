package rpm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal/plugins/formattest"
)

const modules = `---
document: modulemd
version: 2
data:
  name: tools
  stream: "1.10"   # not a number
  version: 20260101
  context: abcd1234
  arch: x86_64
  summary: >-
    Tools
    data: not this
  description: "several
    lines: too"
  license:
    module:
    - MIT
  api:
    rpms:
    - b
  artifacts:
    rpms:
    - a-0:1-1.noarch
    - b-2:1.0-3.x86_64
    - b-2:1.0-3.src
    rpm-map:
      sha256:
        00:
          name: a
...
--- !modulemd
document: modulemd
version: 2
data:
  name: tools
  stream: 2
  arch: x86_64
  artifacts:
    rpms: [ "c-0:3-1.x86_64",
      'd-0:1-1.noarch' ] # all
  dependencies: []
---
document: modulemd
version: 2
data: {}
---
document: modulemd-defaults
version: 1
data:
    module: tools
    stream: "2"
    profiles:
        "1.10": [common]
---
document: modulemd-obsoletes
version: 1
data: {module: x}
`

// streamsOf has documents that all can be read.
var streamsOf = modules[:strings.Index(modules, "---\ndocument: modulemd\nversion: 2\ndata: {}")] +
	modules[strings.Index(modules, "---\ndocument: modulemd-defaults"):strings.Index(modules, "---\ndocument: modulemd-obsoletes")] + `---
document: modulemd-obsoletes
version: 1
data:
  module: tools
  stream: "1.10"
  obsoleted_by:
    module: tools
    stream: "2"
---
document: modulemd
version: 2
data:
  name: elsewhere
  stream: s
  arch: s390x
  artifacts:
    rpms:
    - c-0:3-1.s390x
`

func TestModulesLoseWhatIsNotHeld(t *testing.T) {
	packages := []rpmOf{"a-0:1-1.noarch", "b-2:1.0-3.x86_64", "c-0:3-1.x86_64", "d-0:1-1.noarch"}
	source := repository(t, "sha256", true, append(lists(".gz", packages...), index{"modules", "modules.yaml.gz", streamsOf})...)
	for _, tc := range []struct {
		name      string
		held      []string
		has, lost []string
	}{
		{"all", []string{"a-1-1.noarch", "b-2:1.0-3.x86_64", "c-3-1.x86_64", "d-1-1.noarch"},
			[]string{"- a-0:1", "- b-2:1", ".src", "rpm-map", `[ "c-0:3-1.x86_64"`, "stream: \"2\"", "obsoleted_by", "elsewhere"}, nil},
		{"half of both", []string{"b-2:1.0-3.x86_64", "d-1-1.noarch"},
			[]string{"- b-2:1.0-3.x86_64", "- b-2:1.0-3.src", "rpms: ['d-0:1-1.noarch'] # all\n  dependencies: []", "obsoleted_by", "elsewhere", "data: not this"},
			[]string{"- a-0:1", "rpm-map", "name: a", "c-0:3-1.x86_64"}},
		{"the stream that is no default", []string{"b-2:1.0-3.x86_64"},
			[]string{"- b-2:1.0-3.x86_64", "    module: tools\n    profiles:\n", "elsewhere"},
			[]string{"stream: 2\n", "stream: \"2\"", "obsoleted_by", "- a-0:1"}},
		{"the default", []string{"c-3-1.x86_64"},
			[]string{"stream: 2\n", "    stream: \"2\"\n", "elsewhere"}, []string{"abcd1234", "obsoleted_by", "d-0:1"}},
		{"none", nil, []string{"elsewhere"}, []string{"tools"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _ := edited(t, only(tc.held...), source)
			for _, want := range tc.has {
				if !strings.Contains(got["modules"], want) {
					t.Errorf("%q is lost:\n%s", want, got["modules"])
				}
			}
			for _, lost := range tc.lost {
				if strings.Contains(got["modules"], lost) {
					t.Errorf("%q is there:\n%s", lost, got["modules"])
				}
			}
		})
	}
}

func TestModulesOfSeveralSources(t *testing.T) {
	of := func(p ...rpmOf) *formattest.Memory {
		return repository(t, "sha256", true, append(lists(".gz", p...), index{"modules", "modules.yaml", streamsOf})...)
	}
	// Each has one of the two packages of a stream: both stay in one document.
	got, _ := edited(t, everything, of("a-0:1-1.noarch"), of("b-2:1.0-3.x86_64"))
	if n := strings.Count(got["modules"], "abcd1234"); n != 1 || !strings.Contains(got["modules"], "- a-0:1") || !strings.Contains(got["modules"], "- b-2:1") {
		t.Errorf("the stream is there %d times:\n%s", n, got["modules"])
	}
	if n := strings.Count(got["modules"], "document: modulemd-defaults"); n != 1 {
		t.Errorf("the defaults are there %d times:\n%s", n, got["modules"])
	}
}

func TestDocuments(t *testing.T) {
	type found struct {
		Kind, Stream string
		Artifacts    []string
	}
	var got []found
	var failed error
	for d, err := range documents(strings.NewReader(modules)) {
		if failed = err; err != nil {
			break
		}
		f := found{Kind: d.kind, Stream: d.stream()}
		for _, a := range d.artifacts {
			f.Artifacts = append(f.Artifacts, strings.ReplaceAll(a.nevra, "\x00", " "))
		}
		got = append(got, f)
	}
	want := []found{
		{"modulemd", "tools:1.10", []string{"a 1-1 noarch", "b 2:1.0-3 x86_64", "b 2:1.0-3 src"}},
		{"modulemd", "tools:2", []string{"c 3-1 x86_64", "d 1-1 noarch"}},
		{"modulemd", ":", nil},
		{"modulemd-defaults", "tools:2", nil},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if failed == nil || !strings.Contains(failed.Error(), "document 5") {
		t.Errorf("a document in flow style gives %v", failed)
	}
	for _, text := range []string{"---\nfoo: bar\n", "---\n{document: modulemd}\n", "---\ndocument: &x modulemd\n", "document: modulemd\ndata:\n  artifacts:\n    rpms: *same\n", "document: modulemd\ndata:\n  artifacts:\n    rpms: [a\n"} {
		for _, err := range documents(strings.NewReader(text)) {
			if err == nil {
				t.Errorf("no error for %q", text)
			}
		}
	}
}

func FuzzModules(f *testing.F) {
	f.Add([]byte(modules))
	f.Add([]byte(streamsOf))
	f.Add([]byte("document: modulemd\ndata:\n  artifacts:\n    rpms:\n      -\n      - 'x\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for d, err := range documents(strings.NewReader(string(body))) {
			if err != nil {
				return
			}
			c := cutter{of: d.raw}
			for _, a := range d.artifacts {
				if a.lines.to > 0 {
					c.cut(a.lines.from, a.lines.to)
				}
			}
			for _, s := range d.spans {
				if s.from > s.to || s.to > len(d.raw) {
					t.Fatalf("a key is from %d to %d of %d", s.from, s.to, len(d.raw))
				}
			}
			if len(c.rest()) > len(d.raw) {
				t.Fatal("what is left is longer than it was")
			}
		}
	})
}
