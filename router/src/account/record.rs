//! The record of one request, and the line it becomes.

use std::cell::{Cell, Ref, RefCell};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tokio::time::Instant;

use super::log::AccessLog;
use super::recent::{Ended, short_method, short_path};
use super::sight::{Coming, Upload};
use super::span::{self, Wait};
use super::tally::{Kind, Outcome};
use super::trace::Step;
use crate::config::LogFormat;
use crate::registry::CellName;
use crate::wire::address;
use crate::wire::trace::TraceParent;

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// There was none, or it was not looked at.
    #[default]
    None,
    /// It is under way.
    Running,
    /// Whole.
    Complete,
    /// The client was gone, or the connection was.
    ClientGone,
    /// The client sent nothing for too long.
    ClientStalled,
    /// It was larger than the cell's entry allows.
    TooLarge,
    /// The cell cut it.
    CellCut,
    /// The cell sent nothing for too long.
    CellStalled,
    /// It is a file of which less could be read than there was.
    Unreadable,
    /// The cell answered before it had read all of it.
    NotWanted,
}

/// Who made an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client.
    Client,
    /// The router, or what it rests on.
    Router,
    /// The cell.
    Cell,
}

impl Blame {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Router => "router",
            Self::Cell => "cell",
        }
    }
}

/// What is known of one request; the line is written when the last owner lets go, so also when the client left.
#[derive(Debug)]
pub struct Record {
    log: Rc<AccessLog>,
    pub(super) began: Instant,
    /// The request's id.
    pub id: HeaderValue,
    pub(super) client: IpAddr,
    pub(super) version: Version,
    pub(super) method: Method,
    pub(super) host: Box<str>,
    pub(super) path: Box<str>,
    pub(super) parent: Option<TraceParent>,
    step: Cell<Option<Step>>,
    pub(super) waits: RefCell<Vec<Wait>>,
    pub(super) status: Cell<Option<StatusCode>>,
    cell: RefCell<Option<CellName>>,
    /// The lane that was taken.
    pub lane: Cell<&'static str>,
    /// The condition that decided, or what went wrong on the way.
    pub reason: Cell<&'static str>,
    /// Who the client is, where it has signed in.
    pub user: RefCell<Option<HeaderValue>>,
    /// The full text of what went wrong, for the log only.
    pub error: RefCell<Option<String>>,
    /// Who made it.
    pub blame: Cell<Option<Blame>>,
    /// Where the request was streamed to.
    pub upstream: Cell<Option<SocketAddr>>,
    /// How long the request waited for its cell, where it did.
    pub waited: Cell<Option<Duration>>,
    /// Bytes of body from the client.
    pub bytes_in: Cell<u64>,
    /// Bytes of body to the client.
    pub bytes_out: Cell<u64>,
    /// How the request's body ended.
    pub request_ended: Cell<Ending>,
    /// How the answer's body ended.
    pub response_ended: Cell<Ending>,
    pub(super) first_byte: Cell<Option<Duration>>,
    last_progress: Cell<Instant>,
    coming: RefCell<Option<Coming>>,
}

/// What a record begins with.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The request's id.
    pub id: HeaderValue,
    /// The client's address.
    pub client: IpAddr,
    /// The protocol version.
    pub version: Version,
    /// The method.
    pub method: &'a Method,
    /// The host as the client wrote it.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// Where it belongs in a trace, if it says so.
    pub parent: Option<TraceParent>,
}

impl Record {
    /// Begins a record now.
    pub fn open(log: Rc<AccessLog>, opening: Opening<'_>) -> Rc<Self> {
        let began = Instant::now();
        Rc::new(Self {
            log,
            began,
            id: opening.id,
            client: opening.client,
            version: opening.version,
            method: opening.method.clone(),
            host: opening.host.into(),
            path: opening.path.into(),
            parent: opening.parent,
            step: Cell::default(),
            waits: RefCell::default(),
            status: Cell::default(),
            cell: RefCell::default(),
            lane: Cell::new("answer"),
            reason: Cell::new("unanswered"),
            user: RefCell::default(),
            error: RefCell::default(),
            blame: Cell::default(),
            upstream: Cell::default(),
            waited: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
            request_ended: Cell::default(),
            response_ended: Cell::default(),
            first_byte: Cell::default(),
            last_progress: Cell::new(began),
            coming: RefCell::default(),
        })
    }

