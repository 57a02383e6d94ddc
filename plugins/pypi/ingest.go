package pypi

import (
	"bytes"
	"fmt"
	"mime"
	"net/url"
	"strings"
)

// Ingest implements chantal.Ingester. JSON is kept byte for byte, unless file
// URLs have to be made absolute or carry a user; then only these are replaced.
// HTML is brought into the same form. A page that is no simple index, such as
// a captive portal's, that is another project's, or that has a file whose URL
// cannot be used is an error.
func (Format) Ingest(path, pageURL, contentType string, body []byte) ([]byte, error) {
	project, ok := pageProject(path)
	if !ok {
		return nil, fmt.Errorf("ingest %s: no page has that path", excerpt(path))
	}
	base, err := url.Parse(pageURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("ingest %s: its own address is no http or https URL", path)
	}
	var kept []byte
	switch kindOf(contentType, body) {
	case jsonType:
		kept, err = ingestJSON(path, base, body)
	case htmlType:
		kept, err = ingestHTML(project, base, body)
	default:
		err = fmt.Errorf("the content type %s is that of no simple index", excerpt(contentType))
	}
	if err != nil {
		return nil, fmt.Errorf("ingest %s: %w", path, err)
	}
	return kept, nil
}

// kindOf returns jsonType or htmlType, or "" for anything else. Plain file
// servers know only the general types of JSON and bytes, or none at all; there
// the first character decides.
func kindOf(contentType string, body []byte) string {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		t, _, _ = strings.Cut(strings.ToLower(contentType), ";")
		t = strings.TrimSpace(t)
	}
	switch t {
	case jsonType, jsonLatest, "application/json":
		return jsonType
	case htmlType, htmlLatest, "text/html", "application/xhtml+xml":
		return htmlType
	case "", "application/octet-stream", "text/plain":
		switch body = bytes.TrimLeft(body, "\ufeff \t\r\n"); {
		case bytes.HasPrefix(body, []byte{'{'}):
			return jsonType
		case bytes.HasPrefix(body, []byte{'<'}):
			return htmlType
		}
	}
	return ""
}

// ingestJSON checks a page and replaces those URLs that may not stay.
func ingestJSON(path string, base *url.URL, body []byte) ([]byte, error) {
	p, err := decodePage(path, body)
	if err != nil {
		return nil, err
	}
	if p.project == "" {
		return body, p.check()
	}
	var (
		f    file
		kept []byte
		done int // what of body is in kept
	)
	for s := range elements(body, p.entries) {
		if err := f.decode(body, s); err != nil {
			return nil, err
		}
		at := get(f.members, "url")
		given, ok := text(body, at)
		if !ok {
			return nil, fmt.Errorf("the file %s has no URL", excerpt(f.name))
		}
		l, err := newLink(given)
		if err == nil && l.url == given {
			continue
		}
		if l, _, err = resolve(base, given); err != nil {
			return nil, fmt.Errorf("the URL of the file %s: %w", excerpt(f.name), err)
		}
		kept = append(kept, body[done:at.from]...)
		kept = appendString(kept, l.url)
		done = at.to
	}
	if done == 0 {
		return body, nil
	}
	return append(kept, body[done:]...), nil
}
