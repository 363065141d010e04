//! Lookup: a walk over all cells as they are written finds the same cell, and a path that a less careful reader would
//! take elsewhere finds none.

use std::sync::LazyLock;

use cell_router::registry::{HostName, HostRule, Lookup, PathPrefix, Registry, Route};
use serde_json::Value;

const REGISTRIES: [&str; 3] = [
    r#"{"version": 1, "domain": "x.org", "path_hosts": ["p.net", "b.x.net"], "machine_paths": true, "default_cell": "c",
        "defaults": {"app": "cells"},
        "cells": {
          "a": {"machine": "aaaaa1", "hosts": ["a.net", "*.x.net"], "paths": ["/a", "/a/b/c"]},
          "b": {"machine": "aaaaa2", "hosts": ["*.b.x.net"], "paths": ["/a/b", {"prefix": "/b", "strip": true}]},
          "c": {"machine": "aaaaa3", "paths": [{"prefix": "/a%20b", "strip": true}, "/b/aaaaa1"]},
          "x-y": {"address": "h:1", "hosts": ["127.0.0.1"]}}}"#,
    r#"{"version": 1, "domain": "x.org", "defaults": {"app": "cells"},
        "cells": {"a": {"machine": "aaaaa1", "paths": ["/a.b", "/a"]}, "up": {"machine": "aaaaa2", "paths": ["/b"]}}}"#,
    r#"{"version": 1, "cells": {"a": {"address": "h:1", "hosts": ["*.a.net", "b.a.net"]}}}"#,
];

static READ: LazyLock<Vec<(Registry, Value)>> = LazyLock::new(|| {
    let read = |text: &&str| {
        let registry = Registry::parse(text.as_bytes()).expect("a good registry");
        (
            registry,
            serde_json::from_str(text).expect("a registry is JSON"),
        )
    };
    REGISTRIES.iter().map(read).collect()
});

/// What must hold for a host and a path, which are the two lines of the input.
pub fn holds(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (raw, path) = text.split_once('\n').unwrap_or((&text, "/"));
    let host = plain_host(raw);
    let normal = HostName::normalise(raw).ok().map(|host| host.into_owned());
    assert_eq!(normal, host);
    if let Some(host) = &host {
        assert_eq!(HostName::normalise(host).as_deref(), Ok(&host[..]));
    }
    if let Ok(rule) = HostRule::parse(raw) {
        assert_eq!(rule.to_string(), raw);
        let plain = raw.strip_prefix("*.").unwrap_or(raw);
        assert_eq!(
            HostName::normalise(plain).as_deref(),
            Ok(plain),
            "requests can name it"
        );
    }
    if let Ok(prefix) = PathPrefix::parse(raw) {
        let below = path == raw || path.starts_with(&format!("{raw}/"));
        assert_eq!(prefix.matches(path), below);
    }
    for (registry, json) in READ.iter() {
        let found = registry.lookup(raw, path);
        assert_eq!(
            shown(&found),
            walked(json, host.as_deref(), path),
            "{raw:?} {path:?}"
        );
        if let Lookup::Cell {
            route: Route::Path { prefix, .. },
            ..
        } = found
        {
            stays_below(prefix, path);
        }
    }
}

fn shown(found: &Lookup<'_>) -> String {
    match found {
        Lookup::Cell {
            cell,
            route: Route::Path { prefix, strip },
        } => format!("{} {prefix} {strip}", cell.name),
        Lookup::Cell { cell, route } => format!("{} {route:?}", cell.name),
        Lookup::Ambiguous(_) => "Ambiguous".to_owned(),
        Lookup::BadHost(_) => "BadHost".to_owned(),
        Lookup::Router | Lookup::Nowhere => format!("{found:?}"),
    }
}

/// RFC 9110 section 7.2, a host name's characters taken from RFC 1123 and an underscore.
fn plain_host(raw: &str) -> Option<String> {
    let (host, port) = if raw.starts_with('[') {
        let (host, port) = raw.split_at(raw.find(']')? + 1);
        host[1..host.len() - 1].parse::<std::net::Ipv6Addr>().ok()?;
        (host, port)
    } else {
        let (host, port) = raw.split_at(raw.find(':').unwrap_or(raw.len()));
        let host = host.strip_suffix('.').unwrap_or(host);
        let label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(allowed)
        };
        if host.len() > 253 || !host.split('.').all(label) {
            return None;
        }
        (host, port)
    };
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => "",
        None => return None,
    };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.len() <= 5
        && (digits.is_empty() || digits.parse::<u32>().is_ok_and(|port| port < 65_536));
    number.then(|| host.to_ascii_lowercase())
}

