package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var (
	total = regexp.MustCompile(`(\d+) requests in `)
	rate  = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrong = regexp.MustCompile(`(?m)^\s*(Non-2xx.*|Socket errors:.*)$`)
)

// ask lets wrk ask for a URL and returns how many answers it got, in which
// time. Any answer but 200 is an error.
func ask(ctx context.Context, url string, conns int, d time.Duration) (float64, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, d+time.Minute)
	defer cancel()
	// wrk knows whole seconds only.
	seconds := strconv.Itoa(max(1, int(d.Round(time.Second).Seconds())))
	cmd := exec.CommandContext(ctx, "wrk", "-t", strconv.Itoa(min(conns, 2)), "-c", strconv.Itoa(conns), "-d", seconds+"s", "-H", "User-Agent: "+agent, url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if m := wrong.FindSubmatch(out); m != nil {
		return 0, 0, fmt.Errorf("wrk: %s", m[1])
	}
	n, r := total.FindSubmatch(out), rate.FindSubmatch(out)
	if n == nil || r == nil {
		return 0, 0, fmt.Errorf("wrk says what is not understood: %s", out)
	}
	done, err := strconv.ParseFloat(string(n[1]), 64)
	if err != nil {
		return 0, 0, err
	}
	perSecond, err := strconv.ParseFloat(string(r[1]), 64)
	if err != nil {
		return 0, 0, err
	}
	if done == 0 {
		return 0, 0, errors.New("no answer came")
	}
	return done, time.Duration(done / perSecond * float64(time.Second)), nil
}

// sink reads a URL over and over, throws the bytes away, and returns how many
// came within d.
func sink(ctx context.Context, raw string, conns int, d time.Duration) (float64, time.Duration, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var got atomic.Int64
	errs := make([]error, conns)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range conns {
		wg.Go(func() { errs[i] = drain(ctx, u, &got) })
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return 0, 0, err
	}
	return float64(got.Load()), took, nil
}

// drain asks on one connection until ctx ends, which is no error.
func drain(ctx context.Context, u *url.URL, got *atomic.Int64) error {
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	in := bufio.NewReader(conn)
	buf := make([]byte, 256<<10)
	for {
		_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n\r\n", u.EscapedPath(), u.Host, agent)
		if err == nil {
			err = drainOne(in, buf, got)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func drainOne(in *bufio.Reader, buf []byte, got *atomic.Int64) error {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	for {
		n, err := resp.Body.Read(buf)
		got.Add(int64(n))
		if err == io.EOF {
			return resp.Body.Close()
		}
		if err != nil {
			return err
		}
	}
}
