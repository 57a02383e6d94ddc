package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

const day = 24 * time.Hour

var (
	repoName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	refName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)
	days     = regexp.MustCompile(`^(?:([0-9]+)w)?(?:([0-9]+)d)?(.*)$`)
)

// parseDuration reads 30d, 6h, 1m, 1d12h, 2w.
func parseDuration(text string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not a duration; write a number and a unit such as 30s, 1m, 6h or 30d", text)
	part := days.FindStringSubmatch(text)
	var sum time.Duration
	for i, unit := range []time.Duration{7 * day, day} {
		if part[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(part[i+1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-sum)/unit) {
			return 0, wrong
		}
		sum += time.Duration(n) * unit
	}
	if part[3] != "" {
		rest, err := time.ParseDuration(part[3])
		if err != nil || rest < 0 || rest > math.MaxInt64-sum {
			return 0, wrong
		}
		sum += rest
	} else if text == "" {
		return 0, wrong
	}
	return sum, nil
}

// showDuration writes what parseDuration reads.
func showDuration(d time.Duration) string {
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// parseClock reads a time of day: 08:00; 24:00 is the end of the day.
func parseClock(text string) (time.Duration, error) {
	hour, minute, ok := strings.Cut(text, ":")
	h, badHour := strconv.ParseUint(hour, 10, 8)
	m, badMinute := strconv.ParseUint(minute, 10, 8)
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	if !ok || badHour != nil || badMinute != nil || len(minute) != 2 || m > 59 || at > day {
		return 0, fmt.Errorf("%q is not a time of day; write for example \"08:00\"", text)
	}
	return at, nil
}

// showClock writes what parseClock reads.
func showClock(at time.Duration) string {
	return fmt.Sprintf("%02d:%02d", at/time.Hour, at%time.Hour/time.Minute)
}

// parseSize reads a number of bytes: 200GiB, 1.5GB, 4096.
func parseSize(text string) (int64, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size; write a number and a unit such as 500MB or 200GiB", text)
	}
	return int64(n), nil
}

// unlimited is the rate that limits nothing, for people.
const unlimited = "unlimited"

// parseRate reads bytes per second: 50MiB/s; the /s may be left out. 0 is no
// limit.
func parseRate(text string) (int64, error) {
	if text == unlimited {
		return 0, nil
	}
	n, err := parseSize(strings.TrimSuffix(text, "/s"))
	if err != nil {
		return 0, fmt.Errorf("%q is not a bandwidth; write a size per second such as 50MiB/s", text)
	}
	return n, nil
}

// showSize writes what parseSize reads, in the largest binary unit that
// divides n.
func showSize(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB"}
	unit := 0
	for n != 0 && n%1024 == 0 && unit < len(units)-1 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + units[unit]
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a whole number of 0 or more", text)
	}
	return n, nil
}

func parseAtLeastOne(text string) (int, error) {
	n, err := parseCount(text)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a whole number of 1 or more", text)
	}
	return n, nil
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "on", "yes":
		return true, nil
	case "false", "off", "no":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", text)
}

// parsePrefix reads 10.0.0.0/8 and, as a prefix of full length, ::1.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not an address or prefix; write for example ::1 or 10.0.0.0/8", text)
	}
	return prefix.Masked(), nil
}

// ParseAddress checks an address to listen on: host:port, the host empty, a
// name or an address (in brackets if it has colons), the port a number.
func ParseAddress(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil && host != "" && !hostName.MatchString(host) {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		return "", fmt.Errorf("%q is not an address to listen on; write host:port, for example 127.0.0.1:8180", text)
	}
	return text, nil
}

// parseRef checks REF[+signed][~RECORDING].
func parseRef(text string) (string, error) {
	ref, recording, recorded := strings.Cut(text, "~")
	ref = strings.TrimSuffix(ref, "+signed")
	if (!refName.MatchString(ref) && !instant(ref)) || (recorded && !refName.MatchString(recording)) {
		return "", fmt.Errorf("%q is not a ref; write live, a name, or an instant such as 2026-11-23", text)
	}
	return text, nil
}

func instant(text string) bool {
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04:05Z", "20060102T150405Z"} {
		if _, err := time.Parse(layout, text); err == nil {
			return true
		}
	}
	return false
}

func parseName(text string) (string, error) {
	if !repoName.MatchString(text) {
		return "", fmt.Errorf("repository name %q has to consist of a-z, 0-9, dot, dash and underscore, and to begin with a letter or digit", text)
	}
	return text, nil
}

// parseURL checks an absolute http or https URL. Messages have no userinfo.
func parseURL(text string) (string, error) {
	u, err := splitURL(text)
	if err != nil {
		return "", err
	}
	switch {
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Hostname() == "":
		return "", fmt.Errorf("%q is not an absolute http or https URL", redact(text))
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q has a query or a fragment; paths of files are appended to it", redact(text))
	}
	return text, nil
}

// parseListURL is parseURL for a file of its own, which may be asked for by a
// query. Variables of clients mean nothing here.
func parseListURL(text string) (string, error) {
	if _, err := splitURL(text); err != nil {
		return "", err
	}
	plain, query, _ := strings.Cut(text, "?")
	if strings.Contains(text, "$") {
		return "", fmt.Errorf("%q has a variable that only dnf replaces; write one repository for each release and architecture", redact(text))
	}
	if strings.Contains(query, "#") {
		return "", fmt.Errorf("%q has a fragment", redact(text))
	}
	_, err := parseURL(plain)
	return text, err
}

// parseProxy checks the URL of an outbound proxy.
func parseProxy(text string) (string, error) {
	u, err := splitURL(text)
	if err != nil {
		return "", err
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		if u.Hostname() != "" && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.Fragment == "" {
			return text, nil
		}
	}
	return "", fmt.Errorf("%q is not the URL of a proxy; write for example http://proxy.example.org:3128", redact(text))
}

// splitURL is url.Parse with errors that can be shown: what follows an "@"
// alone is not secret, and where it stands cannot be told of what is no URL.
func splitURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err == nil:
		return u, nil
	case strings.Contains(text, "@"):
		return nil, errors.New("not a URL; in a user name or password, characters other than letters and digits are written as %XX")
	}
	var cause *url.Error
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return nil, fmt.Errorf("not a URL: %w", err)
}

// hidden stands for what is not shown.
const hidden = "xxxxx"

// redact returns the URL without its userinfo: of some services the token is
// the user name.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(not a URL)"
	}
	if u.User != nil {
		u.User = url.User(hidden)
	}
	return u.String()
}

// parseSecret checks what is sent in a header field. Messages do not repeat it.
func parseSecret(text string) (string, error) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", errors.New("a line break or another control character; give the value on one line")
	}
	return text, nil
}

// parseWord returns a parser for the given words.
func parseWord(words []string) func(string) (string, error) {
	return func(text string) (string, error) {
		for _, word := range words {
			if text == word {
				return word, nil
			}
		}
		return "", fmt.Errorf("%q is not one of %s; %s", text, strings.Join(words, ", "), suggest(text, "word", words))
	}
}

func parseText(text string) (string, error) { return text, nil }
