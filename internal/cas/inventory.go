package cas

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"chantal"
)

// inventoryName is the file that lists every blob that has been stored, one a
// line: without it nobody could tell a blob that is gone from one that never
// was. It is not synced, and what it lacks is added by Lost.
const (
	inventoryName = "stored"
	inventoryLine = 2*32 + 1 // bytes
)

type inventory struct {
	mu    sync.Mutex
	whole bool // the file is known to end with a whole line
}

// note adds what is durable now to the inventory. Failing costs nothing but
// the knowledge, until the next Lost.
func (s *Store) note(stored []chantal.Digest) {
	if len(stored) == 0 {
		return
	}
	s.inventory.mu.Lock()
	defer s.inventory.mu.Unlock()
	path := filepath.Join(s.dir, inventoryName)
	f, err := s.disk.Append(path, 0o644)
	if err == nil && !s.inventory.whole {
		var fi fs.FileInfo
		if fi, err = s.disk.Stat(path); err == nil && fi.Size()%inventoryLine != 0 {
			err = f.Truncate(fi.Size() - fi.Size()%inventoryLine)
		}
	}
	if err == nil {
		lines := make([]byte, 0, len(stored)*inventoryLine)
		for _, d := range stored {
			lines = append(append(lines, d.Hex()...), '\n')
		}
		_, err = f.Write(lines)
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	s.inventory.whole = err == nil
	if err != nil {
		s.log.Debug("noting what is stored", "error", err)
	}
}

// unlist takes blobs out of the inventory, durably: they may go. It returns by
// how many bytes the file is shorter; with really unset nothing is done.
func (s *Store) unlist(which func(sum) bool, really bool) (freed int64, err error) {
	s.inventory.mu.Lock()
	defer s.inventory.mu.Unlock()
	path := filepath.Join(s.dir, inventoryName)
	if freed, err = s.copyInventory(path, which, io.Discard); err != nil || freed == 0 || !really {
		return freed, err
	}
	temp := s.temp(filepath.Join(s.dir, "state")) // where leftovers are looked for
	out, err := s.disk.Create(temp, 0o644)
	if err == nil {
		w := bufio.NewWriterSize(out, 256<<10)
		_, err = s.copyInventory(path, which, w)
		err = errors.Join(err, w.Flush())
		if err == nil {
			err = out.Sync()
		}
		err = errors.Join(err, out.Close())
	}
	if err == nil {
		err = s.disk.Rename(temp, path)
	}
	if err == nil {
		s.inventory.whole = true
		err = s.disk.Sync(s.dir)
	}
	if err != nil {
		_ = s.disk.Remove(temp)
		return 0, fmt.Errorf("writing the list of what is stored: %w", cause(err))
	}
	return freed, nil
}

// EverStored returns those of some blobs that were stored once, or were set
// aside, and not freed since. Of blobs that are not there it says which are
// lost, in less memory than Lost takes.
func (s *Store) EverStored(some []chantal.Digest) (were []chantal.Digest, err error) {
	asked := make(map[sum]bool, len(some))
	for _, d := range some {
		if sum, ok := parseSum([]byte(d.Hex())); ok {
			asked[sum] = s.WasDamaged(d)
		}
	}
	s.inventory.mu.Lock()
	_, err = s.copyInventory(filepath.Join(s.dir, inventoryName), func(d sum) bool {
		if _, ok := asked[d]; ok {
			asked[d] = true
		}
		return false
	}, io.Discard)
	s.inventory.mu.Unlock()
	for d, was := range asked {
		if was {
			were = append(were, sumDigest(d))
		}
	}
	return were, err
}

// copyInventory writes the inventory to w without those lines that which names,
// and returns how many bytes these have.
func (s *Store) copyInventory(path string, which func(sum) bool, w io.Writer) (without int64, err error) {
	f, err := s.disk.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("reading the list of what was stored: %w", cause(err))
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes()
		if d, ok := parseSum(line); !ok || which(d) {
			without += int64(len(line)) + 1
			continue
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return 0, err
		}
	}
	return without, lines.Err()
}

// Lost returns the blobs that were stored once and are not there now; true for
// those that were set aside as damaged. It reads names only.
func (s *Store) Lost() (map[chantal.Digest]bool, error) {
	known := make(map[[32]byte]bool)
	list, err := s.disk.ReadFile(filepath.Join(s.dir, inventoryName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the list of what was stored: %w", cause(err))
	}
	for line := range bytes.Lines(list) {
		if sum, ok := parseSum(bytes.TrimSuffix(line, []byte("\n"))); ok {
			known[sum] = false
		}
	}
	for _, d := range s.SetAside() {
		if sum, ok := parseSum([]byte(d.Hex())); ok {
			known[sum] = true
		}
	}
	var unlisted []chantal.Digest
	for i := range 256 {
		files, err := s.disk.List(s.shard(i))
		if err != nil {
			return nil, fmt.Errorf("listing blobs: %w", err)
		}
		for _, f := range files {
			sum, ok := parseSum([]byte(f.Name()))
			if !ok {
				continue
			}
			if _, listed := known[sum]; !listed {
				unlisted = append(unlisted, sumDigest(sum))
			}
			delete(known, sum)
		}
	}
	s.note(unlisted)
	lost := make(map[chantal.Digest]bool, len(known))
	for sum, damaged := range known {
		d := sumDigest(sum)
		// It may have come, or gone, while the folders were read.
		if _, err := s.Find("", d); errors.Is(err, fs.ErrNotExist) {
			lost[d] = damaged
		}
	}
	return lost, nil
}

// OnceStored returns those of digests that were stored at some time, as far as
// the inventory knows: of a blob that a crash took with its line it does not.
// Unlike Lost it takes no memory for what it is not asked for.
func (s *Store) OnceStored(digests []chantal.Digest) (map[chantal.Digest]bool, error) {
	wanted := make(map[sum]chantal.Digest, len(digests))
	for _, d := range digests {
		if sum, ok := parseSum([]byte(d.Hex())); ok {
			wanted[sum] = d
		}
	}
	once := map[chantal.Digest]bool{}
	f, err := s.disk.Open(filepath.Join(s.dir, inventoryName))
	if errors.Is(err, fs.ErrNotExist) {
		return once, nil
	}
	if err == nil {
		defer f.Close()
		err = eachInventoryLine(f, func(line sum) {
			if d, ok := wanted[line]; ok {
				once[d] = true
			}
		})
	}
	if err != nil {
		return nil, fmt.Errorf("reading the list of what was stored: %w", cause(err))
	}
	return once, nil
}

// eachInventoryLine yields what an inventory lists. A torn last line is passed
// over.
func eachInventoryLine(r io.Reader, yield func(sum)) error {
	in := bufio.NewReaderSize(r, 256<<10)
	var line [inventoryLine]byte
	for {
		switch _, err := io.ReadFull(in, line[:]); {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil
		case err != nil:
			return err
		}
		if sum, ok := parseSum(line[:inventoryLine-1]); ok {
			yield(sum)
		}
	}
}

func parseSum(text []byte) (sum [32]byte, ok bool) {
	if len(text) != 2*len(sum) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], text)
	return sum, err == nil
}

func sumDigest(sum [32]byte) chantal.Digest {
	return chantal.Digest("sha256:" + hex.EncodeToString(sum[:]))
}
