//! The only place where the router speaks for itself: replay instructions, answers and failures.
//!
//! Every text to a client is dull; what went wrong in detail is for the log.

mod waking_page;

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use self::waking_page::Progress;
use crate::account::record::Blame;
use crate::decision::{Answer, Malformed, ReplayKind};
use crate::outbound::StreamError;
use crate::registry::Placement;
use crate::wire::strict::Fault;
use crate::wire::{fly, visitor};

/// The status of a replay instruction. The edge takes any; this one is honest to a client that, by a mistake in the
/// set-up, gets to see it.
const REPLAY_STATUS: StatusCode = StatusCode::CONFLICT;

/// How often the waking page is loaded again by itself.
const REFRESH: Duration = Duration::from_secs(2);

/// An answer of the router's own, with its body.
pub type Words = Response<Bytes>;

/// A replay instruction. `state` is the signature, for a strict one whose cell has a secret; `remember` says for which
/// requests the edge may keep a cached one.
pub fn replay(
    placement: &Placement,
    kind: ReplayKind,
    state: Option<&str>,
    remember: Option<HeaderValue>,
) -> Words {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = REPLAY_STATUS;
    let Placement::Machine { app, machine, .. } = placement else {
        return response;
    };
    let headers = response.headers_mut();
    let instruction = match kind {
        ReplayKind::Strict { timeout } => fly::strict(
            app.as_str(),
            machine.as_str(),
            timeout.map(|timeout| timeout.as_millis()),
            state,
        ),
        ReplayKind::Cached { ttl } => {
            if let Some(pattern) = remember {
                headers.insert(fly::FLY_REPLAY_CACHE, pattern);
                headers.insert(
                    fly::FLY_REPLAY_CACHE_TTL_SECS,
                    HeaderValue::from(ttl.as_secs()),
                );
            }
            fly::cached(app.as_str(), machine.as_str())
        }
    };
    headers.insert(fly::FLY_REPLAY, instruction);
    response
}

const UNREACHABLE: &str = "This address cannot be reached right now. Please try again later.";
const TOO_LARGE: &str = "The request's body is larger than this address takes.";

/// What was decided without the cell.
pub fn answer(answer: Answer, audience: Audience) -> Words {
    let (status, text, retry_after) = match answer {
        Answer::Malformed(Malformed::Host) => (
            StatusCode::BAD_REQUEST,
            "The request names no valid host.",
            None,
        ),
        Answer::Malformed(Malformed::AuthorityMismatch) => (
            StatusCode::BAD_REQUEST,
            "The request names two hosts.",
            None,
        ),
        Answer::Malformed(Malformed::Target) => (
            StatusCode::BAD_REQUEST,
            "The request's target is neither a path nor a URL.",
            None,
        ),
        Answer::Malformed(Malformed::Method) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not served here.",
            None,
        ),
        Answer::AmbiguousPath => (
            StatusCode::BAD_REQUEST,
            "The path can be read in more than one way.",
            None,
        ),
        Answer::NoSuchCell => (
            StatusCode::NOT_FOUND,
            "There is nothing at this address.",
            None,
        ),
        Answer::Up => (StatusCode::OK, "ok", None),
        Answer::Reserved => (
            StatusCode::NOT_FOUND,
            "There is nothing at this address.",
            None,
        ),
        Answer::Loop => (
            StatusCode::LOOP_DETECTED,
            "The request came back to where it had been.",
            None,
        ),
        Answer::UseHttps(_) => (
            StatusCode::PERMANENT_REDIRECT,
            "This address is served by https only.",
            None,
        ),
        Answer::Disabled => (StatusCode::FORBIDDEN, "This address is switched off.", None),
        Answer::Maintenance(after) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Under maintenance. Please try again later.",
            Some(after),
        ),
        Answer::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE, None),
        Answer::Full(after) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many requests at once. Please try again soon.",
            Some(after),
        ),
        Answer::BreakerOpen(left) if audience.navigates => {
            return waking(
                Progress::Failed(left),
                StatusCode::SERVICE_UNAVAILABLE,
                left,
            );
        }
        Answer::BreakerOpen(left) => (StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE, Some(left)),
    };
    page(status, answer.reason(), text, retry_after, audience)
}

