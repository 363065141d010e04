//! The chunked transfer coding: however it comes, it holds the same bytes and ends at the same place.

use bytes::BytesMut;
use cell_router::http1::Fault;
use cell_router::http1::chunked::{Decoder, Step};
use http::HeaderMap;

use super::{pieces, strict};

/// What the router makes of a connection's bytes after a head.
#[derive(Debug, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    trailers: HeaderMap,
    /// How many bytes follow the body, where its end has been read.
    rest: Option<usize>,
    fault: Option<Fault>,
}

fn decode(text: &[u8], pieces: &[&[u8]]) -> Decoded {
    let (mut decoder, mut read) = (Decoder::default(), BytesMut::new());
    let mut decoded = Decoded {
        data: Vec::new(),
        trailers: HeaderMap::new(),
        rest: None,
        fault: None,
    };
    let (mut next, mut taken) = (pieces.iter(), 0);
    loop {
        match decoder.step(&mut read) {
            Ok(Step::Data(data)) => {
                assert!(!data.is_empty(), "a step forward");
                decoded.data.extend_from_slice(&data);
            }
            Ok(Step::Trailers(trailers)) => decoded.trailers = trailers,
            Ok(Step::End) => {}
            Ok(Step::More) => match next.next() {
                Some(piece) => {
                    read.extend_from_slice(piece);
                    taken += piece.len();
                }
                None => return decoded,
            },
            Err(fault) => {
                decoded.fault = Some(fault);
                return decoded;
            }
        }
        if decoder.ended() {
            decoded.rest = Some(read.len() + text.len() - taken);
            return decoded;
        }
    }
}

/// What must hold for the bytes after a head that says `chunked`.
pub fn holds(data: &[u8]) {
    let whole = decode(data, &[data]);
    for way in pieces::ways(data) {
        let pieces = decode(data, &way);
        if whole.fault.is_some() {
            assert_eq!(pieces.fault, whole.fault);
        } else {
            assert_eq!(pieces, whole);
        }
    }
    match strict::body(data, strict::Framing::Chunked) {
        Ok(body) if whole.fault.is_none() => {
            assert_eq!(whole.data, body.data);
            assert_eq!(whole.rest, Some(data.len() - body.bytes));
            assert!(strict::same(&whole.trailers, &body.trailers));
        }
        Ok(_) => assert!(
            large(data),
            "{:?}, but the second reader takes it",
            whole.fault
        ),
        Err(strict::Stop::More) if whole.fault.is_some() => {
            // A fault may be seen before the line that has it is there.
            let completed = [data, b"\r\n\r\n"].concat();
            let second = strict::body(&completed, strict::Framing::Chunked);
            assert!(second.is_err() || large(data), "{:?}", whole.fault);
        }
        Err(strict::Stop::More) => assert_eq!(whole.rest, None),
        Err(strict::Stop::Malformed) => {
            assert_eq!(whole.rest, None, "the second reader refuses it")
        }
    }
}

/// Whether some limit of size may be what an input is refused for.
pub fn large(data: &[u8]) -> bool {
    let digits = |line: &[u8]| {
        line.iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count()
    };
    let lines = data.split(|byte| *byte == b'\n');
    lines
        .clone()
        .any(|line| line.len() > 200 || digits(line) > 15)
        || lines.count() > 64
}
