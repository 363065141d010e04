//! Frames of a WebSocket: wherever its bytes are split, a frame ends where one who reads them whole sees its end.

use cell_router::wire::websocket::{Frames, going_away_masked};

use super::pieces;

/// What must hold for one direction of a connection.
pub fn holds(data: &[u8]) {
    let (ends, close) = ends(data);
    let mut at_once = Frames::default();
    at_once.pass(data);
    assert_eq!(at_once.closed(), close.is_some());
    let past = close.is_some_and(|end| end <= data.len());
    assert_eq!(at_once.between(), past || ends.contains(&data.len()));
    for way in pieces::ways(data) {
        let mut frames = Frames::default();
        let mut at = 0;
        for piece in way {
            frames.pass(piece);
            at += piece.len();
            let closed = close.is_some_and(|end| end <= at);
            assert_eq!(frames.closed(), closed, "after {at} bytes");
            assert_eq!(
                frames.between(),
                closed || ends.contains(&at),
                "after {at} bytes"
            );
        }
        assert_eq!(frames, at_once);
    }
    finishes(data, &ends, close);
    if let [a, b, c, d, ..] = *data {
        let mut frames = Frames::default();
        frames.pass(&going_away_masked([a, b, c, d]));
        assert!(frames.closed(), "whatever the key");
    }
}

/// From the middle of a frame, its end is found and no byte more is taken.
fn finishes(data: &[u8], ends: &[usize], close: Option<usize>) {
    let middle = data.len() / 2;
    if close.is_some_and(|end| end <= middle) {
        return;
    }
    let mut frames = Frames::default();
    frames.pass(&data[..middle]);
    let next = ends.iter().find(|end| **end >= middle);
    let end = next.copied().unwrap_or(data.len());
    assert_eq!(frames.finish(&data[middle..]), end - middle);
}

/// Where frames end, the beginning included, up to where a Close frame does (RFC 6455 section 5.2).
fn ends(data: &[u8]) -> (Vec<usize>, Option<usize>) {
    let mut ends = vec![0];
    let mut at = 0;
    while let [first, second, rest @ ..] = &data[at..] {
        let wide = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(digits) = rest.get(..wide) else {
            break;
        };
        let payload = match wide {
            0 => u64::from(second & 0x7F),
            _ => digits
                .iter()
                .fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let end = (at as u64 + 2 + wide as u64 + mask).checked_add(payload);
        let Some(end) = end
            .and_then(|end| usize::try_from(end).ok())
            .filter(|end| *end <= data.len())
        else {
            break;
        };
        at = end;
        ends.push(at);
        if first & 0x0F == 8 {
            return (ends, Some(at));
        }
    }
    (ends, None)
}
