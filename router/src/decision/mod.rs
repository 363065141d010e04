//! What to do with a request: a pure function of its head, the cell's entry, the cell's live state and the place.
//!
//! Owns the decision table. Never does I/O, never reads a clock, never looks at anything but its arguments;
//! `explain` calls the same functions as the request path.

pub mod beat;
mod facts;
mod page;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub use facts::{BodyLength, Facts, Malformed, Surroundings};
pub use page::Page;

use crate::config::Place;
use crate::registry::{
    Admission, Cell, Lookup, Missing, Placement, Registry, Replay, Route, WakeFor,
};

/// What changes about a cell while the registry does not, as far as it matters to a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CellState {
    /// Requests that are being streamed to the cell now.
    pub in_flight: u32,
    /// How long the cell's breaker still keeps requests from it; `None` where it lets them pass.
    pub refused_for: Option<Duration>,
}

/// What the router will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer at once, without the cell.
    Answer(Answer),
    /// Find out who the client is, then decide again; answer at once if it may not go on.
    SignIn,
    /// Look for the file at this request's path among those that the router serves for the cell; if there is none, what its
    /// entry says.
    Files,
    /// Wait until the cell's entry changes, then decide again.
    Hold,
    /// Relay the request to the cell over the private network.
    Stream(StreamReason),
    /// Tell the edge to deliver the request itself.
    Replay(ReplayKind),
}

/// Why the router answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The request cannot be read in one way only.
    Malformed(Malformed),
    /// The path chooses the tenant here, and two readers could read it in two ways.
    AmbiguousPath,
    /// No cell has this host and path.
    NoSuchCell,
    /// The router's own health answer.
    Up,
    /// A path kept for the router at which it has nothing.
    Reserved,
    /// The request has passed through this router already.
    Loop,
    /// The request is to be forwarded no further.
    LastHop,
    /// The request came by plain HTTP and is to come by https, at this port.
    UseHttps(u16),
    /// The cell is switched off.
    Disabled,
    /// The cell is being worked on; how long until it is worth trying again.
    Maintenance(Duration),
    /// There is no file for the request, and only files at its path.
    NoSuchFile,
    /// There are only files at the path, which are read and not written.
    FilesOnly,
    /// The body is larger than the cell's entry allows.
    TooLarge,
    /// The cell has as many requests in flight as its entry allows.
    Full(Duration),
    /// The cell could not be reached, and is left alone for a while: how much is left of it.
    BreakerOpen(Duration),
}

/// Why a request is relayed rather than replayed: the first condition that held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamReason {
    /// This router does not run on Fly.io.
    NotOnFly,
    /// The request did not come through Fly's edge, so nobody would act on an instruction.
    NotThroughEdge,
    /// The cell's entry says `"replay": "never"`.
    ReplayNever,
    /// The cell lives at an address, not on a machine of the platform.
    AddressCell,
    /// Clients sign in before the cell: at each request, and the edge would not take off what they claim to be.
    SignsIn,
    /// The edge hands back a replay that failed: the rescue.
    ReplayFailed,
    /// The request carries this router's own proof that it was replayed before.
    AlreadyReplayed,
    /// The matched prefix is taken off the path, which a replay would not do.
    StripsPrefix,
    /// The cell is not to be woken for this request, as the edge would to deliver it.
    NotToWake,
    /// The body is longer than the edge re-sends.
    LargeBody,
    /// The body's length is not known beforehand.
    UnknownLength,
}

/// Which kind of replay instruction is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayKind {
    /// Signed, with a way back if it fails.
    Strict {
        /// How long the edge tries to reach the machine; `None` leaves it to the platform.
        timeout: Option<Duration>,
    },
    /// Remembered by the edge for a while.
    Cached {
        /// For how long.
        ttl: Duration,
    },
}

/// How a request found its cell.
#[derive(Debug, Clone)]
pub struct Found<'r> {
    /// The cell.
    pub cell: &'r Arc<Cell>,
    /// What in the registry matched.
    pub route: Route<'r>,
}

impl Found<'_> {
    /// The prefix that the cell does not see, if the entry takes one off.
    pub fn stripped_prefix(&self) -> Option<&str> {
        match self.route {
            Route::Path {
                prefix,
                strip: true,
            } => Some(prefix),
            Route::Path { .. }
            | Route::Host
            | Route::Wildcard
            | Route::Subdomain
            | Route::MachinePath
            | Route::Default => None,
        }
    }
}

