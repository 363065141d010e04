//! The decision table, row by row.

use http::request::Parts;
use http::{Request, Version};

use super::*;
use crate::config::FlyPlace;

const REGISTRY: &str = r#"{
  "version": 1, "domain": "example.com", "path_hosts": ["apps.example.com"],
  "defaults": { "app": "blog-cells" },
  "cells": {
    "strict":   { "machine": "3d8d9e67c2e123", "replay_timeout_ms": 8000, "paths": ["/strict", {"prefix": "/s", "strip": true}] },
    "cached":   { "machine": "3d8d9e67c2e124", "replay": "cached", "replay_ttl_s": 30, "paths": ["/team", "/team-b"] },
    "never":    { "machine": "3d8d9e67c2e125", "replay": "never" },
    "address":  { "address": "127.0.0.1:9000" },
    "disabled": { "machine": "3d8d9e67c2e126", "state": "disabled" },
    "mending":  { "machine": "3d8d9e67c2e127", "state": "maintenance", "retry_after_s": 7 },
    "paused":   { "machine": "3d8d9e67c2e128", "state": "paused", "paths": ["/team/c/d"] },
    "busy":     { "machine": "3d8d9e67c2e129", "replay": "never", "max_in_flight": 2 },
    "shy":      { "machine": "3d8d9e67c2e12b", "wake_for": "visitors" },
    "bounded":  { "machine": "3d8d9e67c2e133", "replay": "cached", "max_body_bytes": 10 },
    "members":  { "machine": "3d8d9e67c2e12c", "replay": "cached", "paths": [{"prefix": "/m", "strip": true}],
                  "sign_in": { "basic": "f", "public": ["/open"] } },
    "open":     { "machine": "3d8d9e67c2e132", "replay": "never", "sign_in": { "basic": "f", "public": ["/x", "/"] } },
    "outside":  { "address": "127.0.0.1:9001", "sign_in": { "basic": "f" } },
    "resting":  { "machine": "3d8d9e67c2e12d", "state": "paused", "sign_in": { "basic": "f" } },
    "pictures": { "machine": "3d8d9e67c2e12f", "replay": "cached", "static": { "folder": "f", "path": "/art" } },
    "mixed":    { "machine": "3d8d9e67c2e130", "state": "paused", "static": { "folder": "f", "missing": "cell" } },
    "secret":   { "machine": "3d8d9e67c2e131", "sign_in": { "basic": "f" }, "static": { "folder": "f" } },
    "closed":   { "machine": "3d8d9e67c2e12e", "state": "maintenance", "sign_in": { "basic": "f" } },
    "small":    { "machine": "3d8d9e67c2e12a", "max_body_bytes": 10 }
  }
}"#;

fn on_fly() -> Place {
    Place::Fly(FlyPlace {
        app: "cell-router".into(),
        machine: "9080f2a1".into(),
        region: "iad".into(),
    })
}

/// A request as one row gives it.
struct Row {
    host: &'static str,
    target: &'static str,
    body: BodyLength,
    headers: Vec<(&'static str, &'static str)>,
    place: Place,
    through_edge: bool,
    https_at: Option<u16>,
    replayed_by_us: bool,
    signed_in: bool,
    method: http::Method,
    without_file: bool,
    in_flight: u32,
    refused_for: Option<Duration>,
}

impl Row {
    fn to(host: &'static str) -> Self {
        Self {
            host,
            target: "/",
            body: BodyLength::None,
            headers: Vec::new(),
            place: on_fly(),
            through_edge: true,
            https_at: None,
            replayed_by_us: false,
            signed_in: false,
            method: http::Method::GET,
            without_file: false,
            in_flight: 0,
            refused_for: None,
        }
    }

    fn body(self, bytes: u64) -> Self {
        Self {
            body: BodyLength::Known(bytes),
            ..self
        }
    }

