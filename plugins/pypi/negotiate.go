package pypi

import (
	"strconv"
	"strings"
)

// The content types of PEP 691, in the server's order of preference among what
// a client likes equally well.
const (
	jsonType   = "application/vnd.pypi.simple.v1+json"
	jsonLatest = "application/vnd.pypi.simple.latest+json"
	htmlType   = "application/vnd.pypi.simple.v1+html"
	htmlLatest = "application/vnd.pypi.simple.latest+html"
	plainType  = "text/html; charset=utf-8"
)

// Represent implements chantal.Renderer by the negotiation of PEP 691 with the
// q-values of RFC 9110. A known format wins over accept; the "latest" aliases
// stand for v1; a client that accepts anything, says nothing, or accepts
// nothing that there is gets text/html, as from the public index. The result
// is ready to be sent as Content-Type. There is no error.
func (Format) Represent(accept, format string) (string, error) {
	// An unescaped plus sign in a query arrives as a space.
	switch strings.ReplaceAll(strings.ToLower(format), " ", "+") {
	case jsonType, jsonLatest:
		return jsonType, nil
	case htmlType, htmlLatest:
		return htmlType, nil
	case "text/html":
		return plainType, nil
	}
	offers := [...]struct{ mediaType, exact, alias, group string }{
		{jsonType, jsonType, jsonLatest, "application/*"},
		{htmlType, htmlType, htmlLatest, "application/*"},
		{plainType, "text/html", "text/html", "text/*"},
	}
	best, bestQ, bestExact := plainType, 0, false
	for _, offer := range offers {
		q, specificity := 0, 0
		for element := range strings.SplitSeq(accept, ",") {
			name, elementQ, ok := acceptElement(element)
			s := 0
			switch name {
			case offer.exact, offer.alias:
				s = 3
			case offer.group:
				s = 2
			case "*/*":
				s = 1
			}
			// The most specific range counts (RFC 9110, 12.5.1); of the two
			// names of one type the better.
			if ok && (s > specificity || s > 0 && s == specificity && elementQ > q) {
				q, specificity = elementQ, s
			}
		}
		// Among equals a type that is named goes first; among types that only
		// wildcards allow, text/html, the last offer.
		exact := specificity == 3
		if q > bestQ || q == bestQ && q > 0 && (exact && !bestExact || !exact && !bestExact && specificity == 1) {
			best, bestQ, bestExact = offer.mediaType, q, exact
		}
	}
	return best, nil
}

// acceptElement reads one element of an Accept header; q is in thousandths.
func acceptElement(element string) (name string, q int, ok bool) {
	name, parameters, _ := strings.Cut(element, ";")
	name = strings.ToLower(strings.TrimSpace(name))
	for parameter := range strings.SplitSeq(parameters, ";") {
		key, value, _ := strings.Cut(parameter, "=")
		if strings.EqualFold(strings.TrimSpace(key), "q") {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(f >= 0 && f <= 1) {
				return "", 0, false
			}
			return name, int(f*1000 + 0.5), true
		}
	}
	return name, 1000, true
}
