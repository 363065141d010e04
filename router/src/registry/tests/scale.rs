//! Many cells in one file.

use std::fmt::Write;

use super::registry;
use crate::registry::{Lookup, Registry, Route};

const CELLS: usize = 10_000;

fn file(cells: usize) -> String {
    let mut text = String::from(
        r#"{"version": 1, "domain": "example.com", "defaults": {"app": "cells"}, "cells": {"#,
    );
    for index in 0..cells {
        let comma = if index == 0 { "" } else { "," };
        write!(
            text,
            "{comma}\n\"c{index}\": {{\"machine\": \"{index:014x}\", \"hosts\": [\"www.c{index}.org\"], \"paths\": [\"/c{index}\"]}}"
        )
        .unwrap();
    }
    text.push_str("}}");
    text
}

#[test]
fn ten_thousand_cells_are_all_found() {
    let registry = registry(&file(CELLS));
    assert_eq!(registry.len(), CELLS);
    for index in 0..CELLS {
        let name = format!("c{index}");
        for (host, path, expected) in [
            (
                format!("{name}.example.com"),
                "/".to_owned(),
                Route::Subdomain,
            ),
            (format!("www.{name}.org"), "/".to_owned(), Route::Host),
            (
                "example.com".to_owned(),
                format!("/{name}/x"),
                Route::Path {
                    prefix: &format!("/{name}"),
                    strip: false,
                },
            ),
        ] {
            let found = registry.lookup(&host, &path);
            let Lookup::Cell { cell, route } = found else {
                panic!("{host}{path}: {found:?}");
            };
            assert_eq!((cell.name.as_str(), route), (name.as_str(), expected));
        }
    }
}

#[test]
fn a_mistake_in_each_of_ten_thousand_cells_is_reported() {
    let text = file(CELLS).replace("\"machine\"", "\"port\": 0, \"machine\"");
    let problems = Registry::parse(text.as_bytes()).expect_err("each port is wrong");
    assert_eq!(problems.len(), CELLS);
    for (index, problem) in problems.iter().enumerate() {
        assert_eq!(problem.line, index + 2);
        assert_eq!(problem.path, format!("$.cells.c{index}.port"));
    }
}

#[test]
fn a_long_path_costs_no_more_than_the_longest_prefix() {
    let registry = registry(&file(1));
    let path = "/c0".to_owned() + &"/x".repeat(500_000);
    assert!(matches!(
        registry.lookup("example.com", &path),
        Lookup::Cell { .. }
    ));
}
