//! For whom a request is, and what it wants: methods, targets, versions, hosts.

use super::super::{Case, Check, Right, Section, Step};
use super::{fence, get};

const HOSTS: &str = "RFC 9112 section 3.2";
const TARGET: &str = "RFC 9112 section 3.2";
const LINE: &str = "RFC 9112 section 3";
const VERSION: &str = "RFC 9112 section 2.3";
const METHOD: &str = "RFC 9110 section 9.1";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Hosts",
            about: "A request is for one host, and the cell sees the one that it was routed by.",
            cases: hosts(),
        },
        Section {
            title: "Methods and targets",
            about: "What is routed is what the cell sees, byte for byte.",
            cases: targets(),
        },
        Section {
            title: "Versions",
            about: "HTTP/1.0 and HTTP/1.1 are spoken, and nothing that only looks like them.",
            cases: versions(),
        },
    ]
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nhost: HOST\r\n\r\n").into_bytes()
}

fn fields(fields: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\n{fields}\r\n").into_bytes()
}

/// Passed on with this first line.
fn passed(name: &'static str, source: &'static str, bytes: Vec<u8>, first: &'static str) -> Case {
    Case::holds(
        name,
        source,
        vec![Step::Send([bytes, fence()].concat())],
        vec![Check::Line(0, first), Check::Requests(2), Check::Answered(2), Check::Status(0, &[200])],
    )
}

/// As [`passed`], where refusing it or spelling it otherwise is debatable.
fn lenient(name: &'static str, source: &'static str, bytes: Vec<u8>, first: &'static str) -> Case {
    let case = passed(name, source, bytes, first);
    let should = match &case.right {
        Right::Holds { must, .. } => must.clone(),
        Right::Refused { .. } => Vec::new(),
    };
    case.right_is(vec![Check::RequestsAtMost(2)], should)
}

fn hosts() -> Vec<Case> {
    let cases = vec![
        passed("`Host: NAME`", HOSTS, fields("Host: HOST\r\n"), "GET /x HTTP/1.1"),
        passed("`Host: NAME:80`", HOSTS, fields("Host: HOST:80\r\n"), "GET /x HTTP/1.1"),
        Case::refused("no Host in HTTP/1.1", HOSTS, fields("")),
        Case::refused("two Hosts, the same", HOSTS, fields("host: HOST\r\nhost: HOST\r\n")).repairable(),
        Case::refused("two Hosts, another first", HOSTS, fields("host: elsewhere.example.com\r\nhost: HOST\r\n")),
        Case::refused("two Hosts, another last", HOSTS, fields("host: HOST\r\nhost: elsewhere.example.com\r\n")),
        Case::refused("an empty Host", HOSTS, fields("host:\r\n")).statuses(&[400, 404]),
        Case::refused("`Host: user@NAME`", HOSTS, fields("host: user@HOST\r\n")),
        Case::refused("`Host: NAME/`", HOSTS, fields("host: HOST/\r\n")),
        Case::refused("`Host: NAME/path`", HOSTS, fields("host: HOST/path\r\n")),
        Case::refused("`Host: NAME?query`", HOSTS, fields("host: HOST?query\r\n")),
        Case::refused("`Host: NAME#fragment`", HOSTS, fields("host: HOST#fragment\r\n")),
        Case::refused("`Host: http://NAME`", HOSTS, fields("host: http://HOST\r\n")),
        Case::refused("`Host: NAME, elsewhere`", HOSTS, fields("host: HOST, elsewhere\r\n")),
        Case::refused("`Host: NAME elsewhere`", HOSTS, fields("host: HOST elsewhere\r\n")),
        Case::refused("`Host: NAME:port`", HOSTS, fields("host: HOST:port\r\n")).repairable(),
        Case::refused("`Host: NAME:80:80`", HOSTS, fields("host: HOST:80:80\r\n")).repairable(),
        Case::refused("`Host: NAME:99999`", HOSTS, fields("host: HOST:99999\r\n")).repairable(),
        Case::refused("`Host: NAME:-1`", HOSTS, fields("host: HOST:-1\r\n")).repairable(),
        Case::refused("`Host: NAME:+80`", HOSTS, fields("host: HOST:+80\r\n")).repairable(),
        Case::refused("`Host: NAME%00`", HOSTS, fields("host: HOST%00\r\n")),
        Case::refused("`Host: NAME\\tx`", HOSTS, fields("host: HOST\tx\r\n")),
        Case::refused("`Host: [::1`", HOSTS, fields("host: [::1\r\n")),
        Case::refused("HTTP/1.0 without a Host", HOSTS, b"GET /x HTTP/1.0\r\n\r\n".to_vec()).statuses(&[400, 404]),
        Case::holds("HTTP/1.0 with a Host", HOSTS,
            vec![Step::Send(b"GET /x HTTP/1.0\r\nhost: HOST\r\n\r\n".to_vec())],
            vec![Check::Requests(1), Check::Answered(1), Check::Answer(0, b"ok".to_vec()), Check::Ends])
            .should(vec![Check::Line(0, "GET /x HTTP/1.1")]),
        lenient("absolute form with the same Host", "RFC 9112 section 3.2.2",
            line("GET http://HOST/x?y HTTP/1.1"), "GET /x?y HTTP/1.1"),
        Case::refused("absolute form with another Host", "RFC 9112 section 3.2.2",
            b"GET http://HOST/x HTTP/1.1\r\nhost: elsewhere.example.com\r\n\r\n".to_vec()).acceptable(),
        Case::refused("absolute form of elsewhere with this Host", "RFC 9112 section 3.2.2",
            line("GET http://elsewhere.example.com/x HTTP/1.1")).statuses(&[400, 404, 421]),
        Case::refused("absolute form with user information", "RFC 9110 section 4.2.4",
            line("GET http://user:pass@HOST/x HTTP/1.1")).repairable(),
        Case::refused("absolute form without a Host", HOSTS, b"GET http://HOST/x HTTP/1.1\r\n\r\n".to_vec()).acceptable(),
        Case::refused("absolute form of another scheme", TARGET, line("GET ftp://HOST/x HTTP/1.1")).repairable(),
        Case::refused("absolute form without a host", TARGET, line("GET http:///x HTTP/1.1")),
        lenient("absolute form without a path", "RFC 9112 section 3.2.1", line("GET http://HOST HTTP/1.1"), "GET / HTTP/1.1"),
        lenient("absolute form with a query and no path", "RFC 9112 section 3.2.1", line("GET http://HOST?y HTTP/1.1"), "GET /?y HTTP/1.1"),
    ];
    cases.into_iter().map(Case::may_go_on).collect()
}