    /// The router is a span of the request's trace, if traces are exported; `https` says whether the client came by it.
    pub fn trace(&self, https: impl FnOnce() -> bool) {
        if let Some(tracer) = self.log.tracer() {
            let own = tracer.step(self.parent);
            let https = https();
            self.step.set(Some(Step { own, https }));
        }
    }

    /// Tells who is asked next to which span of which trace that belongs; what the request itself says stands where no
    /// traces are exported.
    pub fn tell(&self, headers: &mut HeaderMap) {
        if let Some(step) = self.step.get() {
            step.own.tell(headers, self.parent.is_some());
        }
    }

    /// From now on, until what is returned is dropped, the request waits.
    pub fn waits(&self, on: &'static str) -> Waits<'_> {
        Waits {
            record: self,
            on,
            since: Instant::now(),
        }
    }

    /// A body is to come from the client, of this length where that is known: from now on it can be seen to come.
    pub fn expects(self: &Rc<Self>, length: Option<u64>) {
        if let Some(sight) = self.log.sight() {
            let coming = sight.comes(Rc::downgrade(self), length);
            self.coming.replace(Some(coming));
        }
    }

    /// No body is to come from the client after all.
    pub fn expects_nothing(&self) {
        self.coming.take();
    }

    /// The upload as far as it has come, if it is under way.
    pub fn upload(&self) -> Option<Upload> {
        let under_way = match self.request_ended.get() {
            Ending::Running => true,
            // Nothing is read before there is a connection to the cell.
            Ending::None => self.status.get().is_none(),
            Ending::Complete
            | Ending::ClientGone
            | Ending::ClientStalled
            | Ending::TooLarge
            | Ending::CellCut
            | Ending::CellStalled
            | Ending::Unreadable
            | Ending::NotWanted => false,
        };
        if !under_way {
            return None;
        }
        let length = self.coming.borrow().as_ref()?.length;
        Some(Upload {
            began: self.began,
            method: short_method(self.method.clone()),
            path: short_path(self.path.clone()),
            lane: self.lane.get(),
            bytes: self.bytes_in.get(),
            of: length,
            silent: self.last_progress.get().elapsed(),
        })
    }

    /// Leaves what can be seen of the request once it is over.
    fn leave(&mut self, at: SystemTime, duration: Duration) {
        let (status, reason, blame) = (self.status(), self.reason(), self.blame());
        let Some((sight, cell)) = self.log.sight().zip(self.cell.get_mut().take()) else {
            return;
        };
        let ended = Ended {
            at,
            method: std::mem::take(&mut self.method),
            path: std::mem::take(&mut self.path),
            status,
            lane: self.lane.get(),
            reason,
            blame,
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            duration,
        };
        sight.ended(&cell, ended);
    }

    /// The cell that the request is for: of one that is decided again, the last.
    pub fn found(&self, cell: &CellName) {
        self.cell.replace(Some(cell.clone()));
    }

    /// When its head had come.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The cell that was found for the request.
    pub fn cell(&self) -> Option<Ref<'_, CellName>> {
        Ref::filter_map(self.cell.borrow(), Option::as_ref).ok()
    }

    /// The head of the answer is on its way.
    pub fn answered(&self, status: StatusCode) {
        self.status.set(Some(status));
        self.progress();
        self.first_byte.set(Some(self.last_progress() - self.began));
    }

    /// Bytes went through, in whichever direction.
    pub fn progress(&self) {
        self.last_progress.set(Instant::now());
    }

    /// When bytes last went through, in whichever direction.
    pub fn last_progress(&self) -> Instant {
        self.last_progress.get()
    }

    /// The status to log: 499 where the client left before there was an answer, as nginx spells it.
    fn status(&self) -> u16 {
        self.status.get().map_or(499, |status| status.as_u16())
    }

