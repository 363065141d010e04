//! The lookup beside a plain one that walks over all cells, for thousands of generated hosts and paths.

use super::registry;
use crate::registry::{Cell, HostRule, Lookup, Placement, Registry, Route};

/// A sequence of numbers that is the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

const LABELS: [&str; 8] = ["a", "b", "ab", "ba", "www", "x", "c", "org"];
const SEGMENTS: [&str; 9] = [
    "a",
    "b",
    "ab",
    "aaaaa1",
    "aaaaa2",
    "aaaaa3",
    "up",
    "-",
    ".well-known",
];
const ODD_SEGMENTS: [&str; 6] = ["", ".", "..", "%2e", "a%2Fb", "a\\b"];
const DOMAIN: &str = "x.org";
const PATH_HOSTS: [&str; 2] = ["paths.x.org", "b.ab"];

fn host(numbers: &mut Numbers) -> String {
    let labels: Vec<&str> = (0..=numbers.below(3))
        .map(|_| numbers.of(&LABELS))
        .collect();
    match numbers.below(4) {
        0 => format!("{}.{DOMAIN}", labels[0]),
        1 => format!("{}.{DOMAIN}", labels.join(".")),
        _ => labels.join("."),
    }
}

fn path(numbers: &mut Numbers, odd: bool) -> String {
    let mut path = String::new();
    for _ in 0..numbers.below(5) {
        path.push('/');
        path.push_str(if odd && numbers.below(12) == 0 {
            numbers.of(&ODD_SEGMENTS)
        } else {
            numbers.of(&SEGMENTS)
        });
    }
    path
}

/// A registry whose entries are kept only as far as they are good beside the others.
fn generated(numbers: &mut Numbers) -> Registry {
    let mut cells: Vec<String> = Vec::new();
    let build = |cells: &[String], default: &str| {
        let text = format!(
            r#"{{"version": 1, "domain": "{DOMAIN}", "path_hosts": {PATH_HOSTS:?}, "machine_paths": true,
                "defaults": {{"app": "cells"}}, {default} "cells": {{{}}}}}"#,
            cells.join(",")
        );
        Registry::parse(text.as_bytes()).map(|registry| (registry, text))
    };
    for round in 0..60 {
        let name = format!("{}{}", numbers.of(&LABELS), ["", "", "1"][numbers.below(3)]);
        let star = ["", "*."][numbers.below(2)];
        let entry = format!(
            r#""{name}": {{"machine": "{}", "hosts": ["{star}{}"], "paths": [{{"prefix": "{}", "strip": {}}}]}}"#,
            [
                "aaaaa1".to_owned(),
                "aaaaa2".to_owned(),
                format!("machine{round}")
            ][numbers.below(3)],
            host(numbers),
            path(numbers, false),
            numbers.below(2) == 0,
        );
        cells.push(entry);
        if build(&cells, "").is_err() {
            cells.pop();
        }
    }
    let default = build(&cells, "")
        .map(|(registry, _)| registry.cells().next().map(|cell| cell.name.to_string()));
    let default = match default {
        Ok(Some(name)) if numbers.below(2) == 0 => format!(r#""default_cell": "{name}","#),
        _ => String::new(),
    };
    let (_, text) = build(&cells, &default).unwrap();
    registry(&text)
}

/// The answer by walking over all cells, as `cell how`.
fn plain(registry: &Registry, host: &str, path: &str) -> String {
    let cells: Vec<&Cell> = registry.cells().map(|cell| &**cell).collect();
    let labels: Vec<&str> = host.split('.').collect();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let listed =
        |cell: &Cell, wanted: &str| cell.hosts.iter().any(|rule| rule.to_string() == wanted);
    if let Some(cell) = cells.iter().find(|cell| listed(cell, host)) {
        return format!("{} Host", cell.name);
    }
    let reserved = SEGMENTS[6..].contains(segments.first().unwrap_or(&"a"));
    if host == DOMAIN || PATH_HOSTS.contains(&host) {
        if segments.iter().enumerate().any(|(index, segment)| {
            let last = index + 1 == segments.len();
            ODD_SEGMENTS[1..].contains(segment) || (segment.is_empty() && !last)
        }) {
            return "Ambiguous".to_owned();
        }
        if reserved {
            return "Router".to_owned();
        }
        let mut best: Option<(usize, String)> = None;
        for cell in &cells {
            for rule in &cell.paths {
                let wanted: Vec<&str> = rule.prefix.as_str().split('/').skip(1).collect();
                if segments.starts_with(&wanted)
                    && best.as_ref().is_none_or(|(most, _)| *most < wanted.len())
                {
                    best = Some((
                        wanted.len(),
                        format!("{} {} {}", cell.name, rule.prefix, rule.strip),
                    ));
                }
            }
        }
        if let Some((_, found)) = best {
            return found;
        }
        for cell in &cells {
            if let Placement::Machine { machine, .. } = &cell.placement
                && segments.first() == Some(&machine.as_str())
            {
                return format!("{} MachinePath", cell.name);
            }
        }
    } else {
        for cell in &cells {
            if host == format!("{}.{DOMAIN}", cell.name) {
                return format!("{} Subdomain", cell.name);
            }
        }
        let wildcard = format!("*.{}", labels[1..].join("."));
        if let Some(cell) = cells.iter().find(|cell| listed(cell, &wildcard)) {
            return format!("{} Wildcard", cell.name);
        }
        if reserved {
            return "Router".to_owned();
        }
    }
    match registry.default_cell() {
        Some(cell) => format!("{} Default", cell.name),
        None => "Nowhere".to_owned(),
    }
}

fn quick(registry: &Registry, host: &str, path: &str) -> String {
    match registry.lookup(host, path) {
        Lookup::Cell {
            cell,
            route: Route::Path { prefix, strip },
        } => format!("{} {prefix} {strip}", cell.name),
        Lookup::Cell { cell, route } => format!("{} {route:?}", cell.name),
        Lookup::Ambiguous(_) => "Ambiguous".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn lookup_finds_what_a_walk_over_all_cells_finds() {
    let mut numbers = Numbers(7);
    let mut kinds = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let registry = generated(&mut numbers);
        for _ in 0..500 {
            let host = match numbers.below(3) {
                0 => DOMAIN.to_owned(),
                1 => PATH_HOSTS[numbers.below(2)].to_owned(),
                _ => host(&mut numbers),
            };
            let path = path(&mut numbers, true);
            let expected = plain(&registry, &host, &path);
            assert_eq!(quick(&registry, &host, &path), expected, "{host}{path}");
            let kind = expected
                .split(' ')
                .next_back()
                .unwrap_or_default()
                .to_owned();
            *kinds.entry(kind).or_insert(0) += 1;
            let spelled = format!("{}.:8080", host.to_uppercase());
            assert_eq!(
                quick(&registry, &spelled, &path),
                expected,
                "{spelled}{path}"
            );
        }
    }
    // Every way to an answer has been gone.
    for kind in [
        "Host",
        "Subdomain",
        "Wildcard",
        "true",
        "false",
        "MachinePath",
        "Default",
        "Router",
        "Ambiguous",
        "Nowhere",
    ] {
        assert!(
            kinds.get(kind).is_some_and(|count| *count > 20),
            "{kind}: {kinds:?}"
        );
    }
}

#[test]
fn the_walk_knows_wildcards() {
    let registry =
        registry(r#"{"version": 1, "cells": {"a": {"address": "h:1", "hosts": ["*.b"]}}}"#);
    let cell = registry.cell("a").unwrap();
    assert!(matches!(&cell.hosts[0], HostRule::Wildcard(parent) if parent.as_str() == "b"));
}
