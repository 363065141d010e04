//! The decision: the table of the README, written a second time, for every combination of what it rests on.

use std::sync::LazyLock;
use std::time::Duration;

use cell_router::config::{FlyPlace, Place};
use cell_router::decision::{
    Answer, BodyLength, CellState, Decision, Facts, Found, ReplayKind, StreamReason, decide,
    resolve,
};
use cell_router::registry::Registry;
use cell_router::wire::sieve::Fields;
use http::Method;
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use serde_json::json;

use super::choices::Choices;

const BORDERS: [u64; 9] = [0, 1, 9, 10, 11, 999_999, 1_000_000, 1_000_001, u64::MAX];

static FLY: LazyLock<Place> = LazyLock::new(|| {
    Place::Fly(FlyPlace {
        app: "cell-router".into(),
        machine: "9080f2a1".into(),
        region: "iad".into(),
    })
});

/// What must hold for an entry and a request that are made of the input, a choice for each byte.
pub fn holds(data: &[u8]) {
    let mut choices = Choices(data);
    // Read from the other end.
    let last = data.last().copied().unwrap_or_default();
    let (shy, visitor, refused) = (last & 1 != 0, last & 2 != 0, last & 4 != 0);
    let state = choices.of(&["active", "maintenance", "disabled", "paused"]);
    let replay = choices.of(&["strict", "cached", "never"]);
    let address = choices.flag();
    let most = choices.of(&[None, Some(0), Some(10), Some(1_000_000)]);
    let strip = choices.flag();
    let mut entry = json!({
        "state": state, "wake_for": if shy { "visitors" } else { "all" }, "max_in_flight": 2, "retry_after_s": 7,
        "paths": [{"prefix": "/alice", "strip": strip}],
    });
    if address {
        entry["address"] = "127.0.0.1:9000".into();
    } else {
        entry["machine"] = "3d8d9e67c2e123".into();
        entry["replay"] = replay.into();
        entry["app"] = "cells".into();
    }
    if let Some(most) = most {
        entry["max_body_bytes"] = most.into();
    }
    let registry = json!({"version": 1, "domain": "example.com", "cells": {"alice": entry}});
    let registry = Registry::parse(registry.to_string().as_bytes()).expect("a good registry");

    let by_path = choices.flag();
    let body = match choices.byte() % 3 {
        0 => BodyLength::None,
        1 => BodyLength::Unknown,
        _ => BodyLength::Known(choices.of(&BORDERS)),
    };
    let method = choices.of(&[Method::GET, Method::POST, Method::PUT]);
    let mut headers = HeaderMap::new();
    if !visitor {
        headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.30"));
    }
    let facts = Facts {
        method: &method,
        authority: if by_path {
            "example.com"
        } else {
            "alice.example.com"
        },
        target: if by_path { "/alice/x?y" } else { "/x?y" },
        body,
        through_edge: choices.flag(),
        replay_failed: choices.flag(),
        replayed_by_us: choices.flag(),
        signed_in: choices.flag(),
        names_another_path: false,
        without_file: false,
        looped: choices.flag(),
        last_hop: false,
        fields: Fields::of(&headers),
        replay_max_bytes: 1_000_000,
        https_at: choices.flag().then_some(443),
    };
    let place = if choices.flag() {
        &*FLY
    } else {
        &Place::Elsewhere
    };
    let state_of_cell = CellState {
        in_flight: choices.of(&[0, 1, 2, 3, u32::MAX]),
        refused_for: refused.then_some(Duration::from_secs(3)),
    };
    let found = match resolve(&registry, &facts) {
        Ok(found) => found,
        Err(answer) => {
            assert_eq!((answer, facts.looped), (Answer::Loop, true));
            return;
        }
    };
    assert!(!facts.looped);
    let decided = decide(&facts, &found, state_of_cell, place);
    assert_eq!(
        decided,
        decide(&facts, &found, state_of_cell, place),
        "pure"
    );

    let known = match body {
        BodyLength::Known(bytes) => Some(bytes),
        BodyLength::None | BodyLength::Unknown => None,
    };
    let too_large = known.zip(most).is_some_and(|(bytes, most)| bytes > most);
    let rows = [
        (
            facts.https_at.is_some(),
            Decision::Answer(Answer::UseHttps(443)),
        ),
        (state == "disabled", Decision::Answer(Answer::Disabled)),
        (
            state == "maintenance",
            Decision::Answer(Answer::Maintenance(Duration::from_secs(7))),
        ),
        (state == "paused", Decision::Hold),
        (too_large, Decision::Answer(Answer::TooLarge)),
        (
            *place == Place::Elsewhere,
            Decision::Stream(StreamReason::NotOnFly),
        ),
        (
            !facts.through_edge,
            Decision::Stream(StreamReason::NotThroughEdge),
        ),
        (address, Decision::Stream(StreamReason::AddressCell)),
        (
            replay == "never",
            Decision::Stream(StreamReason::ReplayNever),
        ),
        (
            facts.replay_failed,
            Decision::Stream(StreamReason::ReplayFailed),
        ),
        (
            facts.replayed_by_us,
            Decision::Stream(StreamReason::AlreadyReplayed),
        ),
        (
            by_path && strip,
            Decision::Stream(StreamReason::StripsPrefix),
        ),
        (shy && !visitor, Decision::Stream(StreamReason::NotToWake)),
        (
            body == BodyLength::Unknown,
            Decision::Stream(StreamReason::UnknownLength),
        ),
        (
            known.is_some_and(|bytes| bytes > 1_000_000),
            Decision::Stream(StreamReason::LargeBody),
        ),
        (
            replay == "strict",
            Decision::Replay(ReplayKind::Strict { timeout: None }),
        ),
        (true, decided),
    ];
    let (_, mut first) = rows
        .into_iter()
        .find(|(holds, _)| *holds)
        .expect("the last row holds");
    if matches!(first, Decision::Stream(_)) && refused {
        first = Decision::Answer(Answer::BreakerOpen(Duration::from_secs(3)));
    } else if matches!(first, Decision::Stream(_)) && state_of_cell.in_flight >= 2 {
        first = Decision::Answer(Answer::Full(Duration::from_secs(7)));
    }
    assert_eq!(decided, first);
    explains(&found, decided);
}

fn explains(found: &Found<'_>, decided: Decision) {
    assert!(!decided.lane().is_empty() && !decided.reason().is_empty());
    if let Decision::Replay(kind) = decided {
        assert!(
            found.stripped_prefix().is_none(),
            "a replay takes no prefix off"
        );
        let remembered = matches!(kind, ReplayKind::Cached { .. });
        assert_eq!(
            decided.reason(),
            if remembered { "cached" } else { "strict" }
        );
    }
}
