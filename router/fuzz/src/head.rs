//! Heads of HTTP/1.1 requests: however they come, they are read as one thing, or refused.

use bytes::{Bytes, BytesMut};
use cell_router::decision::{BodyLength, Facts, Surroundings};
use cell_router::http1::Fault;
use cell_router::http1::head::{Framing, Head, Limits, Scanner, parse};
use http::Version;

use super::{pieces, strict};

const LIMITS: Limits = Limits {
    bytes: 2048,
    lines: 24,
};

type Read = Result<Option<(Head, Bytes)>, Fault>;

/// What the router makes of a connection's first bytes; with a head come the bytes of it.
fn read(pieces: &[&[u8]]) -> Read {
    let (mut scanner, mut read) = (Scanner::default(), BytesMut::new());
    for piece in pieces {
        read.extend_from_slice(piece);
        if let Some(length) = scanner.scan(&mut read, LIMITS)? {
            let text = read.split_to(length).freeze();
            return parse(&text, LIMITS).map(|head| Some((head, text)));
        }
    }
    Ok(None)
}

/// What must hold for the first bytes of a connection.
pub fn holds(data: &[u8]) {
    let whole = read(&[data]);
    for way in pieces::ways(data) {
        assert_eq!(told(&read(&way)), told(&whole), "in pieces {way:?}");
    }
    let second = strict::head(data);
    match &whole {
        Ok(Some((head, text))) => {
            let second = second.expect("the second reader takes it for a head");
            assert_eq!(
                text.len(),
                second.bytes - if data.starts_with(b"\r\n") { 2 } else { 0 }
            );
            agrees(head, &second);
            lasts(head, text);
            one_authority(head, &second);
        }
        Ok(None) => {
            assert_ne!(
                second.map(|head| head.bytes),
                Ok(data.len()),
                "the head is whole"
            );
        }
        Err(Fault::TargetTooLong | Fault::HeadTooLarge) => {
            assert!(
                data.len() >= LIMITS.bytes
                    || data.iter().filter(|byte| **byte == b'\n').count() > LIMITS.lines
            );
        }
        // What has no meaning here although it is well formed: schemes, user information, codings.
        Err(Fault::Target | Fault::UnknownCoding) => {}
        Err(fault) => {
            assert!(
                second.is_err(),
                "{fault:?}, but the second reader takes it for a head"
            );
        }
    }
}

/// What two readings are compared by.
fn told(read: &Read) -> String {
    match read {
        Ok(Some((head, text))) => format!("{head:?} {text:?}"),
        Ok(None) => "more".to_owned(),
        // A head that comes in pieces may be refused for what comes first in it, a whole one for anything.
        Err(fault) => match fault {
            Fault::TargetTooLong | Fault::HeadTooLarge => "too large".to_owned(),
            fault => format!("{fault:?}"),
        },
    }
}

fn agrees(head: &Head, second: &strict::Head) {
    let parts = &head.parts;
    assert_eq!(parts.method.as_str().as_bytes(), second.method);
    assert_eq!(parts.version == Version::HTTP_11, second.modern);
    if second.target.starts_with(b"/") {
        assert_eq!(parts.uri.to_string().as_bytes(), second.target);
    }
    let framing = match second.framing {
        strict::Framing::Length(0) => Framing::None,
        strict::Framing::Length(length) => Framing::Length(length),
        strict::Framing::Chunked => Framing::Chunked,
        strict::Framing::ToEnd => Framing::ToEnd,
    };
    assert_eq!(head.framing, framing);
    assert!(strict::same(&parts.headers, &second.fields));
    let close = second.lists("connection", "close");
    let asked = second.modern || second.lists("connection", "keep-alive");
    assert_eq!(head.keep_alive, asked && !close);
}

/// Written again from what was understood, it is understood in the same way.
fn lasts(head: &Head, text: &Bytes) {
    let end = text
        .iter()
        .position(|byte| *byte == b'\r')
        .expect("there is a first line");
    let mut again = BytesMut::from(&text[..end + 2]);
    for (name, value) in &head.parts.headers {
        cell_router::http1::encode::field(&mut again, name.as_str(), value.as_bytes());
    }
    again.extend_from_slice(b"\r\n");
    let larger = Limits {
        bytes: again.len() + 1,
        ..LIMITS
    };
    let again = parse(&again.freeze(), larger).expect("it can be read again");
    assert_eq!(format!("{again:?}"), format!("{head:?}"));
}

/// A request that is taken says once for whom it is.
fn one_authority(head: &Head, second: &strict::Head) {
    let surroundings = Surroundings {
        through_edge: false,
        https_at: None,
        replay_max_bytes: 0,
        pseudonym: "me",
    };
    let Ok(facts) = Facts::read(&head.parts, BodyLength::None, &surroundings) else {
        return;
    };
    let hosts: Vec<&[u8]> = second.values("host").collect();
    match hosts[..] {
        [host] => assert!(facts.authority.as_bytes().eq_ignore_ascii_case(host)),
        // RFC 9112 section 3.2.
        _ => assert!(hosts.is_empty() && !second.modern, "{} hosts", hosts.len()),
    }
    assert!(facts.target.starts_with('/'));
    assert!(!matches!(&second.method[..], b"CONNECT" | b"TRACE"));
}
