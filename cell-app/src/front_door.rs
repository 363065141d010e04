//! The verifier of the front door's signature (`docs/signature.md`).
//!
//! Owns the accepted secrets. Never logs or returns a token or a secret, and reads no clock.

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ring::hmac;

/// Header of the stream lane that carries a token.
pub(crate) const SIGNATURE: &str = "cell-signature";
/// Header of the replay lane whose field `state` carries a token (fly-platform 1.10).
pub(crate) const REPLAY_SOURCE: &str = "fly-replay-src";
/// How far ahead an expiry may lie, in seconds.
const MAX_AHEAD_SECONDS: u64 = 300;
/// Hexadecimal digits of a challenge's nonce.
const NONCE_DIGITS: usize = 32;
/// Hexadecimal digits of a MAC.
const MAC_DIGITS: usize = 64;

/// How a request proved that it came through the front door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lane {
    /// By the header `cell-signature`.
    Stream,
    /// By the `state` of a replay.
    Replay,
    /// It did not have to: this cell has no secret.
    Open,
}

/// What is asked of every request: a token made with one of the accepted secrets.
pub(crate) struct FrontDoor {
    cell: String,
    keys: Vec<hmac::Key>,
}

impl FrontDoor {
    /// A front door for `cell`; without secrets it is open.
    pub(crate) fn new(cell: &str, secrets: &[&str]) -> Self {
        Self {
            cell: cell.to_owned(),
            keys: secrets
                .iter()
                .map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
                .collect(),
        }
    }

    /// Whether every request is let in.
    pub(crate) fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// The lane by which the request came, or `None` if it must be refused. `now` is seconds since 1970.
    pub(crate) fn admit(&self, head: &Parts, now: u64) -> Option<Lane> {
        if self.is_open() {
            return Some(Lane::Open);
        }
        let host = host(&head.headers).unwrap_or_default();
        let target = head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let good = |token: &str| self.verify(token, head.method.as_str(), host, target, now);
        if values(&head.headers, SIGNATURE).any(good) {
            Some(Lane::Stream)
        } else if replay_states(&head.headers).any(good) {
            Some(Lane::Replay)
        } else {
            None
        }
    }

    /// The answer to a challenge: one line for each secret. `None` if the nonce is none.
    pub(crate) fn prove(&self, nonce: &str, address: &str) -> Option<String> {
        if nonce.len() != NONCE_DIGITS || !nonce.bytes().all(|byte| digit(byte).is_some()) {
            return None;
        }
        let message = ["cell-identity-v1", &self.cell, nonce, address].join("\n");
        let mut lines = String::new();
        for key in &self.keys {
            push_hex(&mut lines, hmac::sign(key, message.as_bytes()).as_ref());
            lines.push('\n');
        }
        Some(lines)
    }

    /// The proof of a beat at `time_ms` (milliseconds since 1970), made with the newest secret; none is good without one.
    pub(crate) fn beat(&self, time_ms: u64) -> String {
        let message = format!("cell-beat-v1\n{}\n{time_ms}", self.cell);
        let mut token = format!("v1.{time_ms}.");
        if let Some(key) = self.keys.first() {
            push_hex(&mut token, hmac::sign(key, message.as_bytes()).as_ref());
        }
        token
    }

    fn verify(&self, token: &str, method: &str, host: &str, target: &str, now: u64) -> bool {
        let Some((expiry, mac)) = parse(token, now) else {
            return false;
        };
        let message = [
            "cell-router-v1",
            &self.cell,
            expiry,
            method,
            &canonical_host(host),
            target,
        ]
        .join("\n");
        self.keys
            .iter()
            .any(|key| hmac::verify(key, message.as_bytes(), &mac).is_ok())
    }
}

/// The request's `Host`, as sent.
pub(crate) fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// The `state` of each `fly-replay-src`: a token, or whatever a client made up.
pub(crate) fn replay_states(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    values(headers, REPLAY_SOURCE).filter_map(state)
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("{byte:02x}"));
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
}

fn state(source: &str) -> Option<&str> {
    let separator = if source.contains(';') { ';' } else { ',' };
    source
        .split(separator)
        .filter_map(|part| part.split_once('='))
        .find(|(key, _)| key.trim() == "state")
        .map(|(_, value)| value.trim())
}

/// The token's expiry, as written, and its MAC; `None` if the form is wrong or the time does not fit.
fn parse(token: &str, now: u64) -> Option<(&str, [u8; MAC_DIGITS / 2])> {
    let (expiry, mac) = token.strip_prefix("v1.")?.split_once('.')?;
    if expiry.is_empty() || expiry.starts_with('0') || !expiry.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ahead = expiry.parse::<u64>().ok()?.checked_sub(now)?;
    (ahead <= MAX_AHEAD_SECONDS).then_some((expiry, bytes_of(mac)?))
}

fn bytes_of(hex: &str) -> Option<[u8; MAC_DIGITS / 2]> {
    if hex.len() != MAC_DIGITS {
        return None;
    }
    let mut bytes = [0; MAC_DIGITS / 2];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        _ => None,
    }
}

