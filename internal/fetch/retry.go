package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"syscall"
	"time"

	"chantal"
)

// Waits between attempts.
const (
	firstWait     = 200 * time.Millisecond
	longestWait   = 5 * time.Second
	longestAfter  = 5 * time.Second // the longest Retry-After that is waited for
	unreachedWait = 100 * time.Millisecond
	slowDial      = time.Second // a failed dial that took so long is not repeated
	fallbackTotal = time.Second // no attempt begins later where the caller has another answer
)

// Retry asks again, up to n times, when there was no answer or a status that
// says to try later (408, 429, 500, 502, 503, 504), after jittered waits that
// double from 200 ms to 5 s, or as long as the origin wants to be left in peace
// (Retry-After) where that is up to 5 s. No attempt begins later than total
// after the first, and none later than a second after it for a request whose
// caller has another answer (Request.Fallback).
//
// An upstream that cannot be connected to is asked once more only, at once, and
// not if finding that out took a second, since clients wait; what would end the
// same way (a refusal, a bad certificate, no TLS, an unknown host, an unusable
// answer) is not asked again. The last answer is returned as it is.
//
// It belongs outside of Limit, so that waiting takes no one's place. Bodies
// that break off are the caller's to resume. log may be nil.
func Retry(n int, total time.Duration, log *slog.Logger) func(Source) Source {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(next Source) Source {
		return SourceFunc(func(ctx context.Context, r *Request) (*Response, error) {
			started, total := time.Now(), total
			if r.Fallback {
				total = min(total, fallbackTotal)
			}
			for attempt := 0; ; attempt++ {
				resp, err := next.Fetch(ctx, r)
				wait, again := pause(resp, err, attempt, time.Since(started))
				if !again || attempt >= n || ctx.Err() != nil || time.Since(started)+wait > total {
					return resp, err
				}
				status := 0
				if resp != nil {
					status = resp.Status
					drain(resp.Body)
				}
				log.DebugContext(ctx, "asking upstream again", "repo", r.Repo, "status", status, "error", err, "wait", wait)
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return nil, fmt.Errorf("waiting to ask upstream again: %w", ctx.Err())
				}
			}
		})
	}
}

// pause says whether to ask again after that outcome, and when.
func pause(resp *Response, err error, attempt int, elapsed time.Duration) (time.Duration, bool) {
	backoff := min(firstWait<<min(attempt, 10), longestWait)
	backoff = backoff/2 + rand.N(backoff/2)
	if err == nil {
		switch resp.Status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		default:
			return 0, false
		}
		return peace(retryAfter(resp.Header, time.Now()), backoff)
	}
	if held := (*heldError)(nil); errors.As(err, &held) {
		return peace(time.Until(held.until), backoff)
	}
	var ue *chantal.UpstreamError
	if !errors.As(err, &ue) || ue.Status != 0 || errors.Is(err, chantal.ErrOffline) {
		return 0, false
	}
	if fatalTLS(err) {
		return 0, false
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) && dns.IsNotFound {
		return 0, false
	}
	if unreached(err) {
		return unreachedWait, attempt == 0 && elapsed < slowDial
	}
	return backoff, true
}

// unreached reports whether not even a connection was made.
func unreached(err error) bool {
	if oe := (*net.OpError)(nil); errors.As(err, &oe) && oe.Op == "dial" {
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// peace says whether to wait until an origin may be asked again. All who wait
// are not to come back in the same moment.
func peace(after, backoff time.Duration) (time.Duration, bool) {
	if after <= backoff {
		return backoff, true
	}
	return after + rand.N(firstWait), after <= longestAfter
}

// fatalTLS reports whether a TLS connection will not come about the next time
// either.
func fatalTLS(err error) bool {
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	var alert *net.OpError
	return errors.As(err, &certificate) || errors.As(err, &notTLS) ||
		errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
}
