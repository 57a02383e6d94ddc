package catalog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// What follows is the layout of a bbolt file, version 2: pages with a header
// (id u64, kind u16, count u16, overflow u32), of which the first two are meta
// pages that take turns. Numbers are little-endian on all machines that Chantal
// runs on.
const (
	pageHeader   = 16
	pageElement  = 16 // branch: pos u32, keys u32, page u64; leaf: flags, pos, keys, values u32
	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketValue  = 0x01 // flag of a leaf element

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	metaSize    = 56 // without the checksum
	noFreelist  = ^uint64(0)
)

var order = binary.LittleEndian

// pageWalk visits every page that a database uses, each once.
type pageWalk struct {
	file io.ReaderAt
	size int64 // of a page
	end  uint64
	seen map[uint64]bool
}

// soundPages returns what is wrong with how the pages of a database hang
// together; size is that of the file. bbolt believes its pages: with a wrong
// pointer it goes in circles, writes over what it needs, or ends the process
// from a goroutine of its own. So the file is looked at before bbolt sees it.
// What is in the rows is not looked at.
func soundPages(file io.ReaderAt, size int64) error {
	meta, err := newestMeta(file)
	if err != nil {
		return err
	}
	w := &pageWalk{file: file, size: int64(order.Uint32(meta[8:])), end: order.Uint64(meta[40:]), seen: map[uint64]bool{}}
	if w.end > uint64(size/w.size) {
		return fmt.Errorf("%d pages are missing at its end", w.end-uint64(size/w.size))
	}
	if err := w.tree(order.Uint64(meta[16:])); err != nil {
		return err
	}
	return w.freelist(order.Uint64(meta[32:]))
}

// newestMeta returns the meta page that is in force, without its header.
func newestMeta(file io.ReaderAt) (newest []byte, err error) {
	// The second one is a page behind the first, which may not tell the size.
	for _, at := range []int64{0, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		page := make([]byte, pageHeader+metaSize+8)
		if _, err := file.ReadAt(page, at); err != nil && err != io.EOF {
			return nil, err
		}
		m := page[pageHeader:]
		h := fnv.New64a()
		h.Write(m[:metaSize])
		size := int64(order.Uint32(m[8:]))
		switch {
		case order.Uint32(m) != boltMagic || order.Uint32(m[4:]) != boltVersion || order.Uint64(m[metaSize:]) != h.Sum64():
		case size < 1<<10 || at != 0 && at != size:
		case newest == nil || order.Uint64(m[48:]) > order.Uint64(newest[48:]):
			newest = m
		}
	}
	if newest == nil {
		return nil, errors.New("it is no database")
	}
	return newest, nil
}

// page returns a page with those that belong to it, which must not have been
// visited.
func (w *pageWalk) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.end {
		return nil, fmt.Errorf("there is no page %d", id)
	}
	header := make([]byte, pageHeader)
	if _, err := w.file.ReadAt(header, int64(id)*w.size); err != nil {
		return nil, err
	}
	more := uint64(order.Uint32(header[12:]))
	if order.Uint64(header) != id || more >= w.end-id {
		return nil, fmt.Errorf("page %d is another one", id)
	}
	for i := id; i <= id+more; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	page := make([]byte, (int64(more)+1)*w.size)
	_, err := w.file.ReadAt(page, int64(id)*w.size)
	return page, err
}

// tree visits the pages of a bucket, and of the buckets in it.
func (w *pageWalk) tree(id uint64) error {
	page, err := w.page(id)
	if err != nil {
		return err
	}
	kind, count := order.Uint16(page[8:]), int(order.Uint16(page[10:]))
	if kind != branchPage && kind != leafPage || pageHeader+count*pageElement > len(page) || kind == branchPage && count == 0 {
		return fmt.Errorf("page %d is none of a tree", id)
	}
	for i := range count {
		at := pageHeader + i*pageElement
		e := page[at : at+pageElement]
		if kind == branchPage {
			if uint64(at)+uint64(order.Uint32(e))+uint64(order.Uint32(e[4:])) > uint64(len(page)) {
				return fmt.Errorf("page %d has a key beyond its end", id)
			}
			if err := w.tree(order.Uint64(e[8:])); err != nil {
				return err
			}
			continue
		}
		value := uint64(at) + uint64(order.Uint32(e[4:])) + uint64(order.Uint32(e[8:]))
		if value+uint64(order.Uint32(e[12:])) > uint64(len(page)) {
			return fmt.Errorf("page %d has a row beyond its end", id)
		}
		if order.Uint32(e)&bucketValue == 0 {
			continue
		}
		if order.Uint32(e[12:]) < 16 {
			return fmt.Errorf("page %d has a bucket without a root", id)
		}
		if root := order.Uint64(page[value:]); root != 0 { // 0: the bucket is small and in the value
			if err := w.tree(root); err != nil {
				return err
			}
		}
	}
	return nil
}

// freelist checks that no page counts as free that is in use.
func (w *pageWalk) freelist(id uint64) error {
	if id == noFreelist {
		return errors.New("it has no list of free pages")
	}
	page, err := w.page(id)
	if err != nil {
		return err
	}
	count, ids := uint64(order.Uint16(page[10:])), page[pageHeader:]
	if count == 0xFFFF {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if order.Uint16(page[8:]) != freelistPage || count > uint64(len(ids)/8) {
		return fmt.Errorf("page %d is no list of free pages", id)
	}
	free := make(map[uint64]bool, count)
	for i := range count {
		p := order.Uint64(ids[8*i:])
		if p < 2 || p >= w.end || w.seen[p] || free[p] {
			return fmt.Errorf("page %d is not free", p)
		}
		free[p] = true
	}
	// A page that is neither used nor free is lost to nobody but the disk.
	return nil
}
