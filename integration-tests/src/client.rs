//! Small clients for tests: raw bytes, HTTP/1.1 and HTTP/2 by hyper, WebSocket.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Whatever went wrong with a request.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A response that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status of the final response.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, `null` if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The value of a header as text, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Which HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1.
    One,
    /// HTTP/2 with prior knowledge.
    Two,
}

/// Sends one request over a fresh connection; the response is handed over when its head is there.
///
/// # Errors
/// The connection or the exchange broke.
pub async fn open<B>(
    address: SocketAddr,
    version: Http,
    mut request: Request<B>,
) -> Result<Response<Incoming>, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    match version {
        Http::One => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            // Its errors come out of the answer or its body.
            tokio::spawn(async move { drop(connection.with_upgrades().await) });
            Ok(sender.send_request(request).await?)
        }
        Http::Two => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(async move { drop(connection.await) });
            let host = request.headers_mut().remove(http::header::HOST);
            let authority = host
                .as_ref()
                .and_then(|host| host.to_str().ok())
                .unwrap_or("localhost");
            let target = request
                .uri()
                .path_and_query()
                .map_or("/", |target| target.as_str());
            *request.uri_mut() = format!("http://{authority}{target}").parse()?;
            Ok(sender.send_request(request).await?)
        }
    }
}

