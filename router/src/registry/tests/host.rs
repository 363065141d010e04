//! Host names as clients send them and as registries give them.

use std::borrow::Cow;

use crate::registry::{HostFault, HostName, HostRule};

macro_rules! normalised {
    ($($name:ident: $raw:expr => $expected:expr;)+) => {$(
        #[test]
        fn $name() {
            let host = HostName::normalise($raw);
            assert_eq!(host.as_deref(), $expected.as_deref());
        }
    )+};
}

fn good(host: &str) -> Result<String, HostFault> {
    Ok(host.to_owned())
}

fn bad(fault: HostFault) -> Result<String, HostFault> {
    Err(fault)
}

normalised! {
    plain_host_stays: "example.com" => good("example.com");
    upper_case_is_lowered: "WWW.Example.COM" => good("www.example.com");
    port_is_cut: "example.com:8080" => good("example.com");
    empty_port_is_cut: "example.com:" => good("example.com");
    largest_port_is_cut: "example.com:65535" => good("example.com");
    port_beyond_is_refused: "example.com:65536" => bad(HostFault::Port);
    port_of_six_digits_is_refused: "example.com:000080" => bad(HostFault::Port);
    signed_port_is_refused: "example.com:+80" => bad(HostFault::Port);
    port_of_letters_is_refused: "example.com:http" => bad(HostFault::Port);
    two_ports_are_refused: "example.com:80:80" => bad(HostFault::Port);
    one_dot_at_the_end_is_cut: "example.com." => good("example.com");
    one_dot_before_the_port_is_cut: "example.com.:443" => good("example.com");
    two_dots_at_the_end_are_refused: "example.com.." => bad(HostFault::EmptyLabel);
    dot_at_the_start_is_refused: ".example.com" => bad(HostFault::EmptyLabel);
    two_dots_inside_are_refused: "a..b" => bad(HostFault::EmptyLabel);
    dot_alone_is_empty: "." => bad(HostFault::Empty);
    nothing_is_empty: "" => bad(HostFault::Empty);
    port_alone_is_empty: ":80" => bad(HostFault::Empty);
    user_info_is_refused: "user@example.com" => bad(HostFault::UserInfo);
    user_info_with_password_is_refused: "user:pw@example.com" => bad(HostFault::UserInfo);
    blank_inside_is_refused: "exa mple.com" => bad(HostFault::Character);
    blank_before_is_refused: " example.com" => bad(HostFault::Character);
    blank_after_is_refused: "example.com " => bad(HostFault::Character);
    tab_is_refused: "example.com\t" => bad(HostFault::Character);
    line_feed_is_refused: "example.com\nx" => bad(HostFault::Character);
    nul_is_refused: "example.com\0" => bad(HostFault::Character);
    letters_outside_ascii_are_refused: "exämple.com" => bad(HostFault::Character);
    percent_is_refused: "example%2ecom" => bad(HostFault::Character);
    slash_is_refused: "example.com/x" => bad(HostFault::Character);
    comma_is_refused: "a.com,b.com" => bad(HostFault::Character);
    underscore_is_allowed: "my_app.example.com" => good("my_app.example.com");
    ipv4_stays: "127.0.0.1:80" => good("127.0.0.1");
    ipv6_keeps_brackets: "[::1]:80" => good("[::1]");
    ipv6_without_port: "[2001:DB8::1]" => good("[2001:db8::1]");
    ipv6_without_brackets_is_refused: "::1" => bad(HostFault::Port);
    ipv6_with_a_zone_is_refused: "[fe80::1%25eth0]" => bad(HostFault::Literal);
    open_bracket_is_refused: "[::1" => bad(HostFault::Literal);
    empty_brackets_are_refused: "[]" => bad(HostFault::Literal);
    name_in_brackets_is_refused: "[example.com]" => bad(HostFault::Literal);
    text_after_brackets_is_refused: "[::1]x" => bad(HostFault::Literal);
    dot_after_brackets_is_refused: "[::1]." => bad(HostFault::Literal);
    bad_port_after_brackets_is_refused: "[::1]:x" => bad(HostFault::Port);
}

#[test]
fn the_longest_host_is_allowed_and_one_more_is_not() {
    let longest = format!("{}a.b", "a.".repeat(125));
    assert_eq!(longest.len(), 253);
    assert!(HostName::normalise(&longest).is_ok());
    assert!(HostName::parse(&longest).is_ok());
    let longer = format!("{longest}b");
    assert_eq!(HostName::normalise(&longer), Err(HostFault::TooLong));
    assert!(HostName::parse(&longer).is_err());
}

#[test]
fn a_lower_case_host_is_not_copied() {
    for raw in ["example.com", "example.com.:80", "[::1]:80"] {
        let host = HostName::normalise(raw);
        assert!(matches!(host, Ok(Cow::Borrowed(_))), "{raw}");
    }
}

#[test]
fn a_registry_may_name_these_hosts() {
    let label = "a".repeat(63);
    for text in [
        "localhost",
        "www.alice.org",
        "127.0.0.1",
        "xn--caf-dma.example",
        "1.a",
        &label,
    ] {
        assert_eq!(HostName::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn a_registry_may_not_name_these_hosts() {
    let label = "a".repeat(64);
    for text in [
        "",
        ".",
        "a..b",
        ".a",
        "a.",
        "A.b",
        "a.b:80",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b",
        "http://a.b",
        "a/b",
        "é.fr",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "[::1]",
        "*",
        "*.a",
        "a\r\nb",
        &label,
    ] {
        assert!(HostName::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_wildcard_stands_alone_before_the_first_dot() {
    let rule = HostRule::parse("*.alice.org").unwrap();
    assert_eq!(
        rule,
        HostRule::Wildcard(HostName::parse("alice.org").unwrap())
    );
    assert_eq!(rule.to_string(), "*.alice.org");
    for text in [
        "*",
        "*.",
        "*alice.org",
        "a.*.org",
        "*.*.org",
        "*.127.0.0.1",
        "*.Alice.org",
    ] {
        assert!(HostRule::parse(text).is_err(), "{text:?}");
    }
}
