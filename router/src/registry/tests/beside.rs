//! Broken entries beside good ones: who stays as it was, who is left out, and what nobody can take.

use super::registry;
use crate::registry::{CellName, Fault, Flag, Lookup, Placement, Refusal, Registry};

/// A file with these cells; `more` stands before them.
fn file(more: &str, cells: &str) -> String {
    format!(
        r#"{{"version": 1, "domain": "example.com", "defaults": {{"app": "cells"}}, {more} "cells": {{{cells}}}}}"#
    )
}

/// What `cells` is after `before`: each cell with its address, and each flag as `name kept|out path: what`.
fn settled(before: &str, cells: &str) -> (Vec<String>, Vec<String>) {
    let last = registry(&file("", before));
    let (registry, flags) = Registry::parse_beside(file("", cells).as_bytes(), &last, &[])
        .expect("only entries broken");
    (placed(&registry), said(&flags))
}

fn placed(registry: &Registry) -> Vec<String> {
    let cells = registry.cells();
    cells
        .map(|cell| format!("{}={}", cell.name, cell.placement))
        .collect()
}

fn said(flags: &[Flag]) -> Vec<String> {
    let one = |flag: &Flag| {
        let standing = if flag.kept { "kept" } else { "out" };
        let problem = &flag.problems[0];
        format!(
            "{} {standing} {}: {}",
            flag.cell, problem.path, problem.what
        )
    };
    flags.iter().map(one).collect()
}

fn lookup(registry: &Registry, host: &str) -> String {
    match registry.lookup(host, "/") {
        Lookup::Cell { cell, .. } => cell.name.to_string(),
        other => format!("{other:?}"),
    }
}

