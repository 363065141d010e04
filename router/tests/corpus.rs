//! The fuzzer's invariants hold for every input that was kept: ones that mean something, and ones that showed a defect.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the inputs has failed"
)]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the fuzzer's crate, whose items are public there"
)]
#[path = "../fuzz/src/lib.rs"]
mod invariants;

use std::fs;
use std::path::Path;

#[test]
fn invariants_hold_for_every_input_that_was_kept() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut broken = Vec::new();
    for (target, holds) in invariants::TARGETS {
        let folder = fs::read_dir(seeds.join(target)).unwrap();
        let files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{target} has no inputs");
        for file in files {
            let input = fs::read(&file).unwrap();
            if std::panic::catch_unwind(|| holds(&input)).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_folder_of_inputs_has_its_target() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for entry in fs::read_dir(seeds).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            invariants::TARGETS
                .iter()
                .any(|(target, _)| *target == name),
            "{name} is no target"
        );
    }
}
