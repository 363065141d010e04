//! One request to a cell and its answer back, both directions at once, in constant memory.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::StreamError;
use super::channel::{Channel, ChannelError, Failed, Message};
use super::dial::{DialError, Dialer};
use super::http2::{Shared, Stream};
use super::identity;
use super::pool::{Connection, Pool};
use super::sharing::Found;
use super::socket::Socket;
use super::tls;
use super::tunnel;
use super::wake::Waker;
use crate::account::body::{Answer, Demands, Gate, Incoming, Interim, Relayed};
use crate::account::pace::Taking;
use crate::account::record::{Ending, Record};
use crate::account::tally::Tally;
use crate::http1::Switched;
use crate::http1::exchange::ExchangeError;
use crate::live::breaker::Trial;
use crate::live::cells::{Cells, InFlight, Live};
use crate::live::drain::Signal;
use crate::live::snapshot::Snapshot;
use crate::live::trust::Trust;
use crate::registry::{Cell, Placement, Protocol};
use crate::wire::hop_by_hop::switches_as_asked;
use crate::wire::lines::Lines;
use crate::wire::signature::Keys;
use crate::wire::{forward, hop_by_hop};

/// How long a client that expects `100 Continue` is kept waiting for the cell's word before its body is asked for all
/// the same: some cells never say it (RFC 9110 section 10.1.1).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// How often a request of which nothing was sent moves on from a connection that was made for it, and how often from any: a
/// cell that is about to stop says so on each connection that requests share, and each is found to be of no use by itself.
const MOVES: u32 = 2;
const MOVES_FROM_ANY: u32 = 100;

/// What is held while an answer's body is on its way.
#[derive(Debug)]
pub struct Lease {
    channel: Channel,
    record: Rc<Record>,
    _in_flight: InFlight,
}

impl Lease {
    /// The answer is whole: the connection is kept if the request is, too.
    fn end(self) {
        match self.record.request_ended.get() {
            Ending::None | Ending::Complete => self.channel.release(self.record.last_progress()),
            Ending::Running
            | Ending::ClientGone
            | Ending::ClientStalled
            | Ending::TooLarge
            | Ending::CellCut
            | Ending::CellStalled
            | Ending::Unreadable
            | Ending::NotWanted => drop(self.channel),
        }
    }
}

/// A request as the cell is to get it.
#[derive(Debug)]
pub struct Outgoing<'o> {
    /// Its head: end-to-end fields only, the target in origin form.
    pub head: &'o mut Parts,
    /// The rest of its head.
    pub lines: Lines,
    /// What its trailers must not say.
    pub named: Vec<HeaderName>,
    /// Its body, not read yet.
    pub body: Incoming,
    /// The protocol it asks to switch to, and the client's end of the switch.
    pub upgrade: Option<(HeaderValue, oneshot::Receiver<Switched>)>,
}

/// For whom a request is.
#[derive(Debug)]
pub struct Destination {
    /// The cell's entry.
    pub cell: Arc<Cell>,
    /// Its live state.
    pub live: Arc<Live>,
    /// The secrets with one of which it proves who it is; `None` where its address is proof enough.
    pub proof: Option<Arc<Keys>>,
    /// What is asked of its certificate; `None` where the connection is plain.
    pub trust: Option<Arc<Trust>>,
    /// The count of requests in flight, this one included.
    pub in_flight: InFlight,
    /// The right to try the cell, where its breaker was open.
    pub trial: Option<Trial>,
    /// What is to be done if it sleeps.
    pub wake: Wake,
}

/// How a request has a sleeping cell woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Not at all.
    Never,
    /// It waits until the cell answers.
    Wait,
    /// It waits for so long, and then comes again.
    WaitFor(Duration),
}

