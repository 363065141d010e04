//! The tree tests itself: stages import only from stages before them, pure stages stay pure, and the image is built by the
//! compiler whose profile is kept.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// The stages, in the order in which a request's knowledge grows. Stages in one row never see each other.
const ORDER: [&[&str]; 13] = [
    &["steps", "coalesce"],
    &["config", "registry"],
    &["wire"],
    &["decision"],
    &["http1", "http2"],
    &["live"],
    &["account"],
    &["inbound", "outbound", "control"],
    &["respond"],
    &["service", "admin"],
    &["worker"],
    &["lib"],
    &["main", "cli"],
];

/// Stages without I/O, clock, log or environment.
const PURE: [&str; 3] = ["registry", "wire", "decision"];

/// What would make a stage impure.
const IMPURE: [&str; 10] = [
    "tokio::",
    "hyper::",
    "hyper_util::",
    "tracing::",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "std::fs",
    "std::env",
    "println!",
];

struct Source {
    path: PathBuf,
    stage: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let inside = path.strip_prefix(&root).unwrap().to_owned();
                let first = inside
                    .components()
                    .next()
                    .unwrap()
                    .as_os_str()
                    .to_str()
                    .unwrap();
                let stage = first.trim_end_matches(".rs").to_owned();
                found.push(Source {
                    text: fs::read_to_string(&path).unwrap(),
                    path: inside,
                    stage,
                });
            }
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn floor(stage: &str) -> usize {
    let floor = ORDER.iter().position(|row| row.contains(&stage));
    floor.unwrap_or_else(|| panic!("{stage} has no place in the order of stages: give it one"))
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn stages_import_only_from_stages_before_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in code(&source.text) {
            for (at, _) in line.match_indices("crate::") {
                let used: String = line[at + 7..]
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
                    .collect();
                let same = used == source.stage;
                if !used.is_empty() && !same && floor(&used) >= floor(&source.stage) {
                    wrong.push(format!(
                        "{}:{number}: {} uses {used}",
                        source.path.display(),
                        source.stage
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against the order of stages:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn pure_stages_name_no_socket_clock_or_log() {
    let mut wrong = Vec::new();
    let pure = |source: &&Source| PURE.contains(&source.stage.as_str());
    // Tests of a pure stage may read what they test against.
    let tests = |source: &&Source| {
        source
            .path
            .components()
            .any(|part| part.as_os_str().to_string_lossy().starts_with("tests"))
    };
    for source in sources()
        .iter()
        .filter(pure)
        .filter(|source| !tests(source))
    {
        for (number, line) in code(&source.text) {
            for name in IMPURE.iter().filter(|name| line.contains(*name)) {
                wrong.push(format!("{}:{number}: {name}", source.path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "what pure stages must not name:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_stage_has_its_place_in_the_tree() {
    let stages: Vec<String> = sources().into_iter().map(|source| source.stage).collect();
    for stage in ORDER.concat() {
        assert!(
            stages.iter().any(|found| found == stage),
            "{stage} is in the order of stages and not in the tree"
        );
    }
}

#[test]
fn the_image_is_built_by_the_compiler_of_the_profile() {
    let router = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = fs::read_to_string(router.join("optimized/compiler")).unwrap();
    let release = compiler
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .unwrap();
    let image = fs::read_to_string(router.join("../Dockerfile.router")).unwrap();
    assert!(
        image.contains(&format!("FROM rust:{release}-")),
        "by another one the router would not be optimised: name {release} in Dockerfile.router, or record the profile anew"
    );
}
