//! HTTP/1.1 as both ends of a soak read and write it: strictly, so that a cut body is never taken for a whole one.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest head in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;
/// The most of a body that is handed over at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection ended between two messages.
    Ended,
    /// The connection ended, or was reset, within a message.
    Cut,
    /// What came is no HTTP/1.1.
    Garbled,
}

/// The first line of a message and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// The value of a field, named in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The second word of the first line: a request's target, or an answer's status.
    pub(crate) fn second(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.second().parse().unwrap_or(0)
    }

    pub(crate) fn closes(&self) -> bool {
        self.field("connection")
            .is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }

    fn length(&self) -> Option<Result<u64, Broken>> {
        let length = self.field("content-length")?;
        Some(length.parse().map_err(|_| Broken::Garbled))
    }

    /// Length of a request's body.
    pub(crate) fn request_body(&self) -> Result<Body, Broken> {
        match (self.field("transfer-encoding"), self.length()) {
            (Some(_), Some(_)) => Err(Broken::Garbled),
            (Some("chunked"), None) => Ok(Body::Chunked(Chunk::Head)),
            (Some(_), None) => Err(Broken::Garbled),
            (None, Some(length)) => Ok(Body::Known(length?)),
            (None, None) => Ok(Body::Known(0)),
        }
    }

    /// Length of an answer's body.
    pub(crate) fn answer_body(&self, to_head: bool) -> Result<Body, Broken> {
        if to_head || matches!(self.status(), 100..=199 | 204 | 304) {
            return Ok(Body::Known(0));
        }
        match (self.field("transfer-encoding"), self.length()) {
            (None, None) => Ok(Body::ToTheEnd),
            _ => self.request_body(),
        }
    }

    /// Of a request that came as HTTP/2, written as in HTTP/1.1.
    pub(crate) fn of_http2(request: &http::request::Parts) -> Self {
        let target = request.uri.path_and_query().map_or("", |all| all.as_str());
        let host = request.uri.authority().map(ToString::to_string);
        let host = host.map(|host| ("host".to_owned(), host));
        let fields = request.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str().to_owned(), value.into_owned())
        });
        Self {
            first: format!("{} {target} HTTP/2", request.method),
            fields: host.into_iter().chain(fields).collect(),
        }
    }

    fn read(text: &[u8]) -> Result<Self, Broken> {
        let text = std::str::from_utf8(text).map_err(|_| Broken::Garbled)?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':').ok_or(Broken::Garbled)?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Self {
            first,
            fields: fields.collect::<Result<_, Broken>>()?,
        })
    }
}

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Known(u64),
    Chunked(Chunk),
    ToTheEnd,
}

/// Where in a chunked body the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Head,
    Data(u64),
    /// The line's end after a chunk.
    End,
    Trailers,
    Over,
}

