//! Owns how a replay instruction is read, in its header and its JSON form. Pure.
//!
//! Stricter than the platform is known to be wherever the documentation is silent: an instruction that passes here
//! uses only what is written down.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

/// Media type of the JSON form (fly-platform 1.3).
pub(super) const REPLAY_JSON: &str = "application/vnd.fly.replay+json";

/// Where a request should be delivered instead (fly-platform 1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Regions in order of preference.
    pub(super) regions: Vec<String>,
    /// Exactly this machine.
    pub(super) instance: Option<String>,
    /// This machine if possible.
    pub(super) prefer_instance: Option<String>,
    /// Another app; `None` is the answering app.
    pub(super) app: Option<String>,
    /// Echoed inside `fly-replay-src`.
    pub(super) state: Option<String>,
    /// Leave the answering machine out.
    pub(super) elsewhere: bool,
    /// How long to try to reach the target.
    pub(super) timeout: Option<Duration>,
    /// Who gets the request when the target cannot be reached.
    pub(super) fallback: Option<Fallback>,
    /// Changes to the request; JSON form only.
    pub(super) transform: Option<Transform>,
    /// What to do with the replay cache.
    pub(super) cache: Option<CacheOrder>,
}

/// Who gets a request whose replay failed (fly-platform 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// The machine that answered with the replay, or an error.
    ForceSelf,
    /// The same machine, or else any machine of its app.
    PreferSelf,
}

/// Changes to the replayed request (fly-platform 1.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Transform {
    /// New path and query.
    pub(super) path: Option<http::uri::PathAndQuery>,
    /// Headers to remove.
    pub(super) delete_headers: Vec<HeaderName>,
    /// Headers to overwrite.
    pub(super) set_headers: Vec<(HeaderName, HeaderValue)>,
}

/// What an answer says about the replay cache (fly-platform 1.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CacheOrder {
    /// Remember this replay.
    Store {
        /// Host (optional) and path prefix, as written.
        pattern: String,
        /// Time to live in seconds, as written.
        ttl_secs: u64,
        /// Whether clients may skip the cache.
        allow_bypass: bool,
    },
    /// Forget what matched this request.
    Invalidate,
}

/// Why an instruction cannot be read; the platform logs PA03 (fly-platform 1.9).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bad(pub(super) String);

fn bad<T>(why: impl Into<String>) -> Result<T, Bad> {
    Err(Bad(why.into()))
}

/// True if an answer with these headers is a replay instruction rather than content.
pub(super) fn is_replay(headers: &HeaderMap) -> bool {
    headers.contains_key("fly-replay") || is_json(headers)
}

/// True if the instruction is in the answer's body.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(REPLAY_JSON))
}

impl Instruction {
    /// Reads the instruction in an answer; `body` is looked at for the JSON form only.
    ///
    /// # Errors
    /// [`Bad`] if it cannot be read, or both forms are present, about which the documentation is silent
    /// (fly-platform 1.4).
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Bad> {
        let lines: Vec<_> = headers.get_all("fly-replay").iter().collect();
        match (lines.as_slice(), is_json(headers)) {
            ([], true) => Self::from_json(body),
            ([line], false) => {
                let text = line.to_str().map_err(|_| Bad("not ASCII".into()))?;
                let mut instruction = Self::from_header(text)?;
                instruction.cache = cache_headers(headers)?;
                Ok(instruction)
            }
            ([], false) => bad("no instruction"),
            (_, true) => bad("both the header and the JSON form"),
            (_, false) => bad("more than one fly-replay header"),
        }
    }

    /// Reads the header form: `field *( ";" field )`, a value with a comma in double quotes (fly-platform 1.2).
    ///
    /// # Errors
    /// [`Bad`] for unknown or repeated keys, blanks, values that need quotes and have none.
    pub(super) fn from_header(text: &str) -> Result<Self, Bad> {
        let mut seen = Vec::new();
        let mut this = Self::default();
        for field in split_outside_quotes(text) {
            let Some((key, value)) = field.split_once('=') else {
                return bad(format!("field `{field}` has no `=`"));
            };
            let value = unquote(value)?;
            if seen.contains(&key) {
                return bad(format!("field `{key}` twice"));
            }
            seen.push(key);
            match key {
                "region" => this.regions = regions(value),
                "instance" => this.instance = Some(value.to_owned()),
                "prefer_instance" => this.prefer_instance = Some(value.to_owned()),
                "app" => this.app = Some(value.to_owned()),
                "state" => this.state = Some(value.to_owned()),
                "elsewhere" => this.elsewhere = boolean(value)?,
                "timeout" => this.timeout = Some(duration(value)?),
                "fallback" => this.fallback = Some(fallback(value)?),
                _ => return bad(format!("unknown field `{key}`")),
            }
        }
        this.checked()
    }

    /// Reads the JSON form (fly-platform 1.3).
    ///
    /// # Errors
    /// [`Bad`] for anything that is not one object of the known fields.
    pub(super) fn from_json(body: &[u8]) -> Result<Self, Bad> {
        let json: Json = serde_json::from_slice(body).map_err(|error| Bad(error.to_string()))?;
        Self {
            regions: json.region.as_deref().map(regions).unwrap_or_default(),
            instance: json.instance,
            prefer_instance: json.prefer_instance,
            app: json.app,
            state: json.state,
            elsewhere: json.elsewhere,
            timeout: json.timeout.as_deref().map(duration).transpose()?,
            fallback: json.fallback.as_deref().map(fallback).transpose()?,
            transform: json.transform.map(JsonTransform::read).transpose()?,
            cache: json.cache.map(JsonCache::read).transpose()?,
        }
        .checked()
    }

