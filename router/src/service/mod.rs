//! One request from start to finish.

mod files;
mod sign_in;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use hyper::body::Body as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use self::files::Shelf;
use self::sign_in::{Check, Pass};
use crate::account::body::{self, Incoming};
use crate::account::log::AccessLog;
use crate::account::record::{Blame, Opening, Record};
use crate::config::Config;
use crate::decision::{self, Answer, BodyLength, Decision, Facts, Found, ReplayKind, Surroundings};
use crate::http1::Switched;
use crate::live::cells::{Cells, InFlight, Live, NoPlace};
use crate::live::pages::Pages;
use crate::live::snapshot::Current;
use crate::outbound::sign_in::Gate;
use crate::outbound::stream::{Destination, Lease, Outgoing, Upstream, Wake};
use crate::outbound::{StreamError, chain, hold, now};
use crate::registry::{Cell, HostName, Identity, Protocol};
use crate::respond::{self, Audience, Sheet, Words};
use crate::wire::forward::{self, Rewrite};
use crate::wire::identity::{self, Introduction, Peer};
use crate::wire::lines::Lines;
use crate::wire::sieve::Fields;
use crate::wire::sign_in::SignedIn;
use crate::wire::signature::{Bound, Keys};
use crate::wire::strict::Fault;
use crate::wire::trace::TraceParent;
use crate::wire::{CELL_SIGNATURE, fly, hop_by_hop};

/// The body of an answer to a client.
pub type Body = body::Answer<Lease>;

/// What one worker serves requests with.
#[derive(Debug)]
pub struct Service {
    /// The settings.
    pub config: Arc<Config>,
    /// The registry in force.
    pub current: Current,
    /// The live state of all cells.
    pub cells: Arc<Cells>,
    /// The way to cells.
    pub upstream: Upstream,
    /// Who finds out who clients are.
    pub gate: Gate,
    /// Where records go.
    pub log: Rc<AccessLog>,
    /// Ids for requests that bring none.
    pub ids: Ids,
}

/// What a decision came to.
enum Outcome {
    /// The router answers.
    Words(Words),
    /// The cell is asked.
    Stream(Course),
    /// There may be a file.
    File(Shelf),
    /// The client has to sign in.
    SignIn(Check),
    /// The request waits until the entry of this cell changes.
    Hold(Arc<Cell>),
    /// The request waits until the cell has a place for it.
    Queue(Arc<Cell>),
}

/// What was found out about a request between its decisions.
#[derive(Default)]
struct Known {
    /// That its client has signed in.
    pass: Option<Pass>,
    /// Where there is no file for it.
    without_file: Option<Shelf>,
}

/// What a request comes to.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request goes to its cell, and one more allocation for each would be for the others"
)]
enum Reached {
    /// An answer without the cell.
    Answer(Box<Response<Body>>),
    /// The way to the cell.
    Cell(Course),
}

/// A request's way to its cell.
struct Course {
    to: Destination,
    /// Path and query as the cell gets them.
    target: PathAndQuery,
    stripped_prefix: Option<String>,
    keys: Option<Arc<Keys>>,
    /// Who the client is, where it has signed in.
    signed_in: Option<SignedIn>,
}

/// A failure, and how long the cell's entry asks clients to wait after one.
type Failed = (StreamError, Duration);

