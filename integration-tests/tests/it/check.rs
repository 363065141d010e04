//! What is said of a registry that is wrong.

use std::path::Path;
use std::process::{Command, Output};

use integration_tests::{Binaries, Router, RouterOptions};

/// Fifteen mistakes, each on a line of its own.
const BROKEN: &str = r#"{
  "version": 1,
  "domain": "Example.com",
  "path_hosts": ["apps.example.org", "apps.example.org"],
  "colour": "red",
  "default_cell": "nobody",
  "defaults": { "app": "cells", "port": 70000 },
  "cells": {
    "alice": { "machine": "3D8D9E67C2E123" },
    "bob": { "machine": "3d8d9e67c2e124", "hosts": ["www.bob.org:80"] },
    "carol": { "address": "127.0.0.1:9001", "hosts": ["www.carol.org"], "paths": ["/team"] },
    "dave": { "address": "127.0.0.1:9002", "hosts": ["www.carol.org"] },
    "erin": { "address": "127.0.0.1:9003", "paths": ["/team"] },
    "frank": { "address": "127.0.0.1:9004", "paths": ["/up/x"] },
    "Grace": { "address": "127.0.0.1:9005" },
    "heidi": { "address": "127.0.0.1" },
    "ivan": { "address": "127.0.0.1:9006", "replay": "strict" },
    "judy": { "address": "127.0.0.1:9007", "state": "asleep" },
    "mallory": { "machine": "3d8d9e67c2e125", "app": "cells;x" }
  }
}
"#;

/// For each mistake its line, its column, its path, and a word of what is said.
const SAID: [(usize, usize, &str, &str); 15] = [
    (3, 13, "$.domain", "lower case"),
    (4, 38, "$.path_hosts[1]", "twice"),
    (5, 3, "$.colour", "not known"),
    (6, 19, "$.default_cell", "there is no cell \"nobody\""),
    (7, 41, "$.defaults.port", "1 to 65535"),
    (9, 27, "$.cells.alice.machine", "machine id"),
    (10, 53, "$.cells.bob.hosts[0]", "www.bob.org"),
    (12, 54, "$.cells.dave.hosts[0]", "carol"),
    (13, 54, "$.cells.erin.paths[0]", "carol"),
    (14, 55, "$.cells.frank.paths[0]", "belong to the router"),
    (15, 5, "$.cells.Grace", "lower case: \"grace\""),
    (16, 27, "$.cells.heidi.address", "no port"),
    (17, 54, "$.cells.ivan.replay", "only a Fly Machine"),
    (18, 53, "$.cells.judy.state", "active, maintenance"),
    (19, 54, "$.cells.mallory.app", "Fly app name"),
];

fn check(file: &Path) -> Output {
    Command::new(&Binaries::built().cell_router)
        .arg("check")
        .arg(file)
        .env_clear()
        .output()
        .unwrap()
}

fn saved(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn every_mistake_is_reported_in_one_go_at_its_place() {
    let file = saved(BROKEN);
    let output = check(file.path());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let mut lines = said.lines();
    for (line, column, path, word) in SAID {
        let begin = format!("{}:{line}:{column}: {path}: ", file.path().display());
        let next = lines.next().unwrap_or_default();
        assert!(next.starts_with(&begin), "wanted {begin}\ngot    {next}");
        assert!(next.contains(word), "wanted {word:?} in {next}");
        // What is wrong, and what would be right.
        assert!(next[begin.len()..].contains("; "), "{next}");
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["15 problems"], "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn valid_registry_passes() {
    let file = saved(r#"{"version": 1, "cells": {"lab": {"address": "127.0.0.1:9000"}}}"#);
    let output = check(file.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with(": 1 cells, no problem\n"), "{said}");
    // The one in the repository, too.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../registry.json");
    assert_eq!(check(&own).status.code(), Some(0));
}

#[test]
fn file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.json");
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&file.display().to_string()), "{said}");
}

#[tokio::test]
async fn serve_refuses_a_broken_registry_and_says_why() {
    let (status, said) = Router::refused(RouterOptions::new(BROKEN)).await;
    assert_eq!(status.code(), Some(1), "{said}");
    for (line, column, path, _) in SAID {
        let place = format!(":{line}:{column}: {path}: ");
        assert!(said.contains(&place), "wanted {place} in\n{said}");
    }
}

#[tokio::test]
async fn serve_refuses_a_secret_that_cannot_be_had() {
    let registry = r#"{"version": 1, "cells": {
        "lab": {"address": "127.0.0.1:9000", "secret": {"env": "LAB_SECRET"}}
    }}"#;
    let (status, said) = Router::refused(RouterOptions::new(registry)).await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("LAB_SECRET"), "{said}");
}
