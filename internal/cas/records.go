package cas

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const recordExt = ".jsonl"

// recordLogs are the logs of own facts. They are never mixed with foreign
// bytes: no package can forge a record.
type recordLogs struct {
	mu   sync.Mutex
	open map[string]*recordLog
}

// recordLog is one append-only file of JSON lines.
type recordLog struct {
	path string
	turn sync.Mutex // held while the file is written, or opened to be read

	mu       sync.Mutex
	waiting  []*appending // in order
	flushing bool         // somebody writes for all who wait
	end      atomic.Int64 // of the last durable line; -1 until looked at
	named    bool         // its name is durable, and those of the folders above
}

type appending struct {
	line []byte
	done chan error
}

// logPath returns the file of a log whose name is fit for one.
func (s *Store) logPath(name string) (string, error) {
	for seg := range strings.SplitSeq(name, "/") {
		ok := seg != "" && seg[0] != '.' && len(seg)+len(recordExt) <= 255
		for _, c := range []byte(seg) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
		}
		if !ok {
			return "", fmt.Errorf("%q cannot be the name of a record log", name)
		}
	}
	return filepath.Join(s.dir, "records", filepath.FromSlash(name)+recordExt), nil
}

// AppendRecord writes v as one line of JSON to the end of a log, and returns
// when it is durable. A log's name is made of [A-Za-z0-9._-], with "/" between
// its parts. Concurrent appends to one log share a sync. After an error the
// record is not there.
func (s *Store) AppendRecord(log string, v any) error {
	l, err := s.recordLog(log)
	if err != nil {
		return err
	}
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record for %s: %w", log, err)
	}
	a := &appending{line: append(line, '\n'), done: make(chan error, 1)}
	l.mu.Lock()
	l.waiting = append(l.waiting, a)
	for !l.flushing && len(l.waiting) > 0 {
		batch := l.waiting
		l.waiting, l.flushing = nil, true
		l.mu.Unlock()
		err := s.flushRecords(l, batch)
		if err != nil {
			err = s.trouble(err)
		}
		for _, b := range batch {
			b.done <- err
		}
		l.mu.Lock()
		l.flushing = false
	}
	l.mu.Unlock()
	if err := <-a.done; err != nil {
		return fmt.Errorf("record for %s: %w", log, err)
	}
	return nil
}

// recordLog returns a log, whose file may not be there yet.
func (s *Store) recordLog(name string) (*recordLog, error) {
	path, err := s.logPath(name)
	if err != nil {
		return nil, err
	}
	s.records.mu.Lock()
	defer s.records.mu.Unlock()
	if s.records.open == nil {
		s.records.open = make(map[string]*recordLog)
	}
	l := s.records.open[name]
	if l == nil {
		l = &recordLog{path: path}
		l.end.Store(-1)
		s.records.open[name] = l
	}
	return l, nil
}

// RewriteRecords replaces the lines of a log by what write adds; whenever the
// process ends, the log is either what it was or what it becomes. It returns
// when that is durable; with an error replaced says which of the two it is now.
// Records read meanwhile are the old ones; records appended meanwhile are lost,
// so the caller sees to it that there are none.
func (s *Store) RewriteRecords(log string, write func(add func(v any) error) error) (replaced bool, err error) {
	l, err := s.recordLog(log)
	if err != nil {
		return false, err
	}
	temp := s.temp(filepath.Dir(l.path))
	n, err := s.writeRecords(temp, write)
	l.turn.Lock()
	defer l.turn.Unlock()
	if err == nil {
		err = s.disk.Rename(temp, l.path)
	}
	if err != nil {
		_ = s.disk.Remove(temp)
		return false, fmt.Errorf("rewriting the records of %s: %w", log, err)
	}
	l.end.Store(n)
	if err := s.disk.Sync(filepath.Dir(l.path)); err != nil {
		l.named = false
		return true, fmt.Errorf("rewriting the records of %s: %w", log, s.trouble(err))
	}
	return true, nil
}

