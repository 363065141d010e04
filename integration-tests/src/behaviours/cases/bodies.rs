//! Bodies on their way: early answers, `Expect`, slow readers, upgrades, and sides that leave.

use super::super::{Case, Check, Section, Step, Turn};
use super::{answer, chunked, fence, get, ok, post};

const EARLY: &str = "RFC 9112 section 9.3";
const EXPECT: &str = "RFC 9110 section 10.1.1";
const UPGRADE: &str = "RFC 9110 section 7.8";
const CLOSE: &str = "RFC 9112 section 9.6";
const MANY: usize = 1_000_000;
/// More than any proxy reads ahead, and less than the kernel keeps on the way.
const SOME: usize = 400_000;

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Answers before the upload is over",
            about: "The client gets the answer whole, and what is left of the upload is never read as a request.",
            cases: early(),
        },
        Section {
            title: "Expect: 100-continue",
            about: "The cell decides whether the body is wanted.",
            cases: expect(),
        },
        Section {
            title: "Sides that are slow, or leave",
            about: "The tail of an answer reaches a slow reader; who leaves is missed at once.",
            cases: leaving(),
        },
        Section {
            title: "Upgrades",
            about: "After 101 bytes go both ways, none lost on the way; without it all is as ever.",
            cases: upgrades(),
        },
    ]
}

fn early() -> Vec<Case> {
    let upload = |length: usize| post(&format!("content-length: {MANY}\r\n"), &"x".repeat(length));
    let says = |line: &str, lines: &str| format!("HTTP/1.1 {line}\r\n{lines}content-length: 5\r\n\r\nearly").into_bytes();
    let refuses = |name, line: &str, status: &'static [u16]| {
        Case::holds(name, EARLY,
            vec![Step::Send(upload(1000)), Step::Answers(1), Step::Leave],
            vec![Check::Status(0, status), Check::Answer(0, b"early".to_vec()), Check::BodyCut(0), Check::RequestsAtMost(1)])
            .cell(vec![vec![Turn::Bytes(1000), Turn::Write(says(line, "")), Turn::Drain]])
    };
    let all = |name, turns: Vec<Turn>, must: Vec<Check>| {
        Case::holds(name, CLOSE, vec![Step::Rest, Step::Send(upload(MANY)), Step::Answers(1), Step::Leave],
            [must, vec![Check::RequestsAtMost(1)]].concat())
            .cell(vec![turns])
    };
    let early = || vec![Check::Answer(0, b"early".to_vec())];
    vec![
        refuses("413 after 1,000 of 1,000,000 bytes", "413 Content Too Large", &[413]),
        refuses("401 after 1,000 of 1,000,000 bytes", "401 Unauthorized", &[401]),
        refuses("302 after 1,000 of 1,000,000 bytes", "302 Found", &[302]),
        refuses("500 after 1,000 of 1,000,000 bytes", "500 Internal Server Error", &[500]),
        Case::holds("413 after half a chunk", EARLY,
            vec![Step::Send(chunked("10\r\nhello")), Step::Answers(1), Step::Leave],
            vec![Check::Status(0, &[413]), Check::Answer(0, b"early".to_vec()), Check::BodyCut(0), Check::RequestsAtMost(1)])
            .cell(vec![vec![Turn::Bytes(5), Turn::Write(says("413 Content Too Large", "")), Turn::Drain]]),
        Case::holds("200 early, and the upload goes on", EARLY,
            vec![Step::Send(upload(1000)), Step::Answers(1), Step::Send("x".repeat(MANY - 1000).into_bytes()), Step::Done(1), Step::Send(fence())],
            vec![Check::Answer(0, b"early".to_vec()), Check::NothingElse])
            .should(vec![Check::Body(0, "x".repeat(MANY).into_bytes()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)])
            .cell(vec![vec![Turn::Bytes(1000), Turn::Write(says("200 OK", "")), Turn::Whole]])
            .except("with the end of the answer the upload ends: the cell sees it cut, and its connection closed"),
        all("413 and a close, to a client that sends all before it reads",
            vec![Turn::Bytes(1000), Turn::Write(says("413 Content Too Large", "connection: close\r\n")), Turn::Drain], early()),
        all("413, and the cell closes with bytes unread",
            vec![Turn::Bytes(1000), Turn::Write(says("413 Content Too Large", "connection: close\r\n")), Turn::Close], early()),
        all("413, and the cell resets", vec![Turn::Bytes(1000), Turn::Write(says("413 Content Too Large", "connection: close\r\n")), Turn::Reset],
            vec![Check::Any(vec![Check::Answer(0, b"early".to_vec()), Check::Status(0, &[502])])]),
        Case::holds("after an early answer the connection to the cell is not used again", EARLY,
            vec![Step::Send(upload(1000)), Step::Answers(1), Step::Connect, Step::Send(fence())],
            vec![Check::Answer(0, b"early".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answer(1, b"ok".to_vec()), Check::Connections(2)])
            .cell(vec![vec![Turn::Bytes(1000), Turn::Write(says("413 Content Too Large", "")), Turn::Drain]]),
    ]
}

