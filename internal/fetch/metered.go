package fetch

import (
	"context"
	"io"
	"net/http"
)

// Metered calls count with the number of bytes of bodies that were read, and the
// repository on whose behalf; concurrently.
func Metered(count func(repo string, n int)) func(Source) Source {
	return func(next Source) Source {
		return SourceFunc(func(ctx context.Context, r *Request) (*Response, error) {
			resp, err := next.Fetch(ctx, r)
			if err != nil || resp.Body == http.NoBody {
				return resp, err
			}
			inner, repo := resp.Body, r.Repo
			resp.Body = &wrapBody{Reader: &meter{inner, func(n int) { count(repo, n) }}, close: inner.Close}
			return resp, nil
		})
	}
}

type meter struct {
	from  io.Reader
	count func(n int)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	if n > 0 {
		m.count(n)
	}
	return n, err
}
