//! How a request's end is told: lengths, codings, chunks, trailers, line ends.

use super::super::{Case, Check, Section, Step};
use super::{chunked, fence, get, post};

const LENGTH: &str = "RFC 9112 section 6.3";
const CODING: &str = "RFC 9112 section 6.1";
const CHUNK: &str = "RFC 9112 section 7.1";
const LINE: &str = "RFC 9112 section 2.2";
const FIELD: &str = "RFC 9112 section 5.1";
const FOLD: &str = "RFC 9112 section 5.2";
const VALUE: &str = "RFC 9110 section 5.5";
const TRAILER: &str = "RFC 9110 section 6.5";
const CUT: &str = "RFC 9112 section 8";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Length and coding of requests",
            about: "A request whose end two readers could see in two places never reaches a cell.",
            cases: lengths(),
        },
        Section {
            title: "Chunks of requests",
            about: "The head is in order, so it may reach the cell; the body must then be seen to be cut, and what \
                    follows it must not be read as a request.",
            cases: chunks(),
        },
        Section {
            title: "Trailers of requests",
            about: "Trailers arrive, but for those that frame, route, or say who somebody is.",
            cases: trailers(),
        },
        Section {
            title: "Lines and fields of requests",
            about: "Line ends, control characters, folds and blanks where some readers see one thing and some another.",
            cases: lines(),
        },
        Section {
            title: "Requests that end too early",
            about: "What is cut at the client is cut at the cell.",
            cases: cuts(),
        },
    ]
}