/// One worker's way to cells.
#[derive(Debug)]
pub struct Upstream {
    /// Idle connections.
    pub pool: Rc<Pool>,
    /// How connections are made.
    pub dialer: Dialer,
    /// How cells are woken, where that is possible.
    pub waker: Option<Waker>,
    /// The live state of all cells.
    pub cells: Arc<Cells>,
    /// The most requests that wait at once.
    pub max_held: usize,
    /// From how many bytes on, that are to come at once, a body stays in the kernel between two plain sockets.
    pub splice_from: u64,
    /// The stop signal, for tunnels.
    pub signal: Signal,
    /// Tells of changes of the registry, for tunnels.
    pub changes: watch::Receiver<Arc<Snapshot>>,
    /// Where connections are counted.
    pub tally: Arc<Tally>,
}

enum Attempt {
    Answered(Response<Incoming>),
    /// Not a byte of it was sent.
    Unsent(ChannelError),
    /// Something of it may have been sent.
    Failed(StreamError),
}

impl Upstream {
    /// Relays a request. `seal` adds the head's signature at the moment it is sent, which may be long after it came.
    ///
    /// Cancelling closes the connection to the cell, which thereby learns that the client left.
    ///
    /// # Errors
    /// `StreamError`; nothing of an answer has been used.
    pub async fn stream(
        &self,
        outgoing: Outgoing<'_>,
        to: Destination,
        record: &Rc<Record>,
        seal: impl Fn(&Parts, &mut Lines),
    ) -> Result<Response<Answer<Lease>>, StreamError> {
        let Outgoing {
            head,
            lines,
            named,
            body,
            upgrade,
        } = outgoing;
        let limits = &to.cell.policy.limits;
        let takes_pipes = body.takes_pipes();
        let as_is = matches!(body, Incoming::Http1(_));
        let interim = Heralds::new(head, &body, to.cell.policy.may_replay);
        let gate = interim.gate();
        let unsealed = lines.len();
        let mut body = Relayed::request(
            body,
            Rc::clone(record),
            Demands {
                patience: limits.idle_timeout,
                most: limits.max_body_bytes,
                rate: limits.min_body_rate,
            },
            gate,
        )
        .signed_in_by(to.cell.policy.sign_in.as_ref());
        body.leave_out(named);
        let mut message = Message {
            head,
            lines,
            as_is,
            body: Some(body),
        };

        let mut channel = self.channel(&to, record).await?;
        let (mut moved, mut moved_from_own) = (0, 0);
        let response = loop {
            message.lines.truncate(unsealed);
            seal(message.head, &mut message.lines);
            let used = channel.used();
            let repeatable = used && upgrade.is_none() && repeatable(&message.head.method, record);
            record.upstream.set(Some(channel.address()));
            if let (true, Some(body)) = (channel.takes_pipes(), &message.body) {
                body.pipe(self.splice_from);
            }
            let patience = limits.first_byte_timeout;
            let heard = channel.heard();
            match attempt(&mut channel, &mut message, &interim, record, patience).await {
                Attempt::Answered(response) => break response,
                Attempt::Unsent(_)
                    if moved < MOVES_FROM_ANY && (used || moved_from_own < MOVES) => {}
                Attempt::Unsent(error) => return Err(StreamError::Broken(error)),
                // After one byte of an answer, be it an interim one, the cell is at work on it.
                Attempt::Failed(StreamError::Broken(_))
                    if repeatable && channel.heard() == heard && moved < MOVES_FROM_ANY =>
                {
                    message.body = Some(Relayed::absent(Rc::clone(record)));
                }
                Attempt::Failed(error) => return Err(error),
            }
            moved += 1;
            moved_from_own += u32::from(!used);
            drop(channel);
            channel = Box::pin(self.fresh(&to, record)).await?;
        };
        to.live.breaker.answered(&to.cell);
        if takes_pipes {
            response.body().pipe(self.splice_from);
        }
        self.answer(response, channel, as_is, upgrade, to, record)
    }

