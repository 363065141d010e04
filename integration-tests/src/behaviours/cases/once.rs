//! A request is sent again only where that cannot double it.

use super::super::{Case, Check, Section, Step, Turn};
use super::{fence, get, ok};

const RETRY: &str = "RFC 9110 section 9.2.2";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Once only, on a connection that had carried a request",
            about: "The first request is answered and its connection to the cell kept. Then the cell closes it, at the \
                    worst moment for the second.",
            cases: reused(),
        },
        Section {
            title: "Once only, on a fresh connection",
            about: "The cell got the request and broke off: nobody knows what it has done.",
            cases: fresh(),
        },
    ]
}

fn request(method: &str, body: Option<&str>) -> Vec<u8> {
    let (length, body) = match body {
        Some(body) => (format!("content-length: {}\r\n", body.len()), body),
        None => (String::new(), ""),
    };
    format!("{method} /x HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n{length}\r\n{body}").into_bytes()
}

/// One answered request, then `second`, with which the cell does `turns`.
fn then(name: &'static str, second: Vec<u8>, turns: Vec<Turn>, must: Vec<Check>) -> Case {
    Case::holds(
        name,
        RETRY,
        vec![Step::Send(get("")), Step::Answers(1), Step::Done(1), Step::Send(second)],
        [vec![Check::Answer(0, b"ok".to_vec())], must].concat(),
    )
    .cell(vec![vec![Turn::Whole, Turn::Write(ok())], turns])
}

/// Never sent twice: its method is not idempotent. The client should be told.
fn once(name: &'static str, second: Vec<u8>, turns: Vec<Turn>) -> Case {
    then(name, second, turns, vec![Check::RequestsAtMost(2)]).should(vec![Check::Status(1, &[502])])
}

/// The RFC lets it be sent again; nobody can know how much of it the cell has done.
fn careful(name: &'static str, second: Vec<u8>, turns: Vec<Turn>) -> Case {
    then(name, second, turns, vec![Check::RequestsAtMost(3)]).should(vec![Check::RequestsAtMost(2), Check::Status(1, &[502])])
}

fn reused() -> Vec<Case> {
    let again = |name, second: Vec<u8>, turns: Vec<Turn>| {
        then(name, second, turns, vec![Check::RequestsAtMost(3)])
            .should(vec![Check::Answer(1, b"ok".to_vec())])
    };
    let idle = |name, second: Vec<u8>| {
        Case::holds(name, RETRY,
            vec![Step::Send(get("")), Step::Answers(1), Step::Done(1), Step::Send(second)],
            vec![Check::Answer(0, b"ok".to_vec()), Check::RequestsAtMost(2), Check::Any(vec![Check::Answer(1, b"ok".to_vec()), Check::Status(1, &[502])])])
            .cell(vec![vec![Turn::Whole, Turn::Write(ok()), Turn::Close]])
    };
    let close = || vec![Turn::Close];
    let reset = || vec![Turn::Reset];
    vec![
        idle("the idle connection closes, then GET", request("GET", None)).should(vec![Check::Answer(1, b"ok".to_vec())]),
        idle("the idle connection closes, then POST with a body", request("POST", Some("hello"))),
        idle("the idle connection closes, then PUT with a body", request("PUT", Some("hello"))),
        again("GET, closed after its head", request("GET", None), close()),
        again("GET, reset after its head", request("GET", None), reset()),
        again("DELETE, closed after its head", request("DELETE", None), close()),
        again("PUT without a body, closed after its head", request("PUT", Some("")), close()),
        once("POST without a body, closed after its head", request("POST", Some("")), close()),
        once("POST without a length, closed after its head", request("POST", None), close()),
        once("POST with a body, closed after its head", request("POST", Some("hello")), close()),
        once("POST with a body, reset after its head", request("POST", Some("hello")), reset()),
        once("POST with a body, closed after its body", request("POST", Some("hello")), vec![Turn::Whole, Turn::Close]),
        careful("PUT with a body, closed after its head", request("PUT", Some("hello")), close()),
        careful("PUT with a body, closed after its body", request("PUT", Some("hello")), vec![Turn::Whole, Turn::Close]),
        once("PATCH without a body, closed after its head", request("PATCH", None), close()),
        once("an unknown method, closed after its head", request("TRANSFER", None), close()),
        careful("GET with a body, closed after it", request("GET", Some("hello")), vec![Turn::Whole, Turn::Close]),
        careful("GET, closed after half an answer's head", request("GET", None), vec![Turn::Whole, Turn::Write(b"HTTP/1.1 200 OK\r\nconte".to_vec()), Turn::Close]),
        once("POST, closed after half an answer's head", request("POST", Some("hello")), vec![Turn::Whole, Turn::Write(b"HTTP/1.1 200 OK\r\nconte".to_vec()), Turn::Close]),
        careful("GET, closed after 103", request("GET", None), vec![Turn::Whole, Turn::Write(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()), Turn::Close]),
        careful("GET, closed after one byte", request("GET", None), vec![Turn::Whole, Turn::Write(b"H".to_vec()), Turn::Close]),
        once("POST, closed after 103", request("POST", Some("hello")), vec![Turn::Whole, Turn::Write(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()), Turn::Close]),
        then("GET, closed after half an answer", request("GET", None), vec![Turn::Whole, Turn::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec()), Turn::Close],
            vec![Check::RequestsAtMost(2), Check::AnswerCut(1)]),
        Case::holds("GET, closed after its head each time", RETRY,
            vec![Step::Send(get("")), Step::Answers(1), Step::Done(1), Step::Send(request("GET", None))],
            vec![Check::Answer(0, b"ok".to_vec())]).should(vec![Check::Status(1, &[502]), Check::RequestsAtMost(3)])
            .cell([vec![vec![Turn::Whole, Turn::Write(ok())]], vec![vec![Turn::Close]; 9]].concat()),
    ]
}

fn fresh() -> Vec<Case> {
    let first = |name, bytes: Vec<u8>, turns: Vec<Turn>, must: Vec<Check>| {
        Case::holds(name, RETRY, vec![Step::Send(bytes)], [must, vec![Check::RequestsAtMost(1)]].concat()).cell(vec![turns])
    };
    let bad = || vec![Check::Status(0, &[502])];
    vec![
        first("POST with a body, closed after its head", request("POST", Some("hello")), vec![Turn::Close], bad()),
        first("POST with a body, reset after its head", request("POST", Some("hello")), vec![Turn::Reset], bad()),
        first("POST with a body, closed after its body", request("POST", Some("hello")), vec![Turn::Whole, Turn::Close], bad()),
        first("POST without a body, closed after its head", request("POST", None), vec![Turn::Close], bad()),
        first("PUT with a body, closed after its body", request("PUT", Some("hello")), vec![Turn::Whole, Turn::Close], bad()),
        Case::holds("GET, closed after its head each time", RETRY, vec![Step::Send(request("GET", None))], bad())
            .should(vec![Check::RequestsAtMost(2)]).cell(vec![vec![Turn::Close]; 9]),
        Case::holds("two requests sent at once, the first of which the cell breaks off", RETRY,
            vec![Step::Send([b"POST /x HTTP/1.1\r\nhost: HOST\r\ncontent-length: 5\r\n\r\nhello".to_vec(), fence()].concat())],
            vec![Check::NothingElse, Check::Status(0, &[502])]).cell(vec![vec![Turn::Whole, Turn::Close]]),
    ]
}