impl Service {
    /// Answers one request. Cancelling it (the client left) ends all that was done for it.
    pub async fn handle(self: Rc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        let fields = Fields::of(&head.headers);
        let id = identity::request_id(fields, peer).unwrap_or_else(|| self.ids.next());
        let record = Record::open(Rc::clone(&self.log), opening(&head, fields, peer, id));
        record.trace(|| !identity::plain_http(fields, peer));
        let audience = Audience::of(&head.method, fields, body.is_end_stream());
        if !body.is_end_stream() {
            record.expects(body.size_hint().exact());
        }
        let answered = match self.decide(&head, &body, peer, audience, &record).await {
            Ok(Reached::Cell(course)) => {
                let upgrade = upgrade(&head, &body, &course.to.cell);
                let asked = upgrade.as_ref().map(|(protocol, _)| protocol);
                let (to, (lines, named), seal) =
                    self.introduce(&mut head, peer, course, asked, &record);
                let (cell, live) = (Arc::clone(&to.cell), Arc::clone(&to.live));
                let outgoing = Outgoing {
                    head: &mut head,
                    lines,
                    named,
                    body,
                    upgrade,
                };
                let seal = |head: &Parts, lines: &mut Lines| seal.put_on(head, lines);
                let relayed = self.upstream.stream(outgoing, to, &record, seal).await;
                relayed.map_err(|error| failed(error, &cell, &live))
            }
            Ok(Reached::Answer(answer)) => Ok(*answer),
            Err(failed) => Err(failed),
        };
        let response = answered.unwrap_or_else(|(error, retry_after)| {
            let pages = self.pages(&record);
            let sheet = Sheet {
                audience,
                request_id: &record.id,
                pages: pages.as_deref(),
            };
            let failure = respond::failure(&error, retry_after, sheet);
            record.reason.set(failure.reason);
            record.blame.set(failure.blame);
            record.error.replace(Some(chain(&error)));
            failure
                .words
                .map(|words| Body::own(words, Rc::clone(&record)))
        });
        record.answered(response.status());
        response
    }

    /// Answers what is no request, for the reason given. Its connection is of no more use.
    pub fn refuse(&self, fault: Fault, version: Version, peer: Peer) -> Response<Body> {
        let opening = Opening {
            id: self.ids.next(),
            client: peer.ip,
            version,
            method: &Method::from_bytes(b"-").expect("a hyphen is a token"),
            host: "",
            path: "",
            parent: None,
        };
        let record = Record::open(Rc::clone(&self.log), opening);
        record.trace(|| peer.tls);
        record.reason.set(fault.name());
        record.blame.set(Some(Blame::Client));
        let response =
            respond::fault(fault, &record.id).map(|words| Body::own(words, Rc::clone(&record)));
        record.answered(response.status());
        response
    }

    /// The operator's pages for a request, by the cell that was found for it.
    fn pages(&self, record: &Record) -> Option<Arc<Pages>> {
        let snapshot = self.current.read();
        let cell = record
            .cell()
            .and_then(|name| snapshot.registry.cell(name.as_str()));
        snapshot.pages(cell.map(|cell| &**cell)).cloned()
    }

    /// As [`refuse`], with the pages in force.
    fn refuse_by(&self, answer: Answer, audience: Audience, record: &Record) -> Words {
        refuse(answer, audience, record, self.pages(record).as_ref())
    }

