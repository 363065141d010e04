//! Beats: posted to the router while the cell lives, and nothing to the cell when nobody takes them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use ring::hmac;

use crate::cell::Cell;

/// The time of the next beat, whose proof must be right; it is answered with `status`.
fn beat(router: &TcpListener, status: &str) -> u64 {
    let (mut stream, _) = router.accept().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(&stream).lines() {
        let line = line.unwrap();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    assert_eq!(lines[0], "POST /v1/cells/alice/beat HTTP/1.1");
    let token = lines
        .iter()
        .find_map(|line| line.strip_prefix("cell-signature: v1."));
    let (time, mac) = token.unwrap().split_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"new");
    let made = hmac::sign(&key, format!("cell-beat-v1\nalice\n{time}").as_bytes());
    let made: String = made.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(mac, made, "made with the newer of two secrets");
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).unwrap();
    time.parse().unwrap()
}

#[test]
fn a_cell_beats_to_each_router_and_lives_without_them() {
    let routers = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let to = routers
        .each_ref()
        .map(|one| one.local_addr().unwrap().to_string());
    let data = tempfile::tempdir().unwrap();
    let settings = [
        ("CELL_SECRET", "new,old"),
        ("CELL_BEAT_TO", &*to.join(",")),
        ("CELL_BEAT_EVERY_S", "1"),
    ];
    let mut cell = Cell::start(data.path(), &settings);
    let [one, other] = routers;
    let first = beat(&one, "204 No Content");
    assert_eq!(beat(&other, "204 No Content"), first, "the same for both");
    drop(other);
    assert!(beat(&one, "204 No Content") > first);
    cell.logged("a beat did not arrive");
    assert_eq!(cell.get("/up").status, 200, "it serves");
    beat(&one, "500 Internal Server Error");
    beat(&one, "204 No Content");
    cell.signal("TERM");
    assert!(cell.exit().success());
}

#[test]
fn a_beat_needs_a_secret() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cell-app"))
        .env_clear()
        .env("CELL_NAME", "alice")
        .env("CELL_BEAT_TO", "router.internal:9091")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("CELL_BEAT_TO needs CELL_SECRET"), "{said}");
}
