//! Frames of a WebSocket, as far as one who relays them needs to know them (RFC 6455 section 5.2).

/// Close, "going away" (RFC 6455 sections 5.5.1 and 7.4.1), as it is sent to a client.
pub const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// The opcode of a Close frame.
const CLOSE: u8 = 8;

/// [`GOING_AWAY`] as it is sent to a server, masked with `key` (RFC 6455 section 5.3).
pub fn going_away_masked(key: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = key;
    [0x88, 0x82, a, b, c, d, 0x03 ^ a, 0xe9 ^ b]
}

/// Where in its frames one direction of a connection is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    /// Bytes of the frame's head that have passed; none between two frames.
    passed: u8,
    /// Bytes of it after which its payload's length is known, and of the whole.
    known: u8,
    head: u8,
    /// Length of the payload; once the head has passed, what is still to come of it.
    payload: u64,
    in_payload: bool,
    /// The frame that passes, or that passed last, is a Close.
    close: bool,
}

impl Frames {
    /// Whether nothing of a frame has passed that has not passed whole.
    pub fn between(&self) -> bool {
        self.passed == 0 && !self.in_payload
    }

    /// Whether a whole Close frame has passed: no frame comes after it.
    pub fn closed(&self) -> bool {
        self.close && self.between()
    }

    /// Lets `bytes` pass; what comes after a Close frame counts for nothing.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.closed() {
            let step = self.step(bytes);
            bytes = &bytes[step..];
        }
    }

    /// Lets pass what `bytes` holds of the frame that is passing, and no more; how many bytes that were.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while !self.between() && passed < bytes.len() {
            passed += self.step(&bytes[passed..]);
        }
        passed
    }

    /// Lets some of `bytes`, of which there are any, pass: up to the end of a payload, or one byte of a head.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.in_payload {
            let step =
                usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.payload -= step as u64;
            self.in_payload = self.payload > 0;
            return step;
        }
        let byte = bytes[0];
        match self.passed {
            0 => {
                self.close = byte & 0x0f == CLOSE;
                (self.known, self.head) = (2, 2);
            }
            1 => {
                let length = byte & 0x7f;
                let (extended, mask) = (
                    match length {
                        126 => 2,
                        127 => 8,
                        _ => 0,
                    },
                    if byte & 0x80 == 0 { 0 } else { 4 },
                );
                self.payload = if extended == 0 { length.into() } else { 0 };
                self.known = 2 + extended;
                self.head = self.known + mask;
            }
            passed if passed < self.known => self.payload = self.payload << 8 | u64::from(byte),
            _ => {}
        }
        self.passed += 1;
        if self.passed > 1 && self.passed == self.head {
            self.passed = 0;
            self.in_payload = self.payload > 0;
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of so many bytes of payload.
    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..=125 => frame.push(mask | u8::try_from(payload).unwrap()),
            126..=65535 => {
                frame.push(mask | 126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(&[0xff; 4][..if masked { 4 } else { 0 }]);
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    const SHAPES: [(u8, usize, bool); 10] = [
        (1, 0, false),
        (2, 1, true),
        (0, 125, false),
        (1, 126, true),
        (2, 127, false),
        (2, 65535, true),
        (2, 65536, false),
        (9, 5, true),
        (8, 0, true),
        (8, 2, false),
    ];

    #[test]
    fn a_frame_ends_where_it_ends_however_it_is_split() {
        for (opcode, payload, masked) in SHAPES {
            let bytes = frame(opcode, payload, masked);
            for split in 0..=bytes.len() {
                let mut frames = Frames::default();
                assert!(frames.between() && !frames.closed());
                frames.pass(&bytes[..split]);
                assert_eq!(frames.between(), split == 0 || split == bytes.len());
                frames.pass(&bytes[split..]);
                assert!(frames.between(), "{opcode} {payload} {masked} at {split}");
                assert_eq!(frames.closed(), opcode == 8);
            }
        }
    }

    #[test]
    fn byte_by_byte_is_the_same_as_at_once() {
        let all: Vec<u8> = SHAPES
            .iter()
            .flat_map(|&(opcode, payload, masked)| frame(opcode, payload, masked))
            .collect();
        let (mut at_once, mut by_bytes) = (Frames::default(), Frames::default());
        at_once.pass(&all);
        all.iter().for_each(|byte| by_bytes.pass(&[*byte]));
        assert_eq!(at_once, by_bytes);
        assert!(at_once.closed());
    }

    #[test]
    fn finishing_stops_at_the_end_of_the_frame() {
        let (first, second) = (frame(2, 200, true), frame(1, 3, true));
        let both = [first.clone(), second].concat();
        for split in 1..first.len() {
            let mut frames = Frames::default();
            frames.pass(&both[..split]);
            assert_eq!(frames.finish(&both[split..]), first.len() - split);
            assert!(frames.between());
            assert_eq!(frames.finish(&both[first.len()..]), 0);
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_a_frame_without_an_end() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.finish(&[0; 4096]), 4096);
        assert!(!frames.between());
    }

    #[test]
    fn nothing_comes_after_a_close_frame() {
        let mut frames = Frames::default();
        frames.pass(&[frame(8, 2, true), frame(1, 10, true)[..5].to_vec()].concat());
        assert!(frames.closed());
    }

    #[test]
    fn going_away_is_a_close_frame() {
        for bytes in [&GOING_AWAY[..], &going_away_masked([9, 8, 7, 6])] {
            let mut frames = Frames::default();
            frames.pass(bytes);
            assert!(frames.closed());
        }
        let masked = going_away_masked([1, 2, 3, 4]);
        assert_eq!([masked[6] ^ 1, masked[7] ^ 2], [0x03, 0xe9]);
    }
}
