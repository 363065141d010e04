//! What cells answer, and what of it reaches clients.

use super::super::{Case, Check, Section, Step, Turn};
use super::{answer, fence, get, ok};

const LENGTH: &str = "RFC 9112 section 6.3";
const CODING: &str = "RFC 9112 section 6.1";
const CHUNK: &str = "RFC 9112 section 7.1";
const LINE: &str = "RFC 9112 section 4";
const FIELD: &str = "RFC 9112 section 5";
const CUT: &str = "RFC 9112 section 8";
const HOP: &str = "RFC 9110 section 7.6.1";
const STRAY: &str = "RFC 9112 section 9.2";
const STATUS: &str = "RFC 9110 section 15";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Framing of answers",
            about: "A client gets an answer that can be read in one way, or 502; and the next client gets its own.",
            cases: framing(),
        },
        Section {
            title: "Lines and fields of answers",
            about: "As for requests, but that the cell's mistake is the cell's: 502, or the answer without it.",
            cases: lines(),
        },
        Section {
            title: "Answers that end too early",
            about: "What is cut at the cell is cut at the client.",
            cases: cuts(),
        },
        Section {
            title: "Bytes that belong to no answer",
            about: "Another request follows over a second connection of a client. It must get the cell's answer to it, and \
                    nothing that the cell had said before.",
            cases: strays(),
        },
        Section {
            title: "Fields on their way to the client",
            about: "What is end to end arrives; what belongs to one connection does not.",
            cases: fields(),
        },
        Section {
            title: "Answers that would steer the edge",
            about: "Fields by which an answer tells Fly.io's edge where to send requests. A cell could send its visitors' \
                    requests to another's machine. nginx and HAProxy know nothing of them; the rows are here because the \
                    router does.",
            cases: steering(),
        },
    ]
}

/// A request to which the cell answers with these bytes, then one more on the same connection of the client.
fn after(name: &'static str, source: &'static str, reply: &[u8], must: Vec<Check>) -> Case {
    Case::holds(
        name,
        source,
        vec![Step::Send(get("")), Step::Answers(1), Step::Send(fence())],
        must,
    )
    .cell(vec![vec![Turn::Whole, Turn::Write(reply.to_vec())]])
}

/// As [`after`]; the cell closes its connection after its answer.
fn closing(name: &'static str, source: &'static str, reply: &[u8], must: Vec<Check>) -> Case {
    after(name, source, reply, must).cell(vec![vec![
        Turn::Whole,
        Turn::Write(reply.to_vec()),
        Turn::Close,
    ]])
}

fn whole(body: &str) -> Vec<Check> {
    vec![Check::Answer(0, body.as_bytes().to_vec()), Check::Status(0, &[200])]
}

/// 502 is right, and so is the answer's own body without what is wrong with it.
fn or_cleaned(body: &str) -> Vec<Check> {
    vec![Check::Any(vec![Check::Status(0, &[502]), Check::Answer(0, body.as_bytes().to_vec())])]
}

/// As [`closing`]: 502 is right; saying nothing at all is debatable.
fn bad(name: &'static str, source: &'static str, reply: &[u8]) -> Case {
    let nothing = Check::Any(vec![Check::Status(0, &[502]), Check::Unanswered]);
    closing(name, source, reply, vec![nothing]).should(vec![Check::Status(0, &[502])])
}