/// `words`, with where to go instead.
pub fn elsewhere(mut words: Words, location: Option<HeaderValue>) -> Words {
    if let Some(location) = location {
        words.headers_mut().insert(header::LOCATION, location);
    }
    words
}

/// What a client hears that has too many connections already, before it has asked anything: a whole answer in HTTP/1.1.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 49\r\ncache-control: no-store\r\n\
    connection: close\r\n\r\nToo many connections at once. Please close some.\n";

/// What is no request, and cannot say in which form it wants its answer.
pub fn fault(fault: Fault) -> Words {
    let text = match fault {
        Fault::TimedOut => "The request did not come in time.",
        Fault::TargetTooLong => "The request's target is too long.",
        Fault::HeadTooLarge => "The request's head is too large.",
        Fault::UnknownCoding => "This transfer coding is not known here.",
        Fault::Version => "This version of HTTP is not spoken here.",
        Fault::Flood => "Too much at once.",
        Fault::RequestLine
        | Fault::StatusLine
        | Fault::Method
        | Fault::Target
        | Fault::LineEnd
        | Fault::Folded
        | Fault::HeaderName
        | Fault::HeaderValue
        | Fault::ContentLength
        | Fault::LengthAndCoding
        | Fault::TransferEncoding
        | Fault::Chunk
        | Fault::Trailers
        | Fault::Http2Message
        | Fault::Http2Frames => "The request is malformed.",
    };
    let audience = Audience {
        wanted: Wanted::Text,
        head_only: false,
        navigates: false,
    };
    page(fault.status(), fault.name(), text, None, audience)
}

/// How a failure is told and logged.
#[derive(Debug)]
pub struct Failure {
    /// What the client gets.
    pub words: Words,
    /// The reason's name in logs.
    pub reason: &'static str,
    /// Who made it, if anybody did.
    pub blame: Option<Blame>,
}

