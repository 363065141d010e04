//! The front door's signature: one short token that proves to a cell that a request came through the router.
//!
//! The format is defined byte by byte in docs/signature.md; both lanes carry the same token. Never logs,
//! stores or compares a secret outside `ring`.

use std::fmt;

use data_encoding::HEXLOWER;
use ring::hmac;

/// How far ahead of now a token expires when the router signs it, in seconds.
pub const LIFETIME_SECONDS: u64 = 120;
/// How far ahead of now an expiry may lie for a token to be accepted, in seconds.
pub const MAX_AHEAD_SECONDS: u64 = 300;

const CONTEXT: &str = "cell-router-v1";
const IDENTITY_CONTEXT: &str = "cell-identity-v1";
const BEAT_CONTEXT: &str = "cell-beat-v1";
const VERSION: &str = "v1";

/// What a token is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The cell's name in the registry.
    pub cell: &'a str,
    /// The method as sent.
    pub method: &'a str,
    /// The normalised host: lower case, no port, no trailing dot.
    pub host: &'a str,
    /// Path and query as the cell receives them.
    pub target: &'a str,
}

/// What a cell is asked on a new connection.
#[derive(Debug, Clone, Copy)]
pub struct Challenge<'a> {
    /// The cell's name in the registry.
    pub cell: &'a str,
    /// 32 hexadecimal digits that were never used before.
    pub nonce: &'a str,
    /// Address and port that were dialled.
    pub address: &'a str,
}

impl Challenge<'_> {
    /// Path and query at which the cell is asked.
    pub fn target(&self) -> String {
        let Challenge { nonce, address, .. } = self;
        // Brackets do not belong into a query (RFC 3986 section 3.4).
        let address = address.replace('[', "%5B").replace(']', "%5D");
        format!("/.well-known/cell-identity?nonce={nonce}&address={address}")
    }
}

/// The secrets of one cell: the first signs, any verifies.
#[derive(Clone)]
pub struct Keys(Vec<hmac::Key>);

/// Why a text holds no usable secrets.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSecret;

impl fmt::Display for NoSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it is empty; write one secret, or two with a comma between them while one is rotated",
        )
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads one secret, or several with commas between them, newest first. White space around each is dropped.
    ///
    /// # Errors
    /// `NoSecret` where nothing is left.
    pub fn parse(text: &str) -> Result<Self, NoSecret> {
        let keys: Vec<_> = text
            .split(',')
            .map(str::trim)
            .filter(|secret| !secret.is_empty())
            .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
            .collect();
        if keys.is_empty() {
            Err(NoSecret)
        } else {
            Ok(Self(keys))
        }
    }

    /// A token for `bound` that is good until `LIFETIME_SECONDS` after `now` (seconds since 1970).
    pub fn sign(&self, bound: Bound<'_>, now: u64) -> String {
        let mut expiry = itoa::Buffer::new();
        let expiry = expiry.format(now + LIFETIME_SECONDS);
        let tag = hmac::sign(&self.0[0], message(bound, expiry).as_bytes());
        let mut token = String::with_capacity(VERSION.len() + expiry.len() + 2 + 64);
        token.push_str(VERSION);
        token.push('.');
        token.push_str(expiry);
        token.push('.');
        HEXLOWER.encode_append(tag.as_ref(), &mut token);
        token
    }

    /// Whether `token` was signed for `bound` with any of these secrets and is in force at `now`.
    pub fn verify(&self, token: &str, bound: Bound<'_>, now: u64) -> bool {
        let Some((expiry, at, given)) = read(token) else {
            return false;
        };
        if at < now || at - now > MAX_AHEAD_SECONDS {
            return false;
        }
        self.made(&message(bound, expiry), &given)
    }

    /// When the beat of `cell` was made that `token` proves, in milliseconds since 1970 by the cell's clock; `None` where
    /// it proves none.
    pub fn beat(&self, token: &str, cell: &str) -> Option<u64> {
        let (time, at, given) = read(token)?;
        let message = [BEAT_CONTEXT, cell, time].join("\n");
        self.made(&message, &given).then_some(at)
    }

    fn made(&self, message: &str, given: &[u8; 32]) -> bool {
        let mut keys = self.0.iter();
        keys.any(|key| hmac::verify(key, message.as_bytes(), given).is_ok())
    }

    /// Whether `answer` holds a line that only someone with one of these secrets can have written.
    pub fn prove(&self, answer: &[u8], challenge: Challenge<'_>) -> bool {
        let Challenge {
            cell,
            nonce,
            address,
        } = challenge;
        let message = [IDENTITY_CONTEXT, cell, nonce, address].join("\n");
        let answer = std::str::from_utf8(answer).unwrap_or_default();
        let mut lines = answer.lines().filter_map(unhex);
        lines.any(|given| self.made(&message, &given))
    }
}