impl Found<'_> {
    /// The path as the cell sees it.
    pub fn path<'p>(&self, facts: &Facts<'p>) -> Cow<'p, str> {
        let path = facts.path();
        let rest = self
            .stripped_prefix()
            .and_then(|prefix| path.get(prefix.len()..));
        match rest {
            None => path.into(),
            Some(rest) if rest.starts_with('/') => rest.into(),
            Some(rest) => format!("/{rest}").into(),
        }
    }

    /// The prefix below which every path of the request's host is this cell's, for a replay that the edge remembers;
    /// `None` where that cannot be said of any, where another prefix lies below it, or where the router looks at each request
    /// itself: serves files of the cell, has not everybody wake it, bounds what it is sent, or sends whoever comes by plain HTTP
    /// elsewhere (`https_only`). What the edge remembers it does not ask the router again, and it knows of no exceptions.
    pub fn exclusive_prefix(&self, registry: &Registry, https_only: bool) -> Option<String> {
        let policy = &self.cell.policy;
        if https_only
            || policy.files.is_some()
            || policy.wake_for != WakeFor::All
            || policy.limits.max_body_bytes.is_some()
        {
            return None;
        }
        match (&self.route, &self.cell.placement) {
            (Route::Host | Route::Wildcard | Route::Subdomain, _) => Some(String::new()),
            (Route::Path { prefix, .. }, _) => {
                registry.is_exclusive(prefix).then(|| (*prefix).to_owned())
            }
            (Route::MachinePath, Placement::Machine { machine, .. }) => {
                Some(format!("/{}", machine.as_str()))
            }
            (Route::MachinePath, Placement::Address { .. }) | (Route::Default, _) => None,
        }
    }
}

/// Finds the cell that a request is for.
///
/// # Errors
/// The answer where there is none.
pub fn resolve<'r>(registry: &'r Registry, facts: &Facts<'_>) -> Result<Found<'r>, Answer> {
    if facts.looped {
        return Err(Answer::Loop);
    }
    match registry.lookup(facts.authority, facts.path()) {
        Lookup::Cell { cell, route } => Ok(Found { cell, route }),
        Lookup::Router if facts.path() == "/up" => Err(Answer::Up),
        Lookup::Router => Err(Answer::Reserved),
        Lookup::Ambiguous(_) => Err(Answer::AmbiguousPath),
        Lookup::BadHost(_) => Err(Answer::Malformed(Malformed::Host)),
        Lookup::Nowhere => Err(Answer::NoSuchCell),
    }
}

/// Decides what to do with a request for a cell. The first condition that holds decides.
pub fn decide(facts: &Facts<'_>, found: &Found<'_>, state: CellState, place: &Place) -> Decision {
    let cell = found.cell;
    if let Some(port) = facts.https_at
        && !is_challenge(facts.path())
    {
        return match facts.https(port) {
            Some(_) => Decision::Answer(Answer::UseHttps(port)),
            None => Decision::Answer(Answer::Malformed(Malformed::Host)),
        };
    }
    if facts.last_hop {
        return Decision::Answer(Answer::LastHop);
    }
    match cell.policy.state {
        Admission::Disabled => return Decision::Answer(Answer::Disabled),
        Admission::Maintenance => {
            return Decision::Answer(Answer::Maintenance(cell.policy.limits.retry_after));
        }
        Admission::Paused | Admission::Active if wants_sign_in(facts, found) => {
            return Decision::SignIn;
        }
        Admission::Paused | Admission::Active => {}
    }
    if let Some(decided) = file(facts, found) {
        return decided;
    }
    if cell.policy.state == Admission::Paused {
        return Decision::Hold;
    }
    if let (BodyLength::Known(bytes), Some(most)) = (facts.body, cell.policy.limits.max_body_bytes)
        && bytes > most
    {
        return Decision::Answer(Answer::TooLarge);
    }
    match (lane(facts, found, place), state.refused_for) {
        (Decision::Stream(_), Some(left)) => Decision::Answer(Answer::BreakerOpen(left)),
        (Decision::Stream(_), None) if state.in_flight >= cell.policy.limits.max_in_flight => {
            Decision::Answer(Answer::Full(cell.policy.limits.retry_after))
        }
        (decided, _) => decided,
    }
}

/// What becomes of a request at the path of files that the router serves; none where it is the cell's all the same.
fn file(facts: &Facts<'_>, found: &Found<'_>) -> Option<Decision> {
    let files = found.cell.policy.files.as_ref()?;
    files.path.rest(&found.path(facts))?;
    let reads = matches!(*facts.method, http::Method::GET | http::Method::HEAD);
    match (files.missing, reads, facts.without_file) {
        (_, true, false) => Some(Decision::Files),
        (Missing::NotFound, true, true) => Some(Decision::Answer(Answer::NoSuchFile)),
        (Missing::NotFound, false, _) => Some(Decision::Answer(Answer::FilesOnly)),
        (Missing::Cell, _, _) => None,
    }
}

