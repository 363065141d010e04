//! A reader of what came over an HTTP/2 connection, for what came out of a proxy.

use std::collections::BTreeMap;

use fluke_hpack::Decoder;

use super::message::Message;
use crate::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, frame,
};

/// Flag of a frame with padding.
const PADDED: u8 = 8;
/// Flag of `HEADERS` with a priority.
const PRIORITISED: u8 = 32;

/// What came over a connection.
#[derive(Debug, Default)]
pub struct Received {
    /// The answers, stream by stream; one that has not come has no line.
    pub answers: Vec<Message>,
    /// The code with which the connection was given up.
    pub goaway: Option<u32>,
}

/// The name of a code (RFC 9113 section 7).
pub fn code(code: u32) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = names.get(code as usize);
    name.map_or_else(|| code.to_string(), |name| (*name).to_owned())
}

/// The whole frames in `bytes`, and how many bytes they are.
pub fn frames(bytes: &[u8]) -> (Vec<Frame>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + 9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = bytes.get(at + 9..at + 9 + length) else {
            break;
        };
        found.push(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload: payload.to_vec(),
        });
        at += 9 + length;
    }
    (found, at)
}

/// What is owed for these frames: acknowledgements of settings and pings (RFC 9113 sections 6.5.3 and 6.7).
pub fn owed(frames: &[Frame]) -> Vec<u8> {
    let asks = frames.iter().filter(|frame| frame.flags & ACK == 0);
    asks.filter_map(|asked| match asked.kind {
        SETTINGS => Some(frame(SETTINGS, ACK, 0, [])),
        PING => Some(frame(PING, ACK, 0, &asked.payload)),
        _ => None,
    })
    .flatten()
    .collect()
}

/// What came in these bytes. An answer to `HEAD` has no body.
pub fn received(bytes: &[u8], head_only: bool) -> Received {
    let mut reader = Reader {
        heads: Decoder::new(),
        streams: BTreeMap::new(),
        goaway: None,
        block: None,
    };
    for frame in frames(bytes).0 {
        reader.frame(&frame);
    }
    let last = reader.streams.keys().next_back().copied().unwrap_or(0);
    let mut answers = Vec::new();
    for stream in (1..=last).step_by(2) {
        let mut got = reader.streams.remove(&stream).unwrap_or_default();
        for answer in &mut got {
            answer.flaw = answer.flaw.or_else(|| flaw(answer, head_only));
        }
        if got.last().is_none_or(|last| last.interim()) {
            got.push(Message::default());
        }
        answers.extend(got);
    }
    Received {
        answers,
        goaway: reader.goaway,
    }
}

struct Reader<'a> {
    heads: Decoder<'a>,
    /// The answers on each stream, interim ones first.
    streams: BTreeMap<u32, Vec<Message>>,
    goaway: Option<u32>,
    /// A block of fields that goes on, and the flags of its first frame.
    block: Option<(u8, Vec<u8>)>,
}

impl Reader<'_> {
    fn frame(&mut self, frame: &Frame) {
        match frame.kind {
            HEADERS => {
                let fields = unpadded(frame);
                let skipped = if frame.flags & PRIORITISED != 0 { 5 } else { 0 };
                let fields = fields.get(skipped..).unwrap_or_default().to_vec();
                self.block = Some((frame.flags, fields));
            }
            CONTINUATION => {
                if let Some((_, block)) = &mut self.block {
                    block.extend_from_slice(&frame.payload);
                }
            }
            DATA => {
                let data = unpadded(frame);
                let answer = self.answer(frame.stream);
                answer.body.extend_from_slice(data);
                answer.whole |= frame.flags & END_STREAM != 0;
            }
            RST_STREAM => self.answer(frame.stream).reset = frame.code(),
            GOAWAY => self.goaway = frame.code(),
            _ => {}
        }
        if matches!(frame.kind, HEADERS | CONTINUATION)
            && frame.flags & END_HEADERS != 0
            && let Some((flags, block)) = self.block.take()
        {
            self.head(frame.stream, flags, &block);
        }
    }

    /// The answer that goes on over this stream.
    fn answer(&mut self, stream: u32) -> &mut Message {
        let answers = self.streams.entry(stream).or_default();
        if answers.last().is_none_or(Message::interim) {
            answers.push(Message::default());
        }
        let last = answers.len() - 1;
        &mut answers[last]
    }

    fn head(&mut self, stream: u32, flags: u8, block: &[u8]) {
        let Ok(fields) = self.heads.decode(block) else {
            self.answer(stream).flaw = Some("has a head that cannot be decoded");
            return;
        };
        let (pseudo, fields): (Vec<_>, Vec<_>) = fields
            .into_iter()
            .map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value))
            .partition(|(name, _)| name.starts_with(':'));
        let answer = self.answer(stream);
        if answer.line.is_empty() {
            match &pseudo[..] {
                [(name, status)] if name == ":status" => {
                    answer.line = format!("HTTP/2 {}", String::from_utf8_lossy(status));
                }
                _ => answer.flaw = Some("has not one status"),
            }
            answer.fields = fields;
            if answer.interim() {
                answer.whole = true;
            }
        } else {
            answer.trailers = fields;
        }
        answer.whole |= flags & END_STREAM != 0;
    }
}

