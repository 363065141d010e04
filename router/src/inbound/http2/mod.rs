//! An HTTP/2 connection of a client: many requests at once, each a task of its own.

mod answer;
mod streams;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{Method, Request, Response};
use http_body::Body;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use self::streams::{Place, Streams};
use crate::account::body::Told;
use crate::config::Config;
use crate::http1::Piece;
use crate::http1::io::Io;
use crate::http2::head;
use crate::http2::stream::{self, Exchange};
use crate::http2::watch::{Broken, Refused, Watched};
use crate::http2::window::{self, Windows};
use crate::inbound::Terms;
use crate::live::drain::{LAST_WORDS, Stop};
use crate::wire::strict::Fault;

/// Streams that one client may have open at once.
const MAX_STREAMS: u32 = 256;
/// Requests that a client may take back before they have been looked at. Later ones are counted by [`Streams`].
const MAX_UNSEEN_RESETS: usize = 128;
/// How long, and for how many streams, frames are ignored that a client sent before it heard of a reset.
const RESET_MEMORY: Duration = Duration::from_secs(5);
const RESETS_REMEMBERED: usize = 256;
/// Streams that h2 may have to reset for a client's errors before its connection ends.
const MAX_ERRORS: usize = 1024;
/// What is buffered for one stream's answer beyond what the client's socket has taken, in bytes.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// What small frames of bodies that wait for their cells may cost, in bytes beyond their contents: about 16,000 of them.
const SMALL_FRAMES_BYTES: usize = 4 * 1024 * 1024;
/// Of that, what h2 may have lost count of before the client is told to open another connection.
const LOST_BYTES: usize = SMALL_FRAMES_BYTES / 2;
/// How often a connection with running requests is asked whether its client is still there, and how long it may be
/// silent then, unless it still takes what it was sent before.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a connection on which nothing more is asked may take to end, and how long after its last word.
const GOODBYE: Duration = Duration::from_secs(1);
/// What is read on after it.
const LINGER_BYTES: usize = 1024 * 1024;

/// Serves a connection, from which `ahead`, which begins with the preface, was read already, until it ends. After a stop
/// signal the requests under way are finished, and later ones are refused.
///
/// `handle` answers a request; it is dropped if the client takes it back or leaves. `refuse` answers what is none.
pub fn serve<I, F, R, B>(
    socket: I,
    ahead: Bytes,
    terms: Terms<'_>,
    handle: F,
    refuse: impl Fn(Fault) -> Response<B>,
) -> impl Future<Output = ()>
where
    I: Io + 'static,
    F: Fn(Request<stream::Body>) -> R,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Piece> + Told + 'static,
{
    // Here, or the socket had two places for as long as the connection lives.
    let watched = Watched::new(socket, ahead);
    serve_watched(watched, terms, handle, refuse)
}

async fn serve_watched<I, F, R, B>(
    watched: Watched<I>,
    terms: Terms<'_>,
    handle: F,
    refuse: impl Fn(Fault) -> Response<B>,
) where
    I: Io + 'static,
    F: Fn(Request<stream::Body>) -> R,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Piece> + Told + 'static,
{
    let Terms {
        config,
        signal,
        room,
    } = terms;
    let handshake = builder(config).handshake::<_, Bytes>(watched.clone());
    let Ok(Ok(mut connection)) = timeout(config.head_timeout, handshake).await else {
        return;
    };
    let mut keeper = Keeper::new(config, watched, connection.ping_pong());
    let mut draining = pin!(signal.reached(Stop::Draining));
    let mut last_words = pin!(signal.last_words());
    // Set while no request runs.
    let mut wanted = pin!(None);
    let last_word = loop {
        let event = poll_fn(|context| {
            keeper.poll(&mut connection, context, |keeper, context| {
                if keeper.leaving.is_some() {
                    wanted.set(None);
                    return None;
                }
                // A client that has just come is not sent away before it has asked: many take that for a failure.
                let told = match keeper.streams.any_begun() {
                    true => draining.as_mut().poll(context),
                    false => last_words.as_mut().poll(context),
                };
                let idle = keeper.streams.idle_since();
                let wanted = match idle.filter(|_| keeper.watched.head_since().is_none()) {
                    Some(since) => {
                        if wanted.is_none() {
                            wanted.set(Some(room.wanted(since)));
                        }
                        wanted.as_mut().as_pin_mut()
                    }
                    None => {
                        wanted.set(None);
                        None
                    }
                };
                let wanted = wanted.is_some_and(|wanted| wanted.poll(context).is_ready());
                (told.is_ready() || wanted).then_some(Event::Leave)
            })
        });
        match event.await {
            Event::Request(request, respond) => {
                keeper.begin(*request, respond, &handle, &refuse);
            }
            Event::Refused(fault) => drop(refuse(fault)),
            Event::Leave => keeper.leave(&mut connection, LAST_WORDS),
            Event::TakenBack => {
                drop(refuse(Fault::Flood));
                keeper.leave(&mut connection, Duration::ZERO);
            }
            Event::Flooded => {
                drop(refuse(Fault::Flood));
                break Some(Reason::ENHANCE_YOUR_CALM);
            }
            Event::Broken(broken) => {
                drop(refuse(Fault::Http2Frames));
                break Some(match broken {
                    Broken::Preface => Reason::PROTOCOL_ERROR,
                    Broken::FrameSize => Reason::FRAME_SIZE_ERROR,
                });
            }
            Event::HeadTimedOut => {
                drop(refuse(Fault::TimedOut));
                break Some(Reason::ENHANCE_YOUR_CALM);
            }
            Event::Silent | Event::Over => break Some(Reason::NO_ERROR),
            Event::Ended(error) => {
                if let Some(fault) = error.as_ref().and_then(fault) {
                    drop(refuse(fault));
                }
                break None;
            }
        }
    };
    wanted.set(None);
    if let Some(reason) = last_word {
        connection.abrupt_shutdown(reason);
        let ended = poll_fn(|context| connection.poll_closed(context));
        // Whoever does not take the last word in time does not get it.
        let _ = timeout(GOODBYE, ended).await;
    }
    drop(connection);
    // A socket that closes with unread bytes takes the last word with it.
    let _ = timeout(GOODBYE, keeper.watched.swallow(LINGER_BYTES)).await;
}

