//! HTTP/2 requests: heads, lengths, bodies, answers.

use super::super::{AUTHORITY, Case, Check, PREFACE, Section, Step, Turn};
use super::{answer, ok};
use crate::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::http2::{fields, frame, head, setting};

const MALFORMED: &str = "RFC 9113 section 8.1.1";
const FIELDS: &str = "RFC 9113 section 8.2.1";
const HOP: &str = "RFC 9113 section 8.2.2";
const PSEUDO: &str = "RFC 9113 section 8.3.1";
const FRAMING: &str = "RFC 9113 section 8.1";
const CUT: &str = "RFC 9113 section 8.1";
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const WINDOW: u16 = 4;
const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const CONTENT_LENGTH: &str = "content-length";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "HTTP/2: heads",
            about: "What HTTP/2 calls malformed never reaches a cell, least of all where HTTP/1.1 would read it as more \
                    than one line. A request that is in order follows on the same connection.",
            cases: heads(),
        },
        Section {
            title: "HTTP/2: lengths",
            about: "A length that disagrees with what comes is a cut body for the cell, and never a whole one.",
            cases: lengths(),
        },
        Section {
            title: "HTTP/2: what is in order",
            about: "What the cell gets of requests in HTTP/2, which it sees as HTTP/1.1.",
            cases: passed(),
        },
        Section {
            title: "HTTP/2: answers",
            about: "Answers in HTTP/1.1 become answers in HTTP/2: cut ones are reset, early ones whole.",
            cases: answers(),
        },
    ]
}

/// Opens a connection with a wide window.
pub(super) fn open(frames: &[Vec<u8>]) -> Vec<u8> {
    let wide = [setting(WINDOW, 1 << 30)].concat();
    let connection = frame(WINDOW_UPDATE, 0, 0, (1_u32 << 30).to_be_bytes());
    [PREFACE.to_vec(), frame(SETTINGS, 0, 0, wide), connection, frames.concat()].concat()
}

/// The pseudo-header fields of `METHOD /x`, then these lines.
fn lines<'a>(method: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[(":method", method), (":scheme", "http"), (":authority", AUTHORITY), (":path", "/x")][..], more].concat()
}

/// `GET /x` on the first stream with these lines.
fn get(more: &[(&str, &str)]) -> Vec<u8> {
    head(1, END_STREAM, &lines("GET", more))
}

/// The head of `POST /x` on the first stream with these lines.
fn post(more: &[(&str, &str)]) -> Vec<u8> {
    head(1, 0, &lines("POST", more))
}

fn data(flags: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, flags, 1, body)
}

/// `GET /end` on the second stream.
pub(super) fn fence() -> Vec<u8> {
    head(3, END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY), (":path", "/end")])
}

/// A request that is to be refused, and one that is in order after it.
fn refused(name: &'static str, source: &'static str, bytes: Vec<u8>) -> Case {
    Case { client: vec![Step::Send(open(&[bytes, fence()])), Step::Answers(2), Step::Leave], ..Case::refused(name, source, Vec::new()) }
}

/// As [`refused`]: `GET /x` with these lines after its pseudo-header fields.
fn with(name: &'static str, source: &'static str, more: &[(&str, &str)]) -> Case {
    refused(name, source, get(more))
}

/// As [`refused`]: these lines, and nothing else.
fn only(name: &'static str, more: &[(&str, &str)]) -> Case {
    refused(name, PSEUDO, head(1, END_STREAM, more))
}

