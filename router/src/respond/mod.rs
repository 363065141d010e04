//! The only place where the router speaks for itself: replay instructions, answers and failures.
//!
//! Every text to a client is dull; what went wrong in detail is for the log.

mod page;
mod sign_in;
mod waking_page;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};

pub use self::sign_in::not_signed_in;
use self::waking_page::Progress;
use crate::account::record::Blame;
use crate::decision::{Answer, Malformed, Page, ReplayKind};
use crate::live::pages::{Pages, Slot};
use crate::outbound::{DialError, StreamError};
use crate::registry::Placement;
use crate::wire::accept::Form;
use crate::wire::sieve::Fields;
use crate::wire::strict::Fault;
use crate::wire::{X_REQUEST_ID, fly, visitor};

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
const NOT_NOW: &str = "Not available right now";
const MALFORMED: &str = "That cannot be read";
const TOO_LARGE_TITLE: &str = "Too large";
const TOO_LARGE: &str = "The request's body is larger than this address takes.";

/// On what an answer is written: for whom, about which request, and with whose pages.
#[derive(Debug, Clone, Copy)]
pub struct Sheet<'a> {
    /// For whom.
    pub audience: Audience,
    /// The request's id, to be quoted.
    pub request_id: &'a HeaderValue,
    /// The operator's own pages, where there are any.
    pub pages: Option<&'a Pages>,
}

/// What an answer says.
#[derive(Debug, Clone)]
struct Notice<'a> {
    status: StatusCode,
    /// The reason's name in logs.
    reason: &'static str,
    /// For people, in two or three words.
    title: &'static str,
    text: Cow<'a, str>,
    /// The operator's page that would say it.
    page: Option<Page>,
    blame: Option<Blame>,
    retry_after: Option<Duration>,
}

/// What was decided without the cell.
pub fn answer(answer: Answer, sheet: Sheet<'_>) -> Words {
    const NOTHING: &str = "There is nothing at this address.";
    const NOT_FOUND: &str = "Nothing here";
    let (status, title, text, retry_after) = match answer {
        Answer::Malformed(Malformed::Host) => (
            StatusCode::BAD_REQUEST,
            MALFORMED,
            "The request names no valid host.",
            None,
        ),
        Answer::Malformed(Malformed::AuthorityMismatch) => (
            StatusCode::BAD_REQUEST,
            MALFORMED,
            "The request names two hosts.",
            None,
        ),
        Answer::Malformed(Malformed::Target) => (
            StatusCode::BAD_REQUEST,
            MALFORMED,
            "The request's target is neither a path nor a URL.",
            None,
        ),
        Answer::Malformed(Malformed::Method) => (
            StatusCode::METHOD_NOT_ALLOWED,
            "Not like this",
            "This method is not served here.",
            None,
        ),
        Answer::AmbiguousPath => (
            StatusCode::BAD_REQUEST,
            MALFORMED,
            "The path can be read in more than one way.",
            None,
        ),
        Answer::NoSuchCell => (StatusCode::NOT_FOUND, NOT_FOUND, NOTHING, None),
        Answer::NoSuchFile => (StatusCode::NOT_FOUND, NOT_FOUND, NOTHING, None),
        Answer::FilesOnly => (
            StatusCode::METHOD_NOT_ALLOWED,
            "Not like this",
            "What is here can be read only.",
            None,
        ),
        Answer::Up => (StatusCode::OK, "Up", "ok", None),
        Answer::Reserved => (StatusCode::NOT_FOUND, NOT_FOUND, NOTHING, None),
        Answer::Loop => (
            StatusCode::LOOP_DETECTED,
            "Going in circles",
            "The request came back to where it had been.",
            None,
        ),
        Answer::LastHop => (
            StatusCode::OK,
            "This far",
            "The request was to go no further.",
            None,
        ),
        Answer::UseHttps(_) => (
            StatusCode::PERMANENT_REDIRECT,
            "Please use https",
            "This address is served by https only.",
            None,
        ),
        Answer::Disabled => (
            StatusCode::FORBIDDEN,
            "Switched off",
            "This address is switched off.",
            None,
        ),
        Answer::Maintenance(after) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Back soon",
            "Under maintenance. Please try again later.",
            Some(after),
        ),
        Answer::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            TOO_LARGE_TITLE,
            TOO_LARGE,
            None,
        ),
        Answer::Full(after) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Busy right now",
            "Too many requests at once. Please try again soon.",
            Some(after),
        ),
        Answer::BreakerOpen(left) if sheet.audience.navigates => {
            return waking(
                Progress::Failed(left),
                StatusCode::SERVICE_UNAVAILABLE,
                left,
                sheet,
            );
        }
        Answer::BreakerOpen(left) => (
            StatusCode::SERVICE_UNAVAILABLE,
            NOT_NOW,
            UNREACHABLE,
            Some(left),
        ),
    };
    let notice = Notice {
        status,
        reason: answer.reason(),
        title,
        text: text.into(),
        page: answer.page(),
        blame: matches!(answer, Answer::BreakerOpen(_)).then_some(Blame::Cell),
        retry_after,
    };
    notice.written(sheet)
}

