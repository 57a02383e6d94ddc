package testenv

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The faults that tests name. All of them are in the table below.
const (
	NotFound    Fault = "404"
	Gone        Fault = "410"
	Forbidden   Fault = "403"
	TooMany     Fault = "429"
	Internal    Fault = "500"
	Unavailable Fault = "503"

	Truncate Fault = "truncate"
	Corrupt  Fault = "corrupt"
	Tail     Fault = "tail"
	Lie      Fault = "lie"
	Slow     Fault = "slow"
	Hang     Fault = "hang"
	Stall    Fault = "stall"
	Flip     Fault = "flip"
	NoETag   Fault = "noetag"
	Dated    Fault = "dated"
	Coarse   Fault = "coarse"
	Chunked  Fault = "chunked"
	Redirect Fault = "redirect"
	Portal   Fault = "portal"
	Huge     Fault = "huge"
	Empty    Fault = "empty"
)

const (
	hugeSize   = 300 << 20
	portalPage = "<!DOCTYPE html>\n<html><head><title>Welcome to Hotel Example</title></head>" +
		"<body><form action=\"/login\">Please accept our terms.</form></body></html>\n"
	padding = "X-Padding: 0123456789abcdef\n"
)

// A trick is how one fault is done. x is the right answer, not written yet.
type trick struct {
	name Fault
	harm Harm
	does string
	do   func(x *exchange)
}

// tricks are all faults, one a line where that is possible.
var tricks = slices.Concat(statuses, bodies, lengths, ranges, redirects, times, protocol, validators)

// status is a trick that answers with a number and a line of text.
func status(n int, harm Harm) trick {
	return trick{Fault(fmt.Sprint(n)), harm, fmt.Sprintf("%d and a line of text", n), func(x *exchange) { x.say(n); x.send() }}
}

var statuses = []trick{
	status(404, Absent), status(410, Absent),
	status(400, Broken), status(401, Broken), status(403, Broken), status(408, Broken), status(416, Broken), status(429, Broken),
	status(500, Broken), status(502, Broken), status(503, Broken), status(504, Broken), status(511, Broken),
	{"429-after", Broken, "429 with Retry-After: 1", func(x *exchange) { x.say(429); x.set("Retry-After", "1"); x.send() }},
	{"503-after", Broken, "503 with Retry-After: 1", func(x *exchange) { x.say(503); x.set("Retry-After", "1"); x.send() }},
	{"203", Broken, "203: somebody on the way changed it", func(x *exchange) { x.whole(); x.status = 203; x.send() }},
	{"204", Broken, "204, nothing to say", func(x *exchange) { x.say(204); x.del("Content-Length"); x.start(nil) }},
	{"205", Broken, "205 without a body", func(x *exchange) { x.say(205); x.length(0); x.start(nil) }},
	{"300", Broken, "300 with a list of choices", func(x *exchange) { x.say(300); x.send() }},
	{"304", Broken, "304, whatever was asked", func(x *exchange) { x.say(304); x.del("Content-Length"); x.start(nil) }},
	{"999", Broken, "a status that nobody knows", func(x *exchange) { x.say(999); x.send() }},
	{"101", Broken, "101, another protocol from here on", func(x *exchange) {
		x.say(101)
		x.header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"gopher"}}
		x.start([]byte("hello"))
	}},
}

