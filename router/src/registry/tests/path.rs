//! Prefixes and paths that could be read in two ways.

use crate::registry::path::{PREFIX_MAX, asks_identity, fault, is_reserved};
use crate::registry::{PathFault, PathPrefix};

#[test]
fn apiary_does_not_match_api() {
    let api = PathPrefix::parse("/api").unwrap();
    for (path, expected) in [
        ("/api", true),
        ("/api/", true),
        ("/api/x", true),
        ("/apiary", false),
        ("/ap", false),
        ("/API", false),
        ("/x/api", false),
        ("api", false),
        ("", false),
    ] {
        assert_eq!(api.matches(path), expected, "{path}");
    }
}

#[test]
fn these_prefixes_are_good() {
    let longest = format!("/{}", "a".repeat(PREFIX_MAX - 1));
    for text in [
        "/alice",
        "/team/alice",
        "/caf%C3%A9",
        "/a.b",
        "/...",
        "/.a",
        "/~a",
        "/A",
        "/upload",
        "/-a",
        "/a/up",
        "/a%20b",
        "/@me",
        &longest,
    ] {
        assert_eq!(PathPrefix::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn these_prefixes_are_refused() {
    let longer = format!("/{}", "a".repeat(PREFIX_MAX));
    for (text, reason) in [
        ("", "no prefix"),
        ("/", "no prefix"),
        ("alice", "does not begin"),
        ("/alice/", "ends in a slash"),
        ("//alice", "empty segment"),
        ("/a//b", "empty segment"),
        ("/.", "dot segment"),
        ("/..", "dot segment"),
        ("/a/./b", "dot segment"),
        ("/a/..", "dot segment"),
        ("/a%2fb", "%2f"),
        ("/a%2Fb", "%2f"),
        ("/%2e", "%2e"),
        ("/%2E%2e", "%2e"),
        ("/a%5cb", "backslash"),
        ("/a\\b", "backslash"),
        ("/a\r\n", "control"),
        ("/a\u{7f}", "control"),
        ("/a?b", "query"),
        ("/a#b", "query"),
        ("/café", "outside ASCII"),
        ("/a b", "cannot stand"),
        ("/a*", "cannot stand"),
        ("/a;b", "cannot stand"),
        ("/a,b", "cannot stand"),
        ("/a%", "percent sign"),
        ("/a%2", "percent sign"),
        ("/a%zz", "percent sign"),
        ("/a%+1", "percent sign"),
        ("/%c3%a9", "second spelling"),
        ("/%61lice", "second spelling"),
        ("/%7E", "second spelling"),
        ("/%00", "control character"),
        ("/%7F", "control character"),
        ("/up", "belong to the router"),
        ("/up/x", "belong to the router"),
        ("/-", "belong to the router"),
        ("/-/x", "belong to the router"),
        ("/.well-known", "belong to the router"),
        ("/.well-known/acme-challenge", "belong to the router"),
        (&longer, "bytes long"),
    ] {
        let refusal = PathPrefix::parse(text).expect_err(text);
        assert!(refusal.what.contains(reason), "{text:?}: {refusal}");
        assert!(!refusal.fix.is_empty(), "{text:?}");
    }
}

#[test]
fn paths_with_two_readings_are_known() {
    for (path, expected) in [
        ("/a/b.c", None),
        ("", None),
        ("/", None),
        ("*", None),
        ("/a/", None),
        ("/...", None),
        ("/.a/..b", None),
        ("/a%20b%C3%A9", None),
        ("/%252e", None),
        ("/%2e", Some(PathFault::EncodedDot)),
        ("/a/%2E%2E/b", Some(PathFault::EncodedDot)),
        ("/a%2fb", Some(PathFault::EncodedSlash)),
        ("/a%2Fb", Some(PathFault::EncodedSlash)),
        ("/a%5cb", Some(PathFault::Backslash)),
        ("/a%5C", Some(PathFault::Backslash)),
        ("/a\\b", Some(PathFault::Backslash)),
        ("//", Some(PathFault::EmptySegment)),
        ("/a//b", Some(PathFault::EmptySegment)),
        ("/.", Some(PathFault::DotSegment)),
        ("/./a", Some(PathFault::DotSegment)),
        ("/a/..", Some(PathFault::DotSegment)),
        ("/a/../b", Some(PathFault::DotSegment)),
        ("/a\u{0}", Some(PathFault::Control)),
        ("/a\u{1f}", Some(PathFault::Control)),
        ("/a\u{7f}", Some(PathFault::Control)),
        ("/é", Some(PathFault::NotAscii)),
    ] {
        assert_eq!(fault(path), expected, "{path:?}");
    }
}

#[test]
fn reserved_paths_end_at_segments() {
    for (path, expected) in [
        ("/up", true),
        ("/up/", true),
        ("/up/x", true),
        ("/upload", false),
        ("/-", true),
        ("/-/metrics", true),
        ("/-a", false),
        ("/.well-known/acme-challenge/x", true),
        ("/.well-knowns", false),
        ("/", false),
        ("", false),
    ] {
        assert_eq!(is_reserved(path), expected, "{path}");
    }
}

#[test]
fn the_path_of_the_challenge_is_known_in_every_spelling() {
    for (path, expected) in [
        ("/.well-known/cell-identity", true),
        ("/.well-known/cell-identity/", true),
        ("/.WELL-known/Cell-Identity", true),
        ("//.well-known//cell-identity", true),
        ("/.well-known/x/../cell-identity", true),
        ("/.well-known\\cell-identity", true),
        ("/.well-known%2fcell-identity", true),
        ("/%2ewell-known/cell-identit%79", true),
        ("/%252ewell-known/%2525%36%33ell-identity", true),
        ("/.well-known;a=1/cell-identity;b", true),
        ("/alice/.well-known/cell-identity", true),
        ("/.well-known/cell-identity.txt", false),
        ("/.well-known/acme-challenge/cell-identity-x", false),
        ("/well-known/cell-identity", false),
        ("/cell-identity", false),
        ("/%", false),
        ("/%zz/%2", false),
        ("/", false),
    ] {
        assert_eq!(asks_identity(path), expected, "{path}");
    }
}
