//! Pushes: over a WebSocket and as events.

use serde_json::Value;

use crate::cell::{Cell, Connection};

const TEXT: u8 = 1;

fn open(cell: &Cell) -> Connection {
    let mut socket = cell.connect();
    socket.head(
        "GET /live HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    );
    let answer = socket.answer_head();
    // The example of RFC 6455 section 1.3.
    assert_eq!(
        answer.header("sec-websocket-accept"),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    let (opcode, hello) = socket.frame();
    let hello: Value = serde_json::from_slice(&hello).unwrap();
    assert_eq!((opcode, &hello["cell"]), (TEXT, &"alice".into()));
    socket
}

#[test]
fn a_socket_echoes_and_hears_of_new_posts() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    let mut socket = open(&cell);
    socket.say("hi");
    assert_eq!(socket.frame(), (TEXT, b"hi".to_vec()));
    cell.ask(
        "POST /posts HTTP/1.1\r\ncontent-type: application/json",
        r#"{"title":"new"}"#,
    );
    let push: Value = serde_json::from_slice(&socket.frame().1).unwrap();
    assert_eq!(push["post"]["title"], "new");
}

#[test]
fn events_begin_at_once_and_tell_of_new_posts() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    let mut events = cell.connect();
    events.head("GET /events HTTP/1.1");
    assert_eq!(
        events.answer_head().header("content-type"),
        "text/event-stream"
    );
    let mut next = || loop {
        let line = events.line().unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    assert_eq!(next()["cell"], "alice");
    cell.ask(
        "POST /posts HTTP/1.1\r\ncontent-type: application/json",
        r#"{"title":"new"}"#,
    );
    assert_eq!(next()["post"]["title"], "new");
}

#[test]
fn sockets_and_events_end_when_the_cell_drains() {
    let data = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(data.path(), &[]);
    let mut socket = open(&cell);
    let mut events = cell.connect();
    events.head("GET /events HTTP/1.1");
    assert_eq!(events.answer_head().status, 200);
    cell.signal("INT");
    let (opcode, payload) = socket.frame();
    assert_eq!((opcode, &payload[..2]), (8, &1001_u16.to_be_bytes()[..]));
    drop(socket);
    while events.line().is_some() {}
    assert_eq!(cell.logged("stopped")["reason"], "SIGINT");
    assert!(cell.exit().success());
}

#[test]
fn an_open_socket_keeps_the_cell_awake() {
    let data = tempfile::tempdir().unwrap();
    let idle = [("CELL_IDLE_STOP_S", "3")];
    let mut cell = Cell::start(data.path(), &idle);
    let mut socket = open(&cell);
    // A cell without work, started later, measures the time.
    let other = tempfile::tempdir().unwrap();
    assert!(Cell::start(other.path(), &idle).exit().success());
    socket.say("still there?");
    assert_eq!(socket.frame(), (TEXT, b"still there?".to_vec()));
    drop(socket);
    assert_eq!(cell.logged("stopped")["reason"], "idle");
    assert!(cell.exit().success());
}
