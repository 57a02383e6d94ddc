package pypi

import (
	"strings"
)

// legacyInfo is what the JSON of a release says of it: its core metadata, in
// other words. What the metadata does not have is empty, or null where the
// index has null.
type legacyInfo struct {
	Author                 string            `json:"author"`
	AuthorEmail            string            `json:"author_email"`
	BugtrackURL            *string           `json:"bugtrack_url"`
	Classifiers            []string          `json:"classifiers"`
	Description            string            `json:"description"`
	DescriptionContentType *string           `json:"description_content_type"`
	DocsURL                *string           `json:"docs_url"`
	DownloadURL            *string           `json:"download_url"`
	Dynamic                []string          `json:"dynamic"`
	HomePage               string            `json:"home_page"`
	Keywords               *string           `json:"keywords"`
	License                *string           `json:"license"`
	LicenseExpression      *string           `json:"license_expression"`
	LicenseFiles           []string          `json:"license_files"`
	Maintainer             *string           `json:"maintainer"`
	MaintainerEmail        *string           `json:"maintainer_email"`
	Name                   string            `json:"name"`
	Platform               *string           `json:"platform"`
	ProjectURLs            map[string]string `json:"project_urls"`
	ProvidesExtra          []string          `json:"provides_extra"`
	RequiresDist           []string          `json:"requires_dist"`
	RequiresPython         *string           `json:"requires_python"`
	Summary                string            `json:"summary"`
	Version                string            `json:"version"`
	Yanked                 bool              `json:"yanked"`
	YankedReason           *string           `json:"yanked_reason"`
}

// info describes the chosen release. metadata is that of one of its wheels; nil
// where there is none, and then what a release requires is not known.
func (r *releases) info(metadata []byte) legacyInfo {
	m := parseMetadata(metadata)
	info := legacyInfo{
		Author: m.one("author"), AuthorEmail: m.one("author-email"), Classifiers: m["classifier"],
		Description: m.one("description"), DescriptionContentType: m.orNull("description-content-type"),
		DownloadURL: m.orNull("download-url"), Dynamic: m["dynamic"], HomePage: m.one("home-page"),
		Keywords: m.orNull("keywords"), License: m.orNull("license"), LicenseExpression: m.orNull("license-expression"),
		LicenseFiles: m["license-file"], Maintainer: m.orNull("maintainer"), MaintainerEmail: m.orNull("maintainer-email"),
		Name: r.page.name, Platform: m.orNull("platform"), ProvidesExtra: m["provides-extra"], RequiresDist: m["requires-dist"],
		RequiresPython: m.orNull("requires-python"), Summary: m.one("summary"), Version: r.chosen.written,
	}
	if info.Classifiers == nil {
		info.Classifiers = []string{}
	}
	for _, line := range m["project-url"] {
		label, url, _ := strings.Cut(line, ",")
		if info.ProjectURLs == nil {
			info.ProjectURLs = make(map[string]string)
		}
		info.ProjectURLs[strings.TrimSpace(label)] = strings.TrimSpace(url)
	}
	body := r.page.body
	for _, f := range r.chosen.files {
		if info.RequiresPython == nil {
			info.RequiresPython = textOrNull(body, get(f.members, "requires-python"))
		}
	}
	var reason string
	if reason, info.Yanked = r.chosen.yanked(body); info.Yanked && reason != "" {
		info.YankedReason = &reason
	}
	return info
}

// metadata are the fields of core metadata by name, in lower case.
type metadata map[string][]string

// parseMetadata reads core metadata: header fields as in mail, of which a line
// that is indented goes on with the one before, and behind a blank line the
// description. Whatever else there is counts for nothing.
func parseMetadata(b []byte) metadata {
	m := metadata{}
	last := ""
	rest := strings.ReplaceAll(string(b), "\r\n", "\n")
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if line == "" {
			if description := strings.TrimRight(rest, "\n"); description != "" {
				m["description"] = []string{rest}
			}
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			if values := m[last]; len(values) > 0 {
				// Descriptions of old have a bar where a line begins.
				values[len(values)-1] += "\n" + strings.TrimPrefix(strings.TrimPrefix(line, "       "), "|")
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if last = strings.ToLower(name); !ok {
			last = ""
			continue
		}
		if value = strings.TrimSpace(value); value != "UNKNOWN" {
			m[last] = append(m[last], value)
		} else {
			last = ""
		}
	}
	return m
}

func (m metadata) one(name string) string {
	if len(m[name]) == 0 {
		return ""
	}
	return m[name][0]
}

func (m metadata) orNull(name string) *string {
	if len(m[name]) == 0 {
		return nil
	}
	return &m[name][0]
}
