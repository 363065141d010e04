//! The trace that a request belongs to, as it says by `traceparent`.
//!
//! Source: W3C Trace Context, Level 2, section 3.2.

use std::fmt;
use std::num::NonZero;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::sieve::Fields;

/// Request header with the trace and the span that asks.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Request header with what each vendor says of its part of the trace.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag that says that what is recorded of a trace is kept.
pub const SAMPLED: u8 = 0x01;
/// The flag that says that the trace's id is random.
pub const RANDOM: u8 = 0x02;

/// The length of what version 00 says: `00-` 32 digits `-` 16 digits `-` 2 digits.
const LENGTH: usize = 55;
/// The only version that cannot be.
const NO_VERSION: u8 = 0xff;

/// A trace: not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(NonZero<u128>);

/// One step of a trace: not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId(NonZero<u64>);

impl TraceId {
    /// One by its number, if that is one.
    pub fn new(number: u128) -> Option<Self> {
        NonZero::new(number).map(Self)
    }

    /// As OpenTelemetry's libraries have it.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// Its last 64 bits, of which those are random that have to be.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "these are the ones that are asked for"
    )]
    pub fn low(self) -> u64 {
        self.0.get() as u64
    }
}

impl SpanId {
    /// One by its number, if that is one.
    pub fn new(number: u64) -> Option<Self> {
        NonZero::new(number).map(Self)
    }

    /// As OpenTelemetry's libraries have it.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The step that asks.
    pub span: SpanId,
    /// Whether what is recorded of the trace is kept, and what else is known of it.
    pub flags: u8,
}

impl TraceParent {
    /// That of a request. What is not valid is as none, and so are several.
    pub fn of(fields: Fields<'_>) -> Option<Self> {
        let mut lines = fields.all(&TRACEPARENT);
        let only = lines.next()?;
        match lines.next() {
            None => Self::parse(only.as_bytes()),
            Some(_) => None,
        }
    }

    /// Whether what is recorded of the trace is kept.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Says in a request that this is the span that asks. What vendors say of a trace that the request did not validly name
    /// is of no other.
    pub fn tell(self, headers: &mut HeaderMap, named: bool) {
        let value = HeaderValue::try_from(self.to_string());
        headers.insert(
            TRACEPARENT,
            value.expect("digits and hyphens are a header value"),
        );
        if !named {
            headers.remove(TRACESTATE);
        }
    }

    /// Reads a value. A version that is not known yet may say more after a hyphen; what it says so far is the same.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(LENGTH)?;
        let (version, rest) = field::<2>(known)?;
        let (trace, rest) = field::<32>(rest)?;
        let (span, rest) = field::<16>(rest)?;
        let (flags, _) = field::<2>(rest)?;
        let version = u8::try_from(version).ok()?;
        let fits = match version {
            NO_VERSION => false,
            0 => more.is_empty(),
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        if !fits {
            return None;
        }
        Some(Self {
            trace: TraceId::new(trace)?,
            span: SpanId::new(u64::try_from(span).ok()?)?,
            flags: u8::try_from(flags).ok()?,
        })
    }
}

/// As version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// A number of `DIGITS` digits at the front, and what comes after it and its hyphen, if it has one. Capitals are no digits.
fn field<const DIGITS: usize>(text: &[u8]) -> Option<(u128, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<DIGITS>()?;
    let mut number = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(digit);
    }
    match rest {
        [] => Some((number, rest)),
        [b'-', rest @ ..] => Some((number, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        let read = TraceParent::parse(text.as_bytes()).unwrap();
        assert_eq!(read.trace.to_string(), TRACE);
        assert_eq!(read.span.to_string(), SPAN);
        assert_eq!(read.flags, 1);
        assert_eq!(read.to_string(), text);
    }

    #[test]
    fn what_is_valid_is_read() {
        let zeros = format!("00-{:032x}-{:016x}-00", 1, 1);
        for (text, flags) in [
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-ff"), 0xff),
            (format!("01-{TRACE}-{SPAN}-01"), 1),
            (format!("fe-{TRACE}-{SPAN}-03"), 3),
            (format!("cc-{TRACE}-{SPAN}-01-"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-has"), 1),
            (zeros, 0),
        ] {
            let read = TraceParent::parse(text.as_bytes());
            assert_eq!(read.map(|read| read.flags), Some(flags), "{text}");
        }
    }

    #[test]
    fn what_is_not_valid_is_none() {
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            "00".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-010"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("00-{TRACE}-{SPAN}-01 "),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!("0G-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("cc-{TRACE}-{SPAN}-011"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{:032}-{SPAN}-01", 0),
            format!("00-{TRACE}-{:016}-01", 0),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}0-01"),
            format!("00-{TRACE}-{}-01", &SPAN[1..]),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(TraceParent::parse(&[0xff; LENGTH]), None);
    }

    #[test]
    fn who_is_asked_next_is_told_of_one_span_and_of_the_state_of_its_trace() {
        let said = |value: &str| HeaderValue::try_from(value).unwrap();
        let own = format!("00-{TRACE}-{SPAN}-01");
        for named in [true, false] {
            let mut headers = HeaderMap::new();
            headers.append(TRACEPARENT, said("one"));
            headers.append(TRACEPARENT, said("another"));
            headers.append(TRACESTATE, said("rojo=1"));
            let step = TraceParent::parse(own.as_bytes()).unwrap();
            step.tell(&mut headers, named);
            let told: Vec<_> = headers.get_all(TRACEPARENT).iter().collect();
            assert_eq!(told, [&own]);
            assert_eq!(headers.contains_key(TRACESTATE), named);
        }
    }

    #[test]
    fn several_are_none_though_they_say_the_same() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceParent::of(Fields::of(&headers)), None);
        let value = HeaderValue::try_from(format!("00-{TRACE}-{SPAN}-01")).unwrap();
        headers.append(TRACEPARENT, value.clone());
        assert_eq!(TraceParent::of(Fields::of(&headers)).unwrap().flags, 1);
        headers.append(TRACEPARENT, value);
        assert_eq!(TraceParent::of(Fields::of(&headers)), None);
    }
}
