//! The platform's header names, and the replay instruction as it is written.
//!
//! Sources: Fly docs, Dynamic Request Routing (fields, forms, limits) and Request Headers.

use http::{HeaderName, HeaderValue};

/// Response header with a replay instruction.
pub const FLY_REPLAY: HeaderName = HeaderName::from_static("fly-replay");
/// Response header: which requests the edge may answer from this instruction.
pub const FLY_REPLAY_CACHE: HeaderName = HeaderName::from_static("fly-replay-cache");
/// Response header: for how long, in seconds (at least 10).
pub const FLY_REPLAY_CACHE_TTL_SECS: HeaderName =
    HeaderName::from_static("fly-replay-cache-ttl-secs");
/// Response header: whether a client may skip the edge's cache.
pub const FLY_REPLAY_CACHE_ALLOW_BYPASS: HeaderName =
    HeaderName::from_static("fly-replay-cache-allow-bypass");
/// Request header on a replayed request: who replayed it, and the `state` that was sent along.
pub const FLY_REPLAY_SRC: HeaderName = HeaderName::from_static("fly-replay-src");
/// Request header on a request whose replay failed and fell back to the router.
pub const FLY_REPLAY_FAILED: HeaderName = HeaderName::from_static("fly-replay-failed");
/// Request header on a replayed request: hit, miss or bypass of the edge's replay cache.
pub const FLY_REPLAY_CACHE_STATUS: HeaderName = HeaderName::from_static("fly-replay-cache-status");
/// Request header: the peer as the edge saw it.
pub const FLY_CLIENT_IP: HeaderName = HeaderName::from_static("fly-client-ip");
/// Request header: the region where the request entered.
pub const FLY_REGION: HeaderName = HeaderName::from_static("fly-region");
/// Request header: the port the client connected to.
pub const FLY_FORWARDED_PORT: HeaderName = HeaderName::from_static("fly-forwarded-port");
/// Request header: the edge's id for the request.
pub const FLY_REQUEST_ID: HeaderName = HeaderName::from_static("fly-request-id");
/// Content type of an answer whose body is a replay instruction.
pub const REPLAY_CONTENT_TYPE: &str = "application/vnd.fly.replay+json";

/// Headers with which the edge tells the router about the client; nobody else may.
pub static EDGE_ONLY: [HeaderName; 5] = [
    FLY_CLIENT_IP,
    FLY_REGION,
    FLY_FORWARDED_PORT,
    FLY_REQUEST_ID,
    FLY_REPLAY_CACHE_STATUS,
];

/// Headers that speak of replays: they end at the router and never reach a cell on the stream lane.
pub static REPLAY_TALK: [HeaderName; 2] = [FLY_REPLAY_SRC, FLY_REPLAY_FAILED];

/// Headers with which an answer steers the edge. A cell's answer may carry them only if the registry lets it.
pub static STEERING: [HeaderName; 4] = [
    FLY_REPLAY,
    FLY_REPLAY_CACHE,
    FLY_REPLAY_CACHE_TTL_SECS,
    FLY_REPLAY_CACHE_ALLOW_BYPASS,
];

/// The instruction of a strict replay: exactly this machine, back to us if it cannot be reached.
///
/// `timeout` is how long the edge tries to reach the machine, in milliseconds; without one it tries as long as it does
/// for any request. `state` comes back to the cell inside `fly-replay-src`.
pub fn strict(
    app: &str,
    machine: &str,
    timeout_ms: Option<u128>,
    state: Option<&str>,
) -> HeaderValue {
    let mut number = itoa::Buffer::new();
    let timeout = match timeout_ms {
        Some(timeout) => [";timeout=", number.format(timeout), "ms"],
        None => [""; 3],
    };
    let state = match state {
        Some(state) => [";state=", state],
        None => [""; 2],
    };
    let target = ["app=", app, ";instance=", machine];
    let parts = [&target[..], &timeout, &[";fallback=prefer_self"], &state];
    header(parts.concat().concat())
}

/// The instruction of a cached replay: exactly this machine, with nothing that the platform forbids beside a cache.
pub fn cached(app: &str, machine: &str) -> HeaderValue {
    header(format!("app={app};instance={machine}"))
}

/// Which requests the edge may answer from a cached replay: those to `host` whose path lies below `prefix` (the empty one
/// for all). `None` where the request at `path` would not match the pattern itself, as the platform demands.
pub fn cache_pattern(host: &str, prefix: &str, path: &str) -> Option<HeaderValue> {
    let below = path.strip_prefix(prefix)?.starts_with('/');
    below
        .then(|| HeaderValue::from_str(&format!("{host}{prefix}/*")).ok())
        .flatten()
}

fn header(value: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(value))
        .expect("app names, machine ids and tokens hold only letters, digits, dots and hyphens")
}

/// The `state` inside a `fly-replay-src` value: split on `;` (on `,` where there is none), cut at the first `=`,
/// order-free, unknown keys passed over, as the platform's own clients read it.
pub fn replay_src_state(value: &str) -> Option<&str> {
    let separator = if value.contains(';') { ';' } else { ',' };
    value
        .split(separator)
        .filter_map(|field| field.split_once('='))
        .find(|(key, _)| key.trim() == "state")
        .map(|(_, state)| state.trim().trim_matches('"'))
}

/// Whether a content type makes its answer a replay, wherever in the field it stands, and whatever stands beside it: how the
/// edge reads such a field is its own business.
pub fn is_replay(kind: &[u8]) -> bool {
    let replay = REPLAY_CONTENT_TYPE.as_bytes();
    let mut parts = kind.windows(replay.len());
    parts.any(|part| part.eq_ignore_ascii_case(replay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_with_everything() {
        let value = strict("cell-acme", "7811ab2c9d04e5", Some(8000), Some("v1.1.ab"));
        assert_eq!(
            value,
            "app=cell-acme;instance=7811ab2c9d04e5;timeout=8000ms;fallback=prefer_self;state=v1.1.ab"
        );
    }

    #[test]
    fn strict_with_as_little_as_possible() {
        assert_eq!(
            strict("a", "7811ab", None, None),
            "app=a;instance=7811ab;fallback=prefer_self"
        );
    }

    #[test]
    fn cached_carries_nothing_that_excludes_caching() {
        assert_eq!(cached("a", "7811ab"), "app=a;instance=7811ab");
    }

    #[test]
    fn cache_pattern_covers_the_request_or_is_none() {
        let pattern = |prefix, path| cache_pattern("a.example.com", prefix, path);
        assert_eq!(pattern("", "/x").unwrap(), "a.example.com/*");
        assert_eq!(
            pattern("/alice", "/alice/x").unwrap(),
            "a.example.com/alice/*"
        );
        assert_eq!(pattern("/alice", "/alice"), None);
        assert_eq!(pattern("/alice", "/alicia/x"), None);
    }

    #[test]
    fn state_is_read_as_the_platforms_clients_read_it() {
        for (value, state) in [
            ("instance=1;region=iad;t=12;state=abc", Some("abc")),
            ("state=abc;instance=1", Some("abc")),
            ("instance=1, state=abc", Some("abc")),
            ("instance=1; state=\"a=b\"", Some("a=b")),
            ("instance=1;substate=abc", None),
            ("", None),
            ("state", None),
        ] {
            assert_eq!(replay_src_state(value), state, "{value:?}");
        }
    }
}
