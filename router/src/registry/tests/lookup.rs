//! Which cell a host and a path choose, row by row.

use super::registry;
use crate::registry::{HostFault, Lookup, PathFault, Registry};

const FILE: &str = r#"{
    "version": 1,
    "domain": "example.com",
    "path_hosts": ["apps.example.com", "apps.example.net"],
    "machine_paths": true,
    "defaults": {"app": "cells"},
    "cells": {
        "alice": {
            "machine": "3d8d9e67c2e123",
            "hosts": ["www.alice.org", "*.alice.org", "cdn.alice.example.com"],
            "paths": ["/alice", {"prefix": "/a", "strip": true}, "/team/alice"]
        },
        "bob": {"machine": "148e21ea7de489", "hosts": ["shop.alice.org", "*.org"], "paths": ["/team", "/a/b"]},
        "lab": {"address": "127.0.0.1:9000"}
    }
}"#;

/// A lookup in a few characters: the cell and what chose it, or the reason why there is none.
fn shown(registry: &Registry, host: &str, path: &str) -> String {
    match registry.lookup(host, path) {
        Lookup::Cell { cell, route } => format!("{} {route:?}", cell.name),
        other => format!("{other:?}"),
    }
}

macro_rules! rows {
    ($file:expr; $($name:ident: $host:expr, $path:expr => $expected:expr;)+) => {$(
        #[test]
        fn $name() {
            assert_eq!(shown(&registry($file), $host, $path), $expected);
        }
    )+};
}

const A: &str = "Path { prefix: \"/a\", strip: true }";

rows! { FILE;
    custom_host_chooses: "www.alice.org", "/" => "alice Host";
    case_port_and_dot_do_not_matter: "WWW.Alice.ORG.:8443", "/" => "alice Host";
    custom_host_goes_before_a_wildcard: "shop.alice.org", "/" => "bob Host";
    wildcard_takes_one_label: "x.alice.org", "/" => "alice Wildcard";
    wildcard_does_not_take_two_labels: "x.y.alice.org", "/" => "Nowhere";
    wildcard_does_not_take_its_parent: "alice.org", "/" => "bob Wildcard";
    subdomain_chooses: "bob.example.com", "/" => "bob Subdomain";
    subdomain_in_upper_case_chooses: "BOB.example.com:80", "/" => "bob Subdomain";
    host_below_ones_own_subdomain_chooses: "cdn.alice.example.com", "/" => "alice Host";
    unknown_subdomain_is_nowhere: "carol.example.com", "/" => "Nowhere";
    subdomain_of_a_subdomain_is_nowhere: "x.bob.example.com", "/" => "Nowhere";
    domain_as_a_suffix_of_a_label_is_nowhere: "bobexample.com", "/" => "Nowhere";
    cell_on_a_path_host_is_no_subdomain: "bob.apps.example.net", "/" => "Nowhere";
    paths_do_not_hold_on_a_subdomain: "bob.example.com", "/alice" => "bob Subdomain";
    dots_reach_the_cell_where_the_host_chooses: "bob.example.com", "/a/../%2e" => "bob Subdomain";
    reserved_path_reaches_the_cell_where_the_host_chooses: "bob.example.com", "/up" => "bob Subdomain";
    other_well_known_paths_reach_the_cell_where_the_host_chooses: "bob.example.com", "/.well-known/x" => "bob Subdomain";
    challenge_is_the_routers_on_a_subdomain: "bob.example.com", "/.well-known/cell-identity" => "Router";
    challenge_is_the_routers_on_a_custom_host: "www.alice.org", "/.well-known/cell-identity" => "Router";
    challenge_is_the_routers_below_a_stripped_prefix: "example.com", "/a/.well-known/cell-identity" => "Router";
    prefix_holds_on_the_domain: "example.com", "/a" => format!("alice {A}");
    prefix_holds_on_a_path_host: "apps.example.net:8080", "/a/x" => format!("alice {A}");
    prefix_holds_below_the_domain: "apps.example.com", "/a/" => format!("alice {A}");
    longest_prefix_wins: "example.com", "/a/b/c" => "bob Path { prefix: \"/a/b\", strip: false }";
    shorter_prefix_takes_the_rest: "example.com", "/a/bc" => format!("alice {A}");
    nested_prefix_wins: "example.com", "/team/alice" => "alice Path { prefix: \"/team/alice\", strip: false }";
    prefix_ends_at_a_segment: "example.com", "/team/alicia" => "bob Path { prefix: \"/team\", strip: false }";
    alicia_is_not_alice: "example.com", "/alicia" => "Nowhere";
    prefix_in_another_case_is_nowhere: "example.com", "/Alice" => "Nowhere";
    root_of_the_domain_is_nowhere: "example.com", "/" => "Nowhere";
    empty_path_is_nowhere: "example.com", "" => "Nowhere";
    path_of_a_star_is_nowhere: "example.com", "*" => "Nowhere";
    machine_path_chooses: "example.com", "/148e21ea7de489/x" => "bob MachinePath";
    machine_path_alone_chooses: "apps.example.com", "/3d8d9e67c2e123" => "alice MachinePath";
    unknown_machine_is_nowhere: "example.com", "/148e21ea7de480/x" => "Nowhere";
    machine_path_holds_on_path_hosts_only: "x.example.net", "/148e21ea7de489" => "Nowhere";
    dot_segments_are_ambiguous: "example.com", "/alice/../bob" => format!("{:?}", Lookup::Ambiguous(PathFault::DotSegment));
    ambiguity_goes_before_reserved_paths: "example.com", "/up/../alice" => format!("{:?}", Lookup::Ambiguous(PathFault::DotSegment));
    reserved_path_is_the_routers: "example.com", "/up" => "Router";
    reserved_path_below_is_the_routers: "apps.example.com", "/-/x" => "Router";
    reserved_path_on_an_unknown_host_is_the_routers: "10.0.0.1:8080", "/up" => "Router";
    reserved_path_on_an_unknown_subdomain_is_the_routers: "carol.example.com", "/up" => "Router";
    unknown_host_is_nowhere: "10.0.0.1:8080", "/alice" => "Nowhere";
    ipv6_host_is_nowhere: "[::1]:8080", "/alice" => "Nowhere";
    bad_host_is_told: "bob.example.com:x", "/" => format!("{:?}", Lookup::BadHost(HostFault::Port));
    user_info_is_told: "bob@example.com", "/alice" => format!("{:?}", Lookup::BadHost(HostFault::UserInfo));
}

