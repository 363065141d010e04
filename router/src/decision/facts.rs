//! What a decision needs to know of a request, read from its head.

use http::header;
use http::request::Parts;
use http::{Method, Version};

use crate::wire::sieve::Fields;
use crate::wire::{fly, hop_by_hop, sign_in, visitor};

/// The port that https is at unless an address names another (RFC 9110 section 4.2.2).
const HTTPS: u16 = 443;

/// How long a request's body is, as far as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// This many bytes.
    Known(u64),
    /// It ends where it ends: chunked, or HTTP/2 without a length.
    Unknown,
}

impl BodyLength {
    /// From the head of an HTTP/1.1 request as the codec read it, or an HTTP/2 one: whether the message ended with
    /// its head, and the length that framing promises.
    pub fn of(ended_with_head: bool, exact: Option<u64>) -> Self {
        match exact {
            _ if ended_with_head => Self::None,
            Some(bytes) => Self::Known(bytes),
            None => Self::Unknown,
        }
    }
}

/// What is wrong with a request that cannot be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No host, more than one, or one that is no host (RFC 9112 section 3.2).
    Host,
    /// The authority in the request line is not the one in `Host` (RFC 9112 section 3.2.2).
    AuthorityMismatch,
    /// A target that is neither a path nor an absolute URI.
    Target,
    /// A method that a front door does not serve: `CONNECT`, `TRACE`.
    Method,
}

impl Malformed {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "bad_host",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::Target => "bad_target",
            Self::Method => "method_not_served",
        }
    }
}

/// What a decision rests on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The method.
    pub method: &'a Method,
    /// Host and port as the client wrote them; empty for an HTTP/1.0 request without a `Host`.
    pub authority: &'a str,
    /// Path and query in origin form.
    pub target: &'a str,
    /// How long the body is.
    pub body: BodyLength,
    /// Whether the connection came from Fly's edge, on Fly.
    pub through_edge: bool,
    /// Where the request should have come, if it came by plain HTTP and should not: the port of https.
    pub https_at: Option<u16>,
    /// Whether the edge says that a replay of this request failed.
    pub replay_failed: bool,
    /// Whether the request carries this router's own signature from an earlier replay. Set by who can verify it.
    pub replayed_by_us: bool,
    /// Whether its client has signed in before the cell. Set by who has checked it.
    pub signed_in: bool,
    /// Whether it names another path beside its own, which a cell might take for it.
    pub names_another_path: bool,
    /// Whether it is known that there is no file for it. Set by who has looked.
    pub without_file: bool,
    /// Whether `Via` says that this very router has seen the request before.
    pub looped: bool,
    /// Whether it asks about the way to the cell, as far as here.
    pub last_hop: bool,
    /// The largest body that is replayed, in bytes.
    pub replay_max_bytes: u64,
    /// All header fields: what matters to few cells is looked for only there.
    pub fields: Fields<'a>,
}

/// What does not come from the request's head.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whether the connection came from Fly's edge, on Fly.
    pub through_edge: bool,
    /// The port of https, where a request that came by plain HTTP is to be redirected to it; `None` for one that is to be
    /// served.
    pub https_at: Option<u16>,
    /// The largest body that is replayed, in bytes.
    pub replay_max_bytes: u64,
    /// The name under which this router enters itself in `Via`.
    pub pseudonym: &'a str,
}

impl<'a> Facts<'a> {
    /// Reads a request's head.
    ///
    /// # Errors
    /// `Malformed` where the head could be read in two ways or asks for what no cell serves.
    pub fn read(
        parts: &'a Parts,
        body: BodyLength,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Malformed> {
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Malformed::Method);
        }
        let authority = authority(parts)?;
        let target = match parts.uri.path_and_query() {
            Some(target) if target.as_str().starts_with('/') => target.as_str(),
            // `*` is a question to the server as a whole, and here are many.
            _ => return Err(Malformed::Target),
        };
        let fields = Fields::of(&parts.headers);
        Ok(Self {
            method: &parts.method,
            authority,
            target,
            body,
            through_edge: surroundings.through_edge,
            https_at: surroundings.https_at,
            replay_failed: fields.has(&fly::FLY_REPLAY_FAILED),
            replayed_by_us: false,
            signed_in: false,
            without_file: false,
            names_another_path: sign_in::names_another_path(&parts.headers),
            looped: passed(fields, surroundings.pseudonym),
            last_hop: parts.method == Method::OPTIONS
                && hop_by_hop::max_forwards(fields) == Some(0),
            replay_max_bytes: surroundings.replay_max_bytes,
            fields,
        })
    }

    /// The same address by https at `port`; `None` where the request names no host.
    pub fn https(&self, port: u16) -> Option<String> {
        let host = match self.authority.rsplit_once(':') {
            // A colon within brackets is part of an IPv6 address (RFC 3986 section 3.2.2).
            Some((host, port)) if !port.contains(']') => host,
            Some(_) | None => self.authority,
        };
        let port = if port == HTTPS {
            String::new()
        } else {
            format!(":{port}")
        };
        (!host.is_empty()).then(|| format!("https://{host}{port}{}", self.target))
    }

    /// Whether a visitor may have sent it, and not a crawler, a health check, or a browser ahead of its user.
    pub fn is_visitor(&self) -> bool {
        visitor::is_visitor(self.fields)
    }

    /// The path, without the query.
    pub fn path(&self) -> &'a str {
        self.target
            .split_once('?')
            .map_or(self.target, |(path, _)| path)
    }
}

/// The one authority of a request (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
fn authority(parts: &Parts) -> Result<&str, Malformed> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts
        .next()
        .map(|value| value.to_str().map_err(|_| Malformed::Host))
        .transpose()?;
    if hosts.next().is_some() {
        return Err(Malformed::Host);
    }
    match (
        parts.uri.authority().map(http::uri::Authority::as_str),
        host,
    ) {
        (Some(line), Some(host)) if !line.eq_ignore_ascii_case(host) => {
            Err(Malformed::AuthorityMismatch)
        }
        // The target's authority does not stand in for the field (RFC 9112 section 3.2.2).
        (Some(_), None) if parts.version == Version::HTTP_11 => Err(Malformed::Host),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) if parts.version < Version::HTTP_11 => Ok(""),
        (None, None) => Err(Malformed::Host),
    }
}

fn passed(fields: Fields<'_>, pseudonym: &str) -> bool {
    fields
        .all(&header::VIA)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|hop| {
            let words = hop.split(u8::is_ascii_whitespace);
            words.filter(|word| !word.is_empty()).nth(1) == Some(pseudonym.as_bytes())
        })
}