/// Reads messages from a connection.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            buffer: BytesMut::new(),
        }
    }

    /// Reads more; whether there was more before the peer said that it is over. Cancel safe.
    async fn more(&mut self) -> Result<bool, Broken> {
        self.buffer.reserve(16 * 1024);
        let read = self.source.read_buf(&mut self.buffer).await;
        read.map(|bytes| bytes > 0).map_err(|_| Broken::Cut)
    }

    /// As [`Reader::more`], within a message: there has to be more.
    async fn must_go_on(&mut self) -> Result<(), Broken> {
        self.more().await?.then_some(()).ok_or(Broken::Cut)
    }

    /// The next head. Cancel safe.
    pub(crate) async fn head(&mut self) -> Result<Head, Broken> {
        loop {
            let end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let text = self.buffer.split_to(end + 4);
                return Head::read(&text[..end]);
            }
            if self.buffer.len() > HEAD_MAX_BYTES {
                return Err(Broken::Garbled);
            }
            if self.buffer.is_empty() {
                self.more().await?.then_some(()).ok_or(Broken::Ended)?;
            } else {
                self.must_go_on().await?;
            }
        }
    }

    /// The next head of an answer that is not interim. Cancel safe.
    pub(crate) async fn final_head(&mut self) -> Result<Head, Broken> {
        loop {
            let head = self.head().await?;
            if head.status() == 101 || !(100..200).contains(&head.status()) {
                return Ok(head);
            }
        }
    }

    /// The next bytes of a body, `None` at its end.
    pub(crate) async fn piece(&mut self, body: &mut Body) -> Result<Option<Bytes>, Broken> {
        match body {
            Body::Known(0) => Ok(None),
            Body::Known(left) => {
                let piece = self.some(*left).await?;
                *left -= piece.len() as u64;
                Ok(Some(piece))
            }
            Body::ToTheEnd => {
                if self.buffer.is_empty() && !self.more().await? {
                    return Ok(None);
                }
                Ok(Some(self.some(u64::MAX).await?))
            }
            Body::Chunked(chunk) => self.chunk(chunk).await,
        }
    }

    async fn chunk(&mut self, chunk: &mut Chunk) -> Result<Option<Bytes>, Broken> {
        loop {
            *chunk = match *chunk {
                Chunk::Head => {
                    let line = self.line().await?;
                    let size = line.split(';').next().unwrap_or_default();
                    match u64::from_str_radix(size, 16).map_err(|_| Broken::Garbled)? {
                        0 => Chunk::Trailers,
                        size => Chunk::Data(size),
                    }
                }
                Chunk::Data(left) => {
                    let piece = self.some(left).await?;
                    let left = left - piece.len() as u64;
                    *chunk = if left == 0 {
                        Chunk::End
                    } else {
                        Chunk::Data(left)
                    };
                    return Ok(Some(piece));
                }
                Chunk::End => {
                    let rest = self.line().await?;
                    rest.is_empty()
                        .then_some(Chunk::Head)
                        .ok_or(Broken::Garbled)?
                }
                Chunk::Trailers => {
                    let field = self.line().await?;
                    if field.is_empty() {
                        Chunk::Over
                    } else {
                        Chunk::Trailers
                    }
                }
                Chunk::Over => return Ok(None),
            };
        }
    }

    /// Some bytes, at least one and at most `most`. Cancel safe.
    pub(crate) async fn some(&mut self, most: u64) -> Result<Bytes, Broken> {
        if self.buffer.is_empty() {
            self.must_go_on().await?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let length = self.buffer.len().min(PIECE_BYTES).min(most);
        Ok(self.buffer.copy_to_bytes(length))
    }

    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            let end = self.buffer.windows(2).position(|two| two == b"\r\n");
            if let Some(end) = end {
                let line = self.buffer.split_to(end + 2);
                return String::from_utf8(line[..end].to_vec()).map_err(|_| Broken::Garbled);
            }
            if self.buffer.len() > HEAD_MAX_BYTES {
                return Err(Broken::Garbled);
            }
            self.must_go_on().await?;
        }
    }
}

/// Writes a piece of a body, as a chunk or as it is.
pub(crate) async fn write_piece(
    to: &mut (impl AsyncWrite + Unpin),
    piece: &[u8],
    chunked: bool,
) -> std::io::Result<()> {
    if !chunked {
        return to.write_all(piece).await;
    }
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(piece);
    chunk.extend_from_slice(b"\r\n");
    to.write_all(&chunk).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> Result<Vec<u8>, Broken> {
        let mut reader = Reader::new(text.as_bytes());
        let head = reader.head().await?;
        let mut body = head.answer_body(false)?;
        let mut all = Vec::new();
        while let Some(piece) = reader.piece(&mut body).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn whole_bodies_are_read() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nt: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nabc",
        ] {
            assert_eq!(read(text).await.unwrap(), b"abc", "{text}");
        }
    }

    #[tokio::test]
    async fn cut_bodies_are_seen_as_cut() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        ] {
            assert_eq!(read(text).await, Err(Broken::Cut), "{text}");
        }
    }
}
