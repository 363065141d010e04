//! One request and its answer on a client's connection: the body that is read, and the way to answer.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::HeaderMap;
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::window::{Reader, Windows};

/// Bytes of interim answers that one request gets at most: nothing tells whether the client takes them.
const INTERIM_BYTES: usize = 64 * 1024;

/// Why a body could not be read to its end.
#[derive(Debug)]
pub struct BodyError(h2::Error);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyError {}

struct State {
    /// Until the final answer begins.
    respond: Option<SendResponse<Bytes>>,
    /// Until it is taken back.
    receive: Option<RecvStream>,
    /// Whoever serves the stream.
    server: Waker,
    /// What is left for interim answers.
    interim_bytes: usize,
    /// The client was told to go on with its body.
    continued: bool,
    reader: Reader,
}

/// The server's end of a stream.
#[derive(Clone)]
pub struct Exchange(Rc<RefCell<State>>);

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// What h2 has accepted on a connection with these windows.
    pub fn new(receive: RecvStream, respond: SendResponse<Bytes>, windows: Windows) -> Self {
        Self(Rc::new(RefCell::new(State {
            respond: Some(respond),
            receive: Some(receive),
            server: Waker::noop().clone(),
            interim_bytes: INTERIM_BYTES,
            continued: false,
            reader: Reader::new(windows),
        })))
    }

    /// The request's body, of which `length` was promised.
    pub fn body(&self, length: Option<u64>) -> Body {
        Body {
            state: Rc::clone(&self.0),
            left: length,
            held: None,
            taken: 0,
        }
    }

    /// Ready when the client has taken its request back, or has left, before its answer began.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.0.borrow_mut();
        state.server.clone_from(context.waker());
        match &mut state.respond {
            Some(respond) => respond.poll_reset(context).map(|_| ()),
            None => Poll::Pending,
        }
    }

    /// Whether all of the request has come.
    pub fn read_whole(&self) -> bool {
        let state = self.0.borrow();
        state
            .receive
            .as_ref()
            .is_some_and(RecvStream::is_end_stream)
    }

    /// Offers the window that there is to the client. h2 does so when a part is read, by the window as it was then: one that
    /// shrinks later may leave nothing of what it has held back, and the client waiting.
    pub fn offer_window(&self) {
        if let Some(receive) = &mut self.0.borrow_mut().receive {
            let _ = receive.flow_control().release_capacity(0);
        }
    }

    /// Whether anybody else may read or answer it.
    pub fn in_use(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Takes the body away from whoever holds it, and who will get nothing more of it.
    pub fn take_body_back(&self) -> Option<RecvStream> {
        self.0.borrow_mut().receive.take()
    }

    /// Begins the final answer: no interim one can come after it. `None` where the client is gone.
    pub fn answer(&self, head: Response<()>, ends: bool) -> Option<SendStream<Bytes>> {
        let mut respond = self.0.borrow_mut().respond.take()?;
        match respond.send_response(head, ends) {
            Ok(stream) => Some(stream),
            Err(_) => {
                // Without effect on a stream that is closed.
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                None
            }
        }
    }
}

/// The body of one request.
pub struct Body {
    state: Rc<RefCell<State>>,
    /// What is still promised.
    left: Option<u64>,
    /// The last of what was promised, until the client has said that it is the end: a cell takes a request for whole
    /// when its length is reached, and the client may still take it back.
    held: Option<Bytes>,
    /// Bytes of the last frame that was handed on. Its window is given back when the next is asked for: until then the
    /// reader still has it.
    taken: usize,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// A way to send interim answers to the client.
    pub fn interim(&self) -> Interim {
        Interim(Rc::clone(&self.state))
    }
}

/// Gives the window of so many bytes back to the client.
fn give_back(receive: &mut RecvStream, bytes: usize) {
    // Fails only for more than has come.
    let _ = receive.flow_control().release_capacity(bytes);
}

/// What nobody reads on holds up no other body of the connection.
impl Drop for Body {
    fn drop(&mut self) {
        if self.taken > 0
            && let Ok(mut state) = self.state.try_borrow_mut()
            && let Some(receive) = &mut state.receive
        {
            give_back(receive, self.taken);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let state = &mut *this.state.borrow_mut();
        let Some(receive) = &mut state.receive else {
            // Neither its end nor an error: the answer that ended its turn may still be on its way from the cell, over
            // the very connection that an error would break.
            return Poll::Pending;
        };
        let taken = std::mem::take(&mut this.taken);
        if taken > 0 {
            state.reader.took(taken, Instant::now);
            give_back(receive, taken);
        }
        loop {
            let Poll::Ready(data) = receive.poll_data(context) else {
                state.reader.waits();
                return Poll::Pending;
            };
            let data = match data {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => data,
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError(error)))),
                None => match this.held.take() {
                    Some(held) => held,
                    None => {
                        let trailers = ready!(receive.poll_trailers(context)).map_err(BodyError)?;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                },
            };
            if let Some(left) = this.left.filter(|left| *left > 0) {
                // More than was promised is refused by h2.
                let left = left.saturating_sub(data.len() as u64);
                this.left = Some(left);
                if left == 0 && !receive.is_end_stream() {
                    this.held = Some(data);
                    continue;
                }
            }
            state.reader.gets(Instant::now);
            if receive.is_end_stream() || this.left == Some(0) {
                // Nobody asks for more, and the answer may take for ever.
                give_back(receive, data.len());
            } else {
                this.taken = data.len();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        // Where nothing was promised nothing is waited for; h2 refuses what comes all the same.
        let state = self.state.borrow();
        let nothing = self.left == Some(0) && self.held.is_none();
        let ended = state
            .receive
            .as_ref()
            .is_some_and(RecvStream::is_end_stream);
        self.held.is_none() && (nothing || ended)
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().map_or(0, Bytes::len) as u64;
        match self.left {
            Some(left) => SizeHint::with_exact(left + held),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// Sends interim answers to a client (RFC 9110 section 15.2).
#[derive(Clone)]
pub struct Interim(Rc<RefCell<State>>);

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}

impl Interim {
    /// Sends one, unless the final answer is on its way already.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let state = &mut *self.0.borrow_mut();
        let bytes = headers.iter().fold(64, |sum, (name, value)| {
            sum + name.as_str().len() + value.len() + 32
        });
        let asks = status == StatusCode::CONTINUE;
        let left = match state.interim_bytes.checked_sub(bytes) {
            // Whoever is asked for a body may be waiting for that word: it is told whatever else there was too much of.
            None if asks && !state.continued => Some(0),
            left => left,
        };
        let (Some(respond), Some(left)) = (&mut state.respond, left) else {
            return;
        };
        // h2 would send it on a stream that is closed, too. The server goes on to be woken.
        let gone = respond.poll_reset(&mut Context::from_waker(&state.server));
        if gone.is_ready() {
            return;
        }
        state.interim_bytes = left;
        state.continued |= asks;
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = headers.clone();
        // Fails for fields of a connection only, which have been taken out.
        let _ = respond.send_informational(response);
    }
}
