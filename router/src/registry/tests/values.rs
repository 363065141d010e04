//! What the keys of a cell become.

use std::sync::Arc;
use std::time::Duration;

use super::registry;
use crate::registry::{
    Admission, Identity, Lookup, Missing, Placement, Protocol, Registry, Replay, SecretSource,
    SignInBy, TrustSource,
};

const MACHINE: &str = r#""machine": "3d8d9e67c2e123""#;

fn file(defaults: &str, cell: &str) -> String {
    format!(r#"{{"version": 1, "defaults": {{{defaults}}}, "cells": {{"my-cell": {{{cell}}}}}}}"#)
}

fn cell(defaults: &str, cell: &str) -> crate::registry::Cell {
    let registry = registry(&file(defaults, cell));
    let cell = registry.cell("my-cell").unwrap();
    crate::registry::Cell::clone(cell)
}

#[test]
fn nothing_written_means_the_documented_defaults() {
    let cell = cell(r#""app": "cells""#, MACHINE);
    let Placement::Machine { app, machine, port } = &cell.placement else {
        panic!("{:?}", cell.placement);
    };
    assert_eq!(
        (app.as_str(), machine.as_str(), *port),
        ("cells", "3d8d9e67c2e123", 8080)
    );
    assert_eq!(cell.policy.state, Admission::Active);
    assert_eq!(cell.policy.replay, Replay::Strict { timeout: None });
    assert_eq!(cell.policy.limits.max_in_flight, 1000);
    assert_eq!(cell.policy.limits.queue_timeout, Duration::from_secs(1));
    assert_eq!(cell.policy.limits.max_body_bytes, None);
    assert_eq!(cell.policy.limits.min_body_rate, 64);
    assert_eq!(cell.policy.limits.min_answer_rate, 64);
    assert_eq!(cell.policy.limits.connect_timeout, Duration::from_secs(5));
    assert_eq!(
        cell.policy.limits.first_byte_timeout,
        Duration::from_secs(120)
    );
    assert_eq!(cell.policy.limits.idle_timeout, Duration::from_secs(60));
    assert_eq!(
        cell.policy.limits.tunnel_idle_timeout,
        Duration::from_secs(3600)
    );
    assert_eq!(cell.policy.limits.wake_timeout, Duration::from_secs(60));
    assert_eq!(cell.policy.limits.hold_timeout, Duration::from_secs(30));
    assert_eq!(cell.policy.limits.retry_after, Duration::from_secs(30));
    assert_eq!(cell.policy.limits.beat_every, Duration::ZERO);
    assert_eq!(cell.secret, None);
    assert_eq!(
        (cell.policy.protocol, cell.policy.tls.is_none()),
        (Protocol::Http1, true)
    );
    assert_eq!(&*cell.policy.ready_path, "/up");
    assert!(!cell.policy.may_replay);
    assert_eq!(cell.policy.pages, None);
}

#[test]
fn own_values_go_before_defaults_and_defaults_before_built_in_ones() {
    let defaults = r#""app": "cells", "port": 81, "state": "paused", "hold_timeout_ms": 7, "wake_timeout_ms": 700,
        "ready_path": "/ready", "may_replay": true, "max_in_flight": 9"#;
    let own = r#""app": "other", "state": "active", "hold_timeout_ms": 8, "max_in_flight": 10"#;
    let cell = cell(defaults, &format!("{MACHINE}, {own}"));
    assert_eq!(cell.placement.to_string(), "other/3d8d9e67c2e123:81");
    assert_eq!(cell.policy.state, Admission::Active);
    assert_eq!(cell.policy.limits.hold_timeout, Duration::from_millis(8));
    assert_eq!(cell.policy.limits.wake_timeout, Duration::from_millis(700));
    assert_eq!(cell.policy.limits.max_in_flight, 10);
    assert_eq!(&*cell.policy.ready_path, "/ready");
    assert!(cell.policy.may_replay);
}

#[test]
fn every_state_has_its_name() {
    for (word, state) in [
        ("active", Admission::Active),
        ("maintenance", Admission::Maintenance),
        ("disabled", Admission::Disabled),
        ("paused", Admission::Paused),
    ] {
        let cell = cell("", &format!(r#""address": "h:1", "state": "{word}""#));
        assert_eq!(cell.policy.state, state);
        assert_eq!(state.as_str(), word);
    }
}

#[test]
fn replay_takes_its_kind_and_its_times() {
    let app = r#""app": "cells""#;
    for (defaults, own, expected) in [
        ("", "", Replay::Strict { timeout: None }),
        ("", r#", "replay": "never""#, Replay::Never),
        (
            "",
            r#", "replay": "cached""#,
            Replay::Cached {
                ttl: Duration::from_secs(60),
            },
        ),
        (
            "",
            r#", "replay": "cached", "replay_ttl_s": 10"#,
            Replay::Cached {
                ttl: Duration::from_secs(10),
            },
        ),
        (
            r#", "replay": "cached", "replay_ttl_s": 86400"#,
            "",
            Replay::Cached {
                ttl: Duration::from_secs(86_400),
            },
        ),
        (
            r#", "replay_ttl_s": 20, "replay_timeout_ms": 800"#,
            "",
            Replay::Strict {
                timeout: Some(Duration::from_millis(800)),
            },
        ),
        (
            r#", "replay": "never""#,
            r#", "replay": "strict", "replay_timeout_ms": 30000"#,
            Replay::Strict {
                timeout: Some(Duration::from_secs(30)),
            },
        ),
    ] {
        let cell = cell(&format!("{app}{defaults}"), &format!("{MACHINE}{own}"));
        assert_eq!(cell.policy.replay, expected, "{defaults} {own}");
    }
}

#[test]
fn an_address_is_never_replayed_whatever_the_defaults() {
    let cell = cell(r#""replay": "cached""#, r#""address": "127.0.0.1:9000""#);
    assert_eq!(cell.policy.replay, Replay::Never);
}

#[test]
fn addresses_are_hosts_and_ports() {
    for (text, host, port) in [
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("localhost:1", "localhost", 1),
        ("cell.internal:65535", "cell.internal", 65_535),
        ("[::1]:9000", "::1", 9000),
        ("[fdaa:0:0::3]:80", "fdaa::3", 80),
    ] {
        let cell = cell("", &format!(r#""address": "{text}""#));
        let expected = Placement::Address {
            host: host.into(),
            port,
        };
        assert_eq!(cell.placement, expected);
    }
    let cell = cell("", r#""address": "[::1]:9000""#);
    assert_eq!(cell.placement.to_string(), "[::1]:9000");
}

#[test]
fn a_secret_is_named_for_each_cell() {
    for (defaults, own, expected) in [
        (
            r#""secret": {"env": "S_{cell}"}"#,
            "",
            SecretSource::Env("S_MY_CELL".into()),
        ),
        (
            r#""secret": {"file": "/run/{cell}/s"}"#,
            "",
            SecretSource::File("/run/my-cell/s".into()),
        ),
        (
            r#""secret": {"env": "S"}"#,
            r#", "secret": {"file": "x"}"#,
            SecretSource::File("x".into()),
        ),
        (
            "",
            r#", "secret": {"env": "{cell}_{cell}"}"#,
            SecretSource::Env("MY_CELL_MY_CELL".into()),
        ),
    ] {
        let cell = cell(defaults, &format!(r#""address": "h:1"{own}"#));
        assert_eq!(cell.secret.as_deref(), Some(&expected));
    }
}

#[test]
fn cells_that_are_treated_alike_share_one_policy() {
    let registry = registry(
        r#"{"version": 1, "defaults": {"idle_timeout_ms": 500}, "cells": {
            "a": {"address": "h:1"}, "b": {"address": "h:2", "idle_timeout_ms": 500},
            "c": {"address": "h:3", "idle_timeout_ms": 501}, "d": {"address": "h:4", "state": "paused"},
            "e": {"address": "h:5", "state": "paused", "hosts": ["e.org"], "secret": {"env": "E"}, "identity": "none"}}}"#,
    );
    let policy = |name| &registry.cell(name).unwrap().policy;
    assert!(Arc::ptr_eq(policy("a"), policy("b")));
    assert!(!Arc::ptr_eq(policy("a"), policy("c")));
    assert!(!Arc::ptr_eq(policy("a"), policy("d")));
    assert!(Arc::ptr_eq(policy("d"), policy("e")));
}

#[test]
fn a_cell_that_an_edit_leaves_alone_is_the_same_allocation() {
    let text = |port| {
        format!(
            r#"{{"version": 1, "cells": {{
                "a": {{"address": "h:1", "hosts": ["a.org"], "paths": ["/a"]}}, "b": {{"address": "h:{port}"}}}}}}"#
        )
    };
    let last = registry(&text(1));
    let (next, flags) = Registry::parse_beside(text(2).as_bytes(), &last, &[]).unwrap();
    assert_eq!(flags, []);
    let is_same = |name| Arc::ptr_eq(last.cell(name).unwrap(), next.cell(name).unwrap());
    assert_eq!((is_same("a"), is_same("b")), (true, false));
    assert!(
        matches!(next.lookup("a.org", "/"), Lookup::Cell { cell, .. } if cell.name.as_str() == "a")
    );
}

#[test]
fn a_cell_is_small() {
    // With the two counts of its `Arc`, a million are 122 MiB; the allocator's next class is a quarter larger.
    assert!(size_of::<crate::registry::Cell>() + 16 <= 128);
    // What it costs a cell to be treated as no other is.
    assert!(size_of::<crate::registry::Policy>() + 16 <= 384);
}

#[test]
fn an_edit_is_seen_by_comparing() {
    let text = file("", r#""address": "h:1", "hosts": ["a.b"], "paths": ["/p"]"#);
    let (one, two) = (registry(&text), registry(&text));
    assert_eq!(one.cell("my-cell"), two.cell("my-cell"));
    for (old, new) in [
        ("h:1", "h:2"),
        ("a.b", "*.a.b"),
        ("/p", "/q"),
        ("\"h:1\"", "\"h:1\", \"retry_after_s\": 5"),
    ] {
        let edited = registry(&text.replace(old, new));
        assert_ne!(one.cell("my-cell"), edited.cell("my-cell"), "{new}");
    }
}

#[test]
fn escapes_in_the_file_mean_what_they_stand_for() {
    let registry =
        registry(r#"{"\u0076ersion": 1, "cells": {"\u0061lice": {"address": "h\u003a1"}}}"#);
    assert_eq!(registry.cell("alice").unwrap().placement.to_string(), "h:1");
}

#[test]
fn a_cell_proves_who_it_is_where_it_has_a_secret_and_may() {
    let secret = r#""secret": {"env": "S"}"#;
    for (defaults, own, expected) in [
        ("", "", Identity::None),
        ("", secret, Identity::Challenge),
        (secret, "", Identity::Challenge),
        (secret, r#""identity": "none""#, Identity::None),
        (r#""identity": "none""#, secret, Identity::None),
        (
            r#""secret": {"env": "S"}, "identity": "none""#,
            r#""identity": "challenge""#,
            Identity::Challenge,
        ),
    ] {
        let own = [r#""address": "h:1""#, own].join(if own.is_empty() { "" } else { ", " });
        assert_eq!(
            cell(defaults, &own).policy.identity,
            expected,
            "{defaults} {own}"
        );
    }
}

#[test]
fn a_certificate_is_judged_by_a_file_or_a_pin_for_each_cell() {
    let tls = |defaults: &str, own: &str| {
        let own = [r#""address": "h:1""#, own].join(if own.is_empty() { "" } else { ", " });
        let tls = cell(defaults, &own).policy.tls.clone()?;
        Some((tls.trust, tls.name.map(String::from)))
    };
    assert_eq!(tls("", ""), None);
    let defaults = r#""tls": {"ca": "ca/{cell}.pem", "name": "{cell}.internal"}"#;
    let file = TrustSource::Authorities("ca/my-cell.pem".to_owned());
    assert_eq!(
        tls(defaults, ""),
        Some((file, Some("my-cell.internal".to_owned())))
    );
    let pin = format!(r#""tls": {{"pin": "sha256:0a{}Fb"}}"#, "00".repeat(30));
    let mut sum = [0; 32];
    (sum[0], sum[31]) = (0x0a, 0xfb);
    assert_eq!(tls(defaults, &pin), Some((TrustSource::Key(sum), None)));
}

#[test]
fn pages_are_a_cells_own_or_those_for_all() {
    for (defaults, own, pages, for_all) in [
        ("", "", None, None),
        (r#""pages": "p""#, "", Some("p"), Some("p")),
        (
            r#""pages": "p""#,
            r#", "pages": "q/{cell}""#,
            Some("q/my-cell"),
            Some("p"),
        ),
        (r#""pages": "p/{cell}""#, "", Some("p/my-cell"), None),
    ] {
        let registry = registry(&file(defaults, &format!(r#""address": "h:1"{own}"#)));
        let cell = registry.cell("my-cell").unwrap();
        assert_eq!(cell.policy.pages.as_deref(), pages);
        assert_eq!(registry.pages().map(|pages| &**pages), for_all);
    }
}

#[test]
fn a_sign_in_is_a_cells_own_as_a_whole_or_that_for_all() {
    let defaults = r#""sign_in": {"basic": "all.htpasswd", "public": ["/open"]}"#;
    let text = format!(
        r#"{{"version": 1, "defaults": {{{defaults}}}, "cells": {{
            "one": {{"address": "h:1"}}, "two": {{"address": "h:2"}},
            "own": {{"address": "h:3", "sign_in": {{"basic": "{{cell}}.htpasswd", "realm": "Own"}}}},
            "asks": {{"address": "h:4", "sign_in": {{"forward": "http://auth/x?cell={{cell}}", "timeout_ms": 10,
                "copy_headers": ["remote-groups"]}}}}
        }}}}"#
    );
    let registry = registry(&text);
    let sign_in = |name: &str| registry.cell(name).unwrap().policy.sign_in.clone().unwrap();
    assert!(Arc::ptr_eq(&sign_in("one"), &sign_in("two")));
    assert!(sign_in("one").is_public("/open/x") && !sign_in("own").is_public("/open/x"));
    assert_eq!(
        sign_in("own").file().map(|file| &**file),
        Some("own.htpasswd")
    );
    let SignInBy::Forward {
        url,
        timeout,
        user_from,
        copy,
    } = &sign_in("asks").by
    else {
        panic!("{:?}", sign_in("asks"));
    };
    assert_eq!(url.to_string(), "http://auth/x?cell=asks");
    assert_eq!(*timeout, Duration::from_millis(10));
    assert_eq!(
        (user_from.as_str(), copy[0].as_str()),
        ("remote-user", "remote-groups")
    );
}

#[test]
fn files_are_a_cells_own_or_those_for_all() {
    for (defaults, own, expected) in [
        ("", "", None),
        (
            r#""static": {"folder": "f"}"#,
            "",
            Some(("f", Some("/x/y"), Missing::NotFound, 0)),
        ),
        (
            r#""static": {"folder": "f"}"#,
            r#", "static": {"folder": "s/{cell}", "path": "/x", "missing": "cell", "max_age_s": 9}"#,
            Some(("s/my-cell", Some("/y"), Missing::Cell, 9)),
        ),
        (
            r#""static": {"folder": "{cell}", "path": "/z"}"#,
            "",
            Some(("my-cell", None, Missing::NotFound, 0)),
        ),
    ] {
        let cell = cell(defaults, &format!(r#""address": "h:1"{own}"#));
        let files = cell.policy.files.as_deref().map(|files| {
            let rest = files.path.rest("/x/y");
            (&*files.folder, rest, files.missing, files.max_age.as_secs())
        });
        assert_eq!(files, expected);
    }
}
