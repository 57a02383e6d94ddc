package proxy

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"chantal/internal/testenv"
)

// visitor is a client with one connection.
type visitor struct {
	*http.Client
	s    *site
	name string
}

func (s *site) visitor(name string) *visitor {
	transport := &http.Transport{DisableCompression: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &visitor{&http.Client{Transport: transport, Timeout: 30 * time.Second}, s, name}
}

func (v *visitor) get(t *testing.T, path string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+v.s.addr+"/debian/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", v.name)
	resp, err := v.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
	}
	return body
}

func (v *visitor) wants(t *testing.T, path string, files testenv.Files) {
	t.Helper()
	if !bytes.Equal(v.get(t, path), files[path].Content) {
		t.Errorf("%s gets a %s of another state", v.name, path)
	}
}

// What tells clients apart is the connection, then address and User-Agent; the
// end of a connection ends what it holds.
func TestAClientIsKnownByItsConnectionAndItsName(t *testing.T) {
	s := newSite(t, nil)
	suite, _ := s.debian()
	suite.ByHash = false
	old := s.publish(suite, testenv.Package{Name: "hello", Version: "1"})
	first := s.visitor("apt")
	first.wants(t, inRelease, old)
	first.wants(t, packagesXZ, old)

	newest := s.publish(suite, testenv.Package{Name: "hello", Version: "2"})
	s.visitor("somebody else").wants(t, inRelease, newest)
	first.wants(t, packagesXZ, old)
	s.visitor("apt").wants(t, packagesXZ, old)
	s.visitor("another one").wants(t, packagesXZ, newest)

	// One who is in the middle of it gets the same root by another connection,
	// one who has ended it the newest.
	s.advance(40 * time.Second)
	begun := s.visitor("dnf")
	begun.wants(t, inRelease, newest)
	latest := s.publish(suite, testenv.Package{Name: "hello", Version: "3"})
	s.advance(-90 * time.Second)
	s.visitor("somebody else").wants(t, inRelease, latest)
	beside := s.visitor("dnf")
	beside.wants(t, inRelease, newest)
	begun.CloseIdleConnections()
	beside.CloseIdleConnections()
	for range 1000 {
		again := s.visitor("dnf")
		if bytes.Equal(again.get(t, inRelease), latest[inRelease].Content) {
			return
		}
		again.CloseIdleConnections()
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("connections that have ended go on to hold their client")
}