    /// Resolves and decides, finding out who the client is and holding the request while its cell is paused: the way to the
    /// cell, or an answer.
    async fn decide(
        &self,
        head: &Parts,
        body: &Incoming,
        peer: Peer,
        audience: Audience,
        record: &Rc<Record>,
    ) -> Result<Reached, Failed> {
        let own = |words: Words| {
            Reached::Answer(Box::new(
                words.map(|words| Body::own(words, Rc::clone(record))),
            ))
        };
        let length = BodyLength::of(body.is_end_stream(), body.size_hint().exact());
        let surroundings = Surroundings {
            through_edge: peer.edge,
            https_at: self
                .config
                .https_redirect
                .filter(|_| identity::plain_http(Fields::of(&head.headers), peer)),
            replay_max_bytes: self.config.replay_max_bytes,
            pseudonym: &self.config.pseudonym,
        };
        let facts = match Facts::read(head, length, &surroundings) {
            Ok(facts) => facts,
            Err(fault) => {
                record.blame.set(Some(Blame::Client));
                return Ok(own(self.refuse_by(
                    Answer::Malformed(fault),
                    audience,
                    record,
                )));
            }
        };
        let began = record.began();
        let (mut held, mut queued, mut place) = (None, None, None);
        let mut known = Known::default();
        let mut again = false;
        loop {
            let outcome = self.decide_once(head, &facts, audience, record, &known, place.take());
            if std::mem::replace(&mut again, true) {
                // Whatever was waited for, it must not count as the cell's silence.
                record.progress();
            }
            let cell = match outcome {
                Outcome::Words(words) => return Ok(own(words)),
                Outcome::Stream(course) => return Ok(Reached::Cell(course)),
                Outcome::File(shelf) => {
                    // In a box, as all that most requests have no need of.
                    let file = Box::pin(self.file(head, audience, record, &shelf)).await;
                    if let Some(file) = file {
                        return Ok(Reached::Answer(Box::new(file)));
                    }
                    known.without_file = Some(shelf);
                    continue;
                }
                Outcome::SignIn(check) => {
                    match Box::pin(self.sign_in(head, peer, audience, record, check)).await {
                        Ok(passed) => known.pass = Some(passed),
                        Err(failure) => {
                            record.reason.set(failure.reason);
                            record.blame.set(failure.blame);
                            return Ok(own(failure.words));
                        }
                    }
                    continue;
                }
                Outcome::Queue(cell) => {
                    let limits = &cell.policy.limits;
                    let live = self.cells.live(&cell.name);
                    let waits = record.waits("queue");
                    let until = *queued.get_or_insert_with(Instant::now) + limits.queue_timeout;
                    let turn = match live.queue(limits.max_in_flight) {
                        Some(queued) => {
                            let turn = queued.place(limits.max_in_flight);
                            let changed = hold::changed(&cell, self.current.changes());
                            tokio::select! {
                                biased;
                                turn = turn => Some(Some(turn)),
                                // Its place in the line is that of an entry that is no more.
                                () = changed => Some(None),
                                () = sleep_until(until) => None,
                            }
                        }
                        None => None,
                    };
                    drop(waits);
                    if let Some(turn) = turn {
                        place = turn;
                        record.waited.set(Some(began.elapsed()));
                        continue;
                    }
                    let full = Answer::Full(limits.retry_after);
                    record.lane.set("answer");
                    return Ok(own(self.refuse_by(full, audience, record)));
                }
                Outcome::Hold(cell) => cell,
            };
            let fail = |error| (error, cell.policy.limits.retry_after);
            if held.is_none() {
                held = match self.cells.hold(&cell, self.config.max_held) {
                    Ok(place) => Some(place),
                    Err(NoPlace::AtAll) => return Err(fail(StreamError::TooManyHeld)),
                    Err(NoPlace::OfCell) => {
                        let full = Answer::Full(cell.policy.limits.retry_after);
                        record.lane.set("answer");
                        return Ok(own(self.refuse_by(full, audience, record)));
                    }
                };
            }
            let waits = record.waits("hold");
            hold::until_changed(&cell, began, self.current.changes())
                .await
                .map_err(fail)?;
            drop(waits);
            // There may be one by now.
            known.without_file = None;
            record.waited.set(Some(began.elapsed()));
        }
    }

