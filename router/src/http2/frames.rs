//! Frames as they pass (RFC 9113 section 4): their heads and ends, found in bytes that come in pieces.

/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;

/// `DATA` (RFC 9113 section 6.1).
pub(super) const DATA: u8 = 0;
/// `HEADERS` (RFC 9113 section 6.2).
pub(super) const HEADERS: u8 = 1;
/// `RST_STREAM` (RFC 9113 section 6.4).
pub(super) const RST_STREAM: u8 = 3;
/// `SETTINGS` (RFC 9113 section 6.5).
pub(super) const SETTINGS: u8 = 4;
/// `PING` (RFC 9113 section 6.7).
pub(super) const PING: u8 = 6;
/// `GOAWAY` (RFC 9113 section 6.8).
pub(super) const GOAWAY: u8 = 7;
/// `WINDOW_UPDATE` (RFC 9113 section 6.9).
pub(super) const WINDOW_UPDATE: u8 = 8;
/// `CONTINUATION` (RFC 9113 section 6.10).
pub(super) const CONTINUATION: u8 = 9;
/// The flag by which a head is complete (RFC 9113 sections 6.2 and 6.10).
pub(super) const END_HEADERS: u8 = 4;
/// The flag by which settings are acknowledged (RFC 9113 section 6.5).
pub(super) const ACK: u8 = 1;
/// Bytes of one setting (RFC 9113 section 6.5.1).
const SETTING_BYTES: usize = 6;

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes of its payload.
    pub(super) length: usize,
    /// Its type.
    pub(super) kind: u8,
    /// Its flags.
    pub(super) flags: u8,
    /// Its stream; 0 is the connection.
    pub(super) stream: u32,
}

impl Frame {
    /// Whether its length is one that its type does not have, which ends the connection (RFC 9113 sections 6.4 to 6.9).
    pub(super) fn misfits(self) -> bool {
        match self.kind {
            SETTINGS if self.flags & ACK != 0 => self.length != 0,
            SETTINGS => !self.length.is_multiple_of(SETTING_BYTES),
            RST_STREAM | WINDOW_UPDATE => self.length != 4,
            PING => self.length != 8,
            GOAWAY => self.length < 8,
            _ => false,
        }
    }
}

/// What has passed of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Its head.
    Began(Frame),
    /// All of it; with the number that its first four bytes spell, if it has so many.
    Ended(Frame, u32),
}

/// Follows one direction of a connection.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Bytes before the first frame.
    skip: usize,
    /// A frame's head, or the first bytes of its payload.
    first: [u8; HEAD_BYTES],
    /// How many of them there are.
    have: usize,
    frame: Option<Frame>,
    left: usize,
}

impl Scanner {
    /// Frames begin after `skip` bytes.
    pub(super) fn new(skip: usize) -> Self {
        Self {
            skip,
            first: [0; HEAD_BYTES],
            have: 0,
            frame: None,
            left: 0,
        }
    }

    /// Looks at the bytes that come next.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut see: impl FnMut(Passed)) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let Some(frame) = self.frame else {
                let take = (HEAD_BYTES - self.have).min(bytes.len());
                self.keep(&bytes[..take]);
                bytes = &bytes[take..];
                if self.have == HEAD_BYTES {
                    let frame = self.head();
                    see(Passed::Began(frame));
                    (self.have, self.left) = (0, frame.length);
                    if frame.length == 0 {
                        see(Passed::Ended(frame, 0));
                    } else {
                        self.frame = Some(frame);
                    }
                }
                continue;
            };
            let take = self.left.min(bytes.len());
            self.keep(&bytes[..take.min(4 - self.have.min(4))]);
            bytes = &bytes[take..];
            self.left -= take;
            if self.left == 0 {
                let number = match self.have {
                    4.. => u32::from_be_bytes([
                        self.first[0],
                        self.first[1],
                        self.first[2],
                        self.first[3],
                    ]),
                    _ => 0,
                };
                (self.have, self.frame) = (0, None);
                see(Passed::Ended(frame, number));
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.first[self.have..self.have + bytes.len()].copy_from_slice(bytes);
        self.have += bytes.len();
    }

    fn head(&self) -> Frame {
        let [a, b, c, kind, flags, d, e, f, g] = self.first;
        Frame {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            // The first bit is reserved.
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_types_have_but_some_lengths() {
        for (kind, flags, fit, misfit) in [
            (SETTINGS, 0, &[0, 6, 12][..], &[1, 5, 7][..]),
            (SETTINGS, ACK, &[0], &[6]),
            (RST_STREAM, 0, &[4], &[0, 3, 5]),
            (WINDOW_UPDATE, 0, &[4], &[0, 3, 5]),
            (PING, 0, &[8], &[0, 7, 9]),
            (GOAWAY, 0, &[8, 9], &[0, 7]),
            (DATA, 0, &[0, 1], &[]),
        ] {
            let misfits = |length: &usize| {
                let (stream, length) = (0, *length);
                Frame {
                    length,
                    kind,
                    flags,
                    stream,
                }
                .misfits()
            };
            assert!(!fit.iter().any(misfits), "{kind}");
            assert!(misfit.iter().all(misfits), "{kind}");
        }
    }

    #[test]
    fn frames_are_found_however_they_come() {
        let bytes = [
            &b"PRI"[..],
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
            &[0, 0, 4, RST_STREAM, 0, 0x80, 0, 1, 2, 0, 0, 0, 8],
            &[0, 0, 6, DATA, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6],
        ]
        .concat();
        let frame = |length, kind, flags, stream| Frame {
            length,
            kind,
            flags,
            stream,
        };
        let (settings, reset, data) = (
            frame(0, 4, 1, 0),
            frame(4, RST_STREAM, 0, 258),
            frame(6, DATA, 1, 3),
        );
        for piece in 1..=bytes.len() {
            let (mut scanner, mut seen) = (Scanner::new(3), Vec::new());
            for piece in bytes.chunks(piece) {
                scanner.scan(piece, |passed| seen.push(passed));
            }
            assert_eq!(
                seen,
                [
                    Passed::Began(settings),
                    Passed::Ended(settings, 0),
                    Passed::Began(reset),
                    Passed::Ended(reset, 8),
                    Passed::Began(data),
                    Passed::Ended(data, 0x0102_0304),
                ],
                "{piece}"
            );
        }
    }
}