fn lengths() -> Vec<Case> {
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: HOST\r\n\r\n";
    vec![
        Case::refused("Content-Length, then Transfer-Encoding: chunked", CODING,
            post("content-length: 5\r\ntransfer-encoding: chunked\r\n", smuggled)).repairable(),
        Case::refused("Transfer-Encoding: chunked, then Content-Length", CODING,
            post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", smuggled)).repairable(),
        Case::refused("Content-Length: 0 with chunked", CODING,
            post("content-length: 0\r\ntransfer-encoding: chunked\r\n", smuggled)).repairable(),
        Case::refused("a GET with both", CODING,
            get("content-length: 5\r\ntransfer-encoding: chunked\r\n")).repairable(),
        Case::refused("Content-Length with Transfer-Encoding: identity", CODING,
            post("content-length: 5\r\ntransfer-encoding: identity\r\n", "hello")),
        Case::refused("Content-Length with Transfer-Encoding: xchunked", CODING,
            post("content-length: 5\r\ntransfer-encoding: xchunked\r\n", "hello")).statuses(&[400, 501]),
        Case::refused("Content-Length with `Transfer-Encoding : chunked`", FIELD,
            post("content-length: 5\r\ntransfer-encoding : chunked\r\n", "0\r\n\r\n")),
        Case::refused("Content-Length with folded chunked", FOLD,
            post("content-length: 5\r\ntransfer-encoding:\r\n chunked\r\n", "0\r\n\r\n")).repairable(),
        Case::refused("Content-Length with `Transfer-Encoding: \\x0bchunked`", VALUE,
            post("content-length: 5\r\ntransfer-encoding: \x0bchunked\r\n", "0\r\n\r\n")),
        Case::refused("Content-Length with a bare LF before Transfer-Encoding", LINE,
            post("content-length: 5\r\nx: y\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")).repairable(),
        Case::refused("two unequal lengths", LENGTH,
            post("content-length: 5\r\ncontent-length: 6\r\n", "hello!")),
        Case::refused("two equal lengths", LENGTH,
            post("content-length: 5\r\ncontent-length: 5\r\n", "hello")).repairable(),
        Case::refused("`Content-Length: 5, 5`", LENGTH, post("content-length: 5, 5\r\n", "hello")).repairable(),
        Case::refused("`Content-Length: 5, 6`", LENGTH, post("content-length: 5, 6\r\n", "hello!")),
        Case::refused("`Content-Length: 5,`", LENGTH, post("content-length: 5,\r\n", "hello")),
        Case::refused("`Content-Length: +5`", LENGTH, post("content-length: +5\r\n", "hello")),
        Case::refused("`Content-Length: -5`", LENGTH, post("content-length: -5\r\n", "hello")),
        Case::refused("`Content-Length: 0x5`", LENGTH, post("content-length: 0x5\r\n", "hello")),
        Case::refused("`Content-Length: 5.0`", LENGTH, post("content-length: 5.0\r\n", "hello")),
        Case::refused("`Content-Length: 5 5`", LENGTH, post("content-length: 5 5\r\n", "hello")),
        Case::refused("`Content-Length: \"5\"`", LENGTH, post("content-length: \"5\"\r\n", "hello")),
        Case::refused("an empty Content-Length", LENGTH, post("content-length:\r\n", "")),
        Case::refused("a length of 2^64", LENGTH, post("content-length: 18446744073709551616\r\n", "hello"))
            .statuses(&[400, 413]),
        Case::refused("a length of 2^64 + 5", LENGTH, post("content-length: 18446744073709551621\r\n", "hello"))
            .statuses(&[400, 413]),
        Case::refused("`Content-Length: 5` after a folded line", FOLD,
            post("x: y\r\n z\r\ncontent-length: 5\r\n", "hello")).repairable(),
        Case::holds("`Content-Length: 005`", LENGTH,
            vec![Step::Send([post("content-length: 005\r\n", "hello"), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("`Content-Length:\\t5 \\t`", VALUE,
            vec![Step::Send([post("content-length:\t5 \t\r\n", "hello"), fence()].concat())], vec![Check::NothingElse])
            .should(vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("`CONTENT-LENGTH: 5` on a GET", LENGTH,
            vec![Step::Send([get("CONTENT-LENGTH: 5\r\n"), b"hello".to_vec(), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("a POST without a length", LENGTH,
            vec![Step::Send([post("", ""), fence()].concat())],
            vec![Check::Body(0, Vec::new()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("`Transfer-Encoding: Chunked`", CODING,
            vec![Step::Send([post("Transfer-Encoding: Chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("a GET in chunks", CODING,
            vec![Step::Send([get("transfer-encoding: chunked\r\n"), b"5\r\nhello\r\n0\r\n\r\n".to_vec(), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::refused("Transfer-Encoding twice", CODING,
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("Transfer-Encoding: identity, then chunked on a second line", CODING,
            post("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: chunked, chunked`", CODING,
            post("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: chunked, gzip`", CODING,
            post("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: gzip, chunked`", CODING,
            post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: gzip`", CODING,
            post("transfer-encoding: gzip\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: identity`", CODING,
            post("transfer-encoding: identity\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: xchunked`", CODING,
            post("transfer-encoding: xchunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: chunked;q=1`", CODING,
            post("transfer-encoding: chunked;q=1\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: \"chunked\"`", CODING,
            post("transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: ,chunked`", CODING,
            post("transfer-encoding: ,chunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]).repairable(),
        Case::refused("an empty Transfer-Encoding", CODING,
            post("transfer-encoding:\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: \\x0bchunked`", VALUE,
            post("transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding: chunked\\x0c`", VALUE,
            post("transfer-encoding: chunked\x0c\r\n", "0\r\n\r\n")).statuses(&[400, 501]),
        Case::refused("`Transfer-Encoding:` folded before chunked", FOLD,
            post("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n")).repairable(),
        Case::refused("`Transfer_Encoding: chunked` is no framing", FIELD,
            post("transfer_encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n")).acceptable(),
        Case::holds("`Transfer-Encoding:\\tchunked \\t`", VALUE,
            vec![Step::Send([post("transfer-encoding:\tchunked \t\r\n", "5\r\nhello\r\n0\r\n\r\n"), fence()].concat())], vec![Check::NothingElse])
            .should(vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::refused("chunked in HTTP/1.0", CODING,
            b"POST /x HTTP/1.0\r\nhost: HOST\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()).repairable(),
        Case::refused("chunked and a length in HTTP/1.0", CODING,
            b"POST /x HTTP/1.0\r\nhost: HOST\r\nconnection: keep-alive\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()).repairable(),
    ]
}

/// The head may reach the cell; the body must not end.
fn bad_chunk(name: &'static str, rest: &str) -> Case {
    Case::holds(
        name,
        CHUNK,
        vec![Step::Send([chunked(rest), fence()].concat())],
        vec![Check::NothingElse],
    )
    .should(vec![Check::RequestsAtMost(1), Check::BodyCut(0), Check::Status(0, &[400, 413]), Check::Answered(1)])
}

fn good_chunk(name: &'static str, rest: &str, body: &[u8]) -> Case {
    Case::holds(
        name,
        CHUNK,
        vec![Step::Send([chunked(rest), fence()].concat())],
        vec![
            Check::Body(0, body.to_vec()),
            Check::Line(1, "GET /end HTTP/1.1"),
            Check::Requests(2),
            Check::Answered(2),
        ],
    )
}

fn chunks() -> Vec<Case> {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000));
    vec![
        good_chunk("chunks of several sizes", "1\r\nh\r\n0a\r\nello, worl\r\n00001\r\nd\r\n0\r\n\r\n", b"hello, world"),
        good_chunk("a size in upper case", "A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        good_chunk("a last chunk of `000`", "5\r\nhello\r\n000\r\n\r\n", b"hello"),
        good_chunk("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", b"hello"),
        good_chunk("an extension with a quoted value", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", b"hello"),
        bad_chunk("a size of `+5`", "+5\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size of `-5`", "-5\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size of `0x5`", "0x5\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size of `5h`", "5h\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size of `5_`", "5_\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("no size", "\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("an extension without a size", ";a=b\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size with a number after it", "5 5\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a blank after the size", "5 \r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size of 2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a size of 2^63 + 5", "8000000000000005\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a line feed after the size", "5\nhello\r\n0\r\n\r\n"),
        bad_chunk("a carriage return after the size", "5\rhello\r\n0\r\n\r\n"),
        bad_chunk("a line feed in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        bad_chunk("a carriage return in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a line feed in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("CR LF in a quoted extension", "5;a=\"\r\nb\"\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("a NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        bad_chunk("an extension of 100,000 bytes", &long),
        bad_chunk("data longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        bad_chunk("no line end after data", "5\r\nhello0\r\n\r\n"),
        bad_chunk("a line feed after data", "5\r\nhello\n0\r\n\r\n"),
        bad_chunk("a carriage return after data", "5\r\nhello\r0\r\n\r\n"),
        bad_chunk("a line feed after the last chunk", "5\r\nhello\r\n0\n\r\n"),
        bad_chunk("line feeds at the end", "5\r\nhello\r\n0\r\n\n"),
    ]
}

fn trailers() -> Vec<Case> {
    let with = |name, announced: &str, lines: &str, should: Vec<Check>| {
        let head = format!("{announced}transfer-encoding: chunked\r\n");
        let bytes = post(&head, &format!("5\r\nhello\r\n0\r\n{lines}\r\n"));
        let whole = vec![Check::Body(0, b"hello".to_vec()), Check::Requests(2), Check::Answered(2)];
        Case::holds(name, TRAILER, vec![Step::Send([bytes, fence()].concat())], whole).should(should)
    };
    let never = |name, field: &'static str, value| {
        let lines = format!("{field}: {value}\r\n");
        with(name, &format!("trailer: {field}\r\n"), &lines, vec![Check::NoTrailer(0, field)])
    };
    vec![
        with("a trailer that Trailer announces", "trailer: x-sum\r\n", "x-sum: 1\r\n", vec![Check::Trailer(0, "x-sum")]),
        with("two trailers that Trailer announces", "trailer: X-Sum, x-more\r\n", "x-sum: 1\r\nX-More:\r\n",
            vec![Check::Trailer(0, "x-sum"), Check::Trailer(0, "x-more")]),
        with("a trailer that nothing announces", "", "x-sum: 1\r\n", vec![Check::Trailer(0, "x-sum")]),
        never("Content-Length in trailers", "content-length", "7"),
        never("Transfer-Encoding in trailers", "transfer-encoding", "chunked"),
        never("Host in trailers", "host", "elsewhere.example.com"),
        never("Connection in trailers", "connection", "close"),
        never("X-Forwarded-For in trailers", "x-forwarded-for", "192.0.2.1"),
        never("Authorization in trailers", "authorization", "Basic x"),
        never("Cookie in trailers", "cookie", "a=b"),
        never("Set-Cookie in trailers", "set-cookie", "a=b"),
        never("Content-Encoding in trailers", "content-encoding", "gzip"),
        never("Expect in trailers", "expect", "100-continue"),
        never("fly-replay-src in trailers", "fly-replay-src", "instance=1"),
        never("cell-name in trailers", "cell-name", "bob"),
        bad_chunk("a trailer without a colon", "0\r\nx-sum\r\n\r\n"),
        bad_chunk("a trailer with a blank before its colon", "0\r\nx-sum : 1\r\n\r\n"),
        bad_chunk("a folded trailer", "0\r\nx-sum: 1\r\n 2\r\n\r\n"),
        bad_chunk("a line feed in trailers", "0\r\nx-sum: 1\nx-more: 2\r\n\r\n"),
        bad_chunk("trailers of 1,000,000 bytes", &format!("0\r\n{}\r\n", format!("x: {}\r\n", "y".repeat(997)).repeat(1000))),
    ]
}

fn lines() -> Vec<Case> {
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        Case::refused("LF for every line end", LINE, raw(b"GET /x HTTP/1.1\nhost: HOST\n\n")).repairable(),
        Case::refused("LF after the request line", LINE, raw(b"GET /x HTTP/1.1\nhost: HOST\r\n\r\n")).repairable(),
        Case::refused("LF after a field", LINE, get("a: b\nc: d\r\n")).repairable(),
        Case::refused("LF for the empty line", LINE, raw(b"GET /x HTTP/1.1\r\nhost: HOST\r\n\n")).repairable(),
        Case::refused("CR for a line end", LINE, raw(b"GET /x HTTP/1.1\rhost: HOST\r\r")),
        Case::refused("a bare CR in a value", LINE, get("a: b\rc: d\r\n")),
        Case::refused("a bare CR at a value's end", LINE, get("a: b\r\r\n")).repairable(),
        Case::refused("a bare CR in a name", LINE, get("a\rb: c\r\n")),
        Case::refused("a bare CR in the request line", LINE, raw(b"GET /x\r HTTP/1.1\r\nhost: HOST\r\n\r\n")),
        Case::refused("LF CR for a line end", LINE, get("a: b\n\rc: d\r\n")),
        Case::refused("a NUL in a value", VALUE, get("a: b\0c\r\n")),
        Case::refused("a NUL in a name", VALUE, get("a\0: b\r\n")),
        Case::refused("a NUL in the target", VALUE, raw(b"GET /x\0y HTTP/1.1\r\nhost: HOST\r\n\r\n")),
        Case::refused("ESC in a value", VALUE, get("a: b\x1bc\r\n")).repairable(),
        Case::refused("DEL in a value", VALUE, get("a: b\x7fc\r\n")).repairable(),
        Case::refused("VT in a value", VALUE, get("a: b\x0bc\r\n")).repairable(),
        Case::refused("a byte over 127 in a name", FIELD, raw(b"GET /x HTTP/1.1\r\nhost: HOST\r\na\xff: b\r\n\r\n")).repairable(),
        Case::refused("a space before the colon", FIELD, get("a : b\r\n")),
        Case::refused("a tab before the colon", FIELD, get("a\t: b\r\n")),
        Case::refused("`Host : name`", FIELD, raw(b"GET /x HTTP/1.1\r\nhost : HOST\r\n\r\n")),
        Case::refused("`Content-Length : 5`", FIELD, post("content-length : 5\r\n", "hello")),
        Case::refused("a space in a name", FIELD, get("a b: c\r\n")),
        Case::refused("no name", FIELD, get(": b\r\n")).repairable(),
        Case::refused("no colon", FIELD, get("ab\r\n")).repairable(),
        Case::refused("a name in parentheses", FIELD, get("(a): b\r\n")).repairable(),
        Case::refused("a space before the first field", LINE, raw(b"GET /x HTTP/1.1\r\n host: HOST\r\n\r\n")),
        Case::refused("a blank line of a space before the first field", LINE, raw(b"GET /x HTTP/1.1\r\n \r\nhost: HOST\r\n\r\n")),
        Case::refused("a field folded with a space", FOLD, get("a: b\r\n c\r\n")).repairable(),
        Case::refused("a field folded with a tab", FOLD, get("a: b\r\n\tc\r\n")).repairable(),
        Case::refused("a fold that looks like a field", FOLD, get("a: b\r\n content-length: 5\r\n")).repairable(),
        Case::refused("Host folded", FOLD, raw(b"GET /x HTTP/1.1\r\nhost:\r\n HOST\r\n\r\n")).repairable(),
        Case::refused("a space before the method", LINE, raw(b" GET /x HTTP/1.1\r\nhost: HOST\r\n\r\n")),
        Case::holds("an empty line before the request", LINE,
            vec![Step::Send([raw(b"\r\n"), get(""), fence()].concat())],
            vec![Check::Line(0, "GET /x HTTP/1.1"), Check::Requests(2), Check::Answered(2)]),
        Case::holds("an empty line between two requests", LINE,
            vec![Step::Send([post("content-length: 5\r\n", "hello\r\n"), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::refused("a TLS hello", "RFC 9112 section 3", raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")),
    ]
}

/// What is sent of a request before the client's side ends.
fn cut(name: &'static str, bytes: Vec<u8>) -> Case {
    Case::holds(
        name,
        CUT,
        vec![Step::Send(bytes), Step::Finish],
        vec![Check::RequestsAtMost(1), Check::BodyCut(0), Check::Ends],
    )
}

fn cuts() -> Vec<Case> {
    let nothing = |case: Case| Case {
        right: super::super::Right::Holds {
            must: vec![Check::Requests(0), Check::Ends],
            should: vec![],
        },
        ..case
    };
    vec![
        nothing(cut("half a request line", b"GET /x HT".to_vec())),
        nothing(cut("a request line", b"GET /x HTTP/1.1\r\n".to_vec())),
        nothing(cut("half a field", b"GET /x HTTP/1.1\r\nhost: HOST".to_vec())),
        nothing(cut("a head without its empty line", b"GET /x HTTP/1.1\r\nhost: HOST\r\n".to_vec())),
        nothing(cut("a head with half its empty line", b"GET /x HTTP/1.1\r\nhost: HOST\r\n\r".to_vec())),
        cut("a head, and nothing of five bytes", post("content-length: 5\r\n", "")),
        cut("four of five bytes", post("content-length: 5\r\n", "hell")),
        cut("nothing of chunks", chunked("")),
        cut("half a size", chunked("5")),
        cut("a size of 2^32 + 5 that does not come", chunked("100000005\r\nhello\r\n0\r\n\r\n")),
        cut("half a chunk", chunked("5\r\nhel")),
        cut("a chunk without its line end", chunked("5\r\nhello")),
        cut("a chunk, and no last one", chunked("5\r\nhello\r\n")),
        cut("half a last chunk", chunked("5\r\nhello\r\n0\r\n")),
        cut("half a trailer", chunked("5\r\nhello\r\n0\r\nx-sum: 1")),
        cut("a trailer without its empty line", chunked("5\r\nhello\r\n0\r\nx-sum: 1\r\n")),
    ]
}