    fn unknown_length(self) -> Self {
        Self {
            body: BodyLength::Unknown,
            ..self
        }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn plain(self) -> Self {
        Self {
            https_at: Some(443),
            ..self
        }
    }

    fn signed_in(self) -> Self {
        Self {
            signed_in: true,
            ..self
        }
    }

    fn at(self, target: &'static str) -> Self {
        Self { target, ..self }
    }

    fn method(self, method: http::Method) -> Self {
        Self { method, ..self }
    }

    fn decision(self) -> Decision {
        let registry = Registry::parse(REGISTRY.as_bytes()).unwrap();
        let mut head = head(self.target);
        head.method = self.method;
        head.headers.insert("host", self.host.parse().unwrap());
        for (name, value) in &self.headers {
            head.headers.append(*name, value.parse().unwrap());
        }
        let surroundings = Surroundings {
            through_edge: self.through_edge,
            https_at: self.https_at,
            replay_max_bytes: 1_000_000,
            pseudonym: "me",
        };
        let mut facts = match Facts::read(&head, self.body, &surroundings) {
            Ok(facts) => facts,
            Err(fault) => return Decision::Answer(Answer::Malformed(fault)),
        };
        facts.replayed_by_us = self.replayed_by_us;
        facts.signed_in = self.signed_in;
        facts.without_file = self.without_file;
        match resolve(&registry, &facts) {
            Ok(found) => decide(
                &facts,
                &found,
                CellState {
                    in_flight: self.in_flight,
                    refused_for: self.refused_for,
                },
                &self.place,
            ),
            Err(answer) => Decision::Answer(answer),
        }
    }
}

fn head(target: &str) -> Parts {
    Request::builder()
        .uri(target)
        .body(())
        .unwrap()
        .into_parts()
        .0
}

const STRICT: Decision = Decision::Replay(ReplayKind::Strict {
    timeout: Some(Duration::from_millis(8000)),
});

const LEFT: Option<Duration> = Some(Duration::from_secs(3));

macro_rules! rows {
    ($($name:ident: $row:expr => $decision:expr;)*) => {
        $(#[test] fn $name() { assert_eq!($row.decision(), $decision); })*
    };
}

rows! {
    plain_http_is_redirected: Row::to("strict.example.com").plain() => Decision::Answer(Answer::UseHttps(443));
    plain_http_is_redirected_before_anything_is_said_of_the_cell: Row::to("disabled.example.com").plain() => Decision::Answer(Answer::UseHttps(443));
    plain_http_to_no_cell_is_not_found: Row::to("nobody.example.com").plain() => Decision::Answer(Answer::NoSuchCell);
    plain_http_to_the_routers_own_health_is_served: Row { target: "/up", ..Row::to("172.19.0.2:8080").plain() } => Decision::Answer(Answer::Up);
    challenge_is_the_cells_by_plain_http: Row::to("strict.example.com").plain().at("/.well-known/acme-challenge/a-B_9") => STRICT;
    challenge_without_a_token_is_none: Row::to("strict.example.com").plain().at("/.well-known/acme-challenge/") => Decision::Answer(Answer::UseHttps(443));
    challenge_that_leads_elsewhere_is_none: Row::to("strict.example.com").plain().at("/.well-known/acme-challenge/../x") => Decision::Answer(Answer::UseHttps(443));
    challenge_below_another_path_is_none: Row::to("strict.example.com").plain().at("/x/.well-known/acme-challenge/a") => Decision::Answer(Answer::UseHttps(443));

    disabled_cell_is_answered_before_anything_else: Row::to("disabled.example.com").body(2_000_000) => Decision::Answer(Answer::Disabled);
    maintenance_says_when_to_come_back: Row::to("mending.example.com") => Decision::Answer(Answer::Maintenance(Duration::from_secs(7)));
    paused_cell_holds: Row::to("paused.example.com") => Decision::Hold;
    paused_cell_holds_large_bodies_too: Row::to("paused.example.com").body(2_000_000) => Decision::Hold;

    a_strangers_request_signs_in_first: Row::to("members.example.com") => Decision::SignIn;
    a_strangers_upload_signs_in_first: Row::to("members.example.com").unknown_length() => Decision::SignIn;
    a_strangers_websocket_signs_in_first: Row::to("members.example.com").header("connection", "upgrade").header("upgrade", "websocket") => Decision::SignIn;
    a_strangers_rescue_signs_in_first: Row { replayed_by_us: true, ..Row::to("members.example.com").header("fly-replay-failed", "x") } => Decision::SignIn;
    a_member_streams_and_is_never_replayed: Row::to("members.example.com").signed_in() => Decision::Stream(StreamReason::SignsIn);
    a_public_path_streams_too: Row::to("members.example.com").at("/open/x?y=/../z") => Decision::Stream(StreamReason::SignsIn);
    a_public_path_is_as_the_cell_sees_it: Row { target: "/m/open/x", ..Row::to("example.com") } => Decision::Stream(StreamReason::SignsIn);
    a_path_that_only_the_client_sees_is_not_public: Row { target: "/m/m/open", ..Row::to("example.com") } => Decision::SignIn;
    a_stripped_prefix_alone_is_the_root: Row { target: "/m", ..Row::to("example.com") } => Decision::SignIn;
    a_public_path_beside_another_one_is_not_public: Row::to("members.example.com").at("/open").header("x-original-url", "/") => Decision::SignIn;
    a_public_path_with_a_doubt_is_not_public: Row::to("members.example.com").at("/open/%2e%2e/x") => Decision::SignIn;
    a_challenge_of_an_authority_needs_no_sign_in: Row::to("members.example.com").at("/.well-known/acme-challenge/a_b-C") => Decision::Stream(StreamReason::SignsIn);
    a_challenge_beside_another_path_does: Row::to("members.example.com").at("/.well-known/acme-challenge/a_b-C").header("x_original_url", "/admin") => Decision::SignIn;
    what_looks_like_a_challenge_does: Row::to("members.example.com").at("/.well-known/acme-challenge/x/../y") => Decision::SignIn;
    where_all_is_public_a_doubt_asks_nobody: Row::to("open.example.com").at("//caf%C3%A9/..;/").header("x-rewrite-url", "/y") => Decision::Stream(StreamReason::SignsIn);
    where_all_is_public_a_write_asks_nobody: Row { method: http::Method::PUT, ..Row::to("open.example.com").at("/%2e%2e") } => Decision::Stream(StreamReason::SignsIn);
    an_address_is_the_reason_before_signing_in: Row::to("outside.example.com").signed_in() => Decision::Stream(StreamReason::AddressCell);
    nobody_waits_for_a_paused_cell_who_has_not_signed_in: Row::to("resting.example.com") => Decision::SignIn;
    a_member_waits_for_a_paused_cell: Row::to("resting.example.com").signed_in() => Decision::Hold;
    maintenance_is_for_everybody: Row::to("closed.example.com") => Decision::Answer(Answer::Maintenance(Duration::from_secs(30)));
    https_comes_before_the_password: Row::to("members.example.com").plain() => Decision::Answer(Answer::UseHttps(443));
    sign_in_comes_before_full_and_broken: Row { refused_for: LEFT, in_flight: u32::MAX, ..Row::to("members.example.com") } => Decision::SignIn;

    a_file_is_looked_for: Row::to("pictures.example.com").at("/art/x.png") => Decision::Files;
    a_file_is_looked_for_where_its_head_is_asked_for: Row { method: http::Method::HEAD, ..Row::to("pictures.example.com").at("/art") } => Decision::Files;
    a_file_is_looked_for_without_a_place_or_a_breaker: Row { refused_for: LEFT, in_flight: u32::MAX, ..Row::to("pictures.example.com").at("/art/") } => Decision::Files;
    what_is_no_file_is_nothing: Row { without_file: true, ..Row::to("pictures.example.com").at("/art/x") } => Decision::Answer(Answer::NoSuchFile);
    files_are_not_written: Row { method: http::Method::PUT, ..Row::to("pictures.example.com").at("/art/x") } => Decision::Answer(Answer::FilesOnly);
    beside_its_files_the_cell_is_asked: Row::to("pictures.example.com").at("/artful") => Decision::Replay(ReplayKind::Cached { ttl: Duration::from_secs(60) });
    a_file_of_a_paused_cell_is_looked_for: Row::to("mixed.example.com") => Decision::Files;
    what_is_no_file_may_be_the_cells: Row { without_file: true, ..Row::to("mixed.example.com") } => Decision::Hold;
    what_is_written_may_be_the_cells: Row { method: http::Method::POST, ..Row::to("mixed.example.com") } => Decision::Hold;
    files_are_for_those_who_sign_in: Row::to("secret.example.com").at("/x") => Decision::SignIn;
    files_are_for_those_who_have: Row::to("secret.example.com").at("/x").signed_in() => Decision::Files;

    elsewhere_everything_streams: Row { place: Place::Elsewhere, through_edge: false, ..Row::to("strict.example.com") } => Decision::Stream(StreamReason::NotOnFly);
    past_the_edge_everything_streams: Row { through_edge: false, ..Row::to("strict.example.com") } => Decision::Stream(StreamReason::NotThroughEdge);
    never_means_never: Row::to("never.example.com") => Decision::Stream(StreamReason::ReplayNever);
    address_cell_streams: Row::to("address.example.com") => Decision::Stream(StreamReason::AddressCell);
    failed_replay_is_rescued: Row::to("strict.example.com").header("fly-replay-failed", "reason=timeout") => Decision::Stream(StreamReason::ReplayFailed);
    failed_replay_of_a_cached_cell_is_rescued: Row::to("cached.example.com").header("fly-replay-failed", "x") => Decision::Stream(StreamReason::ReplayFailed);
    replayed_request_is_not_replayed_again: Row { replayed_by_us: true, ..Row::to("strict.example.com") } => Decision::Stream(StreamReason::AlreadyReplayed);
    unproven_replay_source_counts_for_nothing: Row::to("strict.example.com").header("fly-replay-src", "instance=1;state=forged") => STRICT;
    stripped_prefix_streams: Row { target: "/s/x", ..Row::to("example.com") } => Decision::Stream(StreamReason::StripsPrefix);
    kept_prefix_replays: Row { target: "/strict/x", ..Row::to("apps.example.com") } => STRICT;

    no_body_replays: Row::to("strict.example.com") => STRICT;
    empty_body_replays: Row::to("strict.example.com").body(0) => STRICT;
    exactly_the_limit_replays: Row::to("strict.example.com").body(1_000_000) => STRICT;
    one_byte_more_streams: Row::to("strict.example.com").body(1_000_001) => Decision::Stream(StreamReason::LargeBody);
    unknown_length_streams_whatever_the_method: Row::to("strict.example.com").unknown_length() => Decision::Stream(StreamReason::UnknownLength);
    upgrade_replays: Row::to("strict.example.com").header("connection", "upgrade").header("upgrade", "websocket") => STRICT;
    cached_cell_replays_cached: Row::to("cached.example.com") => Decision::Replay(ReplayKind::Cached { ttl: Duration::from_secs(30) });
    cached_cell_streams_large_bodies: Row::to("cached.example.com").body(1_000_001) => Decision::Stream(StreamReason::LargeBody);

    a_crawler_is_not_replayed_where_it_must_not_wake: Row::to("shy.example.com").header("user-agent", "Googlebot/2.1") => Decision::Stream(StreamReason::NotToWake);
    a_prefetch_is_not_replayed_where_it_must_not_wake: Row::to("shy.example.com").header("sec-purpose", "prefetch;prerender") => Decision::Stream(StreamReason::NotToWake);
    a_visitor_is_replayed_there: Row::to("shy.example.com").header("user-agent", "Mozilla/5.0") => Decision::Replay(ReplayKind::Strict { timeout: None });
    a_crawler_is_replayed_where_all_may_wake: Row::to("strict.example.com").header("user-agent", "Googlebot/2.1") => STRICT;

    body_of_the_cells_limit_passes: Row::to("small.example.com").body(10) => Decision::Replay(ReplayKind::Strict { timeout: None });
    body_over_the_cells_limit_is_refused: Row::to("small.example.com").body(11) => Decision::Answer(Answer::TooLarge);
    body_of_unknown_length_is_measured_on_its_way: Row::to("small.example.com").unknown_length() => Decision::Stream(StreamReason::UnknownLength);
    full_cell_is_not_streamed_to: Row { in_flight: 2, ..Row::to("busy.example.com") } => Decision::Answer(Answer::Full(Duration::from_secs(30)));
    last_free_place_is_taken: Row { in_flight: 1, ..Row::to("busy.example.com") } => Decision::Stream(StreamReason::ReplayNever);
    replay_takes_no_place: Row { in_flight: u32::MAX, ..Row::to("strict.example.com") } => STRICT;

    open_breaker_answers_what_would_stream: Row { refused_for: LEFT, ..Row::to("never.example.com") } => Decision::Answer(Answer::BreakerOpen(Duration::from_secs(3)));
    open_breaker_answers_the_rescue_too: Row { refused_for: LEFT, ..Row::to("strict.example.com").header("fly-replay-failed", "x") } => Decision::Answer(Answer::BreakerOpen(Duration::from_secs(3)));
    while_another_tries_the_others_are_answered: Row { refused_for: Some(Duration::ZERO), ..Row::to("address.example.com") } => Decision::Answer(Answer::BreakerOpen(Duration::ZERO));
    open_breaker_leaves_replays_alone: Row { refused_for: LEFT, ..Row::to("strict.example.com") } => STRICT;
    open_breaker_queues_nobody: Row { refused_for: LEFT, in_flight: 2, ..Row::to("busy.example.com") } => Decision::Answer(Answer::BreakerOpen(Duration::from_secs(3)));
    paused_cell_holds_whatever_its_breaker_says: Row { refused_for: LEFT, ..Row::to("paused.example.com") } => Decision::Hold;

    unknown_cell_is_nowhere: Row::to("nobody.example.com") => Decision::Answer(Answer::NoSuchCell);
    unknown_path_is_nowhere: Row { target: "/stricter", ..Row::to("example.com") } => Decision::Answer(Answer::NoSuchCell);
    health_of_the_router_is_its_own: Row { target: "/up", ..Row::to("172.19.0.2:8080") } => Decision::Answer(Answer::Up);
    health_of_a_cell_is_the_cells: Row { target: "/up", ..Row::to("strict.example.com") } => STRICT;
    reserved_path_is_the_routers: Row { target: "/-/x", ..Row::to("example.com") } => Decision::Answer(Answer::Reserved);
    path_that_reads_in_two_ways_is_refused: Row { target: "/strict/%2e%2e/never", ..Row::to("example.com") } => Decision::Answer(Answer::AmbiguousPath);
    such_a_path_is_the_cells_own_below_its_host: Row { target: "/a/%2e%2e/b", ..Row::to("strict.example.com") } => STRICT;

    two_hosts_are_refused: Row::to("strict.example.com").header("host", "never.example.com") => Decision::Answer(Answer::Malformed(Malformed::Host));
    same_host_twice_is_refused: Row::to("strict.example.com").header("host", "strict.example.com") => Decision::Answer(Answer::Malformed(Malformed::Host));
    userinfo_is_no_host: Row::to("me@strict.example.com") => Decision::Answer(Answer::Malformed(Malformed::Host));
    port_that_is_none_is_refused: Row::to("strict.example.com:99999") => Decision::Answer(Answer::Malformed(Malformed::Host));
    absolute_form_must_agree_with_host: Row { target: "http://never.example.com/", ..Row::to("strict.example.com") } => Decision::Answer(Answer::Malformed(Malformed::AuthorityMismatch));
    absolute_form_that_agrees_is_served: Row { target: "http://strict.example.com/", ..Row::to("Strict.example.com") } => STRICT;
    asterisk_is_for_nobody: Row { target: "*", ..Row::to("strict.example.com") } => Decision::Answer(Answer::Malformed(Malformed::Target));
    what_passed_here_before_is_a_loop: Row::to("strict.example.com").header("via", "1.1 other, 1.1 me") => Decision::Answer(Answer::Loop);
    another_router_is_no_loop: Row::to("strict.example.com").header("via", "1.1 me-too, 2 fly.io") => STRICT;
}

#[test]
fn the_targets_authority_does_not_stand_in_for_host() {
    let surroundings = Surroundings {
        through_edge: true,
        https_at: None,
        replay_max_bytes: 0,
        pseudonym: "me",
    };
    let mut head = head("http://strict.example.com/");
    for (version, served) in [
        (Version::HTTP_10, true),
        (Version::HTTP_11, false),
        (Version::HTTP_2, true),
    ] {
        head.version = version;
        let facts = Facts::read(&head, BodyLength::None, &surroundings);
        assert_eq!(facts.is_ok(), served, "{version:?}");
    }
}

#[test]
fn a_hop_beside_odd_bytes_is_seen() {
    let surroundings = Surroundings {
        through_edge: true,
        https_at: None,
        replay_max_bytes: 0,
        pseudonym: "me",
    };
    let mut head = head("/");
    let via = http::HeaderValue::from_bytes(b"1.1 \xff, 1.1\tme").unwrap();
    head.headers.insert("via", via);
    head.headers.insert("host", "a".parse().unwrap());
    let facts = Facts::read(&head, BodyLength::None, &surroundings).unwrap();
    assert!(facts.looped);
}

#[test]
fn connect_and_trace_are_not_served() {
    for method in ["CONNECT", "TRACE"] {
        let mut head = head("/");
        head.method = method.parse().unwrap();
        head.headers
            .insert("host", "strict.example.com".parse().unwrap());
        let surroundings = Surroundings {
            through_edge: true,
            https_at: None,
            replay_max_bytes: 1,
            pseudonym: "me",
        };
        assert_eq!(
            Facts::read(&head, BodyLength::None, &surroundings).unwrap_err(),
            Malformed::Method
        );
    }
}

#[test]
fn only_http_10_may_do_without_a_host() {
    let surroundings = Surroundings {
        through_edge: true,
        https_at: None,
        replay_max_bytes: 1,
        pseudonym: "me",
    };
    let mut head = head("/");
    assert_eq!(
        Facts::read(&head, BodyLength::None, &surroundings).unwrap_err(),
        Malformed::Host
    );
    head.version = Version::HTTP_10;
    assert_eq!(
        Facts::read(&head, BodyLength::None, &surroundings)
            .unwrap()
            .authority,
        ""
    );
}

#[test]
fn the_same_address_by_https_has_its_host_and_another_port() {
    for (host, port, https) in [
        (
            "Alice.example.com",
            443,
            Some("https://Alice.example.com/a?b=c"),
        ),
        (
            "alice.example.com:8080",
            443,
            Some("https://alice.example.com/a?b=c"),
        ),
        (
            "alice.example.com:80",
            8443,
            Some("https://alice.example.com:8443/a?b=c"),
        ),
        ("[2001:db8::1]", 443, Some("https://[2001:db8::1]/a?b=c")),
        (
            "[2001:db8::1]:80",
            8443,
            Some("https://[2001:db8::1]:8443/a?b=c"),
        ),
        ("", 443, None),
    ] {
        let surroundings = Surroundings {
            through_edge: true,
            https_at: Some(port),
            replay_max_bytes: 1,
            pseudonym: "me",
        };
        let mut head = head("/a?b=c");
        head.version = Version::HTTP_10;
        if !host.is_empty() {
            head.headers.insert("host", host.parse().unwrap());
        }
        let facts = Facts::read(&head, BodyLength::None, &surroundings).unwrap();
        assert_eq!(facts.https(port).as_deref(), https, "{host}");
    }
}

#[test]
fn a_prefix_is_exclusive_unless_files_or_another_cell_lie_below_it() {
    let registry = Registry::parse(REGISTRY.as_bytes()).unwrap();
    let surroundings = Surroundings {
        through_edge: true,
        https_at: None,
        replay_max_bytes: 1,
        pseudonym: "me",
    };
    for (host, target, prefix) in [
        ("cached.example.com", "/x", Some("")),
        ("apps.example.com", "/strict/x", Some("/strict")),
        ("apps.example.com", "/team-b/x", Some("/team-b")),
        ("apps.example.com", "/team/x", None),
        ("apps.example.com", "/team/c", None),
        ("apps.example.com", "/team/c/d", Some("/team/c/d")),
        ("pictures.example.com", "/x", None),
        ("pictures.example.com", "/art/x", None),
        ("shy.example.com", "/x", None),
        ("bounded.example.com", "/x", None),
    ] {
        let mut head = head(target);
        head.headers.insert("host", host.parse().unwrap());
        let facts = Facts::read(&head, BodyLength::None, &surroundings).unwrap();
        let found = resolve(&registry, &facts).unwrap();
        assert_eq!(
            found.exclusive_prefix(&registry, false).as_deref(),
            prefix,
            "{host}"
        );
        assert_eq!(found.exclusive_prefix(&registry, true), None, "{host}");
    }
}

#[test]
fn an_options_request_that_may_go_no_further_ends_here() {
    let last = |host| {
        Row::to(host)
            .method(http::Method::OPTIONS)
            .header("max-forwards", "0")
    };
    let ends = Decision::Answer(Answer::LastHop);
    for host in [
        "strict.example.com",
        "disabled.example.com",
        "members.example.com",
    ] {
        assert_eq!(last(host).decision(), ends, "{host}");
    }
    for other in [
        last("strict.example.com").method(http::Method::GET),
        last("strict.example.com").header("max-forwards", "0"),
        last("nobody.example.com"),
        last("strict.example.com").plain(),
    ] {
        assert_ne!(other.decision(), ends);
    }
}