    fn answer(
        &self,
        mut response: Response<Incoming>,
        channel: Channel,
        http1: bool,
        upgrade: Option<(HeaderValue, oneshot::Receiver<Switched>)>,
        to: Destination,
        record: &Rc<Record>,
    ) -> Result<Response<Answer<Lease>>, StreamError> {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            let asked = upgrade.as_ref().map(|(asked, _)| asked);
            if !asked.is_some_and(|asked| switches_as_asked(asked, response.headers())) {
                return Err(StreamError::UnaskedUpgrade);
            }
        }
        // Who is told to switch is told to what (RFC 9110 section 15.5.22).
        let tells = switches || http1 && response.status() == StatusCode::UPGRADE_REQUIRED;
        let protocol = tells.then(|| response.headers().get(header::UPGRADE).cloned());
        let protocol = protocol.flatten();
        // Its version is that of the hop to the cell (RFC 9110 section 2.5).
        *response.version_mut() = Version::HTTP_11;
        let status = response.status();
        let headers = response.headers_mut();
        let named = hop_by_hop::strip_answer(status, headers).named;
        if !to.cell.policy.may_replay {
            forward::unsteer(headers);
        }
        if !switches {
            if let Some(protocol) = protocol {
                tell(headers, protocol);
            }
            let lease = Lease {
                channel,
                record: Rc::clone(record),
                _in_flight: to.in_flight,
            };
            let limits = &to.cell.policy.limits;
            let silence = limits.tunnel_idle_timeout;
            let taking = Taking::new(limits.min_answer_rate, limits.idle_timeout);
            return Ok(response.map(|body| {
                let record = Rc::clone(record);
                let slot = Box::new_uninit();
                let mut relayed = Box::write(
                    slot,
                    Relayed::response(body, record, silence, taking, lease, Lease::end),
                );
                relayed.leave_out(named);
                Answer::Relayed(relayed)
            }));
        }
        let Some(((asked, downstream), upstream)) = upgrade.zip(channel.switch()) else {
            return Err(StreamError::UnaskedUpgrade);
        };
        let protocol = protocol.unwrap_or(asked);
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        tell(headers, protocol);
        let terms = tunnel::Terms {
            cell: to.cell.name.clone(),
            websocket,
            idle: to.cell.policy.limits.tunnel_idle_timeout,
            changes: self.changes.clone(),
            signal: self.signal.clone(),
            in_flight: to.in_flight,
            running: self.signal.enter(),
        };
        let relay = tunnel::run(downstream, upstream, Rc::clone(record), terms);
        tokio::task::spawn_local(relay);
        Ok(response.map(|_| Answer::own(Default::default(), Rc::clone(record))))
    }

    /// A connection that is there already, or a fresh one.
    async fn channel(&self, to: &Destination, record: &Rc<Record>) -> Result<Channel, StreamError> {
        let now = record.last_progress();
        // Who tries the cell connects: that shows at once whether others may follow. A connection from before its breaker
        // opened shows nothing until its request is answered.
        if to.trial.is_none()
            && to.cell.policy.protocol == Protocol::Http1
            && let Some(kept) = self.pool.take(&to.cell, to.trust.as_ref(), now)
        {
            self.tally.connection("reused");
            return Ok(Channel::Alone(kept));
        }
        // In a box: what it takes to connect is no part of a request that finds a connection.
        Box::pin(self.fresh(to, record)).await
    }

    /// Connects, waking the cell if that is what it takes. Nothing of the request is sent or read meanwhile.
    async fn fresh(&self, to: &Destination, record: &Rc<Record>) -> Result<Channel, StreamError> {
        let (breaker, cell) = (&to.live.breaker, &to.cell);
        let absent = loop {
            let began = Instant::now();
            match self.join(to, record).await {
                // It may have come up while it was looked for.
                Err(error) if error.is_absence() => {
                    if !to.live.was_told_since(&cell.placement, began) {
                        break error;
                    }
                }
                reached => return reached.inspect(|_| breaker.connected(cell)),
            }
        };
        let Placement::Machine { .. } = &cell.placement else {
            breaker.failed_to_connect(cell);
            return Err(absent);
        };
        let Some(waker) = &self.waker else {
            // Nobody here can wake it. Where it has no address it may sleep, until the edge wakes it.
            let sleeps = matches!(absent, StreamError::Dial(DialError::Unresolved(_)));
            if !sleeps {
                breaker.failed_to_connect(cell);
            }
            return Err(match to.wake {
                Wake::Never if sleeps => StreamError::Asleep,
                Wake::Never | Wake::Wait | Wake::WaitFor(_) => absent,
            });
        };
        // Or it may have been found that it does not come up.
        if to.wake != Wake::Never
            && breaker
                .refuses(&cell.placement)
                .is_some_and(|left| !left.is_zero())
        {
            return Err(StreamError::Wake("it failed to a moment ago".into()));
        }
        let held = self.cells.hold(cell, self.max_held).ok();
        let patience = match (to.wake, &held) {
            (Wake::Never, _) => return Err(StreamError::Asleep),
            (Wake::Wait, None) => return Err(StreamError::TooManyHeld),
            (Wake::Wait, Some(_)) => None,
            (Wake::WaitFor(patience), Some(_)) => Some(patience),
            (Wake::WaitFor(_), None) => Some(Duration::ZERO),
        };
        let began = Instant::now();
        let waits = record.waits("wake");
        let woken = waker.wake(&to.cell, &to.live, patience).await;
        record.waited.set(Some(
            record.waited.get().unwrap_or_default() + began.elapsed(),
        ));
        drop((held, waits));
        woken?;
        match self.join(to, record).await {
            Err(error) if error.is_absence() => {
                breaker.failed(cell);
                Err(error)
            }
            reached => reached.inspect(|_| breaker.connected(cell)),
        }
    }

    /// Reaches the cell, or shares the connection with which another request has done so.
    async fn join(&self, to: &Destination, record: &Rc<Record>) -> Result<Channel, StreamError> {
        if to.cell.policy.protocol == Protocol::Http1 || to.trial.is_some() {
            return self.reach(to, record).await;
        }
        let sharing = &self.pool.sharing;
        let lasts = self.pool.lasts();
        match sharing.find(&to.cell, to.trust.as_ref(), lasts).await {
            Found::Stream(stream) => {
                record.progress();
                self.tally.connection("reused");
                Ok(Channel::Shared(stream))
            }
            Found::Turn(turn) => {
                let reached = self.reach(to, record).await?;
                turn.done();
                Ok(reached)
            }
        }
    }

    /// Connects to where the cell is thought to be, and has it prove that it is there. Who does not is treated as one
    /// who is not there: what led to that address is forgotten.
    async fn reach(&self, to: &Destination, record: &Rc<Record>) -> Result<Channel, StreamError> {
        let began = Instant::now();
        let dialled = self.dialer.dial(&to.cell, &to.live).await;
        let outcome = dialled.as_ref().map_or("failed", |_| "opened");
        self.tally.connection(outcome);
        let (socket, address) = dialled.map_err(StreamError::Dial)?;
        record.upstream.set(Some(address));
        record.progress();
        let socket = match &to.cell.policy.tls {
            None => Socket::from(socket),
            Some(tls) => {
                let secured = tls::secure(socket, &to.cell, tls, to.trust.as_deref()).await;
                Socket::from(secured.map_err(|error| {
                    self.dialer.forget(&to.cell, &to.live, began);
                    StreamError::Untrusted(address, error)
                })?)
            }
        };
        let mut channel = self.open(socket, address, to).await?;
        if let Some(keys) = &to.proof {
            if let Err(doubt) = identity::prove(&mut channel, &to.cell, keys, record).await {
                self.dialer.forget(&to.cell, &to.live, began);
                return Err(StreamError::NotTheCell(address, doubt));
            }
            record.progress();
            channel = channel.proven().await.ok_or(StreamError::Closed)?;
        }
        if let Channel::Shared(stream) = &channel {
            let shared = Rc::clone(stream.shared());
            self.pool.sharing.add(&to.cell.name, shared);
        }
        Ok(channel)
    }

    /// Speaks the cell's protocol on a fresh socket.
    async fn open(
        &self,
        socket: Socket,
        address: SocketAddr,
        to: &Destination,
    ) -> Result<Channel, StreamError> {
        let trust = to.trust.clone();
        match to.cell.policy.protocol {
            Protocol::Http1 => {
                let home = Rc::clone(&self.pool);
                let connection = Connection::open(home, socket, address, &to.cell, trust);
                Ok(Channel::Alone(connection))
            }
            Protocol::Http2 => {
                let shared = Shared::open(socket, address, &to.cell, trust).await;
                let shared =
                    shared.map_err(|error| StreamError::Broken(ChannelError::Http2(error)))?;
                Ok(Channel::Shared(Stream::on(&shared)))
            }
        }
    }
}

