package config

import "testing"

func TestPortsInBracesStayPartOfTheURL(t *testing.T) {
	for _, text := range []string{
		"repos: [{name: a, type: apt, upstream: [http://127.0.0.1:19000/debian]}]\n",
		"repos:\n  - {name: a, type: apt, upstream: [http://127.0.0.1:19000/debian]}\n",
		"repos:\n  - {name: a, type: apt, upstream: http://127.0.0.1:19000/debian}\n",
	} {
		c, err := Parse("c.yaml", []byte(text), func(string) string { return "" })
		if err != nil {
			t.Errorf("%s%v", text, err)
			continue
		}
		if got, want := c.Repos[0].Upstream[0], "http://127.0.0.1:19000/debian"; got != want {
			t.Errorf("%sgot %q, want %q", text, got, want)
		}
	}
}