    fn checked(self) -> Result<Self, Bad> {
        let targets = [&self.instance, &self.prefer_instance, &self.app];
        if targets.into_iter().flatten().any(String::is_empty) {
            return bad("an empty value");
        }
        // fly-platform 1.4: not ruled on, so nobody may rely on it.
        if self.instance.is_some() && (self.prefer_instance.is_some() || !self.regions.is_empty()) {
            return bad("instance together with prefer_instance or region");
        }
        Ok(self)
    }
}

fn cache_headers(headers: &HeaderMap) -> Result<Option<CacheOrder>, Bad> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(pattern) = text("fly-replay-cache") else {
        return Ok(None);
    };
    if pattern == "invalidate" {
        return Ok(Some(CacheOrder::Invalidate));
    }
    let ttl = text("fly-replay-cache-ttl-secs").and_then(|ttl| ttl.parse().ok());
    Ok(Some(CacheOrder::Store {
        pattern: pattern.to_owned(),
        ttl_secs: ttl
            .ok_or_else(|| Bad("fly-replay-cache without fly-replay-cache-ttl-secs".into()))?,
        allow_bypass: text("fly-replay-cache-allow-bypass") == Some("yes"),
    }))
}

fn split_outside_quotes(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c| {
        quoted ^= c == '"';
        c == ';' && !quoted
    })
    .collect()
}

fn unquote(value: &str) -> Result<&str, Bad> {
    if let Some(inner) = value.strip_prefix('"') {
        return match inner.strip_suffix('"') {
            Some(text) if !text.contains('"') => Ok(text),
            _ => bad(format!("bad quotes in `{value}`")),
        };
    }
    if value.contains(|c: char| c == ',' || c == '"' || c.is_whitespace()) {
        return bad(format!("`{value}` needs double quotes"));
    }
    Ok(value)
}

fn regions(list: &str) -> Vec<String> {
    list.split(',').map(|r| r.trim().to_owned()).collect()
}

fn boolean(value: &str) -> Result<bool, Bad> {
    value
        .parse()
        .or_else(|_| bad(format!("`{value}` is no boolean")))
}

/// Reads `10s` or `800ms`.
fn duration(value: &str) -> Result<Duration, Bad> {
    let (digits, unit): (&str, fn(u64) -> Duration) = match value.strip_suffix("ms") {
        Some(digits) => (digits, Duration::from_millis),
        None => (value.strip_suffix('s').unwrap_or(""), Duration::from_secs),
    };
    digits
        .parse()
        .map(unit)
        .or_else(|_| bad(format!("`{value}` is no time")))
}

fn fallback(value: &str) -> Result<Fallback, Bad> {
    match value {
        "force_self" => Ok(Fallback::ForceSelf),
        "prefer_self" => Ok(Fallback::PreferSelf),
        _ => bad(format!("unknown fallback `{value}`")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    region: Option<String>,
    instance: Option<String>,
    prefer_instance: Option<String>,
    app: Option<String>,
    state: Option<String>,
    #[serde(default)]
    elsewhere: bool,
    timeout: Option<String>,
    fallback: Option<String>,
    transform: Option<JsonTransform>,
    cache: Option<JsonCache>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonTransform {
    path: Option<String>,
    #[serde(default)]
    delete_headers: Vec<String>,
    #[serde(default)]
    set_headers: Vec<JsonHeader>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader {
    name: String,
    value: String,
}

impl JsonTransform {
    fn read(self) -> Result<Transform, Bad> {
        let name = |name: &str| {
            name.parse()
                .or_else(|_| bad(format!("bad header name `{name}`")))
        };
        let set = |header: &JsonHeader| {
            let value =
                HeaderValue::from_str(&header.value).or_else(|_| bad("bad header value"))?;
            Ok((name(&header.name)?, value))
        };
        Ok(Transform {
            path: self
                .path
                .map(|path| path.parse().or_else(|_| bad(format!("bad path `{path}`"))))
                .transpose()?,
            delete_headers: self
                .delete_headers
                .iter()
                .map(|n| name(n))
                .collect::<Result<_, _>>()?,
            set_headers: self.set_headers.iter().map(set).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonCache {
    prefix: Option<String>,
    ttl: Option<u64>,
    #[serde(default)]
    allow_bypass: bool,
    #[serde(default)]
    invalidate: bool,
}

impl JsonCache {
    fn read(self) -> Result<CacheOrder, Bad> {
        match (self.prefix, self.ttl, self.invalidate) {
            (None, None, true) => Ok(CacheOrder::Invalidate),
            (Some(pattern), Some(ttl_secs), false) => Ok(CacheOrder::Store {
                pattern,
                ttl_secs,
                allow_bypass: self.allow_bypass,
            }),
            _ => bad("cache needs prefix and ttl, or invalidate"),
        }
    }
}

#[cfg(test)]
#[path = "instruction_tests.rs"]
mod tests;
