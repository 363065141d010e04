//! HTTP/2 frame by frame (RFC 9113), for what no well-behaved client sends.

use std::net::SocketAddr;

use crate::client::Raw;

/// `DATA`.
pub const DATA: u8 = 0;
/// `HEADERS`.
pub const HEADERS: u8 = 1;
/// `PRIORITY`.
pub const PRIORITY: u8 = 2;
/// `RST_STREAM`.
pub const RST_STREAM: u8 = 3;
/// `SETTINGS`.
pub const SETTINGS: u8 = 4;
/// `PING`.
pub const PING: u8 = 6;
/// `GOAWAY`.
pub const GOAWAY: u8 = 7;
/// `WINDOW_UPDATE`.
pub const WINDOW_UPDATE: u8 = 8;
/// `CONTINUATION`.
pub const CONTINUATION: u8 = 9;

/// Flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// Flag of the last frame of a head.
pub const END_HEADERS: u8 = 4;
/// Flag of an answer to `SETTINGS` or `PING`.
pub const ACK: u8 = 1;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame (RFC 9113 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it is the last of its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The code of a `RST_STREAM` or `GOAWAY`.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// A frame as bytes.
///
/// # Panics
/// The payload is longer than any frame's.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).expect("a payload fits a frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Fields as literals, not indexed, without Huffman coding (RFC 7541 section 6.2.2).
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// A number in seven bits and what goes on after them (RFC 7541 section 5.1).
fn length(block: &mut Vec<u8>, mut number: usize) {
    if number < 127 {
        return block.push(number.to_le_bytes()[0]);
    }
    block.push(127);
    number -= 127;
    while number >= 128 {
        block.push(0x80 | number.to_le_bytes()[0] & 0x7f);
        number >>= 7;
    }
    block.push(number.to_le_bytes()[0]);
}

/// A whole head in one frame.
pub fn head(stream: u32, flags: u8, lines: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, fields(lines))
}

/// A setting (RFC 9113 section 6.5.1).
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

/// A connection for frames.
#[derive(Debug)]
pub struct Frames(pub Raw);

impl Frames {
    /// Connects, and opens the connection with these settings.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(address: SocketAddr, settings: &[u8]) -> std::io::Result<Self> {
        Self::open(Raw::connect(address).await?, settings).await
    }

    /// Opens a connection over `raw` with these settings.
    ///
    /// # Errors
    /// The peer closed.
    pub async fn open(mut raw: Raw, settings: &[u8]) -> std::io::Result<Self> {
        raw.write([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat())
            .await?;
        Ok(Self(raw))
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// The peer closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.write(bytes).await
    }

    /// The next frame, `SETTINGS` acknowledged; `None` at the connection's end.
    pub async fn next(&mut self) -> Option<Frame> {
        let head = self.0.bytes(9).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..9].try_into().ok()?),
            payload: self.0.bytes(length).await.ok()?,
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            // One that is gone says so in what is read next.
            let _ = self.send(self::frame(SETTINGS, ACK, 0, [])).await;
        }
        Some(frame)
    }

    /// The next frame that fits, passing over others; `None` at the connection's end.
    pub async fn find(&mut self, mut fits: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if fits(&frame) {
                return Some(frame);
            }
        }
    }

    /// The next frame that fits, as a client that answers each `PING` on the way; `None` at the connection's end.
    async fn alive(&mut self, fits: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let asks = |frame: &Frame| frame.kind == PING && frame.flags & ACK == 0;
        loop {
            let frame = self.find(|frame| asks(frame) || fits(frame)).await?;
            if !asks(&frame) {
                return Some(frame);
            }
            // One that is gone says so in what is read next.
            let _ = self.send(self::frame(PING, ACK, 0, frame.payload)).await;
        }
    }

    /// Reads up to the connection's end, as a client that answers each `PING`.
    pub async fn end(&mut self) {
        self.alive(|_| false).await;
    }

    /// The frames of a stream up to its end, or its reset, or that of the connection, as a client that answers each
    /// `PING`.
    pub async fn stream(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.alive(|frame| frame.stream == stream).await {
            if frame.kind == WINDOW_UPDATE {
                continue;
            }
            let last = frame.ends() || frame.kind == RST_STREAM;
            frames.push(frame);
            if last {
                break;
            }
        }
        frames
    }
}

/// `SETTINGS_INITIAL_WINDOW_SIZE` (RFC 9113 section 6.5.2).
pub const INITIAL_WINDOW: u16 = 4;

/// The room that a peer has for what is sent on a connection's only stream (RFC 9113 section 5.2).
#[derive(Debug)]
pub struct Room {
    connection: i64,
    stream: i64,
    initial: i64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            connection: 65_535,
            stream: 65_535,
            initial: 65_535,
        }
    }
}

impl Room {
    /// How many bytes may be sent.
    pub fn left(&self) -> i64 {
        self.connection.min(self.stream)
    }

    /// The window that streams begin with, in bytes.
    pub fn initial(&self) -> i64 {
        self.initial
    }

    /// So many bytes were sent.
    pub fn spend(&mut self, bytes: i64) {
        self.connection -= bytes;
        self.stream -= bytes;
    }

    /// What a frame from the peer makes of it.
    ///
    /// # Panics
    /// It is malformed.
    pub fn note(&mut self, frame: &Frame) {
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().expect("a number has four bytes");
            i64::from(u32::from_be_bytes(bytes))
        };
        match (frame.kind, frame.stream) {
            (WINDOW_UPDATE, 0) => self.connection += number(&frame.payload),
            (WINDOW_UPDATE, _) => self.stream += number(&frame.payload),
            (SETTINGS, _) => {
                for setting in frame.payload.chunks(6) {
                    if setting[..2] == INITIAL_WINDOW.to_be_bytes() {
                        let initial = number(&setting[2..]);
                        self.stream += initial - self.initial;
                        self.initial = initial;
                    }
                }
            }
            _ => {}
        }
    }
}
