//! The cases, class by class: pure data.

// One row a line where it fits: these files are tables.
#[rustfmt::skip]
mod answers;
#[rustfmt::skip]
mod bodies;
#[rustfmt::skip]
mod frames;
#[rustfmt::skip]
mod framing;
#[rustfmt::skip]
mod heads;
#[rustfmt::skip]
mod http2;
#[rustfmt::skip]
mod once;
#[rustfmt::skip]
mod targets;

use super::Section;

/// All classes.
pub fn sections() -> Vec<Section> {
    [
        framing::sections(),
        targets::sections(),
        heads::sections(),
        answers::sections(),
        bodies::sections(),
        once::sections(),
        http2::sections(),
        frames::sections(),
    ]
    .concat()
}

/// The request that follows one that may be refused, on the same connection.
pub fn fence() -> Vec<u8> {
    b"GET /end HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n".to_vec()
}

/// The cell's usual answer.
pub fn ok() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()
}

/// `POST /x` with these header lines, each with its end, and these bytes after them.
fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nhost: HOST\r\n{lines}\r\n{rest}").into_bytes()
}

/// `GET /x` with these header lines, each with its end.
fn get(lines: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nhost: HOST\r\n{lines}\r\n").into_bytes()
}

/// `POST /x` in chunks, with these bytes after its head.
fn chunked(rest: &str) -> Vec<u8> {
    post("transfer-encoding: chunked\r\n", rest)
}

/// A cell's 200 with these header lines, each with its end, and these bytes after them.
fn answer(lines: &str, rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n{rest}").into_bytes()
}
