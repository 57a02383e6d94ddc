package apt

import (
	"bytes"
	"strings"
)

// Identity is what a Release says of itself that clients are configured by.
type Identity struct {
	Origin, Label string
	Components    []string
}

// Describe reads the identity out of an InRelease or a Release. Fields that
// are not there stay empty; nothing is verified.
func Describe(root []byte) Identity {
	text := root
	if bytes.HasPrefix(root, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		f, err := openFrame(root)
		if err != nil {
			return Identity{}
		}
		text = f.text
	}
	var id Identity
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(string(line), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "origin":
			id.Origin = value
		case "label":
			id.Label = value
		case "components":
			id.Components = strings.Fields(value)
		}
	}
	return id
}