var bodies = []trick{
	{"truncate", Broken, "half the body, then the connection is closed", func(x *exchange) { x.start(x.half()) }},
	{"truncate-first", Broken, "the head, then the connection is closed", func(x *exchange) { x.start(nil) }},
	{"truncate-last", Broken, "all but one byte, then the connection is closed", func(x *exchange) { x.start(x.body[:max(0, len(x.body)-1)]) }},
	{"truncate-reset", Broken, "half the body, then the connection is reset", func(x *exchange) { x.start(x.half()); x.reset() }},
	{"truncate-chunked", Broken, "half the body in chunks, no last chunk", func(x *exchange) { x.chunked(); x.chunk(x.half()) }},
	{"truncate-chunk", Broken, "the connection is closed in the middle of a chunk",
		func(x *exchange) { x.chunked(); x.write(fmt.Sprintf("%x\r\n%s", len(x.body), x.half())) }},
	{"truncate-open", Wrong, "half the body without a length, then the connection is closed",
		func(x *exchange) { x.del("Content-Length"); x.start(x.half()) }},
	{"truncate-closed", Wrong, "half the body, and a Content-Length that says so", func(x *exchange) { b := x.half(); x.length(len(b)); x.start(b) }},
	{"corrupt", Wrong, "a bit in the middle changed", func(x *exchange) { x.change(1, 2); x.send() }},
	{"corrupt-first", Wrong, "a bit of the first byte changed", func(x *exchange) { x.change(0, 1); x.send() }},
	{"tail", Wrong, "a bit of the very last byte changed", func(x *exchange) { x.change(1, 1); x.send() }},
	{"more", Wrong, "a byte too many, and a Content-Length that says so",
		func(x *exchange) { x.whole(); x.replace(append(x.body, 'x')); x.send() }},
	{"zeros", Wrong, "the right length, nothing but zeros", func(x *exchange) { clear(x.body); x.send() }},
	{"empty", Wrong, "200 and no body", func(x *exchange) { x.replace([]byte{}); x.send() }},
	{"portal", Wrong, "200 and somebody else's HTML, whatever was asked",
		func(x *exchange) {
			x.say(200)
			x.body = []byte(portalPage)
			x.length(len(x.body))
			x.set("Content-Type", "text/html; charset=utf-8")
			x.send()
		}},
	{"past", Past, "the file as it was before the last publishing", func(x *exchange) { x.answer(x.old); x.send() }},
	{"past-etag", Past, "the file as it was, under the ETag and date of now", func(x *exchange) {
		now := x.header.Clone()
		x.answer(x.old)
		x.set("ETag", now.Get("ETag"))
		x.set("Last-Modified", now.Get("Last-Modified"))
		x.send()
	}},
	{"other", Wrong, "what another repository has in its place", func(x *exchange) { x.answer(x.other); x.send() }},
	{"gzip", Broken, "Content-Encoding: gzip, which nobody asked for", func(x *exchange) {
		if packed, err := gzipped(x.body); err == nil {
			x.body = packed
		}
		x.set("Content-Encoding", "gzip")
		x.length(len(x.body))
		x.send()
	}},
	{"gzip-only", Broken, "Content-Encoding: gzip on a body that is not", func(x *exchange) { x.set("Content-Encoding", "gzip"); x.send() }},
	{"huge", Wrong, "300 MiB of text that begins like the file", func(x *exchange) {
		x.whole()
		x.length(hugeSize)
		x.start(x.body)
		filler := strings.Repeat(padding, 2048)
		for left := hugeSize - len(x.body); left > 0 && x.write(filler[:min(left, len(filler))]); {
			left -= len(filler)
		}
	}},
	{"endless", Broken, "a body of 5 GB that begins like the file", func(x *exchange) {
		x.length(5 << 30)
		x.start(x.body)
		x.flood(strings.Repeat(padding, 2048))
	}},
	{"endless-chunked", Broken, "a body without an end that begins like the file", func(x *exchange) {
		x.chunked()
		x.chunk(x.body)
		x.flood("e000\r\n" + strings.Repeat(padding, 2048) + "\r\n")
	}},
	{"flip", Odd, "the right answer, after which what was staged is published", func(x *exchange) { x.send() }},
}