fn expect() -> Vec<Case> {
    let asks = || post("expect: 100-continue\r\ncontent-length: 5\r\n", "");
    let go_on = || Turn::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let refuses = |name, line: &str, status: &'static [u16]| {
        let reply = format!("HTTP/1.1 {line}\r\ncontent-length: 2\r\n\r\nno").into_bytes();
        Case::holds(name, EXPECT, vec![Step::Send(asks()), Step::Interim(1), Step::Answers(1), Step::Leave],
            vec![Check::Status(0, status), Check::Answer(0, b"no".to_vec()), Check::BodyCut(0)])
            .should(vec![Check::Interims(&[])])
            .cell(vec![vec![Turn::Write(reply), Turn::Drain]])
    };
    vec![
        Case::holds("the cell says 100", EXPECT,
            vec![Step::Send(asks()), Step::Interim(1), Step::Send([b"hello".to_vec(), fence()].concat())],
            vec![Check::Interims(&[100]), Check::Body(0, b"hello".to_vec()), Check::Answered(2)])
            .cell(vec![vec![go_on(), Turn::Whole, Turn::Write(ok())]]),
        Case::holds("the cell says nothing until it has the body", EXPECT,
            vec![Step::Send(asks()), Step::Interim(1), Step::Send([b"hello".to_vec(), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Answered(2)]).should(vec![Check::Interims(&[100])]),
        refuses("the cell says 417", "417 Expectation Failed", &[417]),
        refuses("the cell says 401", "401 Unauthorized", &[401]),
        refuses("the cell says 302", "302 Found", &[302]),
        Case::holds("the client does not wait", EXPECT,
            vec![Step::Send([asks(), b"hello".to_vec(), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("after a refusal a request on the same connection is not taken for the body", EXPECT,
            vec![Step::Send(asks()), Step::Interim(1), Step::Answers(1), Step::Send(fence())],
            vec![Check::Status(0, &[403]), Check::NothingElse])
            .cell(vec![vec![Turn::Write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec()), Turn::Drain]]),
        Case::holds("in HTTP/1.0", EXPECT,
            vec![Step::Send(b"POST /x HTTP/1.0\r\nhost: HOST\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello".to_vec())],
            vec![Check::Interims(&[]), Check::Body(0, b"hello".to_vec()), Check::Status(0, &[200])]),
        Case::holds("without a body", EXPECT,
            vec![Step::Send([get("expect: 100-continue\r\n"), fence()].concat())],
            vec![Check::Requests(2), Check::Answered(2)]),
        Case::holds("another expectation", EXPECT,
            vec![Step::Send([post("expect: tea\r\ncontent-length: 5\r\n", "hello"), fence()].concat())],
            vec![Check::NothingElse, Check::Status(0, &[200, 417])]),
    ]
}

fn leaving() -> Vec<Case> {
    let tail = |name, lines: &str, chunks: bool| {
        let body = "x".repeat(SOME);
        let rest = if chunks { format!("{SOME:x}\r\n{body}\r\n0\r\n\r\n") } else { body.clone() };
        Case::holds(name, CLOSE,
            vec![Step::Rest, Step::Send(get("connection: close\r\n")), Step::Done(1), Step::Answers(1)],
            vec![Check::Answer(0, body.into_bytes()), Check::Ends])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer(lines, &rest)), Turn::Close]])
    };
    let leaves = |name, bytes: Vec<u8>, check: Check| {
        Case::holds(name, CLOSE, vec![Step::Send(bytes), Step::Reached(1), Step::Leave], vec![Check::RequestsAtMost(1)])
            .should(vec![check])
            .cell(vec![vec![Turn::Drain]])
    };
    const HALF: &str = "the end of what a client sends is taken for its leaving: no client is known that half-closes, and \
                        cells are told at once when one leaves";
    vec![
        tail("a slow reader, and a length", &format!("content-length: {SOME}\r\n"), false),
        tail("a slow reader, and chunks", "transfer-encoding: chunked\r\n", true),
        tail("a slow reader, and the end of the connection", "", false),
        leaves("the client leaves while it waits", get(""), Check::CellClosed(0)),
        leaves("the client leaves in the middle of its upload", post("content-length: 9\r\n", "hello"), Check::BodyCut(0)),
        leaves("the client leaves in the middle of a chunk", chunked("9\r\nhello"), Check::BodyCut(0)),
        leaves("the client leaves between chunks", chunked("5\r\nhello\r\n"), Check::BodyCut(0)),
        leaves("the client leaves after its upload", post("content-length: 5\r\n", "hello"), Check::CellClosed(0)),
        Case::holds("the client leaves in the middle of the answer", CLOSE,
            vec![Step::Send(get("")), Step::Interim(1), Step::Leave], vec![Check::RequestsAtMost(1)])
            .should(vec![Check::CellClosed(0)])
            .cell(vec![vec![Turn::Whole, Turn::Write(answer("content-length: 100\r\n", "ok")), Turn::Drain]]),
        Case::holds("the client half-closes after a GET", CLOSE,
            vec![Step::Send(get("connection: close\r\n")), Step::Finish],
            vec![Check::RequestsAtMost(1)]).should(vec![Check::Answer(0, b"ok".to_vec())]).except(HALF),
        Case::holds("the client half-closes after an upload", CLOSE,
            vec![Step::Send(post("connection: close\r\ncontent-length: 5\r\n", "hello")), Step::Finish],
            vec![Check::RequestsAtMost(1)]).should(vec![Check::Answer(0, b"ok".to_vec())]).except(HALF),
    ]
}