/// What went wrong on the way to the cell, `retry_after` being how long the cell's entry asks clients to wait.
pub fn failure(error: &StreamError, retry_after: Duration, audience: Audience) -> Failure {
    const SLOW: &str = "This address did not answer in time. Please try again later.";
    let (status, reason, text, blame) = match error {
        StreamError::Dial(_) => (
            StatusCode::BAD_GATEWAY,
            "unreachable",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::NotTheCell(..) => (
            StatusCode::BAD_GATEWAY,
            "not_the_cell",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::Untrusted(..) => (
            StatusCode::BAD_GATEWAY,
            "cell_untrusted",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::Closed => (
            StatusCode::BAD_GATEWAY,
            "closed_after_challenge",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::Wake(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "wake_failed",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::WakeTimeout(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            "wake_timeout",
            SLOW,
            Blame::Cell,
        ),
        StreamError::Waking(stage, for_so_long) => {
            let progress = Progress::Waking(*stage, *for_so_long);
            return Failure {
                words: waking(progress, StatusCode::SERVICE_UNAVAILABLE, REFRESH),
                reason: "waking",
                blame: None,
            };
        }
        StreamError::Asleep => {
            let text = "What is at this address is asleep, and wakes for visitors only.";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Failure {
                words: page(status, "asleep", text, Some(retry_after), audience),
                reason: "asleep",
                blame: None,
            };
        }
        StreamError::TooManyHeld => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_held",
            UNREACHABLE,
            Blame::Router,
        ),
        StreamError::HoldTimeout(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "hold_timeout",
            UNREACHABLE,
            Blame::Router,
        ),
        StreamError::Broken(_) => (
            StatusCode::BAD_GATEWAY,
            "cell_broke_off",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::BadAnswer(_) => (
            StatusCode::BAD_GATEWAY,
            "bad_answer",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::UnaskedUpgrade => (
            StatusCode::BAD_GATEWAY,
            "unasked_upgrade",
            UNREACHABLE,
            Blame::Cell,
        ),
        StreamError::Silent(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            "cell_silent",
            SLOW,
            Blame::Cell,
        ),
        StreamError::ClientCut(_) => (
            StatusCode::BAD_REQUEST,
            "client_cut",
            "The request broke off.",
            Blame::Client,
        ),
        StreamError::TooLarge(_) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            TOO_LARGE,
            Blame::Client,
        ),
        StreamError::ClientStalled(_) => (
            StatusCode::REQUEST_TIMEOUT,
            "client_stalled",
            "The request made no progress.",
            Blame::Client,
        ),
    };
    let after = status.is_server_error().then_some(retry_after);
    let words = match error {
        StreamError::Wake(_) | StreamError::WakeTimeout(_) if audience.navigates => {
            waking(Progress::Failed(retry_after), status, retry_after)
        }
        _ => page(status, reason, text, after, audience),
    };
    Failure {
        words,
        reason,
        blame: Some(blame),
    }
}

/// One text as HTML for browsers, JSON for programs that ask for it, plain for the rest; never stored by a cache.
fn page(
    status: StatusCode,
    reason: &str,
    text: &str,
    retry_after: Option<Duration>,
    audience: Audience,
) -> Words {
    let wanted = audience.wanted;
    let body = match wanted {
        Wanted::Html => format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
             <style>body{{font:1.1rem/1.6 system-ui,sans-serif;display:grid;place-content:center;min-height:90vh;\
             margin:1rem;text-align:center}}small{{opacity:.6}}</style></head><body><main><h1>{title}</h1>\
             <p>{text}</p><small>{code}</small></main></body></html>\n",
            title = status.canonical_reason().unwrap_or("Error"),
            code = status.as_u16(),
        ),
        Wanted::Json => format!(
            "{{\"status\":{},\"reason\":\"{reason}\",\"message\":\"{text}\"}}\n",
            status.as_u16()
        ),
        Wanted::Text => format!("{text}\n"),
    };
    let mut response = own(status, wanted, body, retry_after, audience.head_only);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(
            header::ALLOW,
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        );
    }
    response
}

/// How the wake of a cell stands, as a page that a browser loads again by itself.
fn waking(progress: Progress, status: StatusCode, retry_after: Duration) -> Words {
    let body = progress.page(REFRESH);
    own(status, Wanted::Html, body, Some(retry_after), false)
}

/// An answer that no cache stores.
fn own(
    status: StatusCode,
    wanted: Wanted,
    body: String,
    retry_after: Option<Duration>,
    head_only: bool,
) -> Words {
    let length = HeaderValue::from(body.len());
    // An answer to HEAD says how long its body would be, and has none (RFC 9110 section 9.3.2).
    let body = if head_only {
        Bytes::new()
    } else {
        Bytes::from(body)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(wanted.content_type()),
    );
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    response
}

/// As `retry-after` has it: whoever comes back then is not too early.
fn whole_seconds(after: Duration) -> u64 {
    let begun = u64::from(after.subsec_nanos() > 0);
    (after.as_secs() + begun).max(1)
}

/// To whom the router speaks: all that it has to know of a request to word an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audience {
    wanted: Wanted,
    head_only: bool,
    navigates: bool,
}

impl Audience {
    /// Whoever sent this head, and a body or none.
    pub fn of(head: &Parts, without_body: bool) -> Self {
        Self {
            wanted: Wanted::of(&head.headers),
            head_only: head.method == Method::HEAD,
            navigates: without_body && visitor::is_navigation(&head.method, &head.headers),
        }
    }

    /// Whether it is a browser that shows to a person what it gets, and that will come again if told so.
    pub fn navigates(&self) -> bool {
        self.navigates
    }
}

/// The form in which a client wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Html,
    Json,
    Text,
}

impl Wanted {
    /// The first of the forms that `Accept` names; plain text where it names none.
    fn of(request: &HeaderMap) -> Self {
        request
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|range| range.split(';').next())
            .find_map(|range| match range.trim() {
                "text/html" | "application/xhtml+xml" => Some(Self::Html),
                "application/json" | "application/problem+json" => Some(Self::Json),
                "text/plain" => Some(Self::Text),
                _ => None,
            })
            .unwrap_or(Self::Text)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
        }
    }
}
