//! Each thing that is refused, alone in a file: its path and what is said of it.

use super::problems;

/// The one problem of `text` as `path: what; fix`.
fn only(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let problem = &problems[0];
    format!("{}: {}; {}", problem.path, problem.what, problem.fix)
}

fn root(members: &str) -> String {
    format!(r#"{{"version": 1, "domain": "example.com", {members}}}"#)
}

fn cells(cells: &str) -> String {
    root(&format!(
        r#""path_hosts": ["apps.example.org"], "defaults": {{"app": "cells"}}, "cells": {{{cells}}}"#
    ))
}

fn with_machine_paths(cells: &str) -> String {
    root(&format!(
        r#""machine_paths": true, "defaults": {{"app": "cells"}}, "cells": {{{cells}}}"#
    ))
}

macro_rules! refused {
    ($($name:ident: $text:expr => $path:expr, $said:expr;)+) => {$(
        #[test]
        fn $name() {
            let said = only($text.as_ref());
            assert!(said.starts_with(concat!($path, ": ")), "{said}");
            assert!(said.contains($said), "{said}");
        }
    )+};
}

refused! {
    empty_text: "" => "$", "the file is empty";
    blank_text: " \n" => "$", "the file is empty";
    list_at_the_root: "[]" => "$", "a list stands where an object belongs";
    no_version: r#"{"cells": {}}"# => "$", "\"version\" is missing";
    no_cells: r#"{"version": 1}"# => "$", "\"cells\" is missing";
    version_2: r#"{"version": 2, "cells": {}}"# => "$.version", "2 is no version";
    version_as_text: r#"{"version": "1", "cells": {}}"# => "$.version", "a text stands where a whole number belongs; write 1";
    version_with_a_fraction: r#"{"version": 1.0, "cells": {}}"# => "$.version", "1.0 is no version";
    cells_as_a_list: r#"{"version": 1, "cells": []}"# => "$.cells", "a list stands where an object belongs";
    cell_as_a_text: cells(r#""a": "h:1""#) => "$.cells.a", "a text stands where an object belongs";
    null: root(r#""cells": {}, "default_cell": null"#) => "$.default_cell", "null stands where a text belongs";
    byte_order_mark: "\u{feff}{\"version\": 1, \"cells\": {}}" => "$", "byte order mark";

    challenge_without_a_secret: cells(r#""a": {"address": "h:1", "identity": "challenge"}"#) => "$.cells.a.identity", "it has no secret to answer with; give it a \"secret\"";
    challenge_for_all_and_one_without_a_secret: root(r#""defaults": {"identity": "challenge"}, "cells": {"a": {"address": "h:1"}}"#) => "$.cells.a.identity", "it has no secret";
    pages_at_an_empty_path: cells(r#""a": {"address": "h:1", "pages": ""}"#) => "$.cells.a.pages", "this is no path";
    static_without_a_folder: cells(r#""a": {"address": "h:1", "static": {"path": "/x"}}"#) => "$.cells.a.static", "not said where the files are";
    static_at_a_path_in_disguise: cells(r#""a": {"address": "h:1", "static": {"folder": "f", "path": "/x/"}}"#) => "$.cells.a.static.path", "is no plain path";
    static_with_a_bad_word: cells(r#""a": {"address": "h:1", "static": {"folder": "f", "missing": "cells"}}"#) => "$.cells.a.static.missing", "did you mean \"cell\"";
    sign_in_by_nobody: cells(r#""a": {"address": "h:1", "sign_in": {}}"#) => "$.cells.a.sign_in", "not said who knows the clients";
    sign_in_by_two: cells(r#""a": {"address": "h:1", "sign_in": {"basic": "f", "forward": "http://a/"}}"#) => "$.cells.a.sign_in.forward", "both basic and forward";
    sign_in_by_another_scheme: cells(r#""a": {"address": "h:1", "sign_in": {"forward": "ftp://a/"}}"#) => "$.cells.a.sign_in.forward", "no URL that can be asked";
    sign_in_with_a_strays_key: cells(r#""a": {"address": "h:1", "sign_in": {"basic": "f", "timeout_ms": 50}}"#) => "$.cells.a.sign_in.timeout_ms", "only beside \"forward\"";
    sign_in_with_a_stray_realm: cells(r#""a": {"address": "h:1", "sign_in": {"forward": "http://a/", "realm": "x"}}"#) => "$.cells.a.sign_in.realm", "only beside \"basic\"";
    sign_in_with_a_bad_realm: cells(r#""a": {"address": "h:1", "sign_in": {"basic": "f", "realm": "a\"b"}}"#) => "$.cells.a.sign_in.realm", "no name of a realm";
    sign_in_with_a_public_path_in_disguise: cells(r#""a": {"address": "h:1", "sign_in": {"basic": "f", "public": ["/a", "/%61"]}}"#) => "$.cells.a.sign_in.public[1]", "is no plain path";
    sign_in_that_copies_a_signature: cells(r#""a": {"address": "h:1", "sign_in": {"forward": "http://a/", "copy_headers": ["cell-signature"]}}"#) => "$.cells.a.sign_in.copy_headers[0]", "is no field that a cell may get";
    sign_in_as_a_flag: cells(r#""a": {"address": "h:1", "sign_in": false}"#) => "$.cells.a.sign_in", "stands where an object belongs";

    tls_without_a_trust: cells(r#""a": {"address": "h:1", "tls": {}}"#) => "$.cells.a.tls", "not said which certificate is the cell's";
    tls_with_both: cells(&format!(r#""a": {{"address": "h:1", "tls": {{"ca": "x", "pin": "sha256:{}"}}}}"#, "0".repeat(64))) => "$.cells.a.tls.pin", "both ca and pin";
    tls_with_a_short_pin: cells(r#""a": {"address": "h:1", "tls": {"pin": "sha256:00"}}"#) => "$.cells.a.tls.pin", "this is no pin; write sha256:";
    tls_with_a_pin_of_another_kind: cells(&format!(r#""a": {{"address": "h:1", "tls": {{"pin": "sha512:{}"}}}}"#, "0".repeat(64))) => "$.cells.a.tls.pin", "this is no pin";
    tls_with_an_empty_ca: cells(r#""a": {"address": "h:1", "tls": {"ca": ""}}"#) => "$.cells.a.tls.ca", "no path of a file";
    tls_with_a_bad_name: cells(r#""a": {"address": "h:1", "tls": {"ca": "x", "name": "a b"}}"#) => "$.cells.a.tls.name", "";
    tls_with_a_secret_key: cells(r#""a": {"address": "h:1", "tls": {"ca": "x", "env": "X"}}"#) => "$.cells.a.tls.env", "env belongs into secret";
    beats_without_a_secret: cells(r#""a": {"address": "h:1", "beat_every_s": 10}"#) => "$.cells.a.beat_every_s", "it has no secret to sign them with; give it a \"secret\"";
    beats_of_all_and_one_without_a_secret: root(r#""defaults": {"beat_every_s": 10}, "cells": {"a": {"address": "h:1"}}"#) => "$.cells.a.beat_every_s", "it has no secret";
    beats_less_than_hourly: cells(r#""a": {"address": "h:1", "secret": {"env": "A"}, "beat_every_s": 3601}"#) => "$.cells.a.beat_every_s", "3601";
    unknown_identity: cells(r#""a": {"address": "h:1", "identity": "chalenge"}"#) => "$.cells.a.identity", "did you mean \"challenge\"?";

    unknown_key: root(r#""cells": {}, "colour": 1"#) => "$.colour", "the keys here are $schema, version, domain";
    mistyped_key: root(r#""cels": {}, "cells": {}"#) => "$.cels", "did you mean \"cells\"?";
    key_in_camel_case: cells(r#""a": {"address": "h:1", "maxInFlight": 1}"#) => "$.cells.a.maxInFlight", "did you mean \"max_in_flight\"?";
    key_of_a_cell_at_the_root: root(r#""cells": {}, "port": 1"#) => "$.port", "port belongs to defaults or to a cell";
    key_of_a_cell_in_defaults: root(r#""cells": {}, "defaults": {"machine": "3d8d9e67c2e123"}"#) => "$.defaults.machine", "machine belongs to a cell";
    key_of_the_root_in_a_cell: cells(r#""a": {"address": "h:1", "domain": "x"}"#) => "$.cells.a.domain", "outermost object";
    unknown_key_that_is_no_word: root(r#""cells": {}, "a\nb": 1"#) => r#"$["a\nb"]"#, "not known here";
    key_twice: root(r#""cells": {}, "version": 1"#) => "$.version", "a second time";
    key_twice_in_two_spellings: root(r#""cells": {}, "\u0076ersion": 1"#) => "$.version", "a second time";
    cell_twice: cells(r#""a": {"address": "h:1", "hosts": ["x.org"]}, "a": {"address": "h:1", "hosts": ["x.org"]}"#) => "$.cells.a", "a second time";

    domain_in_upper_case: r#"{"version": 1, "domain": "Example.com", "cells": {}}"# => "$.domain", "write it in lower case: \"example.com\"";
    domain_with_a_port: r#"{"version": 1, "domain": "example.com:80", "cells": {}}"# => "$.domain", "write \"example.com\"";
    domain_with_a_dot: r#"{"version": 1, "domain": "example.com.", "cells": {}}"# => "$.domain", "write \"example.com\"";
    domain_as_an_address: r#"{"version": 1, "domain": "127.0.0.1", "cells": {}}"# => "$.domain", "is an address";
    domain_with_line_breaks: r#"{"version": 1, "domain": "a\r\nb", "cells": {}}"# => "$.domain", "\"a\\r\\nb\" is no host name";
    path_host_is_the_domain: root(r#""path_hosts": ["example.com"], "cells": {}"#) => "$.path_hosts[0]", "this is the domain";
    path_host_twice: root(r#""path_hosts": ["a.b", "a.b"], "cells": {}"#) => "$.path_hosts[1]", "twice";
    path_host_with_a_star: root(r#""path_hosts": ["*.b"], "cells": {}"#) => "$.path_hosts[0]", "no host name";
    path_host_that_is_a_number: root(r#""path_hosts": [5], "cells": {}"#) => "$.path_hosts[0]", "a number stands where a text belongs";
    path_host_of_a_cell: root(r#""path_hosts": ["a.example.com"], "cells": {"a": {"address": "h:1"}}"#) => "$.path_hosts[0]", "this is where the cell \"a\" answers";
    flag_as_text: root(r#""machine_paths": "true", "cells": {}"#) => "$.machine_paths", "write true or false, without quotes";
    unknown_default_cell: root(r#""default_cell": "x", "cells": {}"#) => "$.default_cell", "there is no cell \"x\"";

    cell_name_in_upper_case: cells(r#""Alice": {"address": "h:1"}"#) => "$.cells.Alice", "write it in lower case: \"alice\"";
    cell_name_with_a_dot: cells(r#""a.b": {"address": "h:1"}"#) => r#"$.cells["a.b"]"#, "cannot stand before a domain";
    cell_name_with_a_leading_hyphen: cells(r#""-a": {"address": "h:1"}"#) => "$.cells.-a", "no hyphen at either end";
    cell_name_with_a_trailing_hyphen: cells(r#""a-": {"address": "h:1"}"#) => "$.cells.a-", "no hyphen at either end";
    cell_name_with_an_underscore: cells(r#""a_b": {"address": "h:1"}"#) => "$.cells.a_b", "cannot stand before a domain";
    cell_name_outside_ascii: cells(r#""é": {"address": "h:1"}"#) => r#"$.cells["é"]"#, "cannot stand before a domain";
    cell_name_with_line_breaks: cells(r#""a\r\nb": {"address": "h:1"}"#) => r#"$.cells["a\r\nb"]"#, "cannot stand before a domain";
    empty_cell_name: cells(r#""": {"address": "h:1"}"#) => r#"$.cells[""]"#, "is empty";
    cell_name_of_64: cells(&format!(r#""{}": {{"address": "h:1"}}"#, "a".repeat(64))) => "$.cells.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "64 bytes long";

    nowhere_to_live: cells(r#""a": {}"#) => "$.cells.a", "no machine and no address";
    two_places_to_live: cells(r#""a": {"machine": "3d8d9e67c2e123", "address": "h:1"}"#) => "$.cells.a.address", "both a machine and an address";
    machine_of_five: cells(r#""a": {"machine": "12345"}"#) => "$.cells.a.machine", "no machine id";
    machine_of_33: cells(r#""a": {"machine": "012345678901234567890123456789012"}"#) => "$.cells.a.machine", "no machine id";
    machine_in_upper_case: cells(r#""a": {"machine": "3D8D9E67C2E123"}"#) => "$.cells.a.machine", "no machine id";
    machine_with_a_semicolon: cells(r#""a": {"machine": "3d8d9e;app=x"}"#) => "$.cells.a.machine", "no machine id";
    machine_as_a_number: cells(r#""a": {"machine": 148}"#) => "$.cells.a.machine", "a number stands where a text belongs";
    no_app: root(r#""cells": {"a": {"machine": "3d8d9e67c2e123"}}"#) => "$.cells.a.machine", "no app is named";
    app_in_upper_case: cells(r#""a": {"machine": "3d8d9e67c2e123", "app": "App"}"#) => "$.cells.a.app", "no Fly app name";
    empty_app: cells(r#""a": {"machine": "3d8d9e67c2e123", "app": ""}"#) => "$.cells.a.app", "no Fly app name";
    default_app_with_a_line_break: root(r#""defaults": {"app": "a\nb"}, "cells": {}"#) => "$.defaults.app", "no Fly app name";
    port_0: cells(r#""a": {"machine": "3d8d9e67c2e123", "port": 0}"#) => "$.cells.a.port", "0 is no port; write a number from 1 to 65535";
    port_65536: cells(r#""a": {"machine": "3d8d9e67c2e123", "port": 65536}"#) => "$.cells.a.port", "65536 is no port";
    negative_port: cells(r#""a": {"machine": "3d8d9e67c2e123", "port": -1}"#) => "$.cells.a.port", "-1 is no port";
    port_with_an_exponent: cells(r#""a": {"machine": "3d8d9e67c2e123", "port": 8e3}"#) => "$.cells.a.port", "8e3 is no port";
    app_beside_an_address: cells(r#""a": {"address": "h:1", "app": "x"}"#) => "$.cells.a.app", "this goes with a machine";
    port_beside_an_address: cells(r#""a": {"address": "h:1", "port": 1}"#) => "$.cells.a.port", "this goes with a machine";
    address_without_a_port: cells(r#""a": {"address": "localhost"}"#) => "$.cells.a.address", "write \"localhost:8080\"";
    address_with_port_0: cells(r#""a": {"address": "h:0"}"#) => "$.cells.a.address", "ends in no port";
    address_with_port_65536: cells(r#""a": {"address": "h:65536"}"#) => "$.cells.a.address", "ends in no port";
    address_with_a_signed_port: cells(r#""a": {"address": "h:+80"}"#) => "$.cells.a.address", "ends in no port";
    address_without_a_host: cells(r#""a": {"address": ":80"}"#) => "$.cells.a.address", "the host is empty";
    address_without_brackets: cells(r#""a": {"address": "::1:80"}"#) => "$.cells.a.address", "without brackets";
    address_with_bad_brackets: cells(r#""a": {"address": "[x]:80"}"#) => "$.cells.a.address", "no IPv6 address";
    address_as_a_url: cells(r#""a": {"address": "http://h:80"}"#) => "$.cells.a.address", "leave out the scheme";

    unknown_state: cells(r#""a": {"address": "h:1", "state": "activ"}"#) => "$.cells.a.state", "did you mean \"active\"? write one of active, maintenance, disabled, paused";
    unknown_replay: cells(r#""a": {"address": "h:1", "replay": "sometimes"}"#) => "$.cells.a.replay", "write one of strict, cached, never";
    strict_address: cells(r#""a": {"address": "h:1", "replay": "strict"}"#) => "$.cells.a.replay", "only a Fly Machine can be replayed to";
    cached_address: cells(r#""a": {"address": "h:1", "replay": "cached"}"#) => "$.cells.a.replay", "only a Fly Machine can be replayed to";
    ttl_without_cached: cells(r#""a": {"machine": "3d8d9e67c2e123", "replay_ttl_s": 60}"#) => "$.cells.a.replay_ttl_s", "whose replay is cached";
    ttl_of_an_address: cells(r#""a": {"address": "h:1", "replay_ttl_s": 60}"#) => "$.cells.a.replay_ttl_s", "a cell with an address is never replayed";
    timeout_without_strict: cells(r#""a": {"machine": "3d8d9e67c2e123", "replay": "cached", "replay_timeout_ms": 800}"#) => "$.cells.a.replay_timeout_ms", "whose replay is strict";
    ttl_of_9: cells(r#""a": {"machine": "3d8d9e67c2e123", "replay": "cached", "replay_ttl_s": 9}"#) => "$.cells.a.replay_ttl_s", "write a number from 10 to 86400 (seconds)";
    ttl_of_86401: root(r#""defaults": {"replay": "cached", "replay_ttl_s": 86401}, "cells": {}"#) => "$.defaults.replay_ttl_s", "write a number from 10 to 86400 (seconds)";
    nothing_in_flight: cells(r#""a": {"address": "h:1", "max_in_flight": 0}"#) => "$.cells.a.max_in_flight", "from 1 to 1000000 (requests)";
    connect_timeout_of_9: cells(r#""a": {"address": "h:1", "connect_timeout_ms": 9}"#) => "$.cells.a.connect_timeout_ms", "from 10 to 120000 (milliseconds)";
    ready_path_without_a_slash: cells(r#""a": {"address": "h:1", "ready_path": "up"}"#) => "$.cells.a.ready_path", "is no path";
    ready_path_with_a_line_break: cells(r#""a": {"address": "h:1", "ready_path": "/up\r\nx: y"}"#) => "$.cells.a.ready_path", "is no path";

    secret_itself: cells(r#""a": {"address": "h:1", "secret": "hunter2"}"#) => "$.cells.a.secret", "a secret itself must never stand in this file";
    secret_without_a_source: cells(r#""a": {"address": "h:1", "secret": {}}"#) => "$.cells.a.secret", "it is not said where";
    secret_with_two_sources: cells(r#""a": {"address": "h:1", "secret": {"env": "A", "file": "b"}}"#) => "$.cells.a.secret.file", "both env and file";
    secret_in_env: cells(r#""a": {"address": "h:1", "secret": {"env": "hunter2+/=="}}"#) => "$.cells.a.secret.env", "no name of an environment variable";
    empty_env: cells(r#""a": {"address": "h:1", "secret": {"env": ""}}"#) => "$.cells.a.secret.env", "no name of an environment variable";
    env_with_an_unknown_place: cells(r#""a": {"address": "h:1", "secret": {"env": "S_{name}"}}"#) => "$.cells.a.secret.env", "no name of an environment variable";
    file_with_a_nul: cells(r#""a": {"address": "h:1", "secret": {"file": "a\u0000"}}"#) => "$.cells.a.secret.file", "no path of a file";

    host_twice_in_a_list: cells(r#""a": {"address": "h:1", "hosts": ["a.b", "a.b"]}"#) => "$.cells.a.hosts[1]", "\"a.b\" is in this list twice";
    host_of_another_cell: cells(r#""a": {"address": "h:1", "hosts": ["a.b"]}, "c": {"address": "h:2", "hosts": ["x.y", "a.b"]}"#) => "$.cells.c.hosts[1]", "belongs to cell \"a\" already";
    wildcard_of_another_cell: cells(r#""a": {"address": "h:1", "hosts": ["*.a.b"]}, "c": {"address": "h:2", "hosts": ["*.a.b"]}"#) => "$.cells.c.hosts[0]", "\"*.a.b\" belongs to cell \"a\" already";
    subdomain_of_another_cell: cells(r#""a": {"address": "h:1", "hosts": ["c.example.com"]}, "c": {"address": "h:2"}"#) => "$.cells.a.hosts[0]", "is for a cell named c";
    subdomain_of_a_cell_to_come: cells(r#""a": {"address": "h:1", "hosts": ["c.example.com"]}"#) => "$.cells.a.hosts[0]", "is for a cell named c";
    host_below_another_subdomain: cells(r#""a": {"address": "h:1", "hosts": ["x.c.example.com"]}"#) => "$.cells.a.hosts[0]", "is for a cell named c";
    wildcard_below_another_subdomain: cells(r#""a": {"address": "h:1", "hosts": ["*.c.example.com"]}"#) => "$.cells.a.hosts[0]", "is for a cell named c";
    wildcard_of_the_domain: cells(r#""a": {"address": "h:1", "hosts": ["*.example.com"]}"#) => "$.cells.a.hosts[0]", "would take the host of every cell";
    host_is_the_domain: cells(r#""a": {"address": "h:1", "hosts": ["example.com"]}"#) => "$.cells.a.hosts[0]", "is the domain";
    host_is_a_path_host: cells(r#""a": {"address": "h:1", "hosts": ["apps.example.org"]}"#) => "$.cells.a.hosts[0]", "is one of path_hosts";
    host_with_a_line_break: cells(r#""a": {"address": "h:1", "hosts": ["a.b\r\nx: y"]}"#) => "$.cells.a.hosts[0]", "is no host name";
    hosts_as_a_text: cells(r#""a": {"address": "h:1", "hosts": "a.b"}"#) => "$.cells.a.hosts", "a text stands where a list belongs";

    prefix_of_another_cell: cells(r#""a": {"address": "h:1", "paths": ["/a"]}, "b": {"address": "h:2", "paths": [{"prefix": "/a"}]}"#) => "$.cells.b.paths[0]", "\"/a\" belongs to cell \"a\" already";
    prefix_twice_in_a_list: cells(r#""a": {"address": "h:1", "paths": ["/a", {"prefix": "/a", "strip": true}]}"#) => "$.cells.a.paths[1]", "is in this list twice";
    prefix_missing: cells(r#""a": {"address": "h:1", "paths": [{"strip": true}]}"#) => "$.cells.a.paths[0]", "there is no prefix here";
    prefix_as_a_number: cells(r#""a": {"address": "h:1", "paths": [{"prefix": 1}]}"#) => "$.cells.a.paths[0].prefix", "a number stands where a text belongs";
    prefix_that_is_reserved: cells(r#""a": {"address": "h:1", "paths": [{"prefix": "/up/x"}]}"#) => "$.cells.a.paths[0].prefix", "belong to the router";
    prefix_with_unknown_key: cells(r#""a": {"address": "h:1", "paths": [{"prefix": "/x", "stripe": true}]}"#) => "$.cells.a.paths[0].stripe", "did you mean \"strip\"?";
    prefix_with_dots: cells(r#""a": {"address": "h:1", "paths": ["/x/.."]}"#) => "$.cells.a.paths[0]", "dot segment";

    machine_of_two_cells_as_a_path: with_machine_paths(r#""a": {"machine": "3d8d9e67c2e123"}, "b": {"machine": "3d8d9e67c2e123", "port": 1}"#) => "$.cells.b.machine", "is cell \"a\"'s, too";
    prefix_like_a_machine: with_machine_paths(r#""a": {"address": "h:1", "paths": ["/3d8d9e67c2e123"]}"#) => "$.cells.a.paths[0]", "is the path of a machine";
    prefix_that_is_a_machine: with_machine_paths(r#""a": {"address": "h:1", "paths": ["/gadgets/x"]}, "b": {"machine": "gadgets"}"#) => "$.cells.a.paths[0]", "is the path of a machine";
}

#[test]
fn a_secret_is_never_repeated() {
    for secret in [
        r#""hunter2""#,
        r#"["hunter2"]"#,
        r#"{"env": "hunter2!"}"#,
        r#"{"env": ["hunter2"]}"#,
        r#"{"file": "hunter2\u0000"}"#,
        r#"{"value": "hunter2"}"#,
    ] {
        let text = cells(&format!(r#""a": {{"address": "h:1", "secret": {secret}}}"#));
        let said = format!("{:?}", problems(&text));
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn what_only_looks_like_a_conflict_is_good() {
    for text in [
        cells(
            r#""a": {"machine": "3d8d9e67c2e123"}, "b": {"machine": "3d8d9e67c2e123", "port": 1}"#,
        ),
        cells(
            r#""a": {"address": "h:1", "hosts": ["a.example.com", "x.a.example.com", "*.a.example.com"]}"#,
        ),
        cells(
            r#""a": {"address": "h:1", "hosts": ["*.a.b"]}, "c": {"address": "h:2", "hosts": ["x.a.b", "a.b"]}"#,
        ),
        cells(
            r#""a": {"address": "h:1", "paths": ["/a"]}, "b": {"address": "h:2", "paths": ["/a/b", "/ab"]}"#,
        ),
        cells(r#""a": {"address": "h:1", "replay": "never"}"#),
        with_machine_paths(
            r#""a": {"address": "h:1", "paths": ["/gadgets"]}, "b": {"machine": "widgets"}"#,
        ),
        root(r#""defaults": {"replay_ttl_s": 60, "replay_timeout_ms": 800}, "cells": {}"#),
        root(
            r#""$schema": "x", "path_hosts": [], "cells": {"a": {"address": "h:1", "hosts": [], "paths": []}}"#,
        ),
    ] {
        super::registry(&text);
    }
}