/// Cell `name` at port `port`, with these hosts.
fn at(name: &str, port: u16, hosts: &str) -> String {
    format!(r#""{name}": {{"address": "h:{port}", "hosts": [{hosts}]}}"#)
}

macro_rules! settles {
    ($($name:ident: [$($before:expr),*] then [$($after:expr),*] => $cells:expr, $flags:expr;)+) => {$(
        #[test]
        fn $name() {
            let before: Vec<String> = vec![$($before.to_string()),*];
            let after: Vec<String> = vec![$($after.to_string()),*];
            let (cells, flags) = settled(&before.join(","), &after.join(","));
            assert_eq!(cells, $cells as [&str; _]);
            assert_eq!(flags.len(), ($flags as [&str; _]).len(), "{flags:#?}");
            for (flag, wanted) in flags.iter().zip($flags as [&str; _]) {
                assert!(flag.starts_with(wanted), "wanted {wanted}\ngot    {flag}");
            }
        }
    )+};
}

settles! {
    nothing_is_flagged_where_nothing_is_broken: [at("a", 1, "")] then [at("a", 2, ""), at("b", 3, "")] =>
        ["a=h:2", "b=h:3"], [];
    a_broken_entry_stays_as_it_was_and_others_go_live: [at("a", 1, ""), at("b", 1, "")] then [r#""a": {"addres": "h:2"}"#, at("b", 2, ""), at("c", 2, "")] =>
        ["a=h:1", "b=h:2", "c=h:2"], ["a kept $.cells.a: the cell has no machine"];
    a_broken_entry_that_is_new_is_left_out: [at("a", 1, "")] then [at("a", 2, ""), r#""b": {}"#] =>
        ["a=h:2"], ["b out $.cells.b: the cell has no machine"];
    an_entry_that_is_no_object_is_broken: [at("a", 1, "")] then [r#""a": 5"#, r#""b": null"#] =>
        ["a=h:1"], ["a kept $.cells.a: a number", "b out $.cells.b: null"];
    a_name_that_is_none_is_left_out: [at("a", 1, "")] then [at("a", 2, ""), at("B", 2, "")] =>
        ["a=h:2"], ["B out $.cells.B"];
    an_entry_that_is_there_twice_stays_as_it_was: [at("a", 1, "")] then [at("a", 2, ""), at("b", 2, ""), at("a", 3, "")] =>
        ["a=h:1", "b=h:2"], ["a kept $.cells.a: the key \"a\" is here a second time"];
    a_host_in_one_list_twice_breaks_that_entry: [at("a", 1, "")] then [at("a", 2, r#""x.org", "x.org""#)] =>
        ["a=h:1"], ["a kept $.cells.a.hosts[1]: \"x.org\" is in this list twice"];
    a_broken_entry_keeps_its_host_from_a_new_one: [at("a", 1, r#""x.org""#)] then [r#""a": {"address": 1}"#, at("b", 2, r#""y.org", "x.org""#)] =>
        ["a=h:1"], ["a kept $.cells.a.address", "b out $.cells.b.hosts[1]: \"x.org\" belongs to cell \"a\" already, whose own entry is broken"];
    a_name_is_told_as_it_reads_not_as_it_is_written: [at("a", 1, r#""x.org""#)] then [r#""\u0061": {"address": 1}"#, at("b", 2, r#""x.org""#)] =>
        ["a=h:1"], ["a kept $.cells.a.address", "b out $.cells.b.hosts[0]: \"x.org\" belongs to cell \"a\" already, whose own"];
    whoever_had_a_host_keeps_it_wherever_the_newcomer_stands: [at("a", 1, r#""x.org""#)] then [at("b", 2, r#""x.org""#), at("a", 2, r#""x.org""#)] =>
        ["a=h:2"], ["b out $.cells.b.hosts[0]: \"x.org\" belongs to cell \"a\""];
    of_two_newcomers_the_first_has_it: [at("c", 1, "")] then [at("a", 2, r#""x.org""#), at("b", 2, r#""x.org""#), at("c", 2, "")] =>
        ["a=h:2", "c=h:2"], ["b out $.cells.b.hosts[0]"];
    a_host_may_change_hands: [at("a", 1, r#""x.org""#), at("b", 1, "")] then [at("a", 2, ""), at("b", 2, r#""x.org""#), r#""c": {}"#] =>
        ["a=h:2", "b=h:2"], ["c out"];
    a_host_that_a_removed_cell_had_is_free: [at("a", 1, r#""x.org""#)] then [at("b", 2, r#""x.org""#), r#""c": {}"#] =>
        ["b=h:2"], ["c out"];
    a_chain_of_hands_stops_at_the_broken_one: [at("a", 1, r#""x.org""#), at("b", 1, r#""y.org""#), at("c", 1, "")] then [r#""a": {}"#, at("b", 2, r#""x.org""#), at("c", 2, r#""y.org""#)] =>
        ["a=h:1", "b=h:1", "c=h:1"], ["a kept", "b kept $.cells.b.hosts[0]: \"x.org\" belongs to cell \"a\" already, whose own", "c kept $.cells.c.hosts[0]: \"y.org\" belongs to cell \"b\" already, whose own"];
    a_prefix_is_kept_like_a_host: [r#""a": {"address": "h:1", "paths": ["/p"]}"#] then [r#""a": {}"#, r#""b": {"address": "h:2", "paths": [{"prefix": "/p", "strip": true}]}"#] =>
        ["a=h:1"], ["a kept", "b out $.cells.b.paths[0]"];
    a_subdomain_of_another_cell_is_refused_of_one_entry: [at("a", 1, "")] then [at("a", 2, r#""b.example.com""#), at("c", 2, "")] =>
        ["a=h:1", "c=h:2"], ["a kept $.cells.a.hosts[0]"];
}

#[test]
fn every_problem_of_an_entry_is_told_with_its_place() {
    let last = registry(&file("", &at("a", 1, "")));
    let text = "{\"version\": 1, \"cells\": {\n \"b\": {\"address\": \"h:1\"},\n \"a\": {\"address\": 1, \"max_in_flight\": 0}}}";
    let (registry, flags) = Registry::parse_beside(text.as_bytes(), &last, &[]).unwrap();
    assert_eq!(placed(&registry), ["b=h:1", "a=h:1"]);
    let places: Vec<_> = flags[0]
        .problems
        .iter()
        .map(|problem| (problem.line, problem.column, problem.path.as_str()))
        .collect();
    assert_eq!(
        places,
        [
            (3, 19, "$.cells.a.address"),
            (3, 39, "$.cells.a.max_in_flight")
        ]
    );
}

#[test]
fn what_is_broken_beside_the_entries_changes_nothing() {
    let last = registry(&file("", &at("a", 1, "")));
    for text in [
        file(r#""path_hosts": ["a b"],"#, r#""a": {}"#),
        file(r#""colour": "red","#, &at("a", 2, "")),
        file(r#""default_cell": "x","#, r#""a": {}"#),
        file("", r#""a": {}"#).replace("\"cells\"}", "\"cells\", \"max_in_flight\": 0}"),
        file("", r#""a": {"address": }"#),
        String::new(),
    ] {
        let problems = Registry::parse_beside(text.as_bytes(), &last, &[]).expect_err(&text);
        assert_eq!(
            problems,
            Registry::parse(text.as_bytes()).unwrap_err(),
            "{text}"
        );
    }
}

#[test]
fn a_cell_that_can_neither_change_nor_stay_changes_nothing() {
    let last = registry(&file("", &at("a", 1, r#""x.org", "y.org""#)));
    // The domain moves to where the cell was, whose own entry is broken.
    let text = file("", r#""a": {}"#).replace("example.com", "x.org");
    let problems = Registry::parse_beside(text.as_bytes(), &last, &[]).expect_err("does not fit");
    assert_eq!(problems, Registry::parse(text.as_bytes()).unwrap_err());
    // Two cells shared a machine, which machine_paths does not allow.
    let shared = r#""a": {"machine": "aaaaaa1"}, "b": {"machine": "aaaaaa1"}"#;
    let last = registry(&file("", shared));
    let text = file(r#""machine_paths": true,"#, r#""a": {}, "b": {}"#);
    assert!(Registry::parse_beside(text.as_bytes(), &last, &[]).is_err());
}

#[test]
fn machines_are_kept_while_they_are_paths() {
    let more = r#""machine_paths": true,"#;
    let last = registry(&file(more, r#""a": {"machine": "aaaaaa1"}"#));
    let text = file(
        more,
        r#""a": {"machine": 1}, "b": {"machine": "aaaaaa1"}, "c": {"address": "h:1", "paths": ["/aaaaaa1/x"]}"#,
    );
    let (registry, flags) = Registry::parse_beside(text.as_bytes(), &last, &[]).unwrap();
    assert_eq!(placed(&registry), ["a=cells/aaaaaa1:8080"]);
    let said = said(&flags);
    assert!(
        said[1].starts_with("b out $.cells.b.machine: machine aaaaaa1 belongs"),
        "{said:?}"
    );
    assert!(
        said[2].starts_with("c out $.cells.c.paths[0]: /aaaaaa1 is the path"),
        "{said:?}"
    );
    let found = registry.lookup("example.com", "/aaaaaa1/");
    assert!(matches!(found, Lookup::Cell { cell, .. } if cell.name.as_str() == "a"));
}

#[test]
fn what_is_found_beside_the_text_breaks_the_entry() {
    let last = registry(&file("", &at("a", 1, r#""x.org""#)));
    let text = file(
        "",
        &format!("{}, {}", at("a", 2, ""), at("b", 2, r#""x.org""#)),
    );
    let fault = |cell| Fault {
        cell: CellName::parse(cell).unwrap(),
        key: "address",
        refusal: Refusal::new("it is not there", "mend it"),
    };
    let (registry, flags) =
        Registry::parse_beside(text.as_bytes(), &last, &[fault("a"), fault("b")]).unwrap();
    assert_eq!(placed(&registry), ["a=h:1"]);
    assert_eq!(lookup(&registry, "x.org"), "a");
    assert_eq!(
        said(&flags),
        [
            "a kept $.cells.a.address: it is not there",
            "b out $.cells.b.address: it is not there"
        ]
    );
}

#[test]
fn a_default_cell_that_is_left_out_is_none() {
    let last = registry(&file("", &at("a", 1, "")));
    let text = file(r#""default_cell": "b","#, r#""b": {}"#);
    let (registry, _) = Registry::parse_beside(text.as_bytes(), &last, &[]).unwrap();
    assert!(registry.default_cell().is_none());
    let text = file(r#""default_cell": "a","#, r#""a": {}"#);
    let (registry, _) = Registry::parse_beside(text.as_bytes(), &last, &[]).unwrap();
    let Some(Placement::Address { port: 1, .. }) =
        registry.default_cell().map(|cell| &cell.placement)
    else {
        panic!("the default cell stays as it was");
    };
}
