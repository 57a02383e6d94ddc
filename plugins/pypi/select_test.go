package pypi

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"chantal"
	"chantal/plugins/formattest"

	"github.com/google/go-cmp/cmp"
)

// offering is a generation of a project's page with these files, wheels with
// metadata.
func offering(project string, filenames ...string) chantal.Contents {
	var entries []string
	for i, name := range filenames {
		metadata := ""
		if strings.HasSuffix(name, ".whl") {
			metadata = fmt.Sprintf(`,"core-metadata":{"sha256":"%064x"}`, i+1000)
		}
		entries = append(entries, fmt.Sprintf(`{"filename":%q,"url":"https://files.example.org/%d/%s","hashes":{"sha256":"%064x"},"yanked":true%s}`,
			name, i, name, i+1, metadata))
	}
	page := fmt.Sprintf(`{"meta":{"api-version":"1.1","_last-serial":42},"name":%q,"files":[%s]}`, project, strings.Join(entries, ","))
	class := rootClass(project)
	return &formattest.Memory{Format: Format{}, Of: class.Tree, Files: map[string][]byte{class.Path: []byte(page)}}
}

// held returns the names of the files that are held.
func held(t *testing.T, sel chantal.Selection, c chantal.Contents) []string {
	t.Helper()
	got, err := formattest.Select(Format{}, &sel, c)
	if err != nil {
		t.Fatalf("%+v: %v", sel, err)
	}
	var names []string
	wheels := 0
	for _, p := range got.Artifacts {
		name := p.Path[strings.LastIndexByte(p.Path, '/')+1:]
		names = append(names, name)
		if strings.HasSuffix(name, ".whl") {
			wheels++
			sibling := func(q chantal.Promise) bool { return q.URL == p.URL+".metadata" }
			if !slices.ContainsFunc(got.Indexes, sibling) {
				t.Errorf("%s is held without its metadata", name)
			}
		}
	}
	if len(got.Indexes) != wheels {
		t.Errorf("%d wheels are held with metadata of %d", wheels, len(got.Indexes))
	}
	return names
}

func TestVersionsAreThoseThatPipWouldTake(t *testing.T) {
	wheels := func(versions ...string) []string {
		for i, v := range versions {
			versions[i] = "flask-" + v + "-py3-none-any.whl"
		}
		return versions
	}
	many := offering("flask", wheels("1.0", "1.0.post1", "2.0rc1", "2.0", "2.3.1", "3.0.dev1", "3.0a1", "weird", "1!0.1", "2.0+cu118")...)
	onlyPre := offering("flask", wheels("1.0a1", "1.0b2")...)
	for _, test := range []struct {
		projects, exclude []string
		prereleases       bool
		page              chantal.Contents
		want              string
	}{
		{nil, nil, false, many, "1.0 1.0.post1 2.0 2.3.1 weird 1!0.1 2.0+cu118"},
		{nil, nil, true, many, "1.0 1.0.post1 2.0rc1 2.0 2.3.1 3.0.dev1 3.0a1 weird 1!0.1 2.0+cu118"},
		{[]string{"Flask"}, nil, false, onlyPre, "1.0a1 1.0b2"},
		{[]string{"flask>=1.0b1"}, nil, false, onlyPre, "1.0b2"},
		{[]string{"flask>2", "fl*~=1.0"}, nil, false, many, "1.0 1.0.post1 2.3.1 1!0.1"},
		{[]string{"flask>=2.0rc1,<3"}, nil, false, many, "2.0rc1 2.0 2.3.1 2.0+cu118"},
		{[]string{"flask==2.*"}, nil, false, many, "2.0 2.3.1 2.0+cu118"},
		{[]string{"flask===weird"}, nil, false, many, "weird"},
		{[]string{"flask[async, dotenv]==2.0 ; python_version > '3'", "flask (<1.0.post1)"}, nil, false, many, "1.0 2.0 2.0+cu118"},
		{[]string{"flask"}, []string{"flask<2", "other"}, false, many, "2.0 2.3.1 weird 1!0.1 2.0+cu118"},
		{[]string{"flask"}, []string{"f*"}, false, many, ""},
		{[]string{"other"}, nil, true, many, ""},
	} {
		sel := chantal.Selection{Projects: test.projects, Exclude: test.exclude, Prereleases: test.prereleases, Wheels: true}
		if diff := cmp.Diff(wheels(strings.Fields(test.want)...), held(t, sel, test.page), cmp.Transformer("list", func(l []string) string { return strings.Join(l, " ") })); diff != "" {
			t.Errorf("%q without %q, pre-releases: %t (-want +got):\n%s", test.projects, test.exclude, test.prereleases, diff)
		}
	}
}

