package testenv

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"html"
	"strings"
	"time"
)

// Metalink returns a metalink as MirrorManager makes them: mirrors are base
// URLs, the preferred first, repomd the contents of repomd.xml that it names,
// the present one first.
func Metalink(mirrors []string, repomd ...[]byte) File {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?>` + "\n" + `<metalink version="3.0" xmlns="http://www.metalinker.org/" ` +
		`type="dynamic" generator="testenv" xmlns:mm0="http://fedorahosted.org/mirrormanager">` + "\n<files><file name=\"repomd.xml\">\n")
	state := func(content []byte) {
		fmt.Fprintf(&b, "<mm0:timestamp>%d</mm0:timestamp>\n<size>%d</size>\n<verification>\n", time.Now().Unix(), len(content))
		fmt.Fprintf(&b, "<hash type=\"sha256\">%s</hash>\n", sha256hex(content))
		fmt.Fprintf(&b, "<hash type=\"sha512\">%x</hash>\n</verification>\n", sha512.Sum512(content))
	}
	state(repomd[0])
	if len(repomd) > 1 {
		b.WriteString("<mm0:alternates>\n")
		for _, older := range repomd[1:] {
			b.WriteString("<mm0:alternate>\n")
			state(older)
			b.WriteString("</mm0:alternate>\n")
		}
		b.WriteString("</mm0:alternates>\n")
	}
	b.WriteString("<resources maxconnections=\"1\">\n<url protocol=\"rsync\" type=\"rsync\" preference=\"100\">rsync://rsync.example.org/x/repodata/repomd.xml</url>\n")
	for i, m := range mirrors {
		scheme, _, _ := strings.Cut(m, "://")
		fmt.Fprintf(&b, "<url protocol=\"%s\" type=\"%s\" location=\"DE\" preference=\"%d\">%srepodata/repomd.xml</url>\n",
			scheme, scheme, 99-i, html.EscapeString(m))
	}
	b.WriteString("</resources>\n</file></files>\n</metalink>\n")
	return File{Content: b.Bytes(), Type: "application/metalink+xml"}
}

// Mirrorlist returns a list of mirrors, one base URL a line.
func Mirrorlist(mirrors ...string) File {
	return File{Content: []byte("# made for a test\n" + strings.Join(mirrors, "\n") + "\n"), Type: "text/plain"}
}