/// Whether it has to be found out first who the client is.
fn wants_sign_in(facts: &Facts<'_>, found: &Found<'_>) -> bool {
    let Some(sign_in) = &found.cell.policy.sign_in else {
        return false;
    };
    if facts.signed_in || sign_in.is_open() {
        return false;
    }
    let reads = matches!(*facts.method, http::Method::GET | http::Method::HEAD);
    let proof = reads && found.stripped_prefix().is_none() && is_challenge(facts.path());
    let public = sign_in.is_public(&found.path(facts));
    facts.names_another_path || !(proof || public)
}

/// Whether a certificate authority asks here for a proof that the cell has this name (RFC 8555 section 8.3): by plain
/// HTTP, for there may be no certificate yet.
fn is_challenge(path: &str) -> bool {
    let token = path.strip_prefix("/.well-known/acme-challenge/");
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    token.is_some_and(|token| !token.is_empty() && token.bytes().all(base64url))
}

fn lane(facts: &Facts<'_>, found: &Found<'_>, place: &Place) -> Decision {
    let Place::Fly(_) = place else {
        return Decision::Stream(StreamReason::NotOnFly);
    };
    if !facts.through_edge {
        return Decision::Stream(StreamReason::NotThroughEdge);
    }
    if let Placement::Address { .. } = found.cell.placement {
        return Decision::Stream(StreamReason::AddressCell);
    }
    if found.cell.policy.sign_in.is_some() {
        return Decision::Stream(StreamReason::SignsIn);
    }
    let kind = match found.cell.policy.replay {
        Replay::Never => return Decision::Stream(StreamReason::ReplayNever),
        Replay::Strict { timeout } => ReplayKind::Strict { timeout },
        Replay::Cached { ttl } => ReplayKind::Cached { ttl },
    };
    if facts.replay_failed {
        return Decision::Stream(StreamReason::ReplayFailed);
    }
    if facts.replayed_by_us {
        return Decision::Stream(StreamReason::AlreadyReplayed);
    }
    if found.stripped_prefix().is_some() {
        return Decision::Stream(StreamReason::StripsPrefix);
    }
    if !may_wake(facts, found.cell) {
        return Decision::Stream(StreamReason::NotToWake);
    }
    match facts.body {
        BodyLength::Unknown => Decision::Stream(StreamReason::UnknownLength),
        BodyLength::Known(bytes) if bytes > facts.replay_max_bytes => {
            Decision::Stream(StreamReason::LargeBody)
        }
        BodyLength::None | BodyLength::Known(_) => Decision::Replay(kind),
    }
}

/// Whether a cell that sleeps is to be woken for a request.
pub fn may_wake(facts: &Facts<'_>, cell: &Cell) -> bool {
    cell.policy.wake_for == WakeFor::All || facts.is_visitor()
}

impl Decision {
    /// The lane, as the log and `explain` name it.
    pub fn lane(&self) -> &'static str {
        match self {
            Self::Answer(_) | Self::SignIn => "answer",
            Self::Files => "static",
            Self::Hold => "hold",
            Self::Stream(_) => "stream",
            Self::Replay(_) => "replay",
        }
    }

    /// The condition that decided, as the log and `explain` name it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Answer(answer) => answer.reason(),
            Self::Hold => "paused",
            Self::SignIn => "sign_in_required",
            Self::Files => "static_file",
            Self::Stream(reason) => reason.name(),
            Self::Replay(ReplayKind::Strict { .. }) => "strict",
            Self::Replay(ReplayKind::Cached { .. }) => "cached",
        }
    }
}

impl Answer {
    /// The condition that decided, as the log and `explain` name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed(fault) => fault.name(),
            Self::AmbiguousPath => "ambiguous_path",
            Self::NoSuchCell => "no_such_cell",
            Self::Up => "up",
            Self::Reserved => "reserved_path",
            Self::Loop => "loop",
            Self::LastHop => "last_hop",
            Self::UseHttps(_) => "use_https",
            Self::Disabled => "disabled",
            Self::Maintenance(_) => "maintenance",
            Self::NoSuchFile => "static_missing",
            Self::FilesOnly => "static_read_only",
            Self::TooLarge => "body_too_large",
            Self::Full(_) => "cell_full",
            Self::BreakerOpen(_) => "breaker_open",
        }
    }
}

impl StreamReason {
    /// The reason's name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotOnFly => "not_on_fly",
            Self::NotThroughEdge => "not_through_edge",
            Self::ReplayNever => "replay_never",
            Self::AddressCell => "address_cell",
            Self::SignsIn => "signs_in",
            Self::ReplayFailed => "replay_failed",
            Self::AlreadyReplayed => "already_replayed",
            Self::StripsPrefix => "strips_prefix",
            Self::NotToWake => "not_to_wake",
            Self::LargeBody => "large_body",
            Self::UnknownLength => "unknown_length",
        }
    }
}
