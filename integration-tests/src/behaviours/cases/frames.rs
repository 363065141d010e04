//! HTTP/2 frame by frame: what breaks the protocol, and what only costs.

use super::super::{AUTHORITY, Case, Check, PREFACE, Section, Step, Turn};
use super::http2::{fence, open};
use crate::http2::{ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::http2::{fields, frame, head, setting};

const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;
const FLOOD: &str = "RFC 9113 section 10.5";

/// Why the router gives another code.
const CODE: &str = "the library for HTTP/2 says PROTOCOL_ERROR for it; the connection ends all the same";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "HTTP/2: frames",
            about: "What breaks the protocol ends the connection, and says why; what is only unknown is passed over.",
            cases: broken(),
        },
        Section {
            title: "HTTP/2: floods",
            about: "What costs the sender little and the receiver much. The RFC leaves the limits to the receiver: a \
                    connection that goes on is debatable, a next client that is not served is wrong.",
            cases: floods(),
        },
    ]
}

fn request(method: &str) -> Vec<(&str, &str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", AUTHORITY), (":path", "/x")]
}

fn get(stream: u32) -> Vec<u8> {
    head(stream, END_STREAM, &request("GET"))
}

/// Ends the connection with one of these codes; the cell gets nothing of what breaks the protocol.
fn ends(name: &'static str, source: &'static str, frames: Vec<Vec<u8>>, codes: &'static [u32]) -> Case {
    Case::holds(name, source, vec![Step::Send(open(&frames)), Step::Answers(9), Step::Leave], vec![Check::NothingElse])
        .should(vec![Check::EndsItself, Check::Goaway(codes)])
}