func TestFilesAreToldByKindAndTags(t *testing.T) {
	const (
		pure     = "x-1-py3-none-any.whl"
		both     = "x-1-py2.py3-none-any.whl"
		old      = "x-1-py2-none-any.whl"
		younger  = "x-1-py312-none-any.whl"
		cp311    = "x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
		build    = "x-1-7-cp311-cp311-win_amd64.whl"
		cp310    = "x-1-cp310-cp310-manylinux2014_x86_64.whl"
		stable   = "x-1-cp38-abi3-manylinux2014_x86_64.whl"
		newer    = "x-1-cp312-abi3-manylinux2014_x86_64.whl"
		free     = "x-1-cp313-cp313t-manylinux2014_x86_64.whl"
		pypy     = "x-1-pp310-pypy310_pp73-manylinux2014_x86_64.whl"
		binary   = "x-1-py3-none-manylinux2014_x86_64.whl"
		mac      = "x-1-py3-none-macosx_11_0_arm64.whl"
		tooShort = "x-1-any.whl"
		sdist    = "x-1.tar.gz"
		zipped   = "x-1.zip"
		egg      = "x-1-py3.11.egg"
		exe      = "x-1.win32-py2.7.exe"
	)
	wheels := []string{pure, both, old, younger, cp311, build, cp310, stable, newer, free, pypy, binary, mac, tooShort}
	c := offering("x", append(wheels, sdist, zipped, egg, exe)...)
	for _, test := range []struct {
		python, platforms string
		wheels, sdists    bool
		want              []string
	}{
		{"", "", true, true, append(wheels, sdist, zipped)},
		{"", "", false, true, []string{sdist, zipped}},
		{"cp311", "", false, true, []string{sdist, zipped}},
		{"", "", false, false, nil},
		{"cp311", "", true, false, []string{pure, both, cp311, build, stable, binary, mac}},
		{"cp311", "any", true, false, []string{pure, both}},
		{"cp311 py3", "any manylinux*_x86_64", true, false, []string{pure, both, cp311, stable, binary}},
		{"cp31*", "", true, false, []string{cp311, build, cp310, newer, free}},
		{"cp312", "manylinux*", true, false, []string{stable, newer, binary}},
		{"py3", "", true, false, []string{pure, both, binary, mac}},
		{"abi3", "", true, false, []string{stable, newer}},
		{"cp313t", "", true, false, []string{free}},
		{"pp310", "", true, false, []string{pure, both, pypy, binary, mac}},
		{"cp27", "", true, false, []string{both, old}},
		{"", "win*", true, false, []string{build}},
	} {
		sel := chantal.Selection{Projects: []string{"x"}, Python: strings.Fields(test.python), Platforms: strings.Fields(test.platforms),
			Wheels: test.wheels, Sdists: test.sdists}
		if diff := cmp.Diff(test.want, held(t, sel, c)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test, diff)
		}
	}
}

