package fetch

import (
	"bufio"
	"bytes"
	"net/http"
	"path"
	"strings"
)

// notPages are the extensions of names under which nobody publishes web pages.
const notPages = ".deb .udeb .ddeb .dsc .rpm .drpm .whl .egg .jar .apk .gem .crate .gz .tgz .xz .txz .bz2 .zst .lz4 .7z .zip .tar .cpio " +
	".iso .img .raw .qcow2 .vmdk .ova .squashfs .efi .bin .exe .msi .dmg .asc .gpg .pgp .sig .key .pub .pem .crt .der " +
	".sha1 .sha256 .sha512 .md5 .json .yaml .yml .xml .txt .list .sources .repo .metadata .torrent .jigdo .zsync .patch .diff .changelog "

// Portal reports whether a web page came (200) in place of the file name: what
// a network answers that wants a login first, and some origins instead of 404.
// Of the body nothing is lost; it is looked at only if its type is a page's.
func (r *Response) Portal(name string) bool {
	kind, _, _ := strings.Cut(r.Type, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	ext := strings.ToLower(path.Ext(name))
	if r.Status != http.StatusOK || kind != "text/html" && kind != "application/xhtml+xml" || ext == "" || !strings.Contains(notPages, ext+" ") {
		return false
	}
	inner := r.Body
	begin := bufio.NewReader(inner)
	r.Body = &wrapBody{begin, inner.Close}
	if _, err := begin.Peek(1); err != nil {
		return false // the reader will see why
	}
	first, _ := begin.Peek(begin.Buffered())
	first = bytes.TrimLeft(first, "\xef\xbb\xbf \t\r\n")
	return len(first) == 0 || first[0] == '<'
}