    /// One decision, by one snapshot, for a request that may have a place among those in flight already.
    fn decide_once(
        &self,
        head: &Parts,
        facts: &Facts<'_>,
        audience: Audience,
        record: &Record,
        known: &Known,
        place: Option<InFlight>,
    ) -> Outcome {
        let snapshot = self.current.read();
        let found = match decision::resolve(&snapshot.registry, facts) {
            Ok(found) => found,
            Err(answer) => {
                let pages = snapshot.pages(None);
                return Outcome::Words(refuse(answer, audience, record, pages));
            }
        };
        record.found(&found.cell.name);
        let pages = snapshot.pages(Some(found.cell));
        let refuse = |answer| refuse(answer, audience, record, pages);
        let keys = snapshot.keys(found.cell);
        let passwords = snapshot.passwords(found.cell);
        // That of an earlier entry is none: not to be let in by, and not to be told.
        let pass = known.pass.as_ref();
        let pass = pass.filter(|pass| pass.is_for(found.cell, passwords));
        if pass.is_none() {
            record.user.take();
        }
        let shelf = || Shelf::of(&snapshot, &found, facts);
        let without_file = known.without_file.as_ref();
        let facts = Facts {
            replayed_by_us: replayed_by_us(facts, &found, keys),
            signed_in: pass.is_some(),
            without_file: without_file
                .is_some_and(|looked| shelf().is_some_and(|shelf| looked.is(&shelf))),
            ..facts.clone()
        };
        // A place at a cell that the name no longer leads to is none.
        let place = place.filter(|place| place.is_at(&self.cells, &found.cell.name));
        let mut state = self.cells.state(found.cell);
        if place.is_some() {
            state.in_flight = state.in_flight.saturating_sub(1);
        }
        let decided = decision::decide(&facts, &found, state, &self.config.place);
        record.lane.set(decided.lane());
        record.reason.set(decided.reason());
        match decided {
            Decision::Hold => Outcome::Hold(Arc::clone(found.cell)),
            Decision::Files => match shelf() {
                Some(shelf) => Outcome::File(shelf),
                // They are looked for only where there are some.
                None => Outcome::Words(refuse(Answer::NoSuchFile)),
            },
            Decision::SignIn => match &found.cell.policy.sign_in {
                Some(sign_in) => Outcome::SignIn(Check {
                    cell: Arc::clone(found.cell),
                    sign_in: Arc::clone(sign_in),
                    passwords: passwords.cloned(),
                }),
                // It is asked for only where there is one.
                None => Outcome::Words(refuse(Answer::Disabled)),
            },
            Decision::Answer(Answer::Full(_))
                if !found.cell.policy.limits.queue_timeout.is_zero() =>
            {
                Outcome::Queue(Arc::clone(found.cell))
            }
            Decision::Answer(answer @ Answer::UseHttps(port)) => {
                let https = facts.https(port);
                let location = https.and_then(|https| HeaderValue::try_from(https).ok());
                Outcome::Words(respond::elsewhere(refuse(answer), location))
            }
            Decision::Answer(answer) => Outcome::Words(refuse(answer)),
            Decision::Replay(kind) => {
                let https_only = self.config.https_redirect.is_some();
                let prefix = || found.exclusive_prefix(&snapshot.registry, https_only);
                Outcome::Words(replay(&facts, &found, kind, keys, prefix))
            }
            Decision::Stream(_) => {
                let limits = &found.cell.policy.limits;
                let live = self.cells.live(&found.cell.name);
                // Another worker may have taken the last place since the state was read.
                let Some(in_flight) = place.or_else(|| live.enter(limits.max_in_flight)) else {
                    if !limits.queue_timeout.is_zero() {
                        return Outcome::Queue(Arc::clone(found.cell));
                    }
                    record.lane.set("answer");
                    return Outcome::Words(refuse(Answer::Full(limits.retry_after)));
                };
                // Another may have become the one that tries, or it may have failed.
                let trial = match live.breaker.admit(&found.cell.placement) {
                    Ok(trial) => trial,
                    Err(left) => {
                        record.lane.set("answer");
                        let answer = Answer::BreakerOpen(left);
                        return Outcome::Words(refuse(answer));
                    }
                };
                let whole = target_of(head);
                let stripped_prefix = found.stripped_prefix().map(str::to_owned);
                let target = match &stripped_prefix {
                    Some(prefix) => forward::without_prefix(&whole, prefix),
                    None => whole,
                };
                let wake = match audience.navigates() {
                    _ if !decision::may_wake(&facts, found.cell) => Wake::Never,
                    true => Wake::WaitFor(limits.waking_page_after),
                    false => Wake::Wait,
                };
                let to = Destination {
                    cell: Arc::clone(found.cell),
                    live,
                    proof: keys
                        .filter(|_| found.cell.policy.identity == Identity::Challenge)
                        .cloned(),
                    trust: snapshot.trust(found.cell).cloned(),
                    in_flight,
                    trial,
                    wake,
                };
                Outcome::Stream(Course {
                    to,
                    target,
                    stripped_prefix,
                    keys: keys.cloned(),
                    signed_in: pass.map(|pass| pass.signed_in.clone()),
                })
            }
        }
    }