var lengths = []trick{
	{"lie", Broken, "a Content-Length ten bytes too long, then the connection is closed", func(x *exchange) { x.length(len(x.body) + 10); x.send() }},
	{"length-short", Wrong, "a Content-Length ten bytes too short", func(x *exchange) { x.length(max(0, len(x.body)-10)); x.send() }},
	{"length-none", Odd, "no Content-Length; the connection closes behind the body", func(x *exchange) { x.del("Content-Length"); x.send() }},
	{"length-twice", Odd, "Content-Length twice, the same", func(x *exchange) {
		h := x.header
		h["Content-Length"] = slices.Repeat(h["Content-Length"], 2)
		x.send()
	}},
	{"length-two", Broken, "two Content-Lengths that differ", func(x *exchange) { x.length(len(x.body)); x.header.Add("Content-Length", "7"); x.send() }},
	{"length-minus", Broken, "a Content-Length below zero", func(x *exchange) { x.length(-1); x.send() }},
	{"length-word", Broken, "a Content-Length that is no number", func(x *exchange) { x.set("Content-Length", "many"); x.send() }},
	{"chunked", Odd, "no Content-Length, no ranges", func(x *exchange) {
		x.whole()
		x.chunked()
		for piece := range slices.Chunk(x.body, max(1, (len(x.body)+19)/20)) {
			x.chunk(piece)
		}
		x.chunk(nil)
	}},
	{"chunked-length", Odd, "chunks, and a Content-Length beside", func(x *exchange) {
		x.set("Transfer-Encoding", "chunked")
		x.start(nil)
		x.chunk(x.body)
		x.chunk(nil)
	}},
	{"chunk-bad", Broken, "chunks whose size is no number", func(x *exchange) { x.chunked(); x.write("many\r\n" + string(x.body)) }},
	{"chunk-huge", Broken, "a chunk of more bytes than there are numbers for", func(x *exchange) { x.chunked(); x.write("fffffffffffffffff\r\n" + string(x.body)) }},
	{"chunk-comment", Broken, "chunk extensions without an end", func(x *exchange) { x.chunked(); x.write("5;"); x.flood(strings.Repeat("x", 4096)) }},
	{"trailer", Odd, "a trailer behind the last chunk", func(x *exchange) {
		x.set("Trailer", "X-Sum")
		x.chunked()
		x.chunk(x.body)
		x.write("0\r\nX-Sum: 1\r\n\r\n")
	}},
	{"coding", Broken, "a transfer coding that nobody knows", func(x *exchange) { x.set("Transfer-Encoding", "squeeze"); x.send() }},
}

// The faults of answers to ranges; what was asked for as a whole gets the
// right answer, except from range-unasked.
var ranges = []trick{
	{"range-ignored", Odd, "200 and the whole file to a request for a part", func(x *exchange) { x.whole(); x.send() }},
	{"range-unasked", Broken, "206 to a request without a range", func(x *exchange) {
		x.set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(x.body)-1, len(x.body)))
		x.status = 206
		x.send()
	}},
	{"range-from", Broken, "206 that begins at another byte", func(x *exchange) { x.part("bytes 1-%d/%d", len(x.body), len(x.file.Content)) }},
	{"range-total", Broken, "206 of a file that is ten bytes longer", func(x *exchange) {
		n := len(x.file.Content)
		x.part("bytes %d-%d/%d", n-len(x.body), n-1, n+10)
	}},
	{"range-short", Broken, "206 that ends in the middle", func(x *exchange) {
		n := len(x.file.Content)
		from := n - len(x.body)
		x.body = x.half()
		x.part("bytes %d-%d/%d", from, from+len(x.body)-1, n)
	}},
	{"range-none", Broken, "206 without Content-Range", func(x *exchange) {
		if x.status == 206 {
			x.del("Content-Range")
		}
		x.send()
	}},
	{"range-past", Past, "206 of the file as it was, with its ETag, whatever If-Range says", func(x *exchange) {
		x.req.Header.Del("If-Range")
		if x.status == 206 || x.req.Header.Get("Range") != "" {
			x.answer(x.old)
		}
		x.send()
	}},
	{"range-parts", Broken, "multipart/byteranges for one range", func(x *exchange) {
		if x.status == 206 {
			x.body = fmt.Appendf(nil, "\r\n--b\r\nContent-Range: %s\r\n\r\n%s\r\n--b--\r\n", x.header.Get("Content-Range"), x.body)
			x.set("Content-Type", "multipart/byteranges; boundary=b")
			x.del("Content-Range")
			x.length(len(x.body))
		}
		x.send()
	}},
	{"range-shifted", Wrong, "206 that is the wrong part under the right numbers", func(x *exchange) {
		if x.status == 206 {
			copy(x.body, x.file.Content)
		}
		x.send()
	}},
}

// part sends a 206 with that Content-Range, and what is no 206 as it is.
func (x *exchange) part(format string, a ...any) {
	if x.status == http.StatusPartialContent {
		x.set("Content-Range", fmt.Sprintf(format, a...))
		x.length(len(x.body))
	}
	x.send()
}

