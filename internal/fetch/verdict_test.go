package fetch

import (
	"errors"
	"io/fs"
	"testing"

	"chantal"
)

func TestOnlyWhatUpstreamDeniesIsNotThere(t *testing.T) {
	for status, want := range map[int]string{
		200: "whole", 404: "missing", 410: "missing",
		206: "failed", 301: "failed", 401: "failed", 403: "failed", 407: "failed", 429: "failed", 451: "failed", 500: "failed", 503: "failed",
	} {
		got, err := "failed", (&Response{Status: status, URL: "http://mirror.example.org/f"}).Complete()
		var up *chantal.UpstreamError
		switch {
		case err == nil:
			got = "whole"
		case errors.Is(err, fs.ErrNotExist):
			got = "missing"
		case !errors.As(err, &up) || up.Status != status:
			t.Errorf("%d: %v", status, err)
		}
		if got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
}
