//! How a cell ends: told to, or by itself; never under running work.

use std::net::TcpStream;

use crate::cell::{Cell, stored};

#[test]
fn sigterm_lets_a_running_upload_finish() {
    let data = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(data.path(), &[]);
    let mut upload = cell.connect();
    upload.begin_upload("a", 6);
    upload.send(b"abc");
    cell.signal("TERM");
    let stopping = cell.logged("stopping");
    assert_eq!(stopping["reason"], "SIGTERM");
    assert!(
        TcpStream::connect(cell.address).is_err(),
        "new work is refused"
    );
    upload.send(b"def");
    let answer = upload.answer();
    assert_eq!((answer.status, &answer.json()["bytes"]), (201, &6.into()));
    assert!(cell.exit().success());
    assert_eq!(stored(data.path()), ["a"]);
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let data = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(data.path(), &[("CELL_DRAIN_S", "4000000000")]);
    let mut connection = cell.connect();
    connection.head("GET /whoami HTTP/1.1");
    assert_eq!(connection.answer().status, 200);
    cell.signal("TERM");
    assert!(cell.exit().success());
    assert!(connection.is_at_end());
}

#[test]
fn requests_on_their_way_at_the_end_are_still_answered() {
    let data = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(data.path(), &[]);
    let mut used = cell.connect();
    used.head("GET /whoami HTTP/1.1");
    assert_eq!(used.answer().status, 200);
    // While the process stands still, the kernel takes the connection, the bytes and the signal.
    cell.signal("STOP");
    let mut connections: Vec<_> = (0..30).map(|_| cell.connect()).collect();
    connections.push(used);
    for connection in &mut connections {
        connection.head("GET /whoami HTTP/1.1");
    }
    cell.signal("TERM");
    cell.signal("CONT");
    for connection in &mut connections {
        assert_eq!(connection.answer().status, 200);
    }
    drop(connections);
    assert!(cell.exit().success());
}

#[test]
fn up_says_that_the_cell_drains() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    cell.signal("STOP");
    let mut connection = cell.connect();
    connection.send(b"GET /up HTTP/1.1\r\n");
    cell.signal("TERM");
    cell.signal("CONT");
    cell.logged("stopping");
    connection.send(b"host: alice.example.com\r\n\r\n");
    let answer = connection.answer();
    let expected = (503, &"draining".into());
    assert_eq!((answer.status, &answer.json()["status"]), expected);
}

#[test]
fn when_the_drain_time_is_over_work_is_cut_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(data.path(), &[("CELL_DRAIN_S", "1")]);
    let mut upload = cell.connect();
    upload.begin_upload("a", 6);
    upload.send(b"abc");
    cell.signal("TERM");
    cell.logged("drain time is over: work was cut");
    assert!(cell.exit().success());
    assert_eq!(stored(data.path()), [""; 0]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut cell = Cell::start(data.path(), &[("CELL_DRAIN_S", "4000000000")]);
    let mut upload = cell.connect();
    upload.begin_upload("a", 6);
    cell.signal("TERM");
    cell.logged("stopping");
    cell.signal("INT");
    cell.logged("told twice: work was cut");
    assert!(cell.exit().success());
}

#[test]
fn a_running_upload_keeps_the_cell_awake() {
    let data = tempfile::tempdir().unwrap();
    let idle = [("CELL_IDLE_STOP_S", "3")];
    let mut cell = Cell::start(data.path(), &idle);
    let mut upload = cell.connect();
    upload.begin_upload("a", 6);
    upload.send(b"abc");
    // A cell without work, started later, measures the time.
    let other = tempfile::tempdir().unwrap();
    assert!(Cell::start(other.path(), &idle).exit().success());
    assert_eq!(cell.get("/up").status, 200, "new work is still taken");
    upload.send(b"def");
    assert_eq!(upload.answer().status, 201);
    assert_eq!(cell.logged("stopped")["reason"], "idle");
    assert!(cell.exit().success());
}

#[test]
fn settings_that_cannot_be_used_end_the_process_with_the_reason() {
    for (setting, value) in [
        ("CELL_NAME", "a.b"),
        ("CELL_SECRET", "a,b,c"),
        ("CELL_BASE_PATH", "alice"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_cell-app"))
            .env_clear()
            .env("CELL_NAME", "alice")
            .env(setting, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stdout).unwrap().contains(setting));
    }
}