    /// Introduces a request to its cell, as one that asks to switch to `upgrade`: where it is to go, and what signs it
    /// whenever it is sent.
    fn introduce(
        &self,
        head: &mut Parts,
        peer: Peer,
        course: Course,
        upgrade: Option<&HeaderValue>,
        record: &Record,
    ) -> (Destination, (Lines, Vec<HeaderName>), Seal) {
        let Course {
            to,
            target,
            stripped_prefix,
            keys,
            signed_in,
        } = course;
        let authority = authority_of(head);
        let introduction = Introduction {
            cell: to.cell.name.as_str(),
            authority: &authority,
            request_id: &record.id,
            stripped_prefix: stripped_prefix.as_deref(),
        };
        let sign_in = to.cell.policy.sign_in.as_deref();
        let lines = forward::rewrite(
            head,
            Rewrite {
                peer,
                introduction,
                sign_in: sign_in.map(|sign_in| (sign_in, signed_in.as_ref())),
                target,
                upgrade,
                pseudonym: &self.config.pseudonym,
            },
        );
        record.tell(&mut head.headers);
        let seal = Seal {
            keys,
            cell: Arc::clone(&to.cell),
            authority,
        };
        (to, lines, seal)
    }
}

/// What a request is signed with.
struct Seal {
    /// None where the cell shares no secret with the router.
    keys: Option<Arc<Keys>>,
    cell: Arc<Cell>,
    authority: HeaderValue,
}

impl Seal {
    /// Signs a head as it is now.
    fn put_on(&self, head: &Parts, lines: &mut Lines) {
        let Some(keys) = &self.keys else { return };
        let host = self.authority.to_str().unwrap_or_default();
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let token = sign(
            keys,
            self.cell.name.as_str(),
            head.method.as_str(),
            host,
            target,
        );
        lines.add_text(&CELL_SIGNATURE, [&token]);
    }
}

/// The protocol that a request asks to switch to, and the client's end of the switch. An HTTP/2 cell has no use for one,
/// and a server may ignore it (RFC 9110 section 7.8).
fn upgrade(
    head: &Parts,
    body: &Incoming,
    cell: &Cell,
) -> Option<(HeaderValue, oneshot::Receiver<Switched>)> {
    if head.version != Version::HTTP_11 || cell.policy.protocol != Protocol::Http1 {
        return None;
    }
    let protocol = hop_by_hop::upgrade(&head.headers)?;
    match body {
        Incoming::Http1(body) => Some((protocol, body.switched())),
        Incoming::Http2(_) | Incoming::Cell(_) | Incoming::Http2Cell(_) => None,
    }
}

/// What is to be told of a request that its cell did not answer.
fn failed(error: StreamError, cell: &Cell, live: &Live) -> Failed {
    if let StreamError::Broken(_) | StreamError::BadAnswer(_) = error {
        live.breaker.broke(cell);
    }
    let left = live.breaker.refuses(&cell.placement);
    (error, left.unwrap_or(cell.policy.limits.retry_after))
}

fn refuse(
    answer: Answer,
    audience: Audience,
    record: &Record,
    pages: Option<&Arc<Pages>>,
) -> Words {
    record.reason.set(answer.reason());
    match answer {
        Answer::TooLarge => record.blame.set(Some(Blame::Client)),
        Answer::BreakerOpen(_) => record.blame.set(Some(Blame::Cell)),
        _ => {}
    }
    let sheet = Sheet {
        audience,
        request_id: &record.id,
        pages: pages.map(|pages| &**pages),
    };
    respond::answer(answer, sheet)
}