/// Says to what protocol a client is switched, or is to switch.
fn tell(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Sends a request and waits for the head of its answer, for as long as either makes progress.
async fn attempt(
    channel: &mut Channel,
    message: &mut Message<'_>,
    interim: &Heralds,
    record: &Record,
    patience: Duration,
) -> Attempt {
    let mut timer = channel.take_timer(record.last_progress() + patience);
    let outcome = {
        let herald = |status, headers| interim.pass_on(status, headers);
        let mut exchange = pin!(channel.send(message, herald));
        loop {
            tokio::select! {
                biased;
                outcome = &mut exchange => break Some(outcome),
                () = timer.as_mut() => {}
            }
            if record.last_progress().elapsed() >= patience {
                break None;
            }
            timer.as_mut().reset(record.last_progress() + patience);
        }
    };
    channel.keep_timer(timer);
    let Some(outcome) = outcome else {
        return Attempt::Failed(StreamError::Silent(patience));
    };
    match outcome {
        Ok(response) => Attempt::Answered(response),
        Err(Failed {
            error,
            unsent: true,
        }) => Attempt::Unsent(error),
        Err(Failed {
            error: ChannelError::Http1(ExchangeError::Malformed(fault)),
            unsent: false,
        }) => Attempt::Failed(StreamError::BadAnswer(fault)),
        Err(Failed {
            error,
            unsent: false,
        }) => Attempt::Failed(match record.request_ended.get() {
            Ending::ClientGone => StreamError::ClientCut(error),
            Ending::ClientStalled => StreamError::ClientStalled(error),
            Ending::TooLarge => StreamError::TooLarge(error),
            Ending::None
            | Ending::Running
            | Ending::Complete
            | Ending::CellCut
            | Ending::CellStalled
            | Ending::Unreadable
            | Ending::NotWanted => StreamError::Broken(error),
        }),
    }
}

/// Whether a request may be sent a second time though something of it may have arrived (RFC 9110 section 9.2.2).
fn repeatable(method: &Method, record: &Record) -> bool {
    let idempotent = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method);
    idempotent && record.request_ended.get() == Ending::None
}

