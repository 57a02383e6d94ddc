package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"chantal/mirror"
)

// maxHeader is how many bytes the head of a request may have: enough for a
// thousand ranges.
const maxHeader = 64 << 10

// Server returns a server for one listener. ref is what its forward requests
// get when they do not name one; "" for live. IdleTimeout fits clients that keep
// a connection per mirror. Its listener is to come from Listen, which bounds
// what the server itself leaves open: how long an answer may take.
func (h *Handler) Server(ref string) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       3 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			c := conn{&mirror.Conn{}, ref}
			h.conns.Store(nc, c.Conn)
			return context.WithValue(ctx, connKey{}, c)
		},
		ConnState: func(nc net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				if c, ok := h.conns.LoadAndDelete(nc); ok {
					c.(*mirror.Conn).Close()
				}
			}
		},
	}
}
