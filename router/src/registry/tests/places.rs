//! Lines and columns: of many mistakes in one file, and of text that is no JSON.

use super::problems;
use crate::registry::Registry;

const MISTAKES: &str = r#"{
  "version": 1,
  "domian": "example.net",
  "domain": "example.com",
  "path_hosts": ["apps.example.com", "apps.example.com"],
  "default_cell": "nobody",
  "defaults": { "app": "blog-cells", "port": 70000, "hosts": [] },
  "cells": {
    "alice": {
      "machine": "3d8d9e67c2e123",
      "hosts": ["www.alice.org", "bob.example.com"],
      "paths": ["/alice", "/up/x", {"prefix": "alice", "strip": 1}]
    },
    "bob": { "app": "Cell Bob", "machine": "148", "replay": "never", "replay_ttl_s": 60 },
    "Carol": { "address": "127.0.0.1:9000", "replay": "strict" },
    "läb": { "machine": "148e21ea7de489", "address": "127.0.0.1:9000" }, "né": {},
    "dave": { "address": "dave.internal", "hosts": ["www.alice.org"], "paths": ["/alice", "/a//b"] },
    "dave": { "address": "[::1]:80", "secret": "hunter2" },
	"eve": { "address": "h:1", "paths": ["/é", "/ê%2f"], "stat": "active", "max_in_flight": "5" }
  }
}"#;

#[test]
fn every_mistake_is_reported_at_its_place() {
    let found: Vec<String> = problems(MISTAKES)
        .iter()
        .map(|problem| format!("{}:{} {}", problem.line, problem.column, problem.path))
        .collect();
    let expected = [
        "3:3 $.domian",
        "5:38 $.path_hosts[1]",
        "6:19 $.default_cell",
        "7:46 $.defaults.port",
        "7:53 $.defaults.hosts",
        "11:34 $.cells.alice.hosts[1]",
        "12:27 $.cells.alice.paths[1]",
        "12:47 $.cells.alice.paths[2].prefix",
        "12:65 $.cells.alice.paths[2].strip",
        "14:21 $.cells.bob.app",
        "14:44 $.cells.bob.machine",
        "14:86 $.cells.bob.replay_ttl_s",
        "15:5 $.cells.Carol",
        "15:55 $.cells.Carol.replay",
        r#"16:5 $.cells["läb"]"#,
        r#"16:54 $.cells["läb"].address"#,
        r#"16:74 $.cells["né"]"#,
        r#"16:74 $.cells["né"]"#,
        "17:26 $.cells.dave.address",
        "17:53 $.cells.dave.hosts[0]",
        "17:81 $.cells.dave.paths[0]",
        "17:91 $.cells.dave.paths[1]",
        "18:5 $.cells.dave",
        "18:48 $.cells.dave.secret",
        "19:39 $.cells.eve.paths[0]",
        "19:45 $.cells.eve.paths[1]",
        "19:55 $.cells.eve.stat",
        "19:90 $.cells.eve.max_in_flight",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_problem_is_one_line_that_editors_can_follow() {
    let text =
        "{\"version\": 1, \"cells\": {\n  \"a\": {\"address\": \"h:1\", \"max_in_flight\": 0}}}";
    let problem = &problems(text)[0];
    assert_eq!(
        problem.in_file("registry.json").to_string(),
        "registry.json:2:44: $.cells.a.max_in_flight: 0 is no number of requests that is allowed here; \
         write a number from 1 to 1000000 (requests)"
    );
}

#[test]
fn text_that_is_no_json_is_one_problem_at_its_place() {
    for (text, line, column, what, fix) in [
        (
            "{\"version\": 1,\n \"cells\": {}",
            2,
            13,
            "EOF",
            "ends too early",
        ),
        (
            "{\"version\": 1,\n \"cells\": {},\n}",
            3,
            1,
            "trailing comma",
            "comma before",
        ),
        (
            "{\"version\": 1,\n \"cells\": {\"a\": {},\n}}",
            3,
            1,
            "trailing comma",
            "comma before",
        ),
        (
            "{\"version\": 1,\n \"cells\": {\"a\": {\"b\": 1,\n}}}",
            3,
            1,
            "string",
            "comma before",
        ),
        ("{\"cells\": {\"a\": {}}", 1, 20, "EOF", "ends too early"),
        (
            "{\"version\": 1\n \"cells\": {}}",
            2,
            2,
            "expected `,`",
            "put a comma",
        ),
        ("{\n // note\n}", 2, 2, "string", "no comments"),
        ("{\n 'version': 1}", 2, 2, "string", "double quotes"),
        ("{\n version: 1}", 2, 2, "string", "double quotes"),
        ("{\"version\" 1}", 1, 12, "expected `:`", "colon"),
        (
            "{\"version\": 1, \"é\": 01}",
            1,
            22,
            "number",
            "leading zero",
        ),
        (
            "{\"version\": True}",
            1,
            13,
            "expected value",
            "double quotes",
        ),
        (
            "{} {}",
            1,
            4,
            "trailing characters",
            "take out what follows",
        ),
        (
            "{\"a\": \"x\ny\"}",
            1,
            9,
            "control character",
            "ends on the line",
        ),
        ("{\"a\": \"C:\\data\"}", 1, 11, "escape", "backslash"),
    ] {
        let found = problems(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:#?}");
        let problem = &found[0];
        assert_eq!(
            (problem.line, problem.column),
            (line, column),
            "{text:?}: {problem}"
        );
        assert!(problem.what.contains(what), "{text:?}: {problem}");
        assert!(problem.fix.contains(fix), "{text:?}: {problem}");
        assert_eq!(problem.path, "$");
    }
}

#[test]
fn half_a_surrogate_pair_is_told_at_its_value() {
    let found = problems(r#"{"version": 1, "domain": "\ud800", "cells": {"\udc00": {}}}"#);
    let places: Vec<usize> = found.iter().map(|problem| problem.column).collect();
    assert_eq!(places.len(), 2, "{found:#?}");
    assert_eq!(places[0], 26);
}

#[test]
fn bytes_that_are_not_utf8_are_told_at_their_place() {
    let found = Registry::parse(b"{\n\"\xc3\xa9\xff\"").expect_err("not UTF-8");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, found[0].column), (2, 3));
    assert!(found[0].what.contains("not UTF-8"));
}

#[test]
fn line_feeds_of_any_system_end_a_line() {
    let found = problems("{\r\n\"version\": 1,\r\n\"cells\": 5}\r\n");
    assert_eq!((found[0].line, found[0].column), (3, 10));
}