fn builder(config: &Config) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(window::FIRST)
        .initial_connection_window_size(window::of_connection(window::FIRST))
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERRORS))
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .reset_stream_duration(RESET_MEMORY)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(SMALL_FRAMES_BYTES);
    builder
}

/// What an error of the connection says of the client; nothing where the client, or its socket, just ended.
fn fault(error: &h2::Error) -> Option<Fault> {
    if !error.is_library() {
        return None;
    }
    match error.reason()? {
        Reason::NO_ERROR => None,
        Reason::ENHANCE_YOUR_CALM => Some(Fault::Flood),
        _ => Some(Fault::Http2Frames),
    }
}

/// What happens on a connection.
enum Event {
    Request(Box<Request<RecvStream>>, SendResponse<Bytes>),
    /// h2 has refused a request by itself.
    Refused(Fault),
    /// It is to take no more requests.
    Leave,
    /// The client takes too many requests back.
    TakenBack,
    /// The client sends too many frames that ask for nothing.
    Flooded,
    /// The client breaks the protocol in a way that h2 does not tell.
    Broken(Broken),
    /// A head has not ended in time.
    HeadTimedOut,
    /// The client does not answer any more.
    Silent,
    /// No request runs, and no more is taken.
    Over,
    Ended(Option<h2::Error>),
}

/// Watches over a connection: its times, and what h2 says nothing of.
struct Keeper<'a, I> {
    config: &'a Config,
    watched: Watched<I>,
    streams: Streams,
    windows: Windows,
    /// Uploads that began before the client knew how much it may send of one.
    early: Vec<Exchange>,
    /// From when no more requests are taken.
    leaving: Option<Instant>,
    ping: Option<PingPong>,
    asked: bool,
    ask_at: Instant,
    /// Never later than what is next due.
    alarm: Pin<Box<Sleep>>,
}