fn unpadded(frame: &Frame) -> &[u8] {
    let payload = &frame.payload[..];
    if frame.flags & PADDED == 0 {
        return payload;
    }
    let padding = usize::from(payload.first().copied().unwrap_or_default());
    let end = payload.len().saturating_sub(padding);
    payload.get(1..end).unwrap_or_default()
}

/// What nobody may send (RFC 9113 sections 8.1.1 and 8.2).
fn flaw(answer: &Message, head_only: bool) -> Option<&'static str> {
    let names = || {
        let fields = answer.fields.iter().chain(&answer.trailers);
        fields.map(|(name, _)| name.as_str())
    };
    let hop = |name: &str| {
        matches!(
            name,
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
        )
    };
    if names().any(hop) {
        return Some("has a field of one connection");
    }
    if names().any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Some("has a name in upper case");
    }
    let bodiless = head_only || matches!(answer.status(), 100..200 | 204 | 304);
    let lengths: Vec<_> = answer.values("content-length").collect();
    match &lengths[..] {
        [] => None,
        [length] => {
            let told = std::str::from_utf8(length).ok()?.parse::<usize>();
            let agrees = told.is_ok_and(|told| told == answer.body.len());
            (answer.whole && !bodiless && !agrees).then_some("has a length that disagrees")
        }
        _ => Some("has several lengths"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::head;

    #[test]
    fn answers_are_read_stream_by_stream() {
        let bytes = [
            head(3, END_STREAM, &[(":status", "204")]),
            head(1, 0, &[(":status", "103"), ("link", "</a>")]),
            head(1, 0, &[(":status", "200"), ("content-length", "2")]),
            frame(DATA, PADDED, 1, b"\x01ok\0"),
            head(1, END_STREAM, &[("x-sum", "1")]),
            frame(RST_STREAM, 0, 7, 8_u32.to_be_bytes()),
            frame(GOAWAY, 0, 0, [0, 0, 0, 7, 0, 0, 0, 11]),
            b"half".to_vec(),
        ]
        .concat();
        let received = received(&bytes, false);
        assert_eq!(received.goaway, Some(11));
        let told: Vec<_> = received
            .answers
            .iter()
            .map(|answer| (answer.status(), answer.whole, answer.reset, answer.flaw))
            .collect();
        assert_eq!(
            told,
            [
                (103, true, None, None),
                (200, true, None, None),
                (204, true, None, None),
                (0, false, None, None),
                (0, false, Some(8), None)
            ]
        );
        assert_eq!(received.answers[1].body, b"ok");
        assert_eq!(received.answers[1].trailers.len(), 1);
    }

    #[test]
    fn what_nobody_may_send_is_seen() {
        for (lines, body, flaw) in [
            (
                &[(":status", "200"), ("connection", "close")][..],
                "",
                "has a field of one connection",
            ),
            (
                &[(":status", "200"), ("X", "1")],
                "",
                "has a name in upper case",
            ),
            (
                &[(":status", "200"), ("content-length", "3")],
                "ok",
                "has a length that disagrees",
            ),
            (&[("x", "1")], "", "has not one status"),
        ] {
            let bytes = [head(1, 0, lines), frame(DATA, END_STREAM, 1, body)].concat();
            assert_eq!(received(&bytes, false).answers[0].flaw, Some(flaw));
        }
    }

    #[test]
    fn settings_and_pings_are_owed_an_answer() {
        let bytes = [
            frame(SETTINGS, 0, 0, []),
            frame(SETTINGS, ACK, 0, []),
            frame(PING, 0, 0, b"12345678"),
        ]
        .concat();
        let (frames, read) = frames(&bytes);
        assert_eq!(read, bytes.len());
        let wanted = [
            frame(SETTINGS, ACK, 0, []),
            frame(PING, ACK, 0, b"12345678"),
        ]
        .concat();
        assert_eq!(owed(&frames), wanted);
    }
}