fn targets() -> Vec<Case> {
    let cases = vec![
        passed("an unknown method", METHOD, line("PROPFIND /x HTTP/1.1"), "PROPFIND /x HTTP/1.1"),
        lenient("a method in lower case", METHOD, line("get /x HTTP/1.1"), "get /x HTTP/1.1"),
        passed("a method with odd characters", METHOD, line("M-SEARCH /x HTTP/1.1"), "M-SEARCH /x HTTP/1.1"),
        Case::refused("a method that is no token", METHOD, line("GE(T /x HTTP/1.1")),
        Case::refused("an empty method", METHOD, line(" /x HTTP/1.1")),
        Case::refused("`CONNECT NAME:80`", "RFC 9110 section 9.3.6", line("CONNECT HOST:80 HTTP/1.1")).repairable().statuses(&[400, 405, 501]),
        Case::refused("`CONNECT /x`", "RFC 9110 section 9.3.6", line("CONNECT /x HTTP/1.1")).statuses(&[400, 405, 501]),
        Case::holds("`TRACE /x`", "RFC 9110 section 9.3.8",
            vec![Step::Send([line("TRACE /x HTTP/1.1"), fence()].concat())],
            vec![Check::RequestsAtMost(2)]).should(vec![Check::Status(0, &[400, 403, 405, 501]), Check::RequestsAtMost(1)]),
        Case::refused("`OPTIONS *`", "RFC 9112 section 3.2.4", line("OPTIONS * HTTP/1.1")).statuses(&[400, 404, 405, 501])
            .acceptable(),
        Case::refused("`GET *`", "RFC 9112 section 3.2.4", line("GET * HTTP/1.1")).repairable(),
        Case::refused("a target without a slash", TARGET, line("GET x HTTP/1.1")),
        Case::refused("a target of `?x`", TARGET, line("GET ?x HTTP/1.1")),
        Case::refused("a fragment", "RFC 9110 section 7.1", line("GET /x#y HTTP/1.1")).repairable(),
        Case::refused("a space in the target", LINE, line("GET /x y HTTP/1.1")),
        Case::refused("two spaces before the target", LINE, line("GET  /x HTTP/1.1")).repairable(),
        Case::refused("two spaces after the target", LINE, line("GET /x  HTTP/1.1")).repairable(),
        Case::refused("a tab for a space", LINE, line("GET\t/x\tHTTP/1.1")).repairable(),
        Case::refused("a space at the end of the line", LINE, line("GET /x HTTP/1.1 ")).repairable(),
        Case::refused("no target", LINE, line("GET HTTP/1.1")),
        Case::refused("a raw byte over 127 in the target", TARGET,
            b"GET /\xff HTTP/1.1\r\nhost: HOST\r\n\r\n".to_vec()).repairable(),
        passed("dots, doubled slashes and escapes", TARGET, line("GET /a//b/../c/%2e%2e/%2F?d=%00&e HTTP/1.1"),
            "GET /a//b/../c/%2e%2e/%2F?d=%00&e HTTP/1.1"),
        Case::holds("a percent sign without digits", TARGET, vec![Step::Send([line("GET /x%zz?a=% HTTP/1.1"), fence()].concat())],
            vec![Check::Any(vec![Check::Line(0, "GET /x%zz?a=% HTTP/1.1"), Check::Status(0, &[400])])]),
        passed("a target of two slashes", TARGET, line("GET //x HTTP/1.1"), "GET //x HTTP/1.1"),
        passed("brackets, bars and braces in a query", TARGET, line("GET /x?a[]={b}|c^d`e HTTP/1.1"),
            "GET /x?a[]={b}|c^d`e HTTP/1.1"),
        Case::refused("a target of 1,000,000 bytes", LINE, line(&format!("GET /{} HTTP/1.1", "x".repeat(1_000_000))))
            .statuses(&[400, 414]),
    ];
    cases.into_iter().map(Case::may_go_on).collect()
}