    pub(super) fn reason(&self) -> &'static str {
        if self.status.get().is_none() {
            "client_gone"
        } else {
            self.reason.get()
        }
    }

    pub(super) fn blame(&self) -> Option<Blame> {
        let of_body = |ending| match ending {
            Ending::ClientGone | Ending::ClientStalled | Ending::TooLarge => Some(Blame::Client),
            Ending::CellCut | Ending::CellStalled => Some(Blame::Cell),
            Ending::Unreadable => Some(Blame::Router),
            Ending::None | Ending::Running | Ending::Complete | Ending::NotWanted => None,
        };
        let left = || self.status.get().is_none().then_some(Blame::Client);
        let bodies =
            || of_body(self.request_ended.get()).or_else(|| of_body(self.response_ended.get()));
        self.blame.get().or_else(left).or_else(bodies)
    }

    fn line(&self, into: &mut String, at: SystemTime, duration: Duration) {
        match self.log.format() {
            LogFormat::Json => self.json(into, at, duration),
            LogFormat::Text => self.text(into, at, duration),
        }
    }

    fn json(&self, into: &mut String, at: SystemTime, duration: Duration) {
        let mut line = JsonLine::new(into, at);
        line.text(key!("request_id"), self.id.to_str().unwrap_or_default());
        self.traced(|name, id| line.shown(name, id));
        line.ip(key!("client"), self.client.to_canonical());
        line.word(key!("method"), self.method.as_str());
        line.text(key!("host"), &self.host);
        line.text(key!("path"), &self.path);
        line.word(key!("version"), version_name(self.version));
        line.number(key!("status"), self.status().into());
        if let Some(cell) = self.cell() {
            line.word(key!("cell"), cell.as_str());
        }
        if let Some(user) = self.user.borrow().as_ref() {
            line.text(key!("user"), &String::from_utf8_lossy(user.as_bytes()));
        }
        line.word(key!("lane"), self.lane.get());
        line.word(key!("reason"), self.reason());
        if let Some(upstream) = self.upstream.get() {
            line.socket(key!("upstream"), upstream);
        }
        if let Some(waited) = self.waited.get() {
            line.number(key!("waited_ms"), whole_millis(waited));
        }
        line.number(key!("bytes_in"), self.bytes_in.get());
        line.number(key!("bytes_out"), self.bytes_out.get());
        if let Some(ending) = ending_name(self.request_ended.get()) {
            line.word(key!("request_body"), ending);
        }
        if let Some(ending) = ending_name(self.response_ended.get()) {
            line.word(key!("response_body"), ending);
        }
        if let Some(blame) = self.blame() {
            line.word(key!("error_by"), blame.name());
        }
        if let Some(error) = self.error.borrow().as_deref() {
            line.text(key!("error"), error);
        }
        if let Some(first_byte) = self.first_byte.get() {
            line.millis(key!("first_byte_ms"), first_byte);
        }
        line.millis(key!("duration_ms"), duration);
        line.end();
    }

    fn text(&self, line: &mut String, at: SystemTime, duration: Duration) {
        timestamp(line, at);
        let cell = self.cell();
        let cell = cell.as_deref().map_or("-", CellName::as_str);
        // Writing to a string cannot fail.
        let _ = write!(
            line,
            " {} {} {}{} -> {} {} {}/{} in={} out={} {}ms",
            self.client.to_canonical(),
            self.method,
            Visible(&self.host),
            Visible(&self.path),
            self.status(),
            cell,
            self.lane.get(),
            self.reason(),
            self.bytes_in.get(),
            self.bytes_out.get(),
            Millis(duration),
        );
        if let Some(waited) = self.waited.get() {
            let _ = write!(line, " waited={}ms", waited.as_millis());
        }
        if let Some(blame) = self.blame() {
            let _ = write!(line, " error_by={}", blame.name());
        }
        if let Some(error) = self.error.borrow().as_deref() {
            let _ = write!(line, " error={:?}", error);
        }
        self.traced(|name, id| _ = write!(line, " {name}={id}"));
        line.push('\n');
    }

    /// Tells the ids by which the request is found in a trace.
    fn traced(&self, mut tell: impl FnMut(&'static str, &dyn fmt::Display)) {
        let own = self.step.get().map(|step| step.own);
        if let Some(known) = own.or(self.parent) {
            tell("trace_id", &known.trace);
        }
        if let Some(parent) = self.parent {
            tell("parent_span_id", &parent.span);
        }
        if let Some(own) = own {
            tell("span_id", &own.span);
        }
    }
}