fn broken() -> Vec<Case> {
    let again = |name, source, frames: Vec<Vec<u8>>| {
        Case::holds(name, source, vec![Step::Send(open(&frames)), Step::Send(fence()), Step::Answers(1), Step::Leave], vec![Check::Served, Check::NothingElse])
    };
    // Answered after all that came before it.
    let closed = |name, frames: Vec<Vec<u8>>| {
        Case::holds(name, "RFC 9113 section 5.1", vec![Step::Send(open(&[frames, vec![frame(PING, 0, 0, [0; 8])]].concat())), Step::Pong, Step::Leave],
            vec![Check::NothingElse])
            .should(vec![Check::Any(vec![Check::Reset(0, &[CLOSED]), Check::Goaway(&[CLOSED])])]).except(CODE)
    };
    let on = |stream: u32, kind: u8, payload: &[u8]| frame(kind, 0, stream, payload);
    let half = |stream| head(stream, 0, &request("POST"));
    let block = fields(&request("GET"));
    vec![
        Case::holds("a preface with a slip in it", "RFC 9113 section 3.4",
            vec![Step::Send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", &PREFACE[24..], &fence()[..]].concat()), Step::Answers(9)], vec![Check::Requests(0)])
            .should(vec![Check::Ends]),
        Case::holds("no SETTINGS after the preface", "RFC 9113 section 3.4",
            vec![Step::Send([PREFACE.to_vec(), get(1)].concat()), Step::Answers(9), Step::Leave], vec![Check::NothingElse])
            .should(vec![Check::EndsItself, Check::Requests(0)]),
        ends("a request on an even stream", "RFC 9113 section 5.1.1", vec![get(2)], &[PROTOCOL]),
        ends("a request on stream 0", "RFC 9113 section 6.2", vec![get(0)], &[PROTOCOL]),
        ends("a request on a lower stream", "RFC 9113 section 5.1.1", vec![get(5), get(3)], &[PROTOCOL, CLOSED]),
        ends("DATA on stream 0", "RFC 9113 section 6.1", vec![on(0, DATA, b"x")], &[PROTOCOL]),
        ends("DATA on an idle stream", "RFC 9113 section 5.1", vec![on(1, DATA, b"x")], &[PROTOCOL, CLOSED]),
        ends("RST_STREAM on an idle stream", "RFC 9113 section 6.4", vec![on(1, RST_STREAM, &[0, 0, 0, 8])], &[PROTOCOL]),
        ends("RST_STREAM of three bytes", "RFC 9113 section 6.4", vec![half(1), on(1, RST_STREAM, &[0, 0, 8])], &[SIZE]),
        ends("WINDOW_UPDATE on an idle stream", "RFC 9113 section 5.1", vec![on(1, WINDOW_UPDATE, &[0, 0, 0, 1])], &[PROTOCOL]),
        ends("WINDOW_UPDATE of 0", "RFC 9113 section 6.9", vec![on(0, WINDOW_UPDATE, &[0; 4])], &[PROTOCOL]),
        ends("WINDOW_UPDATE of three bytes", "RFC 9113 section 6.9", vec![on(0, WINDOW_UPDATE, &[0, 0, 1])], &[SIZE]),
        ends("a window beyond 2^31 - 1", "RFC 9113 section 6.9.1", vec![on(0, WINDOW_UPDATE, &[0x7f, 0xff, 0xff, 0xff])], &[FLOW]),
        ends("SETTINGS on a stream", "RFC 9113 section 6.5", vec![on(1, SETTINGS, &[])], &[PROTOCOL]),
        ends("SETTINGS of five bytes", "RFC 9113 section 6.5", vec![on(0, SETTINGS, &[0; 5])], &[SIZE]),
        ends("an acknowledgement of SETTINGS with a payload", "RFC 9113 section 6.5", vec![frame(SETTINGS, ACK, 0, setting(4, 1))], &[SIZE]),
        ends("SETTINGS_ENABLE_PUSH of 2", "RFC 9113 section 6.5.2", vec![frame(SETTINGS, 0, 0, setting(2, 2))], &[PROTOCOL]),
        ends("an initial window of 2^31", "RFC 9113 section 6.5.2", vec![frame(SETTINGS, 0, 0, setting(4, 1 << 31))], &[FLOW]).except(CODE),
        ends("a frame size of 16,383", "RFC 9113 section 6.5.2", vec![frame(SETTINGS, 0, 0, setting(5, 16_383))], &[PROTOCOL]),
        ends("PING on a stream", "RFC 9113 section 6.7", vec![on(1, PING, &[0; 8])], &[PROTOCOL]),
        ends("PING of seven bytes", "RFC 9113 section 6.7", vec![on(0, PING, &[0; 7])], &[SIZE]),
        ends("GOAWAY on a stream", "RFC 9113 section 6.8", vec![on(1, GOAWAY, &[0; 8])], &[PROTOCOL]),
        ends("PUSH_PROMISE of a client", "RFC 9113 section 8.4", vec![frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2], &block[..]].concat())], &[PROTOCOL]),
        ends("CONTINUATION after nothing", "RFC 9113 section 6.10", vec![frame(CONTINUATION, END_HEADERS, 1, &block)], &[PROTOCOL]),
        ends("CONTINUATION of another stream", "RFC 9113 section 6.10", vec![frame(HEADERS, END_STREAM, 1, &block[..9]), frame(CONTINUATION, END_HEADERS, 3, &block[9..])], &[PROTOCOL]),
        ends("PING in the middle of a head", "RFC 9113 section 6.10", vec![frame(HEADERS, END_STREAM, 1, &block[..9]), on(0, PING, &[0; 8]), frame(CONTINUATION, END_HEADERS, 1, &block[9..])], &[PROTOCOL]),
        ends("padding longer than its frame", "RFC 9113 section 6.1", vec![half(1), frame(DATA, PADDED, 1, [9, b'x'])], &[PROTOCOL]),
        ends("padding longer than its head", "RFC 9113 section 6.2", vec![frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, [&[255], &block[..]].concat())], &[PROTOCOL]),
        ends("DATA of 16,385 bytes", "RFC 9113 section 4.2", vec![half(1), frame(DATA, END_STREAM, 1, vec![b'x'; 16_385])], &[SIZE]),
        ends("HEADERS of 16,385 bytes", "RFC 9113 section 4.2", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, vec![0x82; 16_385])], &[SIZE]),
        ends("an index of a field that is not there", "RFC 7541 section 2.3.3", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, [&block[..], &[0xff, 0x80, 0x01]].concat())], &[COMPRESSION]).except(CODE),
        ends("a field that ends in the middle", "RFC 7541 section 5.2", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &block[..block.len() - 1])], &[COMPRESSION]).except(CODE),
        ends("a table larger than was offered", "RFC 7541 section 6.3", vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, [&[0x3f, 0xff, 0xff, 0x7f], &block[..]].concat())], &[COMPRESSION]).except(CODE),
        closed("DATA after the end of its stream", vec![get(1), on(1, DATA, b"GET /smuggled HTTP/1.1\r\n\r\n")]),
        closed("HEADERS after the end of its stream", vec![get(1), head(1, END_STREAM, &[("x", "y")])]),
        again("a frame of an unknown type", "RFC 9113 section 4.1", vec![on(0, 0x7b, b"x")]),
        again("an unknown setting", "RFC 9113 section 6.5.2", vec![frame(SETTINGS, 0, 0, setting(0x7b, 7))]),
        again("PRIORITY on an idle stream", "RFC 9113 section 5.3.2", vec![on(7, PRIORITY, &[0, 0, 0, 0, 15])]),
        again("a PING", "RFC 9113 section 6.7", vec![on(0, PING, &[7; 8])]),
    ]
}

