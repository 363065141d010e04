//! Files: whole or not at all.

use ring::digest::{Context, SHA256};

use crate::cell::{Cell, stored};

static PIECE: [u8; 1_000_000] = [7; 1_000_000];

fn hex(context: Context) -> String {
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn fifty_megabytes_arrive_whole() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[("FLY_MACHINE_ID", "7811ab2c9d04e5")]);
    let (mut connection, mut expected) = (cell.connect(), Context::new(&SHA256));
    connection.head("PUT /files/a%20b.bin HTTP/1.1\r\ncontent-length: 50000000");
    for number in 0..50_u8 {
        let mut piece = PIECE;
        piece[0] = number;
        expected.update(&piece);
        connection.send(&piece);
    }
    let answer = connection.answer();
    let expected = serde_json::json!({
        "name": "a b.bin", "bytes": 50_000_000, "sha256": hex(expected), "machine": "7811ab2c9d04e5",
    });
    assert_eq!((answer.status, answer.json()), (201, expected));
    let listed = cell.get("/files").json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["bytes"]),
        (&"a b.bin".into(), &50_000_000.into())
    );
    assert_eq!(stored(data.path()), ["a b.bin"]);
}

#[test]
fn chunked_upload_of_unknown_length_arrives_whole() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    let mut connection = cell.connect();
    connection.head("PUT /files/a HTTP/1.1\r\ntransfer-encoding: chunked");
    connection.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(connection.answer().json()["bytes"], 5);
    assert_eq!(
        cell.ask("PUT /files/a HTTP/1.1", "x").status,
        200,
        "replaced, not created"
    );
}

#[test]
fn a_cut_upload_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    let mut gone = cell.connect();
    gone.begin_upload("cut", 2_000_000);
    gone.send(&PIECE);
    drop(gone);
    cell.logged("upload cut, nothing kept");
    let mut chunked = cell.connect();
    chunked.head("PUT /files/cut HTTP/1.1\r\ntransfer-encoding: chunked");
    chunked.send(b"3\r\nabc\r\n");
    drop(chunked);
    cell.logged("upload cut, nothing kept");
    assert_eq!(stored(data.path()), [""; 0]);
    assert_eq!(cell.get("/files/cut").status, 404);
}

#[test]
fn what_a_crash_left_is_removed_at_start() {
    let data = tempfile::tempdir().unwrap();
    let mut crashed = Cell::start(data.path(), &[]);
    crashed.ask("PUT /files/whole HTTP/1.1", "abc");
    let mut upload = crashed.connect();
    upload.begin_upload("half", 100_000_000);
    // More than sockets and queue hold: some of it is in a file.
    for _ in 0..50 {
        upload.send(&PIECE);
    }
    crashed.signal("KILL");
    crashed.exit();
    assert_eq!(stored(data.path()).len(), 2);
    let _again = Cell::start(data.path(), &[]);
    assert_eq!(stored(data.path()), ["whole"]);
}

#[test]
fn downloads_know_ranges_and_conditions() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[]);
    cell.ask("PUT /files/a.txt HTTP/1.1", "0123456789");
    let whole = cell.get("/files/a.txt");
    assert_eq!((whole.status, whole.text()), (200, "0123456789"));
    assert!(whole.header("content-security-policy").contains("sandbox"));
    let part = cell.ask("GET /files/a.txt HTTP/1.1\r\nrange: bytes=2-4", "");
    assert_eq!(
        (part.status, part.text(), part.header("content-range")),
        (206, "234", "bytes 2-4/10")
    );
    assert_eq!(
        cell.ask("GET /files/a.txt HTTP/1.1\r\nrange: bytes=10-", "")
            .status,
        416
    );
    let since = whole.header("last-modified");
    let unchanged = format!("GET /files/a.txt HTTP/1.1\r\nif-modified-since: {since}");
    assert_eq!(cell.ask(&unchanged, "").status, 304);
    let mut connection = cell.connect();
    connection.head("HEAD /files/a.txt HTTP/1.1\r\nconnection: close");
    assert_eq!(connection.answer_head().header("content-length"), "10");
    assert!(connection.is_at_end());
    assert_eq!(cell.ask("DELETE /files/a.txt HTTP/1.1", "").status, 204);
    assert_eq!(cell.get("/files/a.txt").status, 404);
}

#[test]
fn a_refused_upload_is_answered_unread_and_the_answer_arrives() {
    let data = tempfile::tempdir().unwrap();
    let cell = Cell::start(data.path(), &[("CELL_MAX_UPLOAD_BYTES", "1000000")]);
    for (path, status) in [
        ("/files/a", 413),
        ("/files/.a", 400),
        ("/files/..%2Fa", 400),
    ] {
        // A client that waits is not told to go on.
        let mut waits = cell.connect();
        waits.head(&format!(
            "PUT {path} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 1000001"
        ));
        assert_eq!(waits.answer().status, status, "{path}");
        // A client that sends all of it before it reads still gets the answer.
        let mut sends = cell.connect();
        sends.head(&format!("PUT {path} HTTP/1.1\r\ncontent-length: 5000000"));
        for _ in 0..5 {
            sends.send(&PIECE);
        }
        assert_eq!(sends.answer().status, status, "{path}");
    }
    let mut chunked = cell.connect();
    chunked.head("PUT /files/a HTTP/1.1\r\ntransfer-encoding: chunked");
    for _ in 0..2 {
        chunked.send(b"f4240\r\n");
        chunked.send(&PIECE);
        chunked.send(b"\r\n");
    }
    assert_eq!(chunked.answer().status, 413);
    assert_eq!(stored(data.path()), [""; 0]);
    assert_eq!(
        cell.ask("PUT /files/a HTTP/1.1", PIECE).status,
        201,
        "exactly at the limit"
    );
}