/// A request that waits; it has waited when this is dropped.
#[derive(Debug)]
pub struct Waits<'a> {
    record: &'a Record,
    on: &'static str,
    since: Instant,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let traced = self.record.step.get();
        if traced.is_some_and(|step| step.own.is_sampled()) {
            self.record.waits.borrow_mut().push(Wait {
                on: self.on,
                since: self.since,
                long: self.since.elapsed(),
            });
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let step = self.step.get().filter(|step| step.own.is_sampled());
        if let Some((step, tracer)) = step.zip(self.log.tracer()) {
            tracer.ended(span::spans(self, step, tracer));
        }
        let (at, duration) = (SystemTime::now(), self.began.elapsed());
        self.log.write(|log| self.line(log, at, duration));
        self.log.tally().request(&Outcome {
            kind: Kind {
                lane: self.lane.get(),
                reason: self.reason(),
                // Cells that speak HTTP/2 may say what is no status (RFC 9110 section 15).
                class: (self.status() / 100).min(5),
                blame: self.blame(),
            },
            cell: self.cell().as_deref(),
            at,
            duration,
            first_byte: self.first_byte.get(),
            waited: self.waited.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        });
        self.leave(at, duration);
    }
}

pub(super) fn ending_name(ending: Ending) -> Option<&'static str> {
    match ending {
        Ending::None => None,
        // Whoever drops a body that runs takes it away from the other side.
        Ending::Running => Some("cut"),
        Ending::Complete => Some("complete"),
        Ending::ClientGone => Some("client_gone"),
        Ending::ClientStalled => Some("client_stalled"),
        Ending::TooLarge => Some("too_large"),
        Ending::CellCut => Some("cell_cut"),
        Ending::CellStalled => Some("cell_stalled"),
        Ending::NotWanted => Some("not_wanted"),
        Ending::Unreadable => Some("unreadable"),
    }
}

pub(super) fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a time as RFC 3339 with milliseconds. What is the same for all of a second is made once.
fn timestamp(into: &mut String, at: SystemTime) {
    thread_local! {
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            *text = rfc3339(at);
            text.truncate("2026-01-01T00:00:00.".len());
        }
        into.push_str(text);
    });
    let millis = since.subsec_millis();
    for digit in [millis / 100, millis / 10 % 10, millis % 10] {
        into.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
    into.push('Z');
}

/// A time as RFC 3339 with milliseconds, in UTC.
pub fn rfc3339(at: SystemTime) -> String {
    let now = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z",
        second % 60,
        now.subsec_millis()
    )
}

/// Year, month and day of a day counted from 1970-01-01, by the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is a year's last; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (
        era * 400 + year + u64::from(month <= 2),
        month,
        of_year - (153 * shifted + 2) / 5 + 1,
    )
}

/// A duration as milliseconds with one decimal.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tenths = self.0.as_micros() / 100;
        write!(f, "{}.{}", tenths / 10, tenths % 10)
    }
}

/// A text with its control characters escaped, so that a line stays one.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|char| {
            if char.is_control() || char == ' ' {
                write!(f, "{}", char.escape_unicode())
            } else {
                f.write_char(char)
            }
        })
    }
}

/// A member's name as it stands in a [`JsonLine`].
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
use key;

/// One JSON object, member by member, without a tree in between. It begins with the time; other members are named by
/// [`key!`].
struct JsonLine<'a>(&'a mut String);

impl<'a> JsonLine<'a> {
    fn new(into: &'a mut String, at: SystemTime) -> Self {
        into.push_str("{\"time\":\"");
        timestamp(into, at);
        into.push('"');
        Self(into)
    }

    /// Any text.
    fn text(&mut self, key: &'static str, value: &str) {
        // Looked at to its end: that is done many bytes at a time.
        let special = |byte| byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f;
        if value.bytes().fold(false, |any, byte| any | special(byte)) {
            self.0.push_str(key);
            self.0.push_str(&serde_json::Value::from(value).to_string());
        } else {
            self.word(key, value);
        }
    }

    /// A text that needs no escaping.
    fn word(&mut self, key: &'static str, value: &str) {
        self.quoted(key, |line| line.push_str(value));
    }

    /// What `write` writes, in quotes; it needs no escaping.
    fn quoted(&mut self, key: &'static str, write: impl FnOnce(&mut String)) {
        self.0.push_str(key);
        self.0.push('"');
        write(self.0);
        self.0.push('"');
    }

    fn ip(&mut self, key: &'static str, ip: IpAddr) {
        self.quoted(key, |line| address::ip(ip, |piece| line.push_str(piece)));
    }

