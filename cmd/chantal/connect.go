package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"syscall"
)

// socketName is the file in the data directory that serve listens on.
const socketName = "chantal.sock"

// connect returns what answers for env: the server that --server names, else
// the serve that runs on the data directory, else the directory itself. The
// caller closes it.
func connect(ctx context.Context, env *environment) (backend, io.Closer, error) {
	running, err := connectRunning(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	if running != nil {
		return running, running, nil
	}
	return env.open(ctx, env)
}

// connectRunning returns the server that connect would use, or nil where none
// runs. The caller closes it.
func connectRunning(ctx context.Context, env *environment) (*remote, error) {
	if env.server != "" {
		return newRemote(env.server)
	}
	path := filepath.Join(env.data, socketName)
	conn, err := dialSocket(ctx, path)
	switch {
	case err == nil:
		conn.Close()
		return socketRemote(path), nil
	// A socket without a listener was left by a serve that was killed.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENOTSOCK):
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrPermission):
		return nil, &failure{
			Status: http.StatusForbidden, Message: "no access to " + path,
			Next: "run this as the user that owns " + env.data + ", or name another directory with --data", Err: err,
		}
	}
	return nil, &failure{Message: "no connection to " + path + ": " + err.Error(), Next: "is chantal serve all right?", Err: err}
}