var redirects = []trick{
	{"redirect", Odd, "302 to the same path without the fault", func(x *exchange) {
		at, ok := strings.CutPrefix(x.req.URL.EscapedPath(), "/redirect/")
		if !ok {
			at = "range-ignored" + x.req.URL.EscapedPath()
		}
		x.to("/" + at)
		x.send()
	}},
	{"redirect-loop", Broken, "302 to where it came from", func(x *exchange) { x.to(x.req.URL.Path); x.send() }},
	{"redirect-on", Broken, "302 to ever new places", func(x *exchange) { x.to(x.req.URL.Path + "?" + x.req.URL.RawQuery + "x"); x.send() }},
	{"redirect-other", Wrong, "302 to another repository's file", func(x *exchange) {
		_, below, _ := strings.Cut(x.req.URL.Path[1:], "/")
		x.to("/elsewhere/" + below)
		x.send()
	}},
	{"redirect-login", Wrong, "302 to a login page", func(x *exchange) {
		x.to("/portal/login")
		x.send()
	}},
	{"redirect-private", Broken, "302 to the right file at an address where nobody may be sent to", func(x *exchange) {
		if host, port, _ := strings.Cut(x.req.Host, ":"); host != "localhost" {
			x.to("http://localhost:" + port + x.req.URL.Path)
		}
		x.send()
	}},
	{"redirect-ftp", Broken, "302 to another protocol", func(x *exchange) { x.to("ftp://mirror.example.org" + x.req.URL.Path); x.send() }},
	{"redirect-down", Broken, "302 from https to http", func(x *exchange) { x.to("http://" + x.req.Host + x.req.URL.Path); x.send() }},
	{"redirect-nowhere", Broken, "302 without Location", func(x *exchange) { x.say(302); x.send() }},
	{"redirect-garbage", Broken, "302 to what is no URL", func(x *exchange) { x.to("http://%zz/"); x.send() }},
}

