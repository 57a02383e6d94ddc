package config

import (
	"fmt"
	"net/url"
	"os"
	"strings"
)

// Netrc is what files in netrc format say, in their order: who logs in where.
// nil is an empty one.
type Netrc []machine

// machine is one entry. Its name is HOST[:PORT][/PATH], with or without a
// scheme before it, as apt reads auth.conf.
type machine struct{ name, login, password string }

// LoadNetrc reads files in netrc format. open are those that others than their
// owner and group may read. Files are read as they come: words that are not
// understood are passed over, "default" and macros are not for us.
func LoadNetrc(paths []string) (n Netrc, open []string, err error) {
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, fmt.Errorf("reading credentials: %w", err)
		}
		if ReadableByOthers(path) {
			open = append(open, path)
		}
		n = append(n, parseNetrc(string(text))...)
	}
	return n, open, nil
}

// ReadableByOthers reports whether anybody on this machine may read the file.
func ReadableByOthers(path string) bool {
	at, err := os.Stat(path)
	return err == nil && at.Mode().IsRegular() && at.Mode().Perm()&0o004 != 0
}

func parseNetrc(text string) (n Netrc) {
	// An entry begins with its name; what comes before the first one, or
	// behind "default", belongs to nobody.
	nobody := &machine{}
	entry := nobody
	word := ""
	for text != "" {
		word, text = nextWord(text)
		var value *string
		switch {
		case word == "machine":
			n = append(n, machine{})
			entry = &n[len(n)-1]
			value = &entry.name
		case word == "default":
			entry = nobody
		case word == "login" || word == "user":
			value = &entry.login
		case word == "password" || word == "passwd":
			value = &entry.password
		case word == "account":
			value = new(string)
		case word == "macdef":
			_, text, _ = strings.Cut(text, "\n\n")
		case strings.HasPrefix(word, "#"):
			_, text, _ = strings.Cut(text, "\n")
		}
		if value != nil {
			*value, text = nextWord(text)
		}
	}
	return n
}

// nextWord cuts the first word off text; "" where there is none. In quotes it
// may have spaces, and a backslash takes the next character as it is.
func nextWord(text string) (word, rest string) {
	text = strings.TrimLeft(text, " \t\r\n")
	if !strings.HasPrefix(text, `"`) {
		// A comment ends with its line, so the break stays for it.
		end := strings.IndexAny(text, " \t\r\n")
		if end < 0 {
			return text, ""
		}
		return text[:end], text[end:]
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:]
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), ""
}

// Find returns what the first entry for u says; the zero value if there is
// none. An entry without a port is for every port of its host, one with a path
// for what lies under that.
func (n Netrc) Find(u *url.URL) Credentials {
	for _, m := range n {
		if m.covers(u) && (m.login != "" || m.password != "") {
			return Credentials{Username: m.login, Password: m.password}
		}
	}
	return Credentials{}
}

func (m machine) covers(u *url.URL) bool {
	scheme, rest, named := strings.Cut(m.name, "://")
	if !named {
		scheme, rest = u.Scheme, m.name
	}
	host, path, _ := strings.Cut(rest, "/")
	if !strings.EqualFold(scheme, u.Scheme) {
		return false
	}
	bare := strings.Trim(u.Hostname(), "[]")
	if !strings.EqualFold(host, u.Host) && !strings.EqualFold(strings.Trim(host, "[]"), bare) {
		return false
	}
	// Like apt: "debian" covers "debian/", not "debian-security/".
	path = strings.Trim(path, "/")
	return path == "" || strings.HasPrefix(strings.Trim(u.Path, "/")+"/", path+"/")
}