/// A token's number, as written and as such, and its MAC.
fn read(token: &str) -> Option<(&str, u64, [u8; 32])> {
    let mut parts = token.split('.');
    let (Some(VERSION), Some(number), Some(given), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let at = plain.then(|| number.parse().ok()).flatten()?;
    Some((number, at, unhex(given)?))
}

fn message(bound: Bound<'_>, expiry: &str) -> String {
    let Bound {
        cell,
        method,
        host,
        target,
    } = bound;
    [CONTEXT, cell, expiry, method, host, target].join("\n")
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let whole = text.len() == 64;
    let decoded = whole.then(|| HEXLOWER.decode_mut(text.as_bytes(), &mut bytes));
    decoded?.is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::HostName;

    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        secrets: Vec<String>,
        cell: String,
        method: String,
        host: String,
        target: String,
        now: u64,
        token: String,
        valid: bool,
    }

    #[derive(serde::Deserialize)]
    struct IdentityVector {
        name: String,
        secrets: Vec<String>,
        cell: String,
        nonce: String,
        address: String,
        answer: String,
        proves: bool,
    }

    #[derive(serde::Deserialize)]
    struct BeatVector {
        name: String,
        secrets: Vec<String>,
        cell: String,
        token: String,
        time: Option<u64>,
    }

    #[derive(serde::Deserialize)]
    struct Vectors {
        tokens: Vec<Vector>,
        identities: Vec<IdentityVector>,
        beats: Vec<BeatVector>,
    }

    fn vectors() -> Vectors {
        let text = include_str!("../../../docs/signature-vectors.json");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn published_answers_to_a_challenge_hold() {
        let vectors = vectors().identities;
        assert!(vectors.len() > 10);
        for v in vectors {
            let keys = Keys::parse(&v.secrets.join(",")).unwrap();
            let challenge = Challenge {
                cell: &v.cell,
                nonce: &v.nonce,
                address: &v.address,
            };
            let proves = keys.prove(v.answer.as_bytes(), challenge);
            assert_eq!(proves, v.proves, "{}", v.name);
        }
    }

    #[test]
    fn published_beats_hold() {
        let vectors = vectors().beats;
        assert!(vectors.len() > 10);
        for v in vectors {
            let keys = Keys::parse(&v.secrets.join(",")).unwrap();
            assert_eq!(keys.beat(&v.token, &v.cell), v.time, "{}", v.name);
        }
    }

    #[test]
    fn published_vectors_hold() {
        let vectors = vectors().tokens;
        assert!(vectors.len() > 15);
        for v in vectors {
            let host = HostName::normalise(&v.host).unwrap();
            let bound = Bound {
                cell: &v.cell,
                method: &v.method,
                host: &host,
                target: &v.target,
            };
            let keys = Keys::parse(&v.secrets.join(",")).unwrap();
            assert_eq!(keys.verify(&v.token, bound, v.now), v.valid, "{}", v.name);
        }
    }

    #[test]
    fn an_ipv6_address_is_escaped_in_the_target_only() {
        let challenge = Challenge {
            cell: "alice",
            nonce: "00",
            address: "[fdaa::3]:8080",
        };
        let target = "/.well-known/cell-identity?nonce=00&address=%5Bfdaa::3%5D:8080";
        assert_eq!(challenge.target(), target);
    }

    #[test]
    fn what_the_router_signs_is_what_the_vectors_hold() {
        let bound = Bound {
            cell: "alice",
            method: "GET",
            host: "alice.example.com",
            target: "/",
        };
        let token = Keys::parse("correct horse battery staple")
            .unwrap()
            .sign(bound, 1_790_000_000 - LIFETIME_SECONDS);
        assert_eq!(
            token,
            "v1.1790000000.bd98aaea85ecd5f6f008272d141c36fbf67daacf85fc0cc34fa4257bbd834f6b"
        );
    }

    #[test]
    fn a_secret_of_white_space_is_none() {
        assert_eq!(Keys::parse(" , \n").unwrap_err(), NoSecret);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Keys::parse("a,b").unwrap()), "Keys(2)");
    }
}