/// As [`open`], and reads the response to its end.
///
/// # Errors
/// The connection, the exchange, or the response's body broke.
pub async fn send<B>(
    address: SocketAddr,
    version: Http,
    request: Request<B>,
) -> Result<Answer, Error>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let (parts, body) = open(address, version, request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

/// GET of `target` at `host` over HTTP/1.1.
///
/// # Errors
/// As [`send`].
pub async fn get(address: SocketAddr, host: &str, target: &str) -> Result<Answer, Error> {
    let request = Request::get(target).header("host", host).body(full(""))?;
    send(address, Http::One, request).await
}

/// POST of `body` to `target` at `host` over HTTP/1.1.
///
/// # Errors
/// As [`send`].
pub async fn post(
    address: SocketAddr,
    host: &str,
    target: &str,
    body: impl Into<Bytes>,
) -> Result<Answer, Error> {
    let request = Request::post(target)
        .header("host", host)
        .body(full(body))?;
    send(address, Http::One, request).await
}

/// A body of known length.
pub fn full(bytes: impl Into<Bytes>) -> Full<Bytes> {
    Full::new(bytes.into())
}

/// A body of unknown length: chunked in HTTP/1.1, without `content-length` in HTTP/2.
pub fn chunked<S>(pieces: S) -> impl Body<Data = Bytes, Error = Error> + Send + Unpin
where
    S: Stream<Item = Bytes> + Send + Unpin,
{
    use futures_util::StreamExt;
    StreamBody::new(pieces.map(|piece| Ok::<_, Error>(Frame::data(piece))))
}

/// `bytes` bytes in pieces of 64 KiB, all zero, without holding them at once.
pub fn zeros(bytes: u64) -> impl Stream<Item = Bytes> + Send + Unpin {
    const PIECE: u64 = 64 * 1024;
    let piece = Bytes::from_static(&[0; PIECE as usize]);
    futures_util::stream::iter((0..bytes.div_ceil(PIECE)).map(move |n| {
        let left = bytes - n * PIECE;
        usize::try_from(left).map_or(piece.clone(), |left| piece.slice(..left.min(piece.len())))
    }))
}

/// A connection for requests written byte by byte.
#[derive(Debug)]
pub struct Raw<S = TcpStream>(BufReader<S>);

impl<S: AsyncRead> From<S> for Raw<S> {
    fn from(stream: S) -> Self {
        Self(BufReader::new(stream))
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        Ok(TcpStream::connect(address).await?.into())
    }

    /// Breaks the connection off by a reset.
    ///
    /// # Errors
    /// The system refuses to.
    pub fn reset(self) -> std::io::Result<()> {
        socket2::SockRef::from(self.0.get_ref()).set_linger(Some(std::time::Duration::ZERO))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Writes exactly these bytes.
    ///
    /// # Errors
    /// The peer closed.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.write_all(bytes.as_ref()).await?;
        self.0.flush().await
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// The peer closed.
    pub async fn finish(&mut self) -> std::io::Result<()> {
        self.0.shutdown().await
    }

    /// Reads one line, without its end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Reads a head: its lines up to the empty one, each with its end, names and values as they came.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn head(&mut self) -> std::io::Result<String> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if self.0.read_line(&mut head).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if head[before..].trim_end().is_empty() {
                return Ok(head);
            }
        }
    }

    /// Reads exactly this many bytes.
    ///
    /// # Errors
    /// The connection broke or ended before.
    pub async fn bytes(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    /// Reads one chunk of a chunked body; it is empty at the body's end, whose trailers are left unread.
    ///
    /// # Errors
    /// The connection broke, or what came is no chunk.
    pub async fn chunk(&mut self) -> Result<Vec<u8>, Error> {
        let size = usize::from_str_radix(&self.line().await?, 16)?;
        let chunk = self.bytes(size).await?;
        if size > 0 {
            self.line().await?;
        }
        Ok(chunk)
    }

    /// Reads what is there, or waits for the first bytes; empty at the end of the connection. Cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn some(&mut self) -> std::io::Result<Bytes> {
        let some = Bytes::copy_from_slice(self.0.fill_buf().await?);
        self.0.consume(some.len());
        Ok(some)
    }

    /// Whether something has been read already that nobody has taken yet, or can be read at once.
    pub fn has_some(&mut self) -> bool {
        use futures_util::FutureExt;
        let some = self.0.fill_buf().now_or_never();
        some.is_some_and(|some| some.is_ok_and(|some| !some.is_empty()))
    }

    /// Waits until there is something to read; whether there is, or the connection ended. Cancel safe.
    pub async fn answer_ready(&mut self) -> bool {
        self.0.fill_buf().await.is_ok_and(|some| !some.is_empty())
    }

    /// Waits for the end of the connection, orderly or not, passing over what still comes.
    pub async fn ended(&mut self) {
        while self.some().await.is_ok_and(|some| !some.is_empty()) {}
    }

    /// Reads one whole HTTP/1.1 response: by length, chunked, or to the end of the connection.
    ///
    /// # Errors
    /// The connection broke or what came is no HTTP/1.1.
    pub async fn answer(&mut self) -> Result<Answer, Error> {
        let status = self.line().await?;
        let status: StatusCode = status.split(' ').nth(1).ok_or("no status")?.parse()?;
        let headers = self.fields().await?;
        let length = headers
            .get("content-length")
            .and_then(|length| length.to_str().ok());
        let mut body = Vec::new();
        if status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
        {
            // These have no body.
        } else if headers
            .get("transfer-encoding")
            .is_some_and(|coding| coding == "chunked")
        {
            loop {
                let size =
                    u64::from_str_radix(self.line().await?.split(';').next().unwrap_or(""), 16)?;
                if size == 0 {
                    self.fields().await?;
                    break;
                }
                self.exactly(size, &mut body).await?;
                self.line().await?;
            }
        } else if let Some(length) = length {
            self.exactly(length.parse()?, &mut body).await?;
        } else {
            self.0.read_to_end(&mut body).await?;
        }
        Ok(Answer {
            status,
            headers,
            body: body.into(),
        })
    }

    /// Reads to the end of the connection.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    async fn exactly(&mut self, bytes: u64, into: &mut Vec<u8>) -> Result<(), Error> {
        let read = (&mut self.0).take(bytes).read_to_end(into).await?;
        (read as u64 == bytes)
            .then_some(())
            .ok_or_else(|| "the body is cut".into())
    }

    async fn fields(&mut self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or("no header")?;
            headers.append(http::HeaderName::try_from(name)?, value.trim().parse()?);
        }
    }
}

/// Opens a WebSocket to `target` at `host` through `address`.
///
/// # Errors
/// The connection or the handshake failed.
pub async fn websocket(
    address: SocketAddr,
    host: &str,
    target: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Error> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("ws://{host}{target}").into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse()?);
    }
    let stream = MaybeTlsStream::Plain(TcpStream::connect(address).await?);
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(socket)
}
