package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// number is the publication whose stamp a version is; 0 for none.
func number(version string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
	if err != nil {
		return 0
	}
	return n
}

// pipShopper is a pip that downloads the newest wheel each time anew.
type pipShopper struct {
	f          *fire
	dir, proxy string
}

func (p *pipShopper) update(ctx context.Context, base string) error {
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	pip, err := python("pip")
	if err != nil {
		return err
	}
	args := append([]string{"download"}, pipOptions...)
	args = append(args, "--no-deps", "--dest", p.dir, "--index-url", base+"/simple/")
	if p.proxy != "" {
		args = append(args, "--proxy", p.proxy)
	}
	_, err = execute(ctx, []string{"HOME=" + p.f.dir}, pip, append(args, "stamp")...)
	return err
}

// state compares the wheel with the one that was published.
func (p *pipShopper) state() (map[string]int, error) {
	files, err := filepath.Glob(filepath.Join(p.dir, "stamp-*-py3-none-any.whl"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("pip downloaded %v: %w", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		return nil, err
	}
	name := filepath.Base(files[0])
	n := number(strings.Split(name, "-")[1])
	if p.f.publisher.Find(testenv.FilePath(name, content), content) == 0 {
		return nil, fmt.Errorf("%s was never published with these bytes", name)
	}
	return map[string]int{"simple/stamp": n}, nil
}

// uvShopper is a uv that installs the newest wheel each time anew.
type uvShopper struct {
	f          *fire
	dir, proxy string
}

func (u *uvShopper) update(ctx context.Context, base string) error {
	if err := os.RemoveAll(u.dir); err != nil {
		return err
	}
	uv, err := python("uv")
	if err != nil {
		return err
	}
	env := []string{"HOME=" + u.f.dir, "UV_HTTP_RETRIES=0"}
	if u.proxy != "" {
		env = append(env, "HTTP_PROXY="+u.proxy)
	}
	_, err = execute(ctx, env, uv, "--no-cache", "--no-config", "pip", "install", "--target", u.dir, "--no-deps",
		"--index-url", base+"/simple/", "stamp")
	return err
}

func (u *uvShopper) state() (map[string]int, error) {
	found, err := filepath.Glob(filepath.Join(u.dir, "stamp-*.dist-info"))
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("uv installed %v: %w", found, err)
	}
	version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "stamp-"), ".dist-info")
	module, err := os.ReadFile(filepath.Join(u.dir, "stamp.py"))
	if err != nil {
		return nil, err
	}
	if !strings.Contains(string(module), strconv.Quote(version)) {
		return nil, fmt.Errorf("the module beside %s begins with %.40q", found[0], module)
	}
	return map[string]int{"simple/stamp": number(version)}, nil
}

func TestPipInstallsWhileUpstreamPublishes(t *testing.T) {
	needs(t, "pip")
	needs(t, "uv")
	for _, tc := range []struct {
		name     string
		all, few int
		html     bool
		refresh  time.Duration
		fault    testenv.Fault
		proxied  bool
		uv       bool
	}{
		{name: "JSON", all: 200, few: 3},
		{name: "HTML", all: 200, few: 3, html: true},
		{name: "coarse ETag", all: 50, fault: testenv.Coarse, refresh: 250 * time.Millisecond},
		{name: "forward proxy", all: 50, proxied: true},
		{name: "uv JSON", all: 200, few: 6, uv: true},
		{name: "uv HTML forward proxy", all: 50, few: 3, uv: true, html: true, proxied: true, refresh: time.Second},
	} {
		if times(tc.all, tc.few) == 0 {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			index := testenv.NewPyPI(time.Now())
			index.HTMLOnly = tc.html
			f := newFire(t, "pypi", tc.refresh, "", func(_ *fire, n int) (testenv.Files, error) {
				index.Drop(testenv.Package{Name: "stamp", Version: stamp(n - 5)})
				if err := index.Add(testenv.Package{Name: "stamp", Version: stamp(n)}, time.Now()); err != nil {
					return nil, err
				}
				return index.Publish()
			})
			f.publisher.Keep = 50 // an index keeps the files of what it listed a moment ago
			f.publisher.Pause = 100 * time.Millisecond
			if tc.fault != "" {
				f.server.Fail(tc.fault, "/", -1)
			}
			proxy, base := "", f.mirror()
			if tc.proxied {
				proxy, base = "http://"+f.listen, f.upstream()
			}
			var through, direct shopper = &pipShopper{f, f.path("pip"), proxy}, &pipShopper{f, f.path("direct"), ""}
			if tc.uv {
				through, direct = &uvShopper{f, f.path("uv"), proxy}, &uvShopper{f, f.path("direct"), ""}
			}
			f.besiege(t, base, times(tc.all, tc.few), through)
			if full() && tc.all > 50 {
				f.hostile(t, direct, 60)
			}
		})
	}
}