fn heads() -> Vec<Case> {
    let path = |name, path: &str| only(name, &[(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY), (":path", path)]);
    let method = |name, method: &str| only(name, &lines(method, &[]));
    let authority = |name, authority: &str| only(name, &[(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/x")]);
    let scheme = |name, scheme: &str| only(name, &[(":method", "GET"), (":scheme", scheme), (":authority", AUTHORITY), (":path", "/x")]);
    vec![
        only("no :method", &[(":scheme", "http"), (":authority", AUTHORITY), (":path", "/x")]),
        only("no :scheme", &[(":method", "GET"), (":authority", AUTHORITY), (":path", "/x")]),
        only("no :path", &[(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY)]),
        only("neither :authority nor Host", &[(":method", "GET"), (":scheme", "http"), (":path", "/x")]).statuses(&[400, 404]),
        only("an empty :method", &[(":method", ""), (":scheme", "http"), (":authority", AUTHORITY), (":path", "/x")]),
        path("an empty :path", ""),
        scheme("an empty :scheme", ""),
        authority("an empty :authority", "").statuses(&[400, 404]),
        with(":method twice", PSEUDO, &[(":method", "GET")]),
        with(":scheme twice", PSEUDO, &[(":scheme", "http")]),
        with(":path twice", PSEUDO, &[(":path", "/y")]),
        with(":authority twice", PSEUDO, &[(":authority", "elsewhere.example.com")]),
        with("an unknown pseudo-header field", PSEUDO, &[(":x", "y")]),
        with(":status in a request", PSEUDO, &[(":status", "200")]),
        only("a pseudo-header field after a field", &[(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY), ("x", "y"), (":path", "/x")]).repairable(),
        path("a :path without a slash", "x"),
        path("a :path with a space", "/x y"),
        path("a :path with a request line in it", "/x HTTP/1.1\r\nhost: elsewhere\r\n\r\nGET /smuggled"),
        path("a :path with a line feed", "/x\ny"),
        path("a :path with a NUL", "/x\0y"),
        path("a :path with a fragment", "/x#y").repairable()
            .except("the library that reads targets cuts a fragment off: what is routed by is what the cell gets"),
        path("a :path of `*` with GET", "*").repairable(),
        path("a :path in absolute form", "http://elsewhere.example.com/x"),
        method("a :method with a space", "GET /smuggled"),
        method("a :method with CR LF", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
        method("a :method that is no token", "GE(T"),
        scheme("a :scheme that is no scheme", "ht tp"),
        scheme("a :scheme with a target in it", "http://elsewhere.example.com/?"),
        authority("an :authority with user information", "user@cNNN.example.com"),
        authority("an :authority with a path", "cNNN.example.com/y"),
        authority("an :authority with a port that is none", "cNNN.example.com:port").repairable(),
        authority("an :authority with CR LF", "cNNN.example.com\r\nx: y"),
        authority("an :authority with a space", "cNNN.example.com x"),
        with("Host that differs from :authority", PSEUDO, &[("host", "elsewhere.example.com")]).repairable(),
        with("two Hosts beside :authority", PSEUDO, &[("host", AUTHORITY), ("host", "elsewhere.example.com")]).repairable(),
        only("two Hosts and no :authority", &[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", AUTHORITY), ("host", "elsewhere.example.com")]).repairable(),
        refused("CONNECT", "RFC 9113 section 8.5", head(1, 0, &[(":method", "CONNECT"), (":authority", AUTHORITY)])).repairable().statuses(&[400, 404, 405, 501]),
        refused("CONNECT with a :path", "RFC 9113 section 8.5", head(1, END_STREAM, &lines("CONNECT", &[]))).statuses(&[400, 405, 501]),
        refused(":protocol that nobody offered", "RFC 8441 section 3", head(1, 0, &lines("CONNECT", &[(":protocol", "websocket")])))
            .statuses(&[400, 405, 501]).acceptable(),
        with("a name in upper case", FIELDS, &[("X-Upper", "y")]),
        with("an empty name", FIELDS, &[("", "y")]),
        with("a name with a space", FIELDS, &[("x y", "z")]),
        with("a name with a colon", FIELDS, &[("x:y", "z")]),
        with("a name with CR LF", FIELDS, &[("x: y\r\nz", "w")]),
        with("a name with a NUL", FIELDS, &[("x\0", "y")]),
        with("a value with CR LF", FIELDS, &[("x", "y\r\nsmuggled: z")]),
        with("a value with a whole request in it", FIELDS, &[("x", "y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: z")]),
        with("a value with a line feed", FIELDS, &[("x", "y\nz")]),
        with("a value with a carriage return", FIELDS, &[("x", "y\rz")]),
        with("a value with a NUL", FIELDS, &[("x", "y\0z")]),
        with("a blank before a value", FIELDS, &[("x", " y")]).repairable(),
        with("a blank after a value", FIELDS, &[("x", "y ")]).repairable(),
        with("`connection: close`", HOP, &[("connection", "close")]).repairable(),
        with("`connection: x-hop`", HOP, &[("connection", "x-hop"), ("x-hop", "1")]).repairable(),
        with("`keep-alive`", HOP, &[("keep-alive", "timeout=5")]).repairable(),
        with("`proxy-connection`", HOP, &[("proxy-connection", "keep-alive")]).repairable(),
        with("`upgrade: websocket`", HOP, &[("upgrade", "websocket")]).repairable(),
        refused("`transfer-encoding: chunked`", HOP,
            [post(&[("transfer-encoding", "chunked")]), data(END_STREAM, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: cNNN.example.com\r\n\r\n")].concat()).repairable(),
        refused("`transfer-encoding: chunked` with a length", HOP,
            [post(&[("transfer-encoding", "chunked"), (CONTENT_LENGTH, "5")]), data(END_STREAM, "hello")].concat()),
        with("`te: gzip`", HOP, &[("te", "gzip")]).repairable(),
    ]
}

fn lengths() -> Vec<Case> {
    let cut = |name, length: &str, body: &str| {
        let bytes = [post(&[(CONTENT_LENGTH, length)]), data(END_STREAM, body)].concat();
        Case::holds(name, MALFORMED, vec![Step::Send(open(&[bytes, fence()])), Step::Answers(2), Step::Leave],
            vec![Check::NothingElse, Check::BodyCutOf("/x")])
            .should(vec![Check::Refused(0)])
    };
    let bad = |name, length: &[(&str, &str)]| refused(name, MALFORMED, [post(length), data(END_STREAM, "hello")].concat());
    vec![
        cut("fewer bytes than the length", "9", "hello"),
        cut("more bytes than the length", "3", "hello"),
        cut("more bytes than the length, which look like a request", "5", "helloGET /smuggled HTTP/1.1\r\nhost: cNNN.example.com\r\n\r\n"),
        cut("a length of 0, and a body", "0", "GET /smuggled HTTP/1.1\r\nhost: cNNN.example.com\r\n\r\n"),
        refused("a length, and the head ends the stream", MALFORMED, head(1, END_STREAM, &lines("POST", &[(CONTENT_LENGTH, "5")]))).repairable(),
        bad("two unequal lengths", &[(CONTENT_LENGTH, "5"), (CONTENT_LENGTH, "6")]),
        bad("two equal lengths", &[(CONTENT_LENGTH, "5"), (CONTENT_LENGTH, "5")]).repairable(),
        bad("`content-length: 5, 6`", &[(CONTENT_LENGTH, "5, 6")]),
        bad("`content-length: +5`", &[(CONTENT_LENGTH, "+5")]),
        bad("`content-length: 5a`", &[(CONTENT_LENGTH, "5a")]),
        bad("an empty content-length", &[(CONTENT_LENGTH, "")]),
        bad("a length of 2^64 + 5", &[(CONTENT_LENGTH, "18446744073709551621")]).statuses(&[400, 413]),
        Case::holds("a trailer that is a pseudo-header field", FRAMING,
            vec![Step::Send(open(&[post(&[]), data(0, "hello"), head(1, END_STREAM, &[(":path", "/smuggled")]), fence()])), Step::Answers(2), Step::Leave],
            vec![Check::NothingElse]).should(vec![Check::BodyCutOf("/x"), Check::Refused(0)])
            .except("the library for HTTP/2 takes such fields out of trailers, and says nothing of it"),
        Case::holds("a trailer with CR LF", FIELDS,
            vec![Step::Send(open(&[post(&[]), data(0, "hello"), head(1, END_STREAM, &[("x", "y\r\n\r\nGET /smuggled HTTP/1.1")]), fence()])), Step::Answers(2), Step::Leave],
            vec![Check::NothingElse, Check::BodyCutOf("/x")]).should(vec![Check::Refused(0)]),
        Case::holds("trailers that do not end the stream", FRAMING,
            vec![Step::Send(open(&[post(&[]), data(0, "hello"), head(1, 0, &[("x-sum", "1")]), data(END_STREAM, "more"), fence()])), Step::Answers(2), Step::Leave],
            vec![Check::NothingElse, Check::BodyCutOf("/x")]).should(vec![Check::Refused(0)]),
    ]
}

/// A request of which `must` holds, with the usual one after it.
fn holds(name: &'static str, source: &'static str, bytes: Vec<u8>, must: Vec<Check>) -> Case {
    let all = [must, vec![Check::Requests(2), Check::Answered(2)]].concat();
    Case::holds(name, source, vec![Step::Send(open(&[bytes])), Step::Reached(1), Step::Send(fence()), Step::Answers(2), Step::Leave], all)
}

fn passed() -> Vec<Case> {
    let padded = frame(DATA, END_STREAM | 8, 1, b"\x03hello\0\0\0");
    let split = {
        let block = fields(&lines("GET", &[("x-a", "b")]));
        let (first, second) = block.split_at(block.len() / 2);
        [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat()
    };
    let upload = "x".repeat(15_000);
    vec![
        holds("GET", FRAMING, get(&[]), vec![Check::Line(0, "GET /x HTTP/1.1"), Check::Answer(0, b"ok".to_vec())]),
        holds("Host instead of :authority", PSEUDO,
            head(1, END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":path", "/x"), ("host", AUTHORITY)]),
            vec![Check::Line(0, "GET /x HTTP/1.1"), Check::Present(0, "host"), Check::Status(0, &[200])]),
        holds("Host equal to :authority", PSEUDO, get(&[("host", AUTHORITY)]), vec![Check::Present(0, "host"), Check::Status(0, &[200])]),
        holds("an odd path, byte for byte", PSEUDO,
            head(1, END_STREAM, &[(":method", "GET"), (":scheme", "http"), (":authority", AUTHORITY), (":path", "/a//b/../c/%2e%2e/%2F?d=%00&e")]),
            vec![Check::Line(0, "GET /a//b/../c/%2e%2e/%2F?d=%00&e HTTP/1.1")]),
        holds("a cookie in three fields", "RFC 9113 section 8.2.3", get(&[("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")]),
            vec![Check::Has(0, "cookie", b"a=b; c=d; e=f")]),
        holds("a field twice", FIELDS, get(&[("x-a", "1"), ("x-a", "2")]), vec![Check::Values(0, "x-a", &[b"1", b"2"])]),
        holds("`te: trailers`", HOP, get(&[("te", "trailers")]), vec![]).should(vec![Check::Has(0, "te", b"trailers")]),
        holds("a head in two frames", "RFC 9113 section 6.10", split, vec![Check::Has(0, "x-a", b"b")]),
        holds("a body with a length", FRAMING, [post(&[(CONTENT_LENGTH, "5")]), data(0, "hel"), data(END_STREAM, "lo")].concat(),
            vec![Check::Body(0, b"hello".to_vec()), Check::Has(0, CONTENT_LENGTH, b"5")]),
        holds("a body without a length", FRAMING, [post(&[]), data(0, &upload), data(END_STREAM, &upload)].concat(),
            vec![Check::Body(0, [&upload[..], &upload].concat().into_bytes())]),
        holds("a body with padding", "RFC 9113 section 6.1", [post(&[]), padded].concat(), vec![Check::Body(0, b"hello".to_vec())]),
        holds("a body that an empty frame ends", FRAMING, [post(&[]), data(0, "hello"), data(END_STREAM, "")].concat(), vec![Check::Body(0, b"hello".to_vec())]),
        holds("a POST without a body", FRAMING, head(1, END_STREAM, &lines("POST", &[])), vec![Check::Body(0, Vec::new())]),
        holds("a body that looks like a request", FRAMING,
            [post(&[]), data(END_STREAM, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")].concat(),
            vec![Check::Body(0, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n".to_vec())]),
        holds("trailers", FRAMING, [post(&[("trailer", "x-sum")]), data(0, "hello"), head(1, END_STREAM, &[("x-sum", "1")])].concat(),
            vec![Check::Body(0, b"hello".to_vec())]).should(vec![Check::Trailer(0, "x-sum")]),
        holds("Content-Length and Host in trailers", "RFC 9110 section 6.5.1",
            [post(&[]), data(0, "hello"), head(1, END_STREAM, &[(CONTENT_LENGTH, "9"), ("host", "elsewhere.example.com")])].concat(),
            vec![Check::Body(0, b"hello".to_vec())]).should(vec![Check::NoTrailer(0, CONTENT_LENGTH), Check::NoTrailer(0, "host")]),
        holds("Expect, and the cell says 100", "RFC 9110 section 10.1.1", [post(&[("expect", "100-continue"), (CONTENT_LENGTH, "5")]), data(END_STREAM, "hello")].concat(),
            vec![Check::Body(0, b"hello".to_vec())]),
        Case::holds("Expect, and a client that waits", "RFC 9110 section 10.1.1",
            vec![Step::Send(open(&[post(&[("expect", "100-continue"), (CONTENT_LENGTH, "5")])])), Step::Interim(1), Step::Send(data(END_STREAM, "hello")),
                Step::Answers(1), Step::Leave],
            vec![Check::Interims(&[100]), Check::Body(0, b"hello".to_vec()), Check::Answer(0, b"ok".to_vec())])
            .cell(vec![vec![Turn::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), Turn::Whole, Turn::Write(ok())]]),
        Case::holds("a client resets its upload", CUT,
            vec![Step::Send(open(&[post(&[(CONTENT_LENGTH, "9")]), data(0, "hello")])), Step::Reached(1), Step::Send([frame(RST_STREAM, 0, 1, CANCEL), fence()].concat()),
                Step::Answers(1), Step::Leave],
            vec![Check::BodyCutOf("/x"), Check::Served]),
        Case::holds("a client resets its upload that has no length", CUT,
            vec![Step::Send(open(&[post(&[]), data(0, "hello")])), Step::Reached(1), Step::Send([frame(RST_STREAM, 0, 1, CANCEL), fence()].concat()),
                Step::Answers(1), Step::Leave],
            vec![Check::BodyCutOf("/x"), Check::Served]),
        Case::holds("a client leaves in the middle of its upload", CUT,
            vec![Step::Send(open(&[post(&[]), data(0, "hello")])), Step::Reached(1), Step::Leave],
            vec![Check::BodyCut(0)]),
        Case::holds("a client resets a request that waits for its answer", CUT,
            vec![Step::Send(open(&[get(&[])])), Step::Reached(1), Step::Send([frame(RST_STREAM, 0, 1, CANCEL), fence()].concat()), Step::Answers(1), Step::Leave],
            vec![Check::Served]).should(vec![Check::CellClosed(0)]).cell(vec![vec![Turn::Whole, Turn::Drain]]),
    ]
}

fn answers() -> Vec<Case> {
    let says = |line: &str| format!("HTTP/1.1 {line}\r\ncontent-length: 5\r\n\r\nearly").into_bytes();
    let one = |name, reply: &[u8], must: Vec<Check>| {
        Case::holds(name, FRAMING, vec![Step::Send(open(&[get(&[])])), Step::Answers(1), Step::Send(fence()), Step::Answers(2), Step::Leave], must)
            .cell(vec![vec![Turn::Whole, Turn::Write(reply.to_vec())]])
    };
    let closing = |name, reply: &[u8], must: Vec<Check>| {
        one(name, reply, must).cell(vec![vec![Turn::Whole, Turn::Write(reply.to_vec()), Turn::Close]])
    };
    let early = |name, line: &str, status: &'static [u16]| {
        Case::holds(name, FRAMING,
            vec![Step::Send(open(&[post(&[(CONTENT_LENGTH, "1000000")]), data(0, "x".repeat(1000))])), Step::Answers(1), Step::Send(fence()), Step::Answers(2), Step::Leave],
            vec![Check::Status(0, status), Check::Answer(0, b"early".to_vec()), Check::BodyCutOf("/x"), Check::NothingElse, Check::Served])
            .should(vec![Check::Over(0)])
            .cell(vec![vec![Turn::Bytes(1000), Turn::Write(says(line)), Turn::Drain]])
    };
    let cut = |name, reply: Vec<u8>, last: Turn| {
        Case::holds(name, CUT, vec![Step::Send(open(&[get(&[])])), Step::Answers(1), Step::Send(fence()), Step::Answers(2), Step::Leave],
            vec![Check::AnswerCut(0)]).should(vec![Check::Served])
            .cell(vec![vec![Turn::Whole, Turn::Write(reply), last]])
    };
    let whole = |body: &str| vec![Check::Status(0, &[200]), Check::Answer(0, body.as_bytes().to_vec()), Check::Answered(2)];
    let chunks = |rest: &str| answer("transfer-encoding: chunked\r\n", rest);
    let body = "x".repeat(400_000);
    let slow = {
        let narrow = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, setting(WINDOW, 100)), get(&[])].concat();
        let wide = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, (1_u32 << 30).to_be_bytes())).concat();
        Case::holds("a client that opens its window late", "RFC 9113 section 6.9",
            vec![Step::Send(narrow), Step::Reached(1), Step::Send(wide), Step::Answers(1), Step::Leave],
            vec![Check::Answer(0, body.clone().into_bytes())])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer("content-length: 400000\r\n", &body)), Turn::Close]])
    };
    vec![
        one("chunks", &chunks("2\r\nok\r\n0\r\n\r\n"), whole("ok")),
        one("chunks, Connection, Keep-Alive and Upgrade", &answer("connection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n",
            "2\r\nok\r\n0\r\n\r\n"), whole("ok")).should(vec![Check::AnswerLacks(0, "x-hop")]),
        one("a name in mixed case", &answer("X-Sum: Ab\r\ncontent-length: 2\r\n", "ok"), [whole("ok"), vec![Check::AnswerHas(0, "x-sum", "Ab")]].concat()),
        closing("no length, to the end of the connection", &answer("", "ok"), whole("ok")),
        one("trailers", &answer("trailer: x-sum\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"), whole("ok"))
            .should(vec![Check::AnswerTrailer(0, "x-sum")]),
        one("204 with a length", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", vec![Check::Status(0, &[204]), Check::Answered(2)]),
        one("304 with a length", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", vec![Check::Status(0, &[304]), Check::Answered(2)]),
        Case::holds("HEAD with a length", FRAMING, vec![Step::Send(open(&[head(1, END_STREAM, &lines("HEAD", &[]))])), Step::Answers(1), Step::Leave],
            vec![Check::Status(0, &[200]), Check::AnswerHas(0, CONTENT_LENGTH, "9"), Check::Answered(1)])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer("content-length: 9\r\n", ""))]]),
        one("103 before the answer", &[b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec(), ok()].concat(), whole("ok"))
            .should(vec![Check::Interims(&[103])]),
        closing("101 that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            vec![Check::Any(vec![Check::Status(0, &[502]), Check::AnswerCut(0)])]).should(vec![Check::Status(0, &[502])]),
        closing("a length and chunks", &answer("content-length: 5\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            vec![Check::Any(vec![Check::Status(0, &[502]), Check::Answer(0, b"ok".to_vec())])]),
        closing("two unequal lengths", &answer("content-length: 2\r\ncontent-length: 3\r\n", "ok!"), vec![Check::Status(0, &[502])]),
        cut("fewer bytes than the length", answer("content-length: 100\r\n", "ok"), Turn::Close),
        cut("fewer bytes than the length, then a reset", answer("content-length: 100\r\n", "ok"), Turn::Reset),
        cut("no last chunk", chunks("2\r\nok\r\n"), Turn::Close),
        cut("half a chunk", chunks("5\r\nok"), Turn::Close),
        cut("a malformed chunk size", chunks("2\r\nok\r\nzz\r\n"), Turn::Drain)
            .right_is(vec![Check::Any(vec![Check::AnswerCut(0), Check::Status(0, &[502])])], vec![Check::Served]),
        closing("half a head", b"HTTP/1.1 200 OK\r\ncontent-le", vec![Check::Any(vec![Check::Status(0, &[502]), Check::AnswerCut(0)]), Check::Served])
            .should(vec![Check::Status(0, &[502])]),
        early("413 after 1,000 of 1,000,000 bytes", "413 Content Too Large", &[413]),
        early("401 after 1,000 of 1,000,000 bytes", "401 Unauthorized", &[401]),
        early("302 after 1,000 of 1,000,000 bytes", "302 Found", &[302]),
        Case::holds("413, and the cell closes with bytes unread", FRAMING,
            vec![Step::Send(open(&[post(&[(CONTENT_LENGTH, "60000")]), [data(0, "x".repeat(15_000)), data(0, "x".repeat(15_000)), data(0, "x".repeat(15_000)), data(END_STREAM, "x".repeat(15_000))].concat()])),
                Step::Answers(1), Step::Send(fence()), Step::Answers(2), Step::Leave],
            vec![Check::Answer(0, b"early".to_vec()), Check::Served])
            .cell(vec![vec![Turn::Bytes(1000), Turn::Write(says("413 Content Too Large")), Turn::Close]]),
        Case::holds("POST with a body, on a connection to the cell that closes after its head", "RFC 9110 section 9.2.2",
            vec![Step::Send(open(&[get(&[])])), Step::Answers(1), Step::Done(1),
                Step::Send([head(3, 0, &lines("POST", &[])), frame(DATA, END_STREAM, 3, b"hello")].concat()), Step::Answers(2), Step::Leave],
            vec![Check::RequestsAtMost(2), Check::Any(vec![Check::Status(1, &[502]), Check::Reset(1, &[1, 2, 8])])])
            .should(vec![Check::Status(1, &[502])])
            .cell(vec![vec![Turn::Whole, Turn::Write(ok())], vec![Turn::Close]]),
        slow,
    ]
}