var times = []trick{
	{"hang", Broken, "no answer until the client gives up", func(x *exchange) { x.held(nil) }},
	{"hang-head", Broken, "half the head, and no more", func(x *exchange) { h := x.head(); x.write(h[:len(h)/2]); x.held(nil) }},
	{"hang-body", Broken, "half the body, and no more", func(x *exchange) { x.start(x.half()); x.held(nil) }},
	{"hang-end", Broken, "all chunks but the last, and no more", func(x *exchange) { x.chunked(); x.chunk(x.body); x.held(nil) }},
	{"stall", Broken, "half the body, the rest after Release", func(x *exchange) {
		x.whole()
		x.start(x.half())
		if x.held(x.released) {
			x.write(string(x.body[len(x.half()):]))
		}
	}},
	{"slow", Broken, "twenty pieces, 50 ms apart", func(x *exchange) {
		x.start(nil)
		for piece := range slices.Chunk(x.body, max(1, (len(x.body)+19)/20)) {
			if !x.write(string(piece)) {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}},
	{"drip", Broken, "fifty bytes of body a second", func(x *exchange) { x.start(nil); x.drip(string(x.body)) }},
	{"drip-head", Broken, "fifty bytes of head a second, without an end", func(x *exchange) { x.write("HTTP/1.1 200 OK\r\nX: "); x.drip(strings.Repeat("x", 1<<20)) }},
}

var protocol = []trick{
	{"close", Broken, "the connection is closed without an answer", func(*exchange) {}},
	{"reset", Broken, "the connection is reset without an answer", func(x *exchange) { x.reset() }},
	{"reset-head", Broken, "half the head, then the connection is reset", func(x *exchange) { h := x.head(); x.write(h[:len(h)/2]); x.reset() }},
	{"garbage", Broken, "what is not HTTP", func(x *exchange) { x.write("SSH-2.0-OpenSSH_10.0\r\n") }},
	{"binary", Broken, "bytes that are not even text", func(x *exchange) { x.write("\x15\x03\x03\x00\x02\x02\x46\x00\xff\n\n") }},
	{"http09", Broken, "the body without a head", func(x *exchange) { x.write(string(x.body)) }},
	{"http10", Odd, "HTTP/1.0 without a length", func(x *exchange) { x.whole(); x.proto = "HTTP/1.0"; x.del("Content-Length"); x.send() }},
	{"http99", Broken, "a version of HTTP that is not", func(x *exchange) { x.proto = "HTTP/9.9.9"; x.send() }},
	{"status-word", Broken, "a status that is no number", func(x *exchange) { x.write("HTTP/1.1 OK OK\r\n\r\n" + string(x.body)) }},
	{"field-bad", Broken, "a field without a colon", func(x *exchange) { h := x.head(); x.write(h[:len(h)-2] + "X Y Z\r\n\r\n" + string(x.body)) }},
	{"field-nul", Broken, "a field name with a NUL", func(x *exchange) { h := x.head(); x.write(h[:len(h)-2] + "X\x00Y: z\r\n\r\n" + string(x.body)) }},
	{"head-huge", Broken, "a field of 10 MB", func(x *exchange) {
		h := x.head()
		x.write(h[:len(h)-2] + "X: " + strings.Repeat("x", 10<<20) + "\r\n\r\n" + string(x.body))
	}},
	{"head-endless", Broken, "fields without an end", func(x *exchange) { x.write("HTTP/1.1 200 OK\r\n"); x.flood(strings.Repeat("X-Y: z\r\n", 512)) }},
	{"continue", Odd, "three 100s before the answer", func(x *exchange) { x.write(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 3)); x.send() }},
	{"continue-flood", Broken, "100s without an end", func(x *exchange) { x.flood(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100)) }},
	{"hints", Odd, "103 before the answer", func(x *exchange) { x.write("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"); x.send() }},
	{"second", Odd, "the answer, and another one that nobody asked for", func(x *exchange) { x.send(); x.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil") }},
}

var validators = []trick{
	{"noetag", Odd, "no ETag, no Last-Modified, never 304", func(x *exchange) {
		x.file.tag, x.file.Modified = "none", time.Time{}
		x.answer(x.file)
		x.send()
	}},
	{"dated", Odd, "no ETag: whole seconds of Last-Modified are all there is", func(x *exchange) { x.file.tag = "none"; x.answer(x.file); x.send() }},
	{"coarse", Odd, "an ETag made of Last-Modified and length, as common web servers do", func(x *exchange) {
		x.file.tag = fmt.Sprintf(`"%x-%x"`, x.file.Modified.Unix(), len(x.file.Content))
		x.answer(x.file)
		x.send()
	}},
	{"unchanged", Past, "304 to every condition, though the file has changed", func(x *exchange) {
		if x.req.Header.Get("If-None-Match") != "" || x.req.Header.Get("If-Modified-Since") != "" {
			x.say(304)
			x.del("Content-Length")
			x.body = nil
		}
		x.send()
	}},
	{"etag-same", Odd, "one ETag for all bytes", func(x *exchange) { x.set("ETag", `"1"`); x.send() }},
	{"etag-weak", Odd, "a weak ETag", func(x *exchange) { x.set("ETag", "W/"+x.header.Get("ETag")); x.send() }},
	{"etag-bad", Odd, "an ETag without quotes, with spaces", func(x *exchange) { x.set("ETag", "not an etag"); x.send() }},
	{"modified-early", Odd, "Last-Modified in 1970", func(x *exchange) { x.set("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT"); x.send() }},
	{"modified-late", Odd, "Last-Modified in 2099", func(x *exchange) { x.set("Last-Modified", "Thu, 01 Jan 2099 00:00:00 GMT"); x.send() }},
	{"modified-bad", Odd, "Last-Modified that is no date", func(x *exchange) { x.set("Last-Modified", "yesterday"); x.send() }},
	{"date-late", Odd, "Date in 2099", func(x *exchange) { x.set("Date", "Thu, 01 Jan 2099 00:00:00 GMT"); x.send() }},
	{"type-wrong", Odd, "text/html for whatever it is", func(x *exchange) { x.set("Content-Type", "text/html"); x.send() }},
	{"cache-odd", Odd, "fields about caching that contradict each other", func(x *exchange) {
		x.set("Cache-Control", "no-store, private, max-age=31536000, immutable")
		x.set("Vary", "*")
		x.set("Age", "99999999")
		x.send()
	}},
}
