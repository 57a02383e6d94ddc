package rpm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chantal/plugins/formattest"
)

const advisories = `<?xml version="1.0" encoding="UTF-8"?>
<updates>
<update from="x@example.org" type="security"><id>ADV-1</id><title>two &lt;package&gt; of a</title>
  <references><reference href="https://bugs.example.org/1" type="bugzilla"/></references>
  <pkglist>
    <collection short="s"><name>first</name>
      <package name="a" version="1" release="1" epoch="0" arch="noarch" src="a.src.rpm"><filename>a-1-1.noarch.rpm</filename></package>
      <package name="b" version="1.0" release="3" epoch="2" arch="x86_64"><filename>b.rpm</filename><reboot_suggested/></package>
      <!-- <package name="a"> -->
    </collection>
    <collection><name>second</name>
      <package name="b" version="1.0" release="3" epoch="2" arch="x86_64"/>
    </collection>
  </pkglist></update>
<update type="bugfix"><id>ADV-2</id><pkglist><collection><package name="c" version="3" release="1" arch="x86_64"/></collection></pkglist></update>
<update type="bugfix"><id>ADV-3</id><pkglist><collection><package name="never" version="3" release="1" epoch="0" arch="x86_64"/></collection></pkglist></update>
<update type="enhancement"><id>ADV-4</id><description>about nothing</description><pkglist/></update>
</updates>
`

func TestAdvisoriesLoseWhatIsNotHeld(t *testing.T) {
	source := repository(t, "sha256", true, append(lists(".gz", three...), index{"updateinfo", "updateinfo.xml.xz", advisories})...)
	got, _ := edited(t, only("a-1-1.noarch"), source)
	want := strings.NewReplacer(`
      <package name="b" version="1.0" release="3" epoch="2" arch="x86_64"><filename>b.rpm</filename><reboot_suggested/></package>`, "",
		`
    <collection><name>second</name>
      <package name="b" version="1.0" release="3" epoch="2" arch="x86_64"/>
    </collection>`, "").Replace(advisories)
	for _, id := range []string{"ADV-2", "ADV-3"} {
		i := strings.Index(want, `<update type="bugfix"><id>`+id)
		want = want[:i] + want[i+strings.Index(want[i:], "\n")+1:]
	}
	if diff := cmp.Diff(want, got["updateinfo"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// An epoch that is not given is 0.
	if got, _ = edited(t, only("c-3-1.x86_64"), source); !strings.Contains(got["updateinfo"], "ADV-2") || strings.Contains(got["updateinfo"], "ADV-1") {
		t.Errorf("got\n%s", got["updateinfo"])
	}
	alone := strings.Replace(advisories, advisories[strings.Index(advisories, `<update type="enhancement">`):], "</updates>\n", 1)
	source = repository(t, "sha256", true, append(lists(".gz", append(three, "z-0:1-1.noarch")...), index{"updateinfo", "updateinfo.xml.xz", alone})...)
	if got, _ = edited(t, only("z-1-1.noarch"), source); got["updateinfo"] != "" {
		t.Errorf("a record without advisories is left:\n%s", got["updateinfo"])
	}
}

func TestAdvisoriesOfSeveralSources(t *testing.T) {
	of := func(advisories string, packages ...rpmOf) *formattest.Memory {
		return repository(t, "sha256", true, append(lists(".gz", packages...), index{"updateinfo", "updateinfo.xml", advisories})...)
	}
	const second = `<updates>
<update><id>ADV-1</id><title>the newer text</title><pkglist><collection><package name="a" version="1" release="1" arch="noarch"/></collection></pkglist></update>
<update><pkglist><collection><package name="b" epoch="2" version="1.0" release="3" arch="x86_64"/></collection></pkglist><id>LATE-1</id></update>
<update><pkglist><collection><package name="b" epoch="2" version="1.0" release="3" arch="x86_64"/></collection></pkglist><id>LATE-2</id></update>
<update><id>ADV-4</id></update>
</updates>`
	got, _ := edited(t, everything, of(advisories, three...), of(second, "a-0:1-1.noarch"))
	text := got["updateinfo"]
	if strings.Count(text, `<package name="a"`) != 1+1 { // one of them in a comment
		t.Errorf("a package is told of twice:\n%s", text)
	}
	if strings.Count(text, "<id>ADV-1</id>") != 2 || strings.Index(text, "the newer text") > strings.Index(text, "two &lt;package&gt;") {
		t.Errorf("the later source's advisory does not stand first:\n%s", text)
	}
	if !strings.Contains(text, "<id>LATE-1</id>") || !strings.Contains(text, "<id>LATE-2</id>") {
		t.Errorf("advisories that say their id at their end are lost:\n%s", text)
	}
	if strings.Count(text, "<id>ADV-4</id>") != 1 || !strings.Contains(text, "ADV-2") {
		t.Errorf("got\n%s", text)
	}
}

func TestGroupsOfSeveralSources(t *testing.T) {
	of := func(comps string, p rpmOf) *formattest.Memory {
		return repository(t, "sha256", true, append(lists(".gz", p), index{"group", "comps.xml", comps}, index{"group_gz", "comps.xml.gz", comps})...)
	}
	const first = `<comps><group><id>core</id><name>Old</name><packagelist><packagereq type="default">a</packagereq><packagereq>b</packagereq></packagelist></group>
<group><id>only</id></group><langpacks><match install="x-%s" name="x"/></langpacks></comps>`
	const last = `<comps><group><id>core</id><name>New</name><packagelist><packagereq type="mandatory">b</packagereq></packagelist></group>
<langpacks><match install="y-%s" name="y"/></langpacks></comps>`
	const want = xmlDeclaration + `<comps>
  <group><id>core</id><name>New</name><packagelist><packagereq type="mandatory">b</packagereq>  <packagereq type="default">a</packagereq></packagelist></group>
  <langpacks><match install="y-%s" name="y"/>  <match install="x-%s" name="x"/></langpacks>
  <group><id>only</id></group>
</comps>
`
	got, _ := edited(t, everything, of(first, "a-0:1-1.noarch"), of(last, "b-0:1-1.noarch"))
	if diff := cmp.Diff([]string{want, want}, []string{got["group"], got["group_gz"]}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