/// `words`, with where to go instead.
pub fn elsewhere(mut words: Words, location: Option<HeaderValue>) -> Words {
    if let Some(location) = location {
        words.headers_mut().insert(header::LOCATION, location);
    }
    words
}

/// There is a folder, and its path ends in a slash.
pub fn folder(location: HeaderValue, sheet: Sheet<'_>) -> Words {
    let notice = Notice {
        status: StatusCode::PERMANENT_REDIRECT,
        reason: "static_folder",
        title: "Over there",
        text: "This is a folder; its address ends in a slash.".into(),
        page: Some(Page::Error),
        blame: None,
        retry_after: None,
    };
    elsewhere(notice.written(sheet), Some(location))
}

/// A file could not be read.
pub fn unreadable(sheet: Sheet<'_>) -> Words {
    let notice = Notice {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        reason: "static_unreadable",
        title: NOT_NOW,
        text: UNREACHABLE.into(),
        page: Some(Page::Error),
        blame: Some(Blame::Router),
        retry_after: None,
    };
    notice.written(sheet)
}

/// What a client hears that has too many connections already, before it has asked anything: a whole answer in HTTP/1.1.
pub const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 49\r\ncache-control: no-store\r\n\
    connection: close\r\n\r\nToo many connections at once. Please close some.\n";

/// What is no request, and cannot say in which form it wants its answer.
pub fn fault(fault: Fault, request_id: &HeaderValue) -> Words {
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
        form: Form::Text,
        head_only: false,
        navigates: false,
    };
    let notice = Notice {
        status: fault.status(),
        reason: fault.name(),
        title: MALFORMED,
        text: text.into(),
        page: Some(Page::Error),
        blame: Some(Blame::Client),
        retry_after: None,
    };
    notice.written(Sheet {
        audience,
        request_id,
        pages: None,
    })
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
pub fn failure(error: &StreamError, retry_after: Duration, sheet: Sheet<'_>) -> Failure {
    const SLOW: &str = "This address did not answer in time. Please try again later.";
    let (status, reason, text, blame) = match error {
        StreamError::Dial(DialError::Exhausted(_)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "router_exhausted",
            UNREACHABLE,
            Blame::Router,
        ),
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
                words: waking(progress, StatusCode::SERVICE_UNAVAILABLE, REFRESH, sheet),
                reason: "waking",
                blame: None,
            };
        }
        StreamError::Asleep => {
            let notice = Notice {
                status: StatusCode::SERVICE_UNAVAILABLE,
                reason: "asleep",
                title: "Asleep",
                text: "What is at this address is asleep, and wakes for visitors only.".into(),
                page: Some(Page::Error),
                blame: None,
                retry_after: Some(retry_after),
            };
            return Failure {
                words: notice.written(sheet),
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
    let words = match error {
        StreamError::Wake(_) | StreamError::WakeTimeout(_) if sheet.audience.navigates => {
            waking(Progress::Failed(retry_after), status, retry_after, sheet)
        }
        _ => {
            let title = match status {
                StatusCode::BAD_REQUEST => "It broke off",
                StatusCode::PAYLOAD_TOO_LARGE => TOO_LARGE_TITLE,
                StatusCode::REQUEST_TIMEOUT => "Too slow",
                _ => NOT_NOW,
            };
            let notice = Notice {
                status,
                reason,
                title,
                text: text.into(),
                page: Some(Page::Error),
                blame: Some(blame),
                retry_after: status.is_server_error().then_some(retry_after),
            };
            notice.written(sheet)
        }
    };
    Failure {
        words,
        reason,
        blame: Some(blame),
    }
}

impl Notice<'_> {
    /// In the form that the client wants; never stored by a cache.
    fn written(&self, sheet: Sheet<'_>) -> Words {
        let Sheet {
            audience,
            request_id,
            pages,
        } = sheet;
        let id = request_id.to_str().unwrap_or_default();
        let mut policy = page::POLICY;
        let body = match audience.form {
            Form::Html => {
                let own = pages
                    .zip(self.page)
                    .and_then(|(pages, page)| pages.fill(page, |slot| self.value(slot, id)));
                own.inspect(|_| policy = page::OWN_POLICY)
                    .unwrap_or_else(|| {
                        let body =
                            page::what_happened(&self.text, self.blame, self.status.as_u16());
                        page::whole(self.title, &body, id, None)
                    })
            }
            Form::Json => self.problem(id),
            Form::Text => format!("{}\n", self.text),
        };
        let mut response = own(self.status, body, self.retry_after, sheet, policy);
        let last_hop = self.reason == Answer::LastHop.reason();
        if last_hop || self.status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = if self.reason == Answer::FilesOnly.reason() {
                "GET, HEAD"
            } else {
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
            };
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }

    /// What stands in a place of an operator's page.
    fn value<'v>(&'v self, slot: Slot, id: &'v str) -> Cow<'v, str> {
        match slot {
            Slot::RequestId => id.into(),
            Slot::Status => self.status.as_str().into(),
            Slot::Title => self.title.into(),
            Slot::Message => (&*self.text).into(),
            Slot::RetryAfter => self
                .retry_after
                .map(|after| whole_seconds(after).to_string())
                .unwrap_or_default()
                .into(),
        }
    }

    /// A problem's details (RFC 9457 section 3).
    fn problem(&self, id: &str) -> String {
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or(self.title),
            "status": self.status.as_u16(),
            "detail": self.text,
            "reason": self.reason,
            "request_id": id,
        });
        format!("{problem}\n")
    }
}