/// Whether the client waits for a word before it sends its body.
fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The cell's interim answers on their way to the client (RFC 9110 section 15.2).
struct Heralds {
    client: Option<Interim>,
    may_replay: bool,
    /// Tells of the cell's word to go on; none where nobody waits for it.
    go_on: Option<Rc<Notify>>,
}

impl Heralds {
    fn new(head: &Parts, body: &Incoming, may_replay: bool) -> Self {
        let client = body.interim();
        // One that speaks HTTP/1.0 cannot be told to go on, and is not to wait (RFC 9110 section 10.1.1).
        let expects = client.is_some() && expects_continue(&head.headers);
        Self {
            client,
            may_replay,
            go_on: expects.then(Rc::default),
        }
    }

    /// Keeps the client's body unread, and thereby the client unasked for it, until the cell says `100 Continue`.
    fn gate(&self) -> Option<Gate> {
        let (go_on, client) = (self.go_on.clone()?, self.client.clone());
        Some(Box::pin(async move {
            tokio::select! {
                () = go_on.notified() => {}
                () = sleep(CONTINUE_WAIT) => if let Some(client) = client {
                    client.send(StatusCode::CONTINUE, &HeaderMap::new());
                }
            }
        }))
    }

    fn pass_on(&self, status: StatusCode, mut headers: HeaderMap) {
        let asks = status == StatusCode::CONTINUE;
        if asks && self.go_on.is_none() {
            return;
        }
        hop_by_hop::strip_answer(status, &mut headers);
        if !self.may_replay {
            forward::unsteer(&mut headers);
        }
        if let Some(client) = &self.client {
            client.send(status, &headers);
        }
        if let Some(go_on) = self.go_on.as_ref().filter(|_| asks) {
            go_on.notify_one();
        }
    }
}