/// The answer by walking over all cells as they are written, as `cell how`.
fn walked(json: &Value, host: Option<&str>, path: &str) -> String {
    let Some(host) = host else {
        return "BadHost".to_owned();
    };
    let cells = json["cells"].as_object().expect("cells");
    let lists = |cell: &Value, wanted: &str| {
        cell["hosts"]
            .as_array()
            .is_some_and(|hosts| hosts.iter().any(|host| host == wanted))
    };
    let listing = |wanted: &str| cells.iter().find(|(_, cell)| lists(cell, wanted));
    if let Some((name, _)) = listing(host) {
        return format!("{name} Host");
    }
    let domain = json["domain"].as_str();
    let by_path = domain == Some(host)
        || json["path_hosts"]
            .as_array()
            .is_some_and(|hosts| hosts.iter().any(|one| one == host));
    let segments: Vec<&str> = path.split('/').collect();
    let first = segments.get(1).copied().unwrap_or_default();
    let reserved = segments[0].is_empty() && matches!(first, "up" | "-" | ".well-known");
    if by_path {
        if ambiguous(path) {
            return "Ambiguous".to_owned();
        }
        if reserved {
            return "Router".to_owned();
        }
        let mut best: Option<(usize, String)> = None;
        for (name, cell) in cells {
            for rule in cell["paths"].as_array().into_iter().flatten() {
                let prefix = rule["prefix"].as_str().or(rule.as_str()).expect("a prefix");
                let strip = rule["strip"].as_bool().unwrap_or_default();
                let wanted: Vec<&str> = prefix.split('/').collect();
                if segments.starts_with(&wanted)
                    && best.as_ref().is_none_or(|(most, _)| *most < wanted.len())
                {
                    best = Some((wanted.len(), format!("{name} {prefix} {strip}")));
                }
            }
        }
        if let Some((_, found)) = best {
            return found;
        }
        let machine = |(_, cell): &(&String, &Value)| cell["machine"].as_str() == Some(first);
        let by_machine = json["machine_paths"] == true && segments[0].is_empty();
        if let Some((name, _)) = cells.iter().find(machine).filter(|_| by_machine) {
            return format!("{name} MachinePath");
        }
    } else {
        let label = domain.and_then(|domain| host.strip_suffix(domain)?.strip_suffix('.'));
        if let Some(label) = label.filter(|label| cells.contains_key(*label)) {
            return format!("{label} Subdomain");
        }
        let wildcard = host
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        if let Some((name, _)) = wildcard.and_then(|wildcard| listing(&wildcard)) {
            return format!("{name} Wildcard");
        }
        if reserved {
            return "Router".to_owned();
        }
    }
    match json["default_cell"].as_str() {
        Some(name) => format!("{name} Default"),
        None => "Nowhere".to_owned(),
    }
}

/// Whether there is another way to read a path: with what is encoded decoded, backslashes as slashes, empty and dot
/// segments resolved, controls dropped.
fn ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "\\", "//"]
        .iter()
        .any(|part| lower.contains(part));
    // Without a slash in front the first segment stands where none belongs.
    let dots = path
        .split('/')
        .skip(1)
        .any(|segment| matches!(segment, "." | ".."));
    encoded || dots || !path.bytes().all(|byte| (0x20..0x7F).contains(&byte))
}

/// A reader that resolves all that it can still finds itself below the prefix.
fn stays_below(prefix: &str, path: &str) {
    let mut resolved: Vec<Vec<u8>> = Vec::new();
    let decoded = decode(path.as_bytes());
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => drop(resolved.pop()),
            segment => resolved.push(segment.to_vec()),
        }
    }
    let wanted: Vec<Vec<u8>> = prefix
        .split('/')
        .skip(1)
        .map(|segment| decode(segment.as_bytes()))
        .collect();
    assert!(
        resolved.starts_with(&wanted),
        "{path:?} is not below {prefix:?}"
    );
}

fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    decoded
}
