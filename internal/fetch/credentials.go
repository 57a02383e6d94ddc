package fetch

import (
	"encoding/base64"
	"net/url"
)

// Credential is what one repository shows to one upstream: a user name and a
// password (RFC 7617), or a bearer token (RFC 6750).
type Credential struct {
	Repo     string
	Origin   *url.URL // its scheme, host and port count
	Username string
	Password string
	Token    string // in place of the others
}

// binding is what a credential is bound to.
type binding struct{ repo, scheme, hostport string }

// logins are values of Authorization.
type logins map[binding]string

// SetCredentials replaces all credentials. Each is sent with requests on behalf
// of its repository to exactly its scheme, host and port, and with no others:
// neither for another repository nor where a redirect leads elsewhere. Of two
// for the same the first counts.
func (c *Client) SetCredentials(all []Credential) {
	l := logins{}
	for _, one := range all {
		k := binding{one.Repo, one.Origin.Scheme, HostPort(one.Origin)}
		if _, taken := l[k]; taken || one.Repo == "" {
			continue
		}
		l[k] = "Bearer " + one.Token
		if one.Token == "" {
			l[k] = basic(one.Username, one.Password)
		}
	}
	c.logins.Store(&l)
}

// at returns what is to be sent to u on behalf of repo, "" for nothing.
func (l *logins) at(repo string, u *url.URL) string {
	return (*l)[binding{repo, u.Scheme, HostPort(u)}]
}

func basic(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}
