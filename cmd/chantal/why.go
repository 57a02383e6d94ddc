package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"chantal"
	"chantal/internal/keep"
)

// leastDigits is how many digits of a SHA-256 are enough to look for it.
const leastDigits = 6

func (l *local) Why(ctx context.Context, text string) (keep.Why, error) {
	d, err := l.digest(text)
	if err != nil {
		return keep.Why{}, err
	}
	return l.keeper.Why(ctx, d, time.Now().Add(-l.config.Load().History), l.keptAnswers)
}

// digest returns the SHA-256 that text is, or of the one blob whose name begins
// with it.
func (l *local) digest(text string) (chantal.Digest, error) {
	hex := strings.ToLower(strings.TrimPrefix(text, "sha256:"))
	if d, err := chantal.NewDigest("sha256", hex); err == nil {
		return d, nil
	}
	if len(hex) < leastDigits || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", &failure{
			Exit: 2, Status: http.StatusBadRequest, Message: fmt.Sprintf("%q is not a SHA-256", text),
			Next: fmt.Sprintf("write its 64 hexadecimal digits, or the first %d or more of them", leastDigits),
		}
	}
	all, err := l.store.Digests()
	if err != nil {
		return "", err
	}
	var found []string
	for d := range all {
		if strings.HasPrefix(d.Hex(), hex) {
			found = append(found, d.Hex())
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 1:
		return chantal.Digest("sha256:" + found[0]), nil
	case 0:
		return "", &failure{Status: http.StatusNotFound, Message: "no blob that is stored begins with " + hex, Next: "write all 64 digits to ask for one that is not stored"}
	}
	return "", &failure{
		Status: http.StatusConflict, Message: fmt.Sprintf("%d blobs begin with %s", len(found), hex), Next: "write more of it: " + strings.Join(found[:2], ", or "),
	}
}

// whyText says what keeps a blob.
func (env *environment) whyText(w keep.Why) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-11s %s\n%-11s %s", "digest", w.Digest, "stored", yesNo(w.Stored))
	if w.Stored {
		fmt.Fprintf(&b, ", %s", size(w.Size))
	}
	b.WriteByte('\n')
	for _, r := range w.Kept {
		fmt.Fprintf(&b, "%-11s %s\n", "kept by", printable(reasonText(r)))
	}
	switch {
	case !w.Stored:
	case w.Freed:
		fmt.Fprintf(&b, "%-11s %s\n", "freed", env.paint(red, "by the next chantal gc"))
	case w.Evict:
		fmt.Fprintf(&b, "%-11s %s\n", "freed", "when cache.max_size is exceeded and it was not used for longer than others; no snapshot holds it")
	default:
		fmt.Fprintf(&b, "%-11s %s\n", "freed", env.paint(green, "no"))
	}
	return b.String()
}

// reasonText is one thing that keeps a blob.
func reasonText(r keep.Reason) string {
	var what string
	switch r.By {
	case "cache":
		return "the answer to " + r.Path + ", kept by HTTP's rules"
	case "work":
		return "work that is under way"
	case "client":
		what = "a client that began with"
	case "live":
		what = "live:"
	default:
		what = r.By + " " + r.Ref + ":"
	}
	text := fmt.Sprintf("%s %s %s, generation %d, %s %s", what, r.Repo, r.Tree, r.Generation, r.Kind, r.Path)
	if r.Weak {
		text += " (until chantal gc: of older states only metadata is kept)"
	}
	return text
}