/// How the wake of a cell stands, as a page that a browser loads again by itself.
fn waking(
    progress: Progress,
    status: StatusCode,
    retry_after: Duration,
    sheet: Sheet<'_>,
) -> Words {
    let id = sheet.request_id.to_str().unwrap_or_default();
    let notice = Notice {
        status,
        reason: "waking",
        title: progress.title(),
        text: progress.message().into(),
        page: Some(Page::Waking),
        blame: None,
        retry_after: Some(retry_after),
    };
    let pages = sheet.pages;
    let filled = pages.and_then(|pages| pages.fill(Page::Waking, |slot| notice.value(slot, id)));
    let (body, policy) = match filled {
        Some(page) => (page, page::OWN_POLICY),
        None => (progress.page(id, REFRESH), page::POLICY),
    };
    let mut response = own(status, body, Some(retry_after), sheet, policy);
    if policy == page::OWN_POLICY {
        // What the built-in page says by itself.
        let refresh = HeaderValue::from(REFRESH.as_secs());
        response
            .headers_mut()
            .insert(HeaderName::from_static("refresh"), refresh);
    }
    response
}

/// An answer that no cache stores. `policy` is for HTML only.
fn own(
    status: StatusCode,
    body: String,
    retry_after: Option<Duration>,
    sheet: Sheet<'_>,
    policy: &'static str,
) -> Words {
    let Audience {
        form, head_only, ..
    } = sheet.audience;
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
        HeaderValue::from_static(content_type(form)),
    );
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if form == Form::Html {
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    if !status.is_success() {
        headers.insert(X_REQUEST_ID, sheet.request_id.clone());
    }
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
    form: Form,
    head_only: bool,
    navigates: bool,
}

impl Audience {
    /// Whoever sent this, and a body or none.
    pub fn of(method: &Method, fields: Fields<'_>, without_body: bool) -> Self {
        let form = Form::wanted(fields);
        let navigates = visitor::is_navigation(method, fields, form);
        Self {
            form,
            head_only: *method == Method::HEAD,
            navigates: without_body && navigates,
        }
    }

    /// Whether it is a browser that shows to a person what it gets, and that will come again if told so.
    pub fn navigates(&self) -> bool {
        self.navigates
    }
}

fn content_type(form: Form) -> &'static str {
    match form {
        Form::Html => "text/html; charset=utf-8",
        Form::Json => "application/problem+json",
        Form::Text => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests;
