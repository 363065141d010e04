//! Owns the replay cache of the edge (fly-platform 1.11). Pure: it is told the time.

use std::time::Duration;

use super::instruction::{CacheOrder, Instruction};

/// The shortest time to live (fly-platform 1.11).
const TTL_MIN_SECS: u64 = 10;

/// Paths of one hostname: a prefix with an implicit `/*` at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    host: String,
    prefix: String,
}

impl Pattern {
    /// Reads `/acme/*` or `shop.example.com/acme/*`; without a host, the request's.
    fn read(text: &str, request_host: &str) -> Option<Self> {
        let (host, path) = text.split_at(text.find('/')?);
        let path = path.strip_suffix('*').unwrap_or(path);
        if path.contains('*') || host.contains(':') {
            return None;
        }
        Some(Self {
            host: if host.is_empty() { request_host } else { host }.to_ascii_lowercase(),
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    fn matches(&self, host: &str, path: &str) -> bool {
        let rest = path.strip_prefix(&self.prefix);
        self.host == host && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

#[derive(Debug)]
struct Entry {
    app: String,
    pattern: Pattern,
    replay: Instruction,
    allow_bypass: bool,
    expires: Duration,
}

/// A remembered replay that matches a request.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    /// What was answered when it was remembered.
    pub(super) replay: Instruction,
    /// Whether the client may skip it.
    pub(super) allow_bypass: bool,
}

/// Remembered replays, for each entry app.
#[derive(Debug, Default)]
pub(super) struct ReplayCache {
    entries: Vec<Entry>,
}

impl ReplayCache {
    /// The longest matching entry that is still alive at `now`. `host` is lower case without port.
    pub(super) fn find(&self, app: &str, host: &str, path: &str, now: Duration) -> Option<Hit> {
        self.entries
            .iter()
            .filter(|entry| entry.app == app && entry.expires > now)
            .filter(|entry| entry.pattern.matches(host, path))
            .max_by_key(|entry| entry.pattern.prefix.len())
            .map(|entry| Hit {
                replay: entry.replay.clone(),
                allow_bypass: entry.allow_bypass,
            })
    }

    /// Does what `order` says about the replay `instruction`, answered by `app` to a request for `host` and `path`.
    ///
    /// # Errors
    /// Why the order breaks the rules; nothing is remembered then, and the replay itself goes ahead.
    pub(super) fn apply(
        &mut self,
        order: &CacheOrder,
        instruction: &Instruction,
        app: &str,
        (host, path): (&str, &str),
        now: Duration,
    ) -> Result<(), String> {
        let (pattern, ttl_secs, allow_bypass) = match order {
            CacheOrder::Invalidate => {
                self.entries
                    .retain(|entry| entry.app != app || !entry.pattern.matches(host, path));
                return Ok(());
            }
            CacheOrder::Store {
                pattern,
                ttl_secs,
                allow_bypass,
            } => (pattern, *ttl_secs, *allow_bypass),
        };
        let excluded = [
            ("state", instruction.state.is_some()),
            ("transform", instruction.transform.is_some()),
            ("timeout", instruction.timeout.is_some()),
            ("fallback", instruction.fallback.is_some()),
        ];
        if let Some((field, _)) = excluded.iter().find(|(_, present)| *present) {
            return Err(format!("a replay with `{field}` cannot be cached"));
        }
        if ttl_secs < TTL_MIN_SECS {
            return Err(format!(
                "time to live of {ttl_secs} s is under {TTL_MIN_SECS} s"
            ));
        }
        let pattern = Pattern::read(pattern, host)
            .filter(|pattern| pattern.matches(host, path))
            .ok_or_else(|| format!("pattern `{pattern}` does not match `{host}{path}`"))?;
        self.entries
            .retain(|entry| entry.app != app || entry.pattern != pattern);
        self.entries.push(Entry {
            app: app.to_owned(),
            pattern,
            replay: Instruction {
                cache: None,
                ..instruction.clone()
            },
            allow_bypass,
            expires: now + Duration::from_secs(ttl_secs),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn store(pattern: &str, ttl_secs: u64) -> CacheOrder {
        CacheOrder::Store {
            pattern: pattern.into(),
            ttl_secs,
            allow_bypass: false,
        }
    }

    fn to(app: &str) -> Instruction {
        Instruction {
            app: Some(app.into()),
            ..Instruction::default()
        }
    }

    fn apply(
        cache: &mut ReplayCache,
        pattern: &str,
        path: &str,
        target: &str,
    ) -> Result<(), String> {
        cache.apply(
            &store(pattern, 60),
            &to(target),
            "router",
            ("a.test", path),
            NOW,
        )
    }

    fn found(cache: &ReplayCache, host: &str, path: &str) -> Option<String> {
        cache
            .find("router", host, path, NOW)
            .and_then(|hit| hit.replay.app)
    }

    #[test]
    fn prefix_matches_on_segments_only() {
        let mut cache = ReplayCache::default();
        apply(&mut cache, "/acme/*", "/acme/1", "cell").unwrap();
        assert_eq!(found(&cache, "a.test", "/acme"), Some("cell".into()));
        assert_eq!(found(&cache, "a.test", "/acme/2/3"), Some("cell".into()));
        assert_eq!(found(&cache, "a.test", "/acmeister"), None);
        assert_eq!(found(&cache, "b.test", "/acme/1"), None);
    }

    #[test]
    fn longest_prefix_wins() {
        let mut cache = ReplayCache::default();
        apply(&mut cache, "/", "/a/b", "short").unwrap();
        apply(&mut cache, "/a", "/a/b", "long").unwrap();
        assert_eq!(found(&cache, "a.test", "/a/b/c"), Some("long".into()));
        assert_eq!(found(&cache, "a.test", "/x"), Some("short".into()));
    }

    #[test]
    fn pattern_must_match_the_current_request() {
        let mut cache = ReplayCache::default();
        assert!(apply(&mut cache, "/b/*", "/a", "cell").is_err());
        assert!(apply(&mut cache, "other.test/a/*", "/a", "cell").is_err());
        assert!(apply(&mut cache, "a.test:80/a/*", "/a", "cell").is_err());
        assert!(apply(&mut cache, "A.test/a/*", "/a", "cell").is_ok());
    }

    #[test]
    fn entry_dies_at_its_time_to_live() {
        let mut cache = ReplayCache::default();
        apply(&mut cache, "/", "/a", "cell").unwrap();
        let at = |secs| cache.find("router", "a.test", "/a", NOW + Duration::from_secs(secs));
        assert!(at(59).is_some());
        assert!(at(60).is_none());
    }

    #[test]
    fn nine_seconds_are_too_short() {
        let mut cache = ReplayCache::default();
        let mut with =
            |ttl| cache.apply(&store("/", ttl), &to("c"), "router", ("a.test", "/"), NOW);
        assert!(with(9).is_err());
        assert!(with(10).is_ok());
    }

    #[test]
    fn state_transform_timeout_and_fallback_exclude_the_cache() {
        use super::super::instruction::{Fallback, Transform};
        let barred = [
            Instruction {
                state: Some("s".into()),
                ..to("c")
            },
            Instruction {
                transform: Some(Transform::default()),
                ..to("c")
            },
            Instruction {
                timeout: Some(NOW),
                ..to("c")
            },
            Instruction {
                fallback: Some(Fallback::ForceSelf),
                ..to("c")
            },
        ];
        for instruction in barred {
            let mut cache = ReplayCache::default();
            let applied = cache.apply(
                &store("/", 60),
                &instruction,
                "router",
                ("a.test", "/"),
                NOW,
            );
            assert!(applied.is_err(), "{instruction:?}");
            assert_eq!(found(&cache, "a.test", "/"), None);
        }
    }

    #[test]
    fn invalidate_drops_what_matches_the_request() {
        let mut cache = ReplayCache::default();
        apply(&mut cache, "/a", "/a", "a").unwrap();
        apply(&mut cache, "/b", "/b", "b").unwrap();
        cache
            .apply(
                &CacheOrder::Invalidate,
                &to("router"),
                "router",
                ("a.test", "/a/1"),
                NOW,
            )
            .unwrap();
        assert_eq!(found(&cache, "a.test", "/a"), None);
        assert_eq!(found(&cache, "a.test", "/b"), Some("b".into()));
    }
}