fn upgrades() -> Vec<Case> {
    const ASK: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let asks = || get(ASK);
    let switch = |rest: &str| Turn::Write(format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n{rest}").into_bytes());
    let ping = || Turn::Until(b"ping");
    let pong = || Turn::Write(b"pong".to_vec());
    vec![
        Case::holds("101, then bytes both ways", UPGRADE,
            vec![Step::Send(asks()), Step::Answers(1), Step::Send(b"ping".to_vec())],
            vec![Check::Tunnel("pong"), Check::Ends]).cell(vec![vec![switch(""), ping(), pong(), Turn::Close]]),
        Case::holds("101 with bytes right after it", UPGRADE,
            vec![Step::Send(asks()), Step::Answers(1), Step::Send(b"ping".to_vec())],
            vec![Check::Tunnel("hello pong"), Check::Ends]).cell(vec![vec![switch("hello "), ping(), pong(), Turn::Close]]),
        Case::holds("bytes of the client before 101", UPGRADE,
            vec![Step::Send([asks(), b"ping".to_vec()].concat())],
            vec![Check::Tunnel("pong"), Check::Ends]).cell(vec![vec![switch(""), ping(), pong(), Turn::Close]]),
        Case::holds("the client half-closes its side of the tunnel", UPGRADE,
            vec![Step::Send(asks()), Step::Answers(1), Step::Send(b"ping".to_vec()), Step::Finish],
            vec![Check::Status(0, &[101]), Check::Ends]).should(vec![Check::Tunnel("pong")]).cell(vec![vec![switch(""), ping(), pong(), Turn::Close]]),
        Case::holds("403 with a body instead", UPGRADE,
            vec![Step::Send(asks()), Step::Answers(1), Step::Send(fence())],
            vec![Check::Status(0, &[403]), Check::Answer(0, b"no".to_vec())]).should(vec![Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)])
            .cell(vec![vec![Turn::Whole, Turn::Write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_vec())]]),
        Case::holds("200 instead", UPGRADE,
            vec![Step::Send(asks()), Step::Answers(1), Step::Send(fence())],
            vec![Check::Status(0, &[200]), Check::Answer(0, b"ok".to_vec())]).should(vec![Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("a request after one that was not upgraded is not sent as tunnel bytes", UPGRADE,
            vec![Step::Send([asks(), fence()].concat())],
            vec![Check::NothingElse, Check::Answer(0, b"ok".to_vec())]),
        Case::holds("a body before the switch", UPGRADE,
            vec![Step::Send([post(&format!("{ASK}content-length: 5\r\n"), "hello"), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::NothingElse, Check::Answer(0, b"ok".to_vec())]),
        Case::holds("Upgrade in HTTP/1.0", UPGRADE,
            vec![Step::Send(format!("GET /x HTTP/1.0\r\nhost: HOST\r\n{ASK}\r\n").into_bytes())],
            vec![Check::Answer(0, b"ok".to_vec())]).should(vec![Check::Lacks(0, "upgrade")]),
        Case::holds("the cell closes after 101", UPGRADE,
            vec![Step::Send(asks()), Step::Answers(1)],
            vec![Check::Tunnel(""), Check::Ends]).cell(vec![vec![switch(""), Turn::Close]]),
    ]
}