fn canonical_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |bracket| bracket + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let name = &host[..end];
    name.strip_suffix('.').unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

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

    fn vectors() -> Vec<Vector> {
        published().tokens
    }

    fn published() -> Vectors {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../docs/signature-vectors.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    impl Vector {
        fn door(&self) -> FrontDoor {
            let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
            FrontDoor::new(&self.cell, &secrets)
        }

        fn head(&self, headers: &[(&str, &str)]) -> Parts {
            let mut request = Request::builder()
                .method(self.method.as_str())
                .uri(&self.target)
                .header("host", &self.host);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap().into_parts().0
        }
    }

    #[test]
    fn published_vectors_hold() {
        let vectors = vectors();
        assert!(vectors.iter().any(|vector| vector.valid));
        assert!(vectors.iter().any(|vector| !vector.valid));
        for vector in vectors {
            let good = vector.door().verify(
                &vector.token,
                &vector.method,
                &vector.host,
                &vector.target,
                vector.now,
            );
            assert_eq!(good, vector.valid, "{}", vector.name);
        }
    }

    #[test]
    fn answers_to_a_challenge_are_those_published() {
        let vectors = published().identities;
        assert!(vectors.iter().any(|vector| vector.proves));
        for v in vectors {
            let secrets: Vec<&str> = v.secrets.iter().map(String::as_str).collect();
            let answer = FrontDoor::new(&v.cell, &secrets).prove(&v.nonce, &v.address);
            let answer = answer.unwrap();
            let said = v
                .answer
                .lines()
                .any(|line| answer.lines().any(|own| own == line));
            assert_eq!(said, v.proves, "{}", v.name);
        }
    }

    #[test]
    fn beats_are_those_published() {
        let mut made = 0;
        for v in published().beats {
            let Some(time) = v.time else { continue };
            let mut secrets: Vec<&str> = v.secrets.iter().map(String::as_str).collect();
            if v.name.starts_with("older") {
                secrets.reverse();
            }
            let token = FrontDoor::new(&v.cell, &secrets).beat(time);
            assert_eq!(token, v.token, "{}", v.name);
            made += 1;
        }
        assert!(made > 3);
    }

    #[test]
    fn a_nonce_is_32_lower_case_hexadecimal_digits() {
        let door = FrontDoor::new("alice", &["s"]);
        for nonce in [
            "",
            &"0".repeat(31),
            &"0".repeat(33),
            &"A".repeat(32),
            &"g".repeat(32),
        ] {
            assert_eq!(door.prove(nonce, "192.0.2.7:80"), None, "{nonce}");
        }
    }

    #[test]
    fn lane_is_named_by_where_the_good_token_is() {
        for vector in vectors() {
            let door = vector.door();
            let token = &vector.token;
            let state = format!("instance=9080f2a1;region=ams;t=1;state={token}");
            let forged = "v1.1790000000.00";
            for (headers, lane) in [
                (vec![("cell-signature", token.as_str())], Lane::Stream),
                (vec![("fly-replay-src", &state)], Lane::Replay),
                (
                    vec![("cell-signature", forged), ("fly-replay-src", &state)],
                    Lane::Replay,
                ),
                (
                    vec![("cell-signature", token), ("fly-replay-src", "state=x")],
                    Lane::Stream,
                ),
                (
                    vec![("fly-replay-src", "state=x"), ("fly-replay-src", &state)],
                    Lane::Replay,
                ),
            ] {
                assert_eq!(
                    door.admit(&vector.head(&headers), vector.now),
                    vector.valid.then_some(lane),
                    "{}",
                    vector.name
                );
            }
        }
    }

    #[test]
    fn without_a_token_nobody_is_admitted_and_without_a_secret_everybody_is() {
        let vector = &vectors()[0];
        let head = vector.head(&[]);
        assert_eq!(vector.door().admit(&head, vector.now), None);
        assert_eq!(
            FrontDoor::new("alice", &[]).admit(&head, 0),
            Some(Lane::Open)
        );
    }

    #[test]
    fn state_is_found_in_either_spelling() {
        for (source, expected) in [
            ("instance=a;region=b;t=1;state=v1.1.ab", Some("v1.1.ab")),
            ("instance=a, state = v1.1.ab ,t=1", Some("v1.1.ab")),
            ("state=a=b;t=1", Some("a=b")),
            ("state=first;state=second", Some("first")),
            ("a,state=x;t=1", None),
            ("xstate=a;t=1", None),
            ("state", None),
            ("", None),
        ] {
            assert_eq!(state(source), expected, "{source}");
        }
    }

    #[test]
    fn expiry_with_a_leading_zero_sign_or_too_many_digits_is_no_token() {
        let mac = "0".repeat(MAC_DIGITS);
        for expiry in ["", "0", "01", "+1", " 1", "99999999999999999999999"] {
            assert!(
                parse(&format!("v1.{expiry}.{mac}"), 1).is_none(),
                "{expiry}"
            );
        }
        assert!(parse(&format!("v1.1.{mac}"), 1).is_some());
        assert!(parse(&format!("v1.301.{mac}"), 1).is_some());
        assert!(parse(&format!("v1.302.{mac}"), 1).is_none());
    }
}