    fn socket(&mut self, key: &'static str, socket: SocketAddr) {
        self.quoted(key, |line| {
            address::socket(socket, |piece| line.push_str(piece));
        });
    }

    /// What shows itself without anything that needs escaping, under a plain name.
    fn shown(&mut self, name: &'static str, value: &dyn fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, ",\"{name}\":\"{value}\"");
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.0.push_str(key);
        self.0.push_str(itoa::Buffer::new().format(value));
    }

    /// A duration in milliseconds, with one decimal.
    fn millis(&mut self, key: &'static str, value: Duration) {
        let tenths = u64::try_from(value.as_micros() / 100).unwrap_or(u64::MAX);
        self.number(key, tenths / 10);
        self.0.push('.');
        self.0.push_str(itoa::Buffer::new().format(tenths % 10));
    }

    fn end(self) {
        self.0.push_str("}\n");
    }
}

/// The record of a request that a test has.
#[cfg(test)]
pub fn opened(format: crate::config::LogFormat, parent: Option<TraceParent>) -> Rc<Record> {
    use crate::account::output::Output;
    let log = AccessLog::new(format, Default::default(), Output::default(), false, None);
    let opening = Opening {
        id: HeaderValue::from_static("1"),
        client: [192, 0, 2, 7].into(),
        version: Version::HTTP_11,
        method: &Method::GET,
        host: "alice.example.com",
        path: "/",
        parent,
    };
    Record::open(Rc::new(log), opening)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (day, date) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (19_783, (2024, 3, 1)),
            (20_818, (2026, 12, 31)),
        ] {
            assert_eq!(civil(day), date, "{day}");
        }
    }

    #[test]
    fn a_json_line_is_json_whatever_is_in_it() {
        let mut text = String::from("the line before\n");
        let mut line = JsonLine::new(&mut text, SystemTime::now());
        line.text(
            key!("a"),
            "plain, and longer than what is looked at in one go",
        );
        line.text(key!("b"), "quote \" backslash \\ line\nend");
        line.number(key!("c"), 7);
        line.millis(key!("d"), Duration::from_micros(12_345));
        line.socket(key!("e"), "10.2.0.255:80".parse().unwrap());
        line.ip(key!("f"), "fd00::1".parse().unwrap());
        line.shown("g", &7);
        line.end();
        let line = text.lines().nth(1).unwrap();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["b"], "quote \" backslash \\ line\nend");
        assert_eq!(value["c"], 7);
        assert_eq!(value["d"], 12.3);
        assert_eq!(value["e"], "10.2.0.255:80");
        assert_eq!(value["f"], "fd00::1");
        assert_eq!(value["g"], "7");
        assert!(value["time"].is_string());
        assert_eq!(text.matches('\n').count(), 2);
    }

    #[test]
    fn the_time_is_written_as_it_is() {
        // Forth and back over the second that is kept.
        for millis in [0, 7, 1_999, 1_000, 1_774_000_000_123, 1_774_000_000_999, 5] {
            let at = std::time::UNIX_EPOCH + Duration::from_millis(millis);
            let mut written = String::new();
            timestamp(&mut written, at);
            assert_eq!(written, rfc3339(at));
        }
    }

    #[test]
    fn a_text_line_stays_one_line() {
        assert_eq!(Visible("/a\nb c").to_string(), "/a\\u{a}b\\u{20}c");
    }

    #[test]
    fn a_line_names_the_trace_that_the_request_names() {
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let line = |format, parent| {
            let mut line = String::new();
            opened(format, parent).line(&mut line, SystemTime::now(), Duration::ZERO);
            line
        };
        let parent = TraceParent::parse(traceparent.as_bytes());
        let json =
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","parent_span_id":"00f067aa0ba902b7""#;
        let text = " trace_id=4bf92f3577b34da6a3ce929d0e0e4736 parent_span_id=00f067aa0ba902b7\n";
        assert!(line(LogFormat::Json, parent).contains(json));
        assert!(line(LogFormat::Text, parent).ends_with(text));
        assert!(!line(LogFormat::Json, None).contains("trace_id"));
        assert!(!line(LogFormat::Text, None).contains("trace_id"));
    }

    #[test]
    fn milliseconds_have_one_decimal() {
        assert_eq!(Millis(Duration::from_micros(12_345)).to_string(), "12.3");
    }
}