fn opening<'h>(head: &'h Parts, fields: Fields<'h>, peer: Peer, id: HeaderValue) -> Opening<'h> {
    let host = fields
        .get(&http::header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = head
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or(host)
        .unwrap_or_default();
    Opening {
        id,
        client: identity::client_ip(fields, peer),
        version: head.version,
        method: &head.method,
        host,
        path: head.uri.path(),
        parent: TraceParent::of(fields),
    }
}

fn target_of(head: &Parts) -> PathAndQuery {
    head.uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// The authority as the client wrote it: HTTP/2's `:authority`, or `Host`.
fn authority_of(head: &Parts) -> HeaderValue {
    let line = head
        .uri
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    line.or_else(|| head.headers.get(http::header::HOST).cloned())
        .unwrap_or_else(|| HeaderValue::from_static(""))
}

/// Whether the request carries our own proof that we replayed it to this cell before.
fn replayed_by_us(facts: &Facts<'_>, found: &Found<'_>, keys: Option<&Arc<Keys>>) -> bool {
    let source = facts
        .fields
        .get(&fly::FLY_REPLAY_SRC)
        .and_then(|value| value.to_str().ok());
    let (Some(state), Some(keys)) = (source.and_then(fly::replay_src_state), keys) else {
        return false;
    };
    let host = HostName::normalise(facts.authority).unwrap_or_default();
    let cell = found.cell.name.as_str();
    keys.verify(
        state,
        Bound {
            cell,
            method: facts.method.as_str(),
            host: &host,
            target: facts.target,
        },
        now(),
    )
}

/// The edge remembers a cached replay below `prefix`, and not at all where there is none.
fn replay(
    facts: &Facts<'_>,
    found: &Found<'_>,
    kind: ReplayKind,
    keys: Option<&Arc<Keys>>,
    prefix: impl FnOnce() -> Option<String>,
) -> Words {
    let placement = &found.cell.placement;
    match kind {
        ReplayKind::Strict { .. } => {
            let state = keys.map(|keys| {
                sign(
                    keys,
                    found.cell.name.as_str(),
                    facts.method.as_str(),
                    facts.authority,
                    facts.target,
                )
            });
            respond::replay(placement, kind, state.as_deref(), None)
        }
        ReplayKind::Cached { .. } => {
            let host = HostName::normalise(facts.authority).unwrap_or_default();
            let remember =
                prefix().and_then(|prefix| fly::cache_pattern(&host, &prefix, facts.path()));
            respond::replay(placement, kind, None, remember)
        }
    }
}

fn sign(keys: &Keys, cell: &str, method: &str, authority: &str, target: &str) -> String {
    let host = HostName::normalise(authority).unwrap_or_default();
    keys.sign(
        Bound {
            cell,
            method,
            host: &host,
            target,
        },
        now(),
    )
}

/// Request ids: a part of the worker's own, and a count.
#[derive(Debug)]
pub struct Ids {
    /// In sixteen digits, with a hyphen.
    worker: [u8; 17],
    count: std::cell::Cell<u64>,
}

impl Default for Ids {
    fn default() -> Self {
        Self::from(crate::config::seed(), 0)
    }
}

impl Ids {
    fn from(worker: u64, count: u64) -> Self {
        let mut own = [b'-'; 17];
        HEXLOWER.encode_mut(&worker.to_be_bytes(), &mut own[..16]);
        Self {
            worker: own,
            count: std::cell::Cell::new(count),
        }
    }

    fn next(&self) -> HeaderValue {
        let count = self.count.get();
        self.count.set(count + 1);
        let mut id = [0; 33];
        id[..17].copy_from_slice(&self.worker);
        let digits = (u64::BITS - count.leading_zeros()).max(1).div_ceil(4) as usize;
        let mut left = count;
        for digit in id[17..17 + digits].iter_mut().rev() {
            *digit = b"0123456789abcdef"[left as usize % 16];
            left /= 16;
        }
        HeaderValue::from_bytes(&id[..17 + digits]).expect("hexadecimal digits are a header value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_workers_and_a_count() {
        for count in [0, 9, 16, 0xabc, u64::MAX - 2] {
            let ids = Ids::from(0xfeed, count);
            assert_eq!(ids.next(), format!("000000000000feed-{count:x}"));
            assert_eq!(ids.next(), format!("000000000000feed-{:x}", count + 1));
        }
    }
}
