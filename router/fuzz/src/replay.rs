//! Replay instructions: whatever the registry says, one names one machine and nothing else; and what comes back in
//! `fly-replay-src` is read as it is written.

use std::time::Duration;

use cell_router::decision::ReplayKind;
use cell_router::registry::{Placement, Registry};
use cell_router::respond;
use cell_router::wire::fly;
use http::HeaderMap;
use serde_json::json;

use super::choices::Choices;

/// What must hold for the names of a cell, a path and a source, which are the lines of the input.
pub fn holds(data: &[u8]) {
    source(&String::from_utf8_lossy(data));
    let mut choices = Choices(data);
    let lines: [String; 6] = std::array::from_fn(|_| choices.line());
    let [name, app, machine, prefix, host, path] = &lines;
    let registry = json!({
        "version": 1,
        "domain": "example.com",
        "defaults": {"app": app},
        "cells": {name: {"machine": machine, "paths": [prefix]}},
    });
    let Ok(registry) = Registry::parse(registry.to_string().as_bytes()) else {
        return;
    };
    let cell = registry.cells().next().expect("there is one cell");
    let strict = ReplayKind::Strict {
        timeout: Some(Duration::from_secs(2)),
    };
    let headers = instruction(&cell.placement, strict, None);
    let wanted =
        format!("app={app};instance={machine};timeout=2000ms;fallback=prefer_self;state=v1.1.ab");
    assert_eq!(headers["fly-replay"], wanted);
    assert_eq!(headers.len(), 1);
    let known: Vec<(&str, &str)> = wanted
        .split(';')
        .filter_map(|part| part.split_once('='))
        .collect();
    assert_eq!(known.len(), 5, "no name adds a field");
    assert_eq!(fly::replay_src_state(&wanted), Some("v1.1.ab"));

    let Ok(host) = cell_router::registry::HostName::normalise(host) else {
        return;
    };
    let remember = fly::cache_pattern(&host, prefix, path);
    let below = path
        .strip_prefix(prefix.as_str())
        .is_some_and(|rest| rest.starts_with('/'));
    assert_eq!(remember.is_some(), below);
    let cached = ReplayKind::Cached {
        ttl: Duration::from_secs(60),
    };
    let headers = instruction(&cell.placement, cached, remember.clone());
    assert_eq!(
        headers["fly-replay"],
        format!("app={app};instance={machine}")
    );
    assert_eq!(headers.get("fly-replay-cache"), remember.as_ref());
    if let Some(pattern) = remember {
        let text = pattern.to_str().expect("a pattern is visible ASCII");
        assert_eq!(text, format!("{host}{prefix}/*"));
        let odd =
            |c: char| !c.is_ascii_graphic() || matches!(c, ',' | ';' | '"' | '\\' | '?' | '#');
        assert!(
            !text.contains(odd) && text.matches('*').count() == 1,
            "{text}"
        );
    }
}

fn instruction(
    placement: &Placement,
    kind: ReplayKind,
    remember: Option<http::HeaderValue>,
) -> HeaderMap {
    let words = respond::replay(placement, kind, Some("v1.1.ab"), remember);
    assert!(words.body().is_empty());
    words.headers().clone()
}

/// docs/signature.md: split on `;`, or on `,` where there is none; cut at the first `=`; both sides trimmed.
fn source(value: &str) {
    let parts: Vec<&str> = if value.contains(';') {
        value.split(';').collect()
    } else {
        value.split(',').collect()
    };
    let mut state = None;
    for part in parts.iter().rev() {
        let Some(equals) = part.find('=') else {
            continue;
        };
        if part[..equals].trim() == "state" {
            state = Some(part[equals + 1..].trim().trim_matches('"'));
        }
    }
    assert_eq!(fly::replay_src_state(value), state);
}
