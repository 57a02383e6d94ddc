package testenv

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// The types of values in an rpm header.
const (
	rpmInt16  = 3
	rpmInt32  = 4
	rpmString = 6
	rpmBin    = 7
	rpmArray  = 8 // of strings
	rpmI18N   = 9
)

// rpmEntry is one tag of an rpm header with its value.
type rpmEntry struct {
	tag, kind, count int
	value            []byte
}

func rpmStrings(tag, kind int, s ...string) rpmEntry {
	return rpmEntry{tag, kind, len(s), []byte(strings.Join(s, "\x00") + "\x00")}
}

func rpmInts(tag int, n ...uint32) rpmEntry {
	var b []byte
	for _, v := range n {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return rpmEntry{tag, rpmInt32, len(n), b}
}

func rpmShorts(tag int, n ...uint16) rpmEntry {
	var b []byte
	for _, v := range n {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return rpmEntry{tag, rpmInt16, len(n), b}
}

// rpmHeader lays out a header whose immutable region, with the tag region,
// covers all of entries.
func rpmHeader(region int, entries []rpmEntry) []byte {
	slices.SortFunc(entries, func(a, b rpmEntry) int { return cmp.Compare(a.tag, b.tag) })
	var index, store []byte
	entry := func(tag, kind, offset, count int) {
		for _, v := range []int{tag, kind, offset, count} {
			index = binary.BigEndian.AppendUint32(index, uint32(int32(v)))
		}
	}
	var body []byte
	for _, e := range entries {
		align := map[int]int{rpmInt16: 2, rpmInt32: 4}[e.kind]
		for align > 0 && len(store)%align != 0 {
			store = append(store, 0)
		}
		entry(e.tag, e.kind, len(store), e.count)
		store = append(store, e.value...)
	}
	body, index = index, nil
	entry(region, rpmBin, len(store), 16)
	index = append(index, body...)
	// The region's trailer points back to the start of the index.
	for _, v := range []int{region, rpmBin, -len(index), 16} {
		store = binary.BigEndian.AppendUint32(store, uint32(int32(v)))
	}
	h := []byte{0x8e, 0xad, 0xe8, 0x01, 0, 0, 0, 0}
	h = binary.BigEndian.AppendUint32(h, uint32(len(index)/16))
	h = binary.BigEndian.AppendUint32(h, uint32(len(store)))
	return append(append(h, index...), store...)
}

// cpio packs one file in the "newc" form of cpio.
func cpio(name string, content []byte) []byte {
	var b bytes.Buffer
	member := func(name string, mode, nlink int, content []byte) {
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1, mode, 0, 0, nlink,
			packed.Unix(), len(content), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(content)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	member("./"+name, 0o100644, 1, content)
	member("TRAILER!!!", 0, 1, nil)
	return b.Bytes()
}

// release is the Release of every rpm made here.
const release = "1"

// RPMFile returns an .rpm (format 3) that rpm installs: one file of Size
// bytes in /usr/share/NAME. Its header and payload carry SHA-256 digests; it
// has no signature. headerStart and headerEnd are offsets in bytes, as
// primary.xml wants it.
func RPMFile(p Package) (file []byte, headerStart, headerEnd int, err error) {
	body := p.payload()
	plain := cpio(p.payloadPath(), body)
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.NoCompression)
	if err != nil {
		return nil, 0, 0, err
	}
	if _, err := z.Write(plain); err != nil {
		return nil, 0, 0, err
	}
	if err := z.Close(); err != nil {
		return nil, 0, 0, err
	}
	arch := cmp.Or(p.Arch, "noarch")
	evr := p.Version + "-" + release
	header := rpmHeader(63, rpmTags(p, arch, evr, body, zipped.Bytes()))
	md := md5.New()
	md.Write(header)
	md.Write(zipped.Bytes())
	signature := rpmHeader(62, []rpmEntry{
		rpmStrings(269, rpmString, fmt.Sprintf("%x", sha1.Sum(header))),
		rpmStrings(273, rpmString, sha256hex(header)),
		rpmInts(1000, uint32(len(header)+zipped.Len())),
		{1004, rpmBin, md5.Size, md.Sum(nil)},
		rpmInts(1007, uint32(len(plain))),
	})
	for len(signature)%8 != 0 {
		signature = append(signature, 0)
	}
	lead := make([]byte, 96)
	copy(lead, []byte{0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, 1})
	copy(lead[10:76], p.Name+"-"+evr)
	lead[77], lead[79] = 1, 5 // Linux, signature as a header
	headerStart = len(lead) + len(signature)
	file = slices.Concat(lead, signature, header, zipped.Bytes())
	return file, headerStart, headerStart + len(header), nil
}

func rpmTags(p Package, arch, evr string, body, payload []byte) []rpmEntry {
	const lessEqual, equal, rpmlib = 0x0a, 0x08, 1 << 24
	requires := []string{"rpmlib(CompressedFileNames)", "rpmlib(FileDigests)", "rpmlib(PayloadFilesHavePrefix)"}
	versions := []string{"3.0.4-1", "4.6.0-1", "4.0-1"}
	flags := []uint32{lessEqual | rpmlib, lessEqual | rpmlib, lessEqual | rpmlib}
	for name := range strings.FieldsSeq(p.Depends) {
		requires, versions, flags = append(requires, name), append(versions, ""), append(flags, 0)
	}
	dir, base := "/usr/share/"+p.Name+"/", "payload"
	made := uint32(packed.Unix())
	return []rpmEntry{
		rpmStrings(100, rpmArray, "C"),
		rpmStrings(1000, rpmString, p.Name), rpmStrings(1001, rpmString, p.Version), rpmStrings(1002, rpmString, release),
		rpmStrings(1004, rpmI18N, p.Name+", made for a test"), rpmStrings(1005, rpmI18N, "Made for a test."),
		rpmInts(1006, made), rpmStrings(1007, rpmString, "build.example.org"), rpmInts(1009, uint32(len(body))),
		rpmStrings(1014, rpmString, "Apache-2.0"), rpmStrings(1016, rpmI18N, "Unspecified"),
		rpmStrings(1021, rpmString, "linux"), rpmStrings(1022, rpmString, arch),
		rpmInts(1028, uint32(len(body))), rpmShorts(1030, 0o100644), rpmShorts(1033, 0), rpmInts(1034, made),
		rpmStrings(1035, rpmArray, sha256hex(body)), rpmStrings(1036, rpmArray, ""), rpmInts(1037, 0),
		rpmStrings(1039, rpmArray, "root"), rpmStrings(1040, rpmArray, "root"),
		rpmStrings(1044, rpmString, p.Name+"-"+evr+".src.rpm"), rpmInts(1045, 0xffffffff),
		rpmStrings(1047, rpmArray, p.Name), rpmInts(1048, flags...),
		rpmStrings(1049, rpmArray, requires...), rpmStrings(1050, rpmArray, versions...),
		rpmInts(1095, 1), rpmInts(1096, 1), rpmStrings(1097, rpmArray, ""),
		rpmInts(1112, equal), rpmStrings(1113, rpmArray, evr),
		rpmInts(1116, 0), rpmStrings(1117, rpmArray, base), rpmStrings(1118, rpmArray, dir),
		rpmStrings(1124, rpmString, "cpio"), rpmStrings(1125, rpmString, "gzip"), rpmStrings(1126, rpmString, "9"),
		rpmInts(5011, 8), // the files' digests are SHA-256
		rpmStrings(5092, rpmArray, sha256hex(payload)), rpmInts(5093, 8),
	}
}