// writeRecords writes what write adds to a new file, durably, and returns its
// length.
func (s *Store) writeRecords(path string, write func(add func(v any) error) error) (n int64, err error) {
	f, err := s.disk.Create(path, 0o644)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	err = write(func(v any) error {
		line, err := json.Marshal(v)
		if err == nil {
			n += int64(len(line)) + 1
			_, err = w.Write(append(line, '\n'))
		}
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	return n, errors.Join(err, f.Close())
}

// flushRecords writes and syncs the lines of batch, or none of them. One
// goroutine at a time does that for a log.
func (s *Store) flushRecords(l *recordLog, batch []*appending) (err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if err := s.makeDirs(filepath.Dir(l.path)); err != nil {
		return err
	}
	end := l.end.Load()
	if end < 0 {
		if end, err = s.intactEnd(l.path); err != nil {
			return err
		}
	}
	f, err := s.disk.Append(l.path, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(end); err != nil { // a torn line, or what an error left
		return err
	}
	var buf bytes.Buffer
	for _, a := range batch {
		buf.Write(a.line)
	}
	_, err = f.Write(buf.Bytes())
	if err == nil {
		err = f.Sync()
	}
	// A file or folder that is there may have been made by a process that was
	// killed, or by an append that failed, before its name was durable.
	for dir := filepath.Dir(l.path); err == nil && !l.named && len(dir) >= len(s.dir); dir = filepath.Dir(dir) {
		err = s.disk.Sync(dir)
	}
	if err != nil {
		// What cannot be cut off now is not read, and is cut off by the next.
		l.end.Store(end)
		return errors.Join(err, f.Truncate(end))
	}
	l.named = true
	l.end.Store(end + int64(buf.Len()))
	return nil
}

// makeDirs makes dir, with its parents, where it is not there.
func (s *Store) makeDirs(dir string) error {
	err, up := s.disk.Mkdir(dir), filepath.Dir(dir)
	if errors.Is(err, fs.ErrNotExist) && up != dir {
		if err := s.makeDirs(up); err != nil {
			return err
		}
		err = s.disk.Mkdir(dir)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	s.mu.Lock()
	s.settled[up] = false
	s.mu.Unlock()
	return err
}

// intactEnd returns where in a log the last whole line ends that is JSON or
// followed by others; 0 where there is no log.
func (s *Store) intactEnd(path string) (end int64, err error) {
	f, err := s.disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	err = eachLine(f, func(line []byte) error { end += int64(len(line)); return nil })
	return end, err
}

// eachLine yields the lines of r with their newline, without a torn last one.
func eachLine(r io.Reader, yield func(line []byte) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var last []byte
	for {
		line, err := br.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if err == io.EOF {
			if len(last) > 0 && json.Valid(last) {
				return yield(last)
			}
			return nil
		}
		if len(last) > 0 {
			if err := yield(last); err != nil {
				return err
			}
		}
		last = line
	}
}

// Records yields the lines of a log in the order of their appending, without
// the newline. A torn last line is left out. A log that does not exist has no
// lines. It ends with the first error of yield or of the disk, or with one that
// tells a damaged line.
func (s *Store) Records(log string, yield func(line []byte) error) error {
	l, err := s.recordLog(log)
	if err != nil {
		return err
	}
	path := l.path
	l.turn.Lock()
	f, err := s.disk.Open(path)
	end := l.end.Load()
	l.turn.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("records of %s: %w", log, err)
	}
	defer f.Close()
	var r io.Reader = f
	if end >= 0 {
		r = io.LimitReader(f, end) // behind it may lie what an append could neither keep nor take back
	}
	n := 0
	err = eachLine(r, func(line []byte) error {
		n++
		line = bytes.TrimSuffix(line, []byte("\n"))
		if !json.Valid(line) {
			return fmt.Errorf("line %d of %s is damaged: restore the file from a backup, or take the line out and give up what it says with `chantal verify --rebuild`", n, path)
		}
		return yield(line)
	})
	if err != nil {
		return fmt.Errorf("records of %s: %w", log, err)
	}
	return nil
}

// files yields the paths of all files below dir, and the errors of folders
// that cannot be read.
func (s *Store) files(dir string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { s.eachFile(dir, yield) }
}

func (s *Store) eachFile(dir string, yield func(string, error) bool) bool {
	entries, err := s.disk.List(dir)
	if err != nil && !yield(dir, err) {
		return false
	}
	for _, f := range entries {
		path := filepath.Join(dir, f.Name())
		if f.IsDir() {
			if !s.eachFile(path, yield) {
				return false
			}
		} else if !yield(path, nil) {
			return false
		}
	}
	return true
}

// RecordLogs returns the names of all logs, sorted.
func (s *Store) RecordLogs() ([]string, error) {
	top := filepath.Join(s.dir, "records")
	var logs []string
	for path, err := range s.files(top) {
		if err != nil {
			return nil, fmt.Errorf("listing records: %w", err)
		}
		if name, ok := strings.CutSuffix(strings.TrimPrefix(path, top+string(filepath.Separator)), recordExt); ok {
			logs = append(logs, filepath.ToSlash(name))
		}
	}
	slices.Sort(logs)
	return logs, nil
}