fn versions() -> Vec<Case> {
    let upgrade = |lines: &'static str| {
        Case::holds(
            "",
            "RFC 9113 section 3.1",
            vec![Step::Send([get(lines), fence()].concat())],
            vec![Check::RequestsAtMost(2)],
        )
        .should(vec![
            Check::Lacks(0, "upgrade"),
            Check::Lacks(0, "http2-settings"),
            Check::Line(1, "GET /end HTTP/1.1"),
            Check::Answered(2),
        ])
    };
    vec![
        Case::refused("HTTP/0.9", VERSION, b"GET /x\r\n".to_vec()).statuses(&[400, 505]),
        Case::refused("HTTP/1.2", VERSION, line("GET /x HTTP/1.2")).statuses(&[505]).acceptable(),
        Case::refused("HTTP/2.0 in a request line", VERSION, line("GET /x HTTP/2.0")).repairable().statuses(&[505]),
        Case::refused("HTTP/3.0 in a request line", VERSION, line("GET /x HTTP/3.0")).repairable().statuses(&[505]),
        Case::refused("HTTP/1.10", VERSION, line("GET /x HTTP/1.10")).repairable().statuses(&[400, 505]),
        Case::refused("HTTP/01.1", VERSION, line("GET /x HTTP/01.1")).statuses(&[400, 505]),
        Case::refused("http/1.1 in lower case", VERSION, line("GET /x http/1.1")).statuses(&[400, 505]),
        Case::refused("HTTPS/1.1", VERSION, line("GET /x HTTPS/1.1")).statuses(&[400, 505]),
        Case::refused("HTTP/1.", VERSION, line("GET /x HTTP/1.")).statuses(&[400, 505]),
        Case::refused("`PRI * HTTP/2.0` with no preface after it", "RFC 9113 section 3.4",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()).statuses(&[400, 505]),
        Case { name: "`Upgrade: h2c` with its settings", ..upgrade("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n") },
        Case { name: "`Upgrade: h2c` that Connection does not name", ..upgrade("upgrade: h2c\r\n") },
        Case { name: "`Upgrade: websocket, h2c`", ..upgrade("connection: upgrade\r\nupgrade: websocket, h2c\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n") },
        Case { name: "`Upgrade: H2C` on a second line", ..upgrade("connection: upgrade\r\nupgrade: foo\r\nupgrade: H2C\r\n") },
    ]
}