fn floods() -> Vec<Case> {
    let flood = |name, frames: Vec<Vec<u8>>| {
        Case::holds(name, FLOOD, vec![Step::Send(open(&frames)), Step::Answers(usize::MAX), Step::Leave, Step::Connect, Step::Send(open(&[fence()])), Step::Answers(1), Step::Leave],
            vec![Check::Served])
            .should(vec![Check::EndsItself])
    };
    let refused = |case: Case| case.right_is(vec![Check::Served, Check::Requests(1)], vec![Check::EndsItself]);
    let block = fields(&request("GET"));
    let opens = |count: u32, each: &dyn Fn(u32) -> Vec<u8>| (0..count).map(|n| each(2 * n + 1)).collect::<Vec<_>>();
    let cancel = |stream| frame(RST_STREAM, 0, stream, 8_u32.to_be_bytes());
    let many = |count: usize, one: Vec<u8>| vec![one; count];
    let after = |first: Vec<u8>, rest: Vec<Vec<u8>>| [vec![first], rest].concat();
    // An entry of 4,000 bytes in the table, then named 10,000 times: 40 MB from 14 kB.
    let bomb = {
        let mut entry = vec![0x40, 1, b'x', 127, 0xa1, 0x1e];
        entry.extend(vec![b'y'; 4000]);
        [block.clone(), entry, vec![0xbe; 10_000]].concat()
    };
    let head_of = |lines: usize| {
        let line = fields(&[("x", &"y".repeat(995))]);
        let all = [block.clone(), line.repeat(lines)].concat();
        let (first, rest) = all.split_at(16_000);
        let mut frames = vec![frame(HEADERS, END_STREAM, 1, first)];
        let mut parts = rest.chunks(16_000).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
            frames.push(frame(CONTINUATION, flags, 1, part));
        }
        frames
    };
    vec![
        flood("2,000 requests, each reset at once", opens(2000, &|stream| [get(stream), cancel(stream)].concat()))
            .right_is(vec![Check::Served], vec![Check::RequestsAtMost(500), Check::EndsItself])
            .cell(vec![vec![Turn::Whole, Turn::Write(super::ok())]]),
        flood("2,000 requests, each with a mistake after it that resets it", opens(2000, &|stream| [head(stream, 0, &request("POST")), frame(WINDOW_UPDATE, 0, stream, [0; 4])].concat()))
            .right_is(vec![Check::Served], vec![Check::RequestsAtMost(500), Check::EndsItself]),
        refused(flood("a head of 300 CONTINUATION frames of 16,000 bytes", after(frame(HEADERS, END_STREAM, 1, &block), many(300, frame(CONTINUATION, 0, 1, fields(&[("x", &"y".repeat(15_990))])))))),
        refused(flood("a head of 50,000 CONTINUATION frames of one field", after(frame(HEADERS, END_STREAM, 1, &block), many(50_000, frame(CONTINUATION, 0, 1, fields(&[("x", "y")])))))),
        refused(flood("a head of 50,000 empty CONTINUATION frames", after(frame(HEADERS, END_STREAM, 1, &block), many(50_000, frame(CONTINUATION, 0, 1, []))))),
        flood("20,000 SETTINGS", many(20_000, frame(SETTINGS, 0, 0, setting(3, 100)))),
        flood("20,000 SETTINGS of a client that does not read", many(20_000, frame(SETTINGS, 0, 0, setting(3, 100)))).resting(),
        flood("20,000 PINGs", many(20_000, frame(PING, 0, 0, [0; 8]))),
        flood("20,000 PINGs of a client that does not read", many(20_000, frame(PING, 0, 0, [0; 8]))).resting(),
        flood("20,000 empty DATA frames", after(head(1, 0, &request("POST")), many(20_000, frame(DATA, 0, 1, [])))),
        flood("20,000 PRIORITY frames", many(20_000, frame(PRIORITY, 0, 1, [0, 0, 0, 3, 7]))),
        flood("20,000 frames of an unknown type", many(20_000, frame(0x7b, 0, 0, []))),
        flood("20,000 WINDOW_UPDATEs of 1", many(20_000, frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]))),
        Case::holds("a head of 1,000,000 bytes", "RFC 9113 section 10.5.1",
            vec![Step::Send(open(&head_of(1000))), Step::Answers(1), Step::Leave], vec![Check::Requests(0)]).should(vec![Check::Refused(0)]),
        Case::holds("a head of 40,000,000 bytes in 14,000", "RFC 9113 section 10.5.1",
            vec![Step::Send(open(&[frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb[..bomb.len().min(16_384)])])), Step::Answers(1), Step::Leave], vec![Check::Requests(0)])
            .should(vec![Check::Refused(0)]),
        Case::holds("a head of 12,000 bytes", "RFC 9113 section 10.5.1",
            vec![Step::Send(open(&[frame(HEADERS, END_STREAM | END_HEADERS, 1, [block.clone(), fields(&[("x", &"y".repeat(995))]).repeat(12)].concat())])), Step::Answers(1), Step::Leave],
            vec![Check::Answer(0, b"ok".to_vec())]),
        Case::holds("1,000 uploads begun at once", "RFC 9113 section 5.1.2",
            vec![Step::Send(open(&[opens(1000, &|stream| head(stream, 0, &request("POST"))), vec![frame(PING, 0, 0, [0; 8])]].concat())), Step::Pong, Step::Leave, Step::Connect, Step::Send(open(&[fence()])), Step::Answers(1), Step::Leave],
            vec![Check::Served]).should(vec![Check::RequestsAtMost(300)]),
    ]
}