impl<'a, I: Io + 'static> Keeper<'a, I> {
    fn new(config: &'a Config, watched: Watched<I>, ping: Option<PingPong>) -> Self {
        let now = Instant::now();
        Self {
            config,
            watched,
            streams: Streams::default(),
            windows: Windows::default(),
            early: Vec::new(),
            leaving: None,
            ping,
            asked: false,
            ask_at: now + PING_EVERY,
            alarm: Box::pin(sleep_until(now)),
        }
    }

    fn poll(
        &mut self,
        connection: &mut Connection<Watched<I>, Bytes>,
        context: &mut Context<'_>,
        mut told: impl FnMut(&Self, &mut Context<'_>) -> Option<Event>,
    ) -> Poll<Event> {
        loop {
            match pin!(connection.accept()).poll(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.watched.accepted(respond.stream_id().into());
                    return Poll::Ready(Event::Request(Box::new(request), respond));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Ended(Some(error))),
                Poll::Ready(None) => return Poll::Ready(Event::Ended(None)),
                Poll::Pending => {}
            }
            if !self.grow(connection) {
                break;
            }
        }
        if self.watched.agreed() {
            self.early.drain(..).for_each(|early| early.offer_window());
        }
        self.windows.watch(context.waker());
        self.streams.watch(context.waker());
        if self.watched.flooded() {
            return Poll::Ready(Event::Flooded);
        }
        if let Some(broken) = self.watched.broken() {
            return Poll::Ready(Event::Broken(broken));
        }
        if let Some(refused) = self.watched.refused() {
            return Poll::Ready(Event::Refused(match refused {
                Refused::Malformed => Fault::Http2Message,
                Refused::TooLarge => Fault::HeadTooLarge,
            }));
        }
        if self.leaving.is_none() && self.streams.too_many_taken_back() {
            return Poll::Ready(Event::TakenBack);
        }
        if self.leaving.is_none() && self.watched.lost() > LOST_BYTES {
            return Poll::Ready(Event::Leave);
        }
        if let Some(event) = told(self, context) {
            return Poll::Ready(event);
        }
        self.poll_due(context)
    }

    /// Lets the windows grow; whether there is something new to be sent.
    fn grow(&self, connection: &mut Connection<Watched<I>, Bytes>) -> bool {
        let Some(size) = self.windows.wish() else {
            return false;
        };
        // Until the client has taken note of the last change there cannot be another.
        let grown = connection.set_initial_window_size(size).is_ok();
        if grown {
            connection.set_target_window_size(window::of_connection(size));
            self.windows.grown(size);
        }
        grown
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            let (at, event) = self.due();
            if self.alarm.deadline() > at {
                self.alarm.as_mut().reset(at);
            }
            std::task::ready!(self.alarm.as_mut().poll(context));
            if Instant::now() < at {
                self.alarm.as_mut().reset(at);
            } else if let Some(event) = event {
                return Poll::Ready(event);
            } else if let Some(event) = self.ask(context) {
                return Poll::Ready(event);
            }
        }
    }

    /// What is due next; nothing stands for asking whether the client is still there.
    fn due(&self) -> (Instant, Option<Event>) {
        if let Some(since) = self.watched.head_since() {
            return (since + self.config.head_timeout, Some(Event::HeadTimedOut));
        }
        match (self.streams.idle_since(), self.leaving) {
            (None, _) => (self.ask_at, None),
            // The answer to the ping that goes with a goodbye says that all before it was taken, and ends the connection
            // at once. A client that is slow to take the last answer has as long for it as for any.
            (Some(idle), Some(leaving)) => {
                let taken = match self.streams.any_ended() {
                    true => idle + self.config.client_stall,
                    false => idle,
                };
                (taken.max(leaving + GOODBYE), Some(Event::Over))
            }
            (Some(idle), None) => (idle + self.config.idle_timeout, Some(Event::Leave)),
        }
    }

    fn ask(&mut self, context: &mut Context<'_>) -> Option<Event> {
        self.ask_at = Instant::now() + PING_EVERY;
        // An answer to an earlier ping makes room for the next.
        let answered = self
            .ping
            .as_mut()
            .is_some_and(|ping| ping.poll_pong(context).is_ready());
        if self.watched.silent(answered) && self.asked {
            return Some(Event::Silent);
        }
        if let Some(ping) = &mut self.ping {
            // Anything that comes is as good as an answer to one that is still on its way.
            if ping.send_ping(Ping::opaque()).is_ok() {
                self.watched.asked();
            }
        }
        self.asked = true;
        None
    }

    /// Says that no more requests are taken, save for those that come within `grace`: they were on their way (RFC 9113
    /// section 6.8).
    fn leave(&mut self, connection: &mut Connection<Watched<I>, Bytes>, grace: Duration) {
        self.leaving = Some(Instant::now() + grace);
        connection.graceful_shutdown();
    }

    fn begin<R, B>(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        handle: &impl Fn(Request<stream::Body>) -> R,
        refuse: &impl Fn(Fault) -> Response<B>,
    ) where
        R: Future<Output = Response<B>> + 'static,
        B: Body<Data = Piece> + Told + 'static,
    {
        if self.leaving.is_some_and(|from| Instant::now() >= from) {
            // Provably not looked at: the client may send it again elsewhere (RFC 9113 section 8.7).
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let place = self.streams.enter();
        let patience = self.config.client_stall;
        let (mut parts, receive) = request.into_parts();
        let uploads = !receive.is_end_stream();
        let exchange = Exchange::new(receive, respond, self.windows.clone());
        if uploads {
            head::own(&mut parts);
            if !self.watched.agreed() {
                self.early.retain(Exchange::in_use);
                self.early.push(exchange.clone());
            }
        }
        match head::check(&parts, self.config.max_headers) {
            Ok(length) => {
                let head_only = parts.method == Method::HEAD;
                let body = exchange.body(length);
                // In a box, and once: it is large, and gone before its answer's body is sent.
                let handled = Box::pin(handle(Request::from_parts(parts, body)));
                spawn_local(serve_stream(exchange, handled, head_only, patience, place));
            }
            Err(fault) => {
                let refused = refuse(fault);
                spawn_local(async move {
                    answer::send(&exchange, refused, false, patience).await;
                    drop((exchange, place));
                });
            }
        }
    }
}

/// Serves one request. What is dropped in the end resets the stream, if the client has not ended it: with `NO_ERROR`
/// after a whole answer (RFC 9113 section 8.1).
async fn serve_stream<R, B>(
    exchange: Exchange,
    mut handled: Pin<Box<R>>,
    head_only: bool,
    patience: Duration,
    place: Place,
) where
    R: Future<Output = Response<B>>,
    B: Body<Data = Piece> + Told,
{
    let response = poll_fn(|context| {
        if exchange.poll_gone(context).is_ready() {
            return Poll::Ready(None);
        }
        handled.as_mut().poll(context).map(Some)
    })
    .await;
    drop(handled);
    match response {
        // In a box, too: the task is moved as it is spawned.
        Some(response) => Box::pin(answer::send(&exchange, response, head_only, patience)).await,
        None => place.taken_back(),
    }
    exchange.take_body_back();
}