fn framing() -> Vec<Case> {
    let chunked = |lines: &str, body: &str| answer(lines, body);
    vec![
        closing("a length and chunks", CODING, &chunked("content-length: 5\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), or_cleaned("ok")),
        closing("chunks and a length", CODING, &chunked("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "2\r\nok\r\n0\r\n\r\n"), or_cleaned("ok")),
        after("a length and chunks, on a connection that is kept", CODING, &chunked("content-length: 5\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"),
            or_cleaned("ok")).should(vec![Check::CellClosed(0)]),
        bad("two unequal lengths", LENGTH, &answer("content-length: 2\r\ncontent-length: 3\r\n", "ok!")),
        after("two equal lengths", LENGTH, &answer("content-length: 2\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        closing("`Content-Length: 2, 2`", LENGTH, &answer("content-length: 2, 2\r\n", "ok"), or_cleaned("ok")),
        bad("`Content-Length: 2, 3`", LENGTH, &answer("content-length: 2, 3\r\n", "ok!")),
        bad("`Content-Length: +2`", LENGTH, &answer("content-length: +2\r\n", "ok")),
        bad("`Content-Length: -2`", LENGTH, &answer("content-length: -2\r\n", "ok")),
        bad("`Content-Length: 0x2`", LENGTH, &answer("content-length: 0x2\r\n", "ok")),
        bad("`Content-Length: 2 2`", LENGTH, &answer("content-length: 2 2\r\n", "ok")),
        bad("an empty Content-Length", LENGTH, &answer("content-length:\r\n", "ok")),
        bad("a length of 2^64", LENGTH, &answer("content-length: 18446744073709551616\r\n", "ok")),
        after("`Transfer-Encoding: Chunked`", CODING, &answer("transfer-encoding: Chunked\r\n", "2\r\nok\r\n0\r\n\r\n"), whole("ok")),
        bad("`Transfer-Encoding: gzip, chunked`", CODING, &answer("transfer-encoding: gzip, chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        bad("`Transfer-Encoding: gzip`", CODING, &answer("transfer-encoding: gzip\r\n", "ok")),
        bad("`Transfer-Encoding: chunked, gzip`", CODING, &answer("transfer-encoding: chunked, gzip\r\n", "ok")),
        bad("`Transfer-Encoding: chunked, chunked`", CODING, &answer("transfer-encoding: chunked, chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        bad("Transfer-Encoding twice", CODING, &answer("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        bad("`Transfer-Encoding: xchunked`", CODING, &answer("transfer-encoding: xchunked\r\n", "2\r\nok\r\n0\r\n\r\n")),
        closing("`Transfer-Encoding: identity`", CODING, &answer("transfer-encoding: identity\r\n", "ok"), or_cleaned("ok")),
        bad("an empty Transfer-Encoding", CODING, &answer("transfer-encoding:\r\n", "ok")),
        closing("chunks in an HTTP/1.0 answer", CODING, b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", or_cleaned("ok")),
        closing("no length, to the end of the connection", LENGTH, &answer("", "ok"), whole("ok")),
        closing("HTTP/1.0, to the end of the connection", LENGTH, b"HTTP/1.0 200 OK\r\n\r\nok", whole("ok")),
        after("HTTP/1.0 with a length is not kept", "RFC 9112 section 9.3", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            [whole("ok"), vec![Check::Answered(2)]].concat()).should(vec![Check::CellClosed(0), Check::Connections(2)]),
        after("chunks with extensions", CHUNK, &answer("transfer-encoding: chunked\r\n", "2;a=b\r\nok\r\n0;c\r\n\r\n"), whole("ok")),
        after("a trailer", "RFC 9110 section 6.5", &answer("trailer: x-sum\r\ntransfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"), whole("ok"))
            .should(vec![Check::AnswerTrailer(0, "x-sum")]),
        after("a trailer that nothing announces", "RFC 9110 section 6.5", &answer("transfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"), whole("ok"))
            .should(vec![Check::AnswerTrailer(0, "x-sum")]),
        after("Set-Cookie and Content-Length in trailers", "RFC 9110 section 6.5.1",
            &answer("transfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\nset-cookie: a=b\r\ncontent-length: 9\r\n\r\n"), whole("ok"))
            .should(vec![Check::AnswerNoTrailer(0, "set-cookie"), Check::AnswerNoTrailer(0, "content-length")]),
        after("fly-replay in trailers", "RFC 9110 section 6.5.1",
            &answer("transfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\nfly-replay: app=x\r\n\r\n"), whole("ok"))
            .should(vec![Check::AnswerNoTrailer(0, "fly-replay")]),
        after("204 with a length", "RFC 9110 section 8.6", b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            vec![Check::Status(0, &[204]), Check::Answered(2)]).should(vec![Check::AnswerLacks(0, "content-length")]),
        after("304 with the length of what it stands for", "RFC 9110 section 15.4.5", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\netag: \"x\"\r\n\r\n",
            vec![Check::Status(0, &[304]), Check::AnswerHas(0, "etag", "\"x\""), Check::Answered(2)]),
        Case::holds("HEAD with the length of what it stands for", "RFC 9110 section 9.3.2",
            vec![Step::Send(b"HEAD /x HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n".to_vec())],
            vec![Check::Status(0, &[200]), Check::AnswerHas(0, "content-length", "9"), Check::Answered(1), Check::Ends])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer("content-length: 9\r\n", ""))]]),
        Case::holds("an answer without a length to HTTP/1.0", LENGTH,
            vec![Step::Send(b"GET /x HTTP/1.0\r\nhost: HOST\r\n\r\n".to_vec())],
            vec![Check::Answer(0, b"ok".to_vec()), Check::AnswerLacks(0, "transfer-encoding"), Check::Ends])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer("transfer-encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n"))]]),
    ]
}

fn lines() -> Vec<Case> {
    let first = |line: &str| format!("{line}\r\ncontent-length: 2\r\n\r\nok").into_bytes();
    let big = format!("x: {}\r\n", "y".repeat(995)).repeat(1000);
    vec![
        after("LF for every line end", LINE, b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", or_cleaned("ok")),
        closing("a bare CR in a value", FIELD, &answer("x-a: b\rc: d\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        closing("a NUL in a value", FIELD, &answer("x-a: b\0c\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        after("a folded field", "RFC 9112 section 5.2", &answer("x-a: b\r\n c\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        after("a folded field that looks like a length", "RFC 9112 section 5.2", &answer("x-a: b\r\n content-length: 9\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        after("a space before the colon", FIELD, &answer("x-a : b\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        closing("a space before the colon of Content-Length", FIELD, &answer("content-length : 2\r\n", "ok"), or_cleaned("ok")),
        after("a line without a colon", FIELD, &answer("x-a\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        after("a field without a name", FIELD, &answer(": b\r\ncontent-length: 2\r\n", "ok"), or_cleaned("ok")),
        closing("an empty line before the answer", LINE, &[b"\r\n".to_vec(), ok()].concat(), or_cleaned("ok")),
        bad("words before the answer", LINE, &[b"words\r\n".to_vec(), ok()].concat()),
        bad("no head at all", LINE, b"ok\r\n\r\n"),
        bad("a status of two digits", LINE, &first("HTTP/1.1 20 OK")),
        bad("a status of four digits", LINE, &first("HTTP/1.1 2000 OK")),
        bad("a status of letters", LINE, &first("HTTP/1.1 abc OK")),
        bad("a status of 000", LINE, &first("HTTP/1.1 000 OK")),
        bad("a status of 099", LINE, &first("HTTP/1.1 099 OK")),
        after("a status of 299", LINE, &first("HTTP/1.1 299 Mine"), vec![Check::Status(0, &[299]), Check::Answer(0, b"ok".to_vec()), Check::Answered(2)]),
        closing("HTTP/2.0 in a status line", LINE, &first("HTTP/2.0 200 OK"), or_cleaned("ok")).should(vec![Check::Status(0, &[502])]),
        closing("HTTP/1.10 in a status line", LINE, &first("HTTP/1.10 200 OK"), or_cleaned("ok")).should(vec![Check::Status(0, &[502])]),
        closing("another protocol in a status line", LINE, &first("HTTQ/1.1 200 OK"), or_cleaned("ok")).should(vec![Check::Status(0, &[502])]),
        closing("two spaces in a status line", LINE, &first("HTTP/1.1  200 OK"), or_cleaned("ok")),
        after("no reason phrase", LINE, &first("HTTP/1.1 200 "), whole("ok")),
        after("neither reason phrase nor space", LINE, &first("HTTP/1.1 200"), whole("ok")),
        after("a reason phrase of bytes over 127", LINE, b"HTTP/1.1 200 \xc3\xa4\r\ncontent-length: 2\r\n\r\nok", or_cleaned("ok")),
        bad("a head of 1,000,000 bytes", LINE, &answer(&format!("{big}content-length: 2\r\n"), "ok")),
        after("a head of 12,000 bytes", LINE, &answer(&format!("{}content-length: 2\r\n", &big[..12_000]), "ok"), whole("ok")),
        after("103 before the answer", STATUS, &[b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec(), ok()].concat(), whole("ok"))
            .should(vec![Check::Interims(&[103])]),
        after("102 and 103 before the answer", STATUS, &[b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec(), ok()].concat(), whole("ok"))
            .should(vec![Check::Interims(&[102, 103])]),
        after("100 that nobody asked for", STATUS, &[b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ok()].concat(), whole("ok")),
        bad("101 that nobody asked for", "RFC 9110 section 7.8", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nsmuggled")
            .should(vec![Check::Status(0, &[502]), Check::Never("smuggled")]),
        Case::holds("103 to a client that speaks HTTP/1.0", STATUS,
            vec![Step::Send(b"GET /x HTTP/1.0\r\nhost: HOST\r\n\r\n".to_vec())],
            [whole("ok"), vec![Check::Interims(&[]), Check::Ends]].concat())
            .cell(vec![vec![Turn::Whole, Turn::Write([b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), ok()].concat())]]),
    ]
}

fn cuts() -> Vec<Case> {
    let cut = |name, reply: &[u8], last: Turn| {
        Case::holds(name, CUT, vec![Step::Send(get("connection: close\r\n"))], vec![Check::AnswerCut(0), Check::RequestsAtMost(1)])
            .cell(vec![vec![Turn::Whole, Turn::Write(reply.to_vec()), last]])
    };
    let length = answer("content-length: 100\r\n", "ok");
    let chunks = |rest| answer("transfer-encoding: chunked\r\n", rest);
    let bad = |name, rest| {
        // What comes with the head may be seen before any of the answer is passed on.
        let must = vec![Check::Any(vec![Check::AnswerCut(0), Check::Status(0, &[502])]), Check::RequestsAtMost(1)];
        Case { source: CHUNK, ..cut(name, &chunks(rest), Turn::Drain).right_is(must, Vec::new()) }
    };
    vec![
        cut("fewer bytes than the length", &length, Turn::Close),
        cut("fewer bytes than the length, then a reset", &length, Turn::Reset),
        cut("no last chunk", &chunks("2\r\nok\r\n"), Turn::Close),
        cut("half a chunk", &chunks("5\r\nok"), Turn::Close),
        cut("half a last chunk", &chunks("2\r\nok\r\n0\r\n"), Turn::Close),
        cut("half a trailer", &chunks("2\r\nok\r\n0\r\nx-sum: 1\r\n"), Turn::Close),
        cut("no last chunk, then a reset", &chunks("2\r\nok\r\n"), Turn::Reset),
        bad("a malformed chunk size", "2\r\nok\r\nzz\r\n"),
        bad("a chunk size of `+2`", "2\r\nok\r\n+2\r\nok\r\n0\r\n\r\n"),
        bad("a chunk size of `0x2`", "2\r\nok\r\n0x2\r\nok\r\n0\r\n\r\n"),
        bad("a chunk size of 2^64 + 2", "2\r\nok\r\n10000000000000002\r\nok\r\n0\r\n\r\n"),
        bad("data longer than its size", "2\r\nokay\r\n0\r\n\r\n"),
        Case::holds("half a head", CUT, vec![Step::Send(get("connection: close\r\n"))], vec![Check::Status(0, &[502]), Check::RequestsAtMost(1)])
            .cell(vec![vec![Turn::Whole, Turn::Write(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), Turn::Close]]),
        Case::holds("no byte of an answer", CUT, vec![Step::Send(get("connection: close\r\n"))], vec![Check::Status(0, &[502])])
            .cell(vec![vec![Turn::Whole, Turn::Close], vec![Turn::Whole, Turn::Close], vec![Turn::Whole, Turn::Close], vec![Turn::Whole, Turn::Close]]),
        Case::holds("a cut answer of chunks to HTTP/1.0", CUT, vec![Step::Send(b"GET /x HTTP/1.0\r\nhost: HOST\r\n\r\n".to_vec())], vec![Check::AnswerCut(0)])
            .cell(vec![vec![Turn::Whole, Turn::Write(chunks("2\r\nok\r\n")), Turn::Close]]),
        Case::holds("no length, then a reset", CUT, vec![Step::Send(get("connection: close\r\n"))], vec![Check::AnswerCut(0)])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer("", "ok")), Turn::Reset]]),
    ]
}

fn strays() -> Vec<Case> {
    let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nsmuggled";
    let stray = |name, request: Vec<u8>, turns: Vec<Turn>, status: &'static [u16]| {
        Case::holds(
            name,
            STRAY,
            vec![Step::Send(request), Step::Answers(1), Step::Done(1), Step::Connect, Step::Send(fence())],
            vec![Check::Status(0, status), Check::Answer(1, b"ok".to_vec()), Check::Never("smuggled")],
        )
        .cell(vec![turns])
    };
    let write = |head: &str, rest: &str| vec![Turn::Whole, Turn::Write(format!("{head}{rest}").into_bytes())];
    let head = b"HEAD /x HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n".to_vec();
    vec![
        stray("an answer after the answer", get(""), write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", smuggled), &[200]),
        stray("an answer after the answer, written apart", get(""), vec![Turn::Whole, Turn::Write(ok()), Turn::Write(smuggled.into())], &[200]),
        stray("bytes after the answer", get(""), write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "smuggled"), &[200]),
        stray("an empty line after the answer", get(""), write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "\r\n"), &[200]),
        stray("an answer after the last chunk", get(""), write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", smuggled), &[200]),
        stray("204 with a body", get(""), write("HTTP/1.1 204 No Content\r\n\r\n", smuggled), &[204]),
        stray("204 with a length and a body", get(""), write("HTTP/1.1 204 No Content\r\ncontent-length: 47\r\n\r\n", smuggled), &[204]),
        stray("204 with chunks", get(""), write("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n8\r\nsmuggled\r\n0\r\n\r\n", ""), &[204, 502]),
        stray("304 with a body", get(""), write("HTTP/1.1 304 Not Modified\r\ncontent-length: 47\r\n\r\n", smuggled), &[304]),
        stray("205 with a body", get(""), write("HTTP/1.1 205 Reset Content\r\ncontent-length: 2\r\n\r\nok", smuggled), &[205]),
        stray("HEAD with a body", head.clone(), write("HTTP/1.1 200 OK\r\ncontent-length: 47\r\n\r\n", smuggled), &[200]),
        stray("an interim answer after the answer", get(""), write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 103 Early Hints\r\nx: smuggled\r\n\r\n"), &[200]),
    ]
}

fn fields() -> Vec<Case> {
    let lines = |name, source, lines: &str, must: Vec<Check>| {
        after(name, source, &answer(&format!("{lines}content-length: 2\r\n"), "ok"), [whole("ok"), must].concat())
    };
    vec![
        lines("a field that Connection names", HOP, "connection: x-hop\r\nx-hop: 1\r\n", vec![]).should(vec![Check::AnswerLacks(0, "x-hop")]),
        lines("fields that two Connection lines name", HOP, "connection: x-one\r\nconnection: X-Two\r\nx-one: 1\r\nx-two: 1\r\n", vec![])
            .should(vec![Check::AnswerLacks(0, "x-one"), Check::AnswerLacks(0, "x-two")]),
        lines("Keep-Alive, Proxy-Connection and Upgrade", HOP, "keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nupgrade: h2c\r\n", vec![])
            .should(vec![Check::AnswerLacks(0, "keep-alive"), Check::AnswerLacks(0, "proxy-connection"), Check::AnswerLacks(0, "upgrade")]),
        lines("Connection names Content-Length", HOP, "connection: content-length\r\n", vec![Check::Answered(2)]),
        lines("Connection names Set-Cookie", HOP, "connection: set-cookie\r\nset-cookie: a=b\r\n", vec![]).should(vec![Check::AnswerLacks(0, "set-cookie")]),
        after("`Connection: close` is the cell's connection only", HOP, &answer("connection: close\r\ncontent-length: 2\r\n", "ok"),
            [whole("ok"), vec![Check::Answered(2), Check::CellClosed(0), Check::Connections(2)]].concat()),
        after("`Connection: Close` in a list", HOP, &answer("connection: x, Close\r\ncontent-length: 2\r\n", "ok"),
            [whole("ok"), vec![Check::Answered(2), Check::CellClosed(0), Check::Connections(2)]].concat()),
        lines("Set-Cookie on two lines", "RFC 6265 section 3", "set-cookie: a=1\r\nset-cookie: b=2; path=/\r\n", vec![Check::AnswerValues(0, "set-cookie", &["a=1", "b=2; path=/"])]),
        lines("a name with odd characters", FIELD, "x!#$%&'*+-.^_`|~: 1\r\n", vec![Check::AnswerHas(0, "x!#$%&'*+-.^_`|~", "1")]),
        lines("an empty value", FIELD, "x-a:\r\n", vec![Check::AnswerHas(0, "x-a", "")]),
        after("a value of bytes over 127", FIELD, b"HTTP/1.1 200 OK\r\nx-a: \xc3\xa4\r\ncontent-length: 2\r\n\r\nok", [whole("ok"), vec![Check::AnswerHas(0, "x-a", "ä")]].concat()),
        lines("Date and Server", "RFC 9110 section 6.6.1", "date: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: cell\r\n", vec![])
            .should(vec![Check::AnswerHas(0, "date", "Thu, 01 Jan 1970 00:00:00 GMT"), Check::AnswerHas(0, "server", "cell")]),
        lines("ETag, Vary, Location and Content-Encoding", FIELD, "etag: W/\"a\"\r\nvary: x, y\r\nlocation: //z/?a=b%20\r\ncontent-encoding: br\r\n",
            vec![Check::AnswerHas(0, "etag", "W/\"a\""), Check::AnswerHas(0, "vary", "x, y"), Check::AnswerHas(0, "location", "//z/?a=b%20"), Check::AnswerHas(0, "content-encoding", "br")]),
    ]
}

fn steering() -> Vec<Case> {
    const SOURCE: &str = "Fly docs, Dynamic Request Routing";
    let gone = |name, field: &'static str, value: &str| {
        after(name, SOURCE, &answer(&format!("{field}: {value}\r\ncontent-length: 2\r\n"), "ok"), whole("ok")).should(vec![Check::AnswerLacks(0, field)])
    };
    vec![
        gone("fly-replay", "fly-replay", "app=other"),
        gone("fly-replay-cache", "fly-replay-cache", "example.com/*"),
        gone("fly-replay-cache-ttl-secs", "fly-replay-cache-ttl-secs", "3600"),
        gone("fly-replay-cache-allow-bypass", "fly-replay-cache-allow-bypass", "yes"),
        gone("an answer of the replay content type", "content-type", "application/vnd.fly.replay+json"),
        gone("the replay content type in other letters, with a parameter", "content-type", "Application/VND.fly.replay+JSON ; charset=utf-8"),
        after("fly-replay in an interim answer", SOURCE, &[b"HTTP/1.1 103 Early Hints\r\nfly-replay: app=other\r\n\r\n".to_vec(), ok()].concat(), whole("ok"))
            .should(vec![Check::Never("fly-replay")]),
    ]
}