const WITH_DEFAULT: &str = r#"{
    "version": 1, "domain": "example.com", "default_cell": "lab",
    "cells": {
        "lab": {"address": "127.0.0.1:9000"},
        "bob": {"address": "127.0.0.1:9001", "paths": ["/bob"]},
        "eve": {"address": "127.0.0.1:9002", "hosts": ["*.com"]}
    }
}"#;

rows! { WITH_DEFAULT;
    default_takes_unknown_hosts: "10.0.0.1", "/x" => "lab Default";
    default_takes_unknown_subdomains: "carol.example.com", "/x" => "lab Default";
    default_takes_unknown_paths: "example.com", "/x" => "lab Default";
    default_takes_an_unknown_ipv6_host: "[::1]", "/x" => "lab Default";
    default_does_not_take_known_paths: "example.com", "/bob/x" => "bob Path { prefix: \"/bob\", strip: false }";
    default_does_not_take_known_subdomains: "bob.example.com", "/x" => "bob Subdomain";
    default_does_not_take_reserved_paths: "10.0.0.1", "/up" => "Router";
    default_does_not_take_ambiguous_paths: "example.com", "/x//y" => "Ambiguous(EmptySegment)";
    wildcard_does_not_take_the_domain: "example.com", "/bob" => "bob Path { prefix: \"/bob\", strip: false }";
    wildcard_goes_before_the_default: "other.com", "/x" => "eve Wildcard";
    machine_paths_are_off_unless_asked_for: "example.com", "/148e21ea7de489" => "lab Default";
}

const BARE: &str =
    r#"{"version": 1, "cells": {"lab": {"address": "127.0.0.1:9000", "paths": ["/lab"]}}}"#;

rows! { BARE;
    without_a_domain_there_are_no_subdomains: "lab.example.com", "/" => "Nowhere";
    without_a_domain_paths_hold_nowhere: "example.com", "/lab" => "Nowhere";
}

#[test]
fn no_cells_are_a_good_registry() {
    let registry = registry(r#"{"version": 1, "cells": {}}"#);
    assert!(registry.is_empty());
    assert_eq!(registry.lookup("example.com", "/"), Lookup::Nowhere);
    assert_eq!(registry.lookup("example.com", "/up"), Lookup::Router);
}

#[test]
fn cells_come_in_the_order_of_the_file() {
    let registry = registry(
        r#"{"version": 1, "cells": {"b": {"address": "h:1"}, "c": {"address": "h:2"}, "a": {"address": "h:3"}}}"#,
    );
    let names: Vec<&str> = registry.cells().map(|cell| cell.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "a"]);
    assert_eq!(registry.len(), 3);
    assert_eq!(registry.cell("c").unwrap().placement.to_string(), "h:2");
    assert!(registry.cell("d").is_none());
}