func TestProjectsAreNamedOrFoundInTheList(t *testing.T) {
	const catalog = `{"meta":{"api-version":"1.1","_last-serial":99},"projects":[{"name":"Zope.Interface","_last-serial":7},
		{"name":"zope-event","_last-serial":8},{"name":"six"},{"name":"Six","_last-serial":9},{"name":"-no-"},{"name":"flask","_last-serial":"x"}]}`
	for _, test := range []struct {
		projects, exclude string
		listed            bool
		want              string
	}{
		{"", "", true, "flask=0 six=0 zope-event=8 zope-interface=7"},
		{"", "zope* six>=2", true, "flask=0 six=0"},
		{"zope.* Six>1", "zope-event", true, "six=0 zope-interface=7"},
		{"Zope.Interface six>=1 six<0 flask[x] not-there", "flask", false, "not-there=0 six=0 zope-interface=0"},
		{"[f-h]*", "", true, "flask=0"},
	} {
		sel := chantal.Selection{Projects: strings.Fields(test.projects), Exclude: strings.Fields(test.exclude)}
		if got := (Format{}).Catalog(&sel).Name != ""; got != test.listed {
			t.Errorf("%+v needs the list: %t", test, got)
		}
		var root []byte
		if test.listed {
			root = []byte(catalog)
			if _, err := (Format{}).Trees(&sel, nil); err == nil {
				t.Errorf("%+v: no error without the list", test)
			}
		}
		trees, err := Format{}.Trees(&sel, root)
		if err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		var got []string
		for _, tree := range trees {
			got = append(got, fmt.Sprintf("%s=%d", strings.TrimPrefix(tree.Name, list), tree.Serial))
		}
		slices.Sort(got)
		if diff := cmp.Diff(strings.Fields(test.want), got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test, diff)
		}
		if err := formattest.CheckSelection(Format{}, &sel, root); err != nil {
			t.Error(err)
		}
	}
	if got := (Format{}).Serial(list, []byte(catalog)); got != 99 {
		t.Errorf("the serial of the list is %d", got)
	}
	page := offering("six")
	if got := (Format{}).Serial(page.Tree().Roots[0], page.Root(page.Tree().Roots[0])); got != 42 {
		t.Errorf("the serial of the page is %d", got)
	}
}

func TestWhatIsNoRequirementIsAnError(t *testing.T) {
	for _, line := range []string{"", ">=1", "six>=", "six=1", "six==1.*.2", "six>=1.*", "six~=1", "six==a.b", "six==2.0+*", "six>1+local",
		"six>=1 <2", "a/b", "-x", "six[", "six==1.0rc1.*"} {
		sel := chantal.Selection{Projects: []string{"fine", line}}
		_, err := Format{}.Trees(&sel, nil)
		if err == nil {
			t.Errorf("%q is taken for a requirement", line)
		}
		if _, err := (Format{}).Artifacts(&sel, offering("six", "six-1.tar.gz")); err == nil {
			t.Errorf("%q is taken for a requirement of files", line)
		}
	}
	for _, sel := range []chantal.Selection{{Python: []string{"["}}, {Platforms: []string{""}}, {Exclude: []string{"a["}}} {
		if _, err := (Format{}).Trees(&sel, []byte(`{}`)); err == nil {
			t.Errorf("%+v is taken for a selection", sel)
		}
	}
}

func FuzzSelection(f *testing.F) {
	f.Add("zope.*>=1,!=2.*", "six", "cp311", `{"meta":{"api-version":"1.0"},"projects":[{"name":"six"}]}`)
	f.Fuzz(func(t *testing.T, project, exclude, python, catalog string) {
		sel := chantal.Selection{Projects: []string{project}, Exclude: []string{exclude}, Python: []string{python}, Wheels: true, Sdists: true}
		if err := formattest.CheckSelection(Format{}, &sel, []byte(catalog)); err != nil {
			t.Error(err)
		}
		page := offering("six", "six-1.0-py3-none-any.whl", "six-2.0rc1-cp38-abi3-win32.whl", "six-3.tar.gz")
		if got, err := formattest.Select(Format{}, &sel, page); err == nil && len(got.Artifacts) < len(got.Indexes) {
			t.Errorf("%+v: %d files with metadata of %d", sel, len(got.Artifacts), len(got.Indexes))
		}
	})
}
