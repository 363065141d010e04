//! The registry's text: every problem has a place in it, and what is accepted leads where it says.

use std::collections::HashSet;

use cell_router::registry::{Cell, HostRule, Lookup, Placement, Problem, Registry, Route};
use serde_json::Value;

/// What must hold for the text of a registry.
pub fn holds(data: &[u8]) {
    match Registry::parse(data) {
        Ok(registry) => accepted(data, &registry),
        Err(problems) => refused(data, &problems),
    }
    beside(data);
}

/// What is made of a text beside a registry in force: nothing twice, nobody lost who was good, nobody changed who is
/// broken.
fn beside(data: &[u8]) {
    let last = br#"{"version": 1, "domain": "example.com", "path_hosts": ["apps.example.com"], "cells": {
        "alice": {"address": "h:1", "hosts": ["www.alice.org", "www.bob.org"], "paths": ["/alice", "/a"]},
        "bob": {"address": "h:2", "hosts": ["*.bob.org"], "paths": ["/bob"]}}}"#;
    let last = Registry::parse(last).expect("it is good");
    let strict = Registry::parse(data);
    let Ok((registry, flags)) = Registry::parse_beside(data, &last, &[]) else {
        return assert!(strict.is_err(), "a good text is good beside any other");
    };
    assert_eq!(flags.is_empty(), strict.is_ok());
    let (mut hosts, mut prefixes) = (HashSet::new(), HashSet::new());
    for cell in registry.cells() {
        found(&registry, cell);
        for rule in &cell.hosts {
            assert!(hosts.insert(rule.to_string()), "{rule} is claimed twice");
        }
        for rule in &cell.paths {
            assert!(
                prefixes.insert(rule.prefix.to_string()),
                "{} is claimed twice",
                rule.prefix
            );
        }
    }
    for flag in &flags {
        let before = last.cell(&flag.cell);
        assert_eq!(flag.kept, before.is_some());
        assert_eq!(registry.cell(&flag.cell), before);
        refused(data, &flag.problems);
    }
}

fn refused(data: &[u8], problems: &[Problem]) {
    assert!(!problems.is_empty());
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in problems {
        let line = problem
            .line
            .checked_sub(1)
            .and_then(|index| lines.get(index));
        let line = line.unwrap_or_else(|| panic!("there is no such line: {problem}"));
        let columns = 1..=line.chars().count() + 1;
        assert!(
            columns.contains(&problem.column),
            "there is no such column: {problem}"
        );
        assert!(
            problem.path.starts_with('$') && !problem.what.is_empty() && !problem.fix.is_empty()
        );
        let shown = problem.to_string();
        assert!(
            !shown.contains(char::is_control),
            "it is more than a line: {shown:?}"
        );
    }
    let places = problems
        .iter()
        .map(|problem| (problem.line, problem.column));
    assert!(places.is_sorted(), "in the order of the text: {problems:?}");
}

fn accepted(data: &[u8], registry: &Registry) {
    let json: Value = serde_json::from_slice(data).expect("a registry is JSON");
    assert_eq!(json["version"], 1);
    let written = json["cells"].as_object().expect("the cells are an object");
    assert_eq!(written.len(), registry.len());
    let domain = registry.domain().map(|domain| domain.as_str());
    assert_eq!(json.get("domain").and_then(Value::as_str), domain);
    let (mut hosts, mut prefixes) = (HashSet::new(), HashSet::new());
    for cell in registry.cells() {
        let entry = &written[cell.name.as_str()];
        found(registry, cell);
        well_formed(cell);
        assert_eq!(
            entry.get("address").is_some(),
            matches!(cell.placement, Placement::Address { .. })
        );
        for rule in &cell.hosts {
            assert!(hosts.insert(rule.to_string()), "{rule} is claimed twice");
        }
        for rule in &cell.paths {
            assert!(
                prefixes.insert(rule.prefix.to_string()),
                "{} is claimed twice",
                rule.prefix
            );
        }
    }
    let default = registry.default_cell().map(|cell| cell.name.as_str());
    assert_eq!(json.get("default_cell").and_then(Value::as_str), default);
    let again = Registry::parse(data).expect("it is good a second time");
    assert!(again.cells().eq(registry.cells()));
}

/// Every address that an entry gives leads to its cell.
fn found(registry: &Registry, cell: &Cell) {
    let leads = |host: &str, path: &str, by: Route<'_>| match registry.lookup(host, path) {
        Lookup::Cell { cell: found, route } => {
            assert_eq!((&found.name, route), (&cell.name, by), "{host}{path}");
        }
        other => panic!("{host}{path} leads to {other:?}"),
    };
    assert_eq!(
        registry.cell(cell.name.as_str()).map(|cell| &cell.name),
        Some(&cell.name)
    );
    let own = registry
        .domain()
        .map(|domain| format!("{}.{domain}", cell.name));
    if let Some(own) = &own {
        let listed = cell.hosts.iter().any(|rule| rule.to_string() == *own);
        leads(
            own,
            "/",
            if listed {
                Route::Host
            } else {
                Route::Subdomain
            },
        );
    }
    for rule in &cell.hosts {
        if let HostRule::Exact(host) = rule {
            leads(
                &format!("{}.:443", host.as_str().to_ascii_uppercase()),
                "/",
                Route::Host,
            );
        }
    }
    let Some(domain) = registry.domain() else {
        return;
    };
    // A host of its own that is the domain itself would go before the paths.
    if registry.cells().any(|cell| {
        cell.hosts
            .iter()
            .any(|rule| rule.to_string() == domain.as_str())
    }) {
        return;
    }
    for rule in &cell.paths {
        let by = Route::Path {
            prefix: rule.prefix.as_str(),
            strip: rule.strip,
        };
        leads(domain.as_str(), rule.prefix.as_str(), by);
        leads(domain.as_str(), &format!("{}/", rule.prefix), by);
    }
}

/// What the schema promises, asked of the values.
fn well_formed(cell: &Cell) {
    let label = |text: &str| {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (1..=63).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    assert!(label(cell.name.as_str()));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    match &cell.placement {
        Placement::Machine { app, machine, port } => {
            let word = |text: &str| {
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            assert!(
                plain(app.as_str())
                    && word(app.as_str())
                    && plain(machine.as_str())
                    && word(machine.as_str())
            );
            assert!(*port > 0);
        }
        Placement::Address { host, port } => {
            assert!(plain(host) && !host.contains(['[', ']', '/', '@']) && *port > 0);
        }
    }
    assert!(plain(&cell.policy.ready_path) && cell.policy.ready_path.starts_with('/'));
    assert!(cell.policy.limits.max_in_flight > 0);
    for rule in &cell.hosts {
        let text = rule.to_string();
        let host = text.strip_prefix("*.").unwrap_or(&text);
        assert!(host.len() <= 253 && host.split('.').all(label), "{rule}");
    }
    for rule in &cell.paths {
        let prefix = rule.prefix.as_str();
        let segments: Vec<&str> = prefix.split('/').collect();
        assert!(
            segments[0].is_empty() && segments.len() > 1 && plain(prefix),
            "{prefix}"
        );
        assert!(
            !segments[1..]
                .iter()
                .any(|one| matches!(*one, "" | "." | "..")),
            "{prefix}"
        );
        assert!(
            !matches!(segments[1], "up" | "-" | ".well-known"),
            "{prefix}"
        );
        assert!(
            !prefix.contains(['\\', '?', '#', '*', ';', ',', '"']),
            "{prefix}"
        );
    }
}
