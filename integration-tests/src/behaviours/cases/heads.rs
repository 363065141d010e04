//! What of a head reaches the cell, and how large one may be.

use super::super::{Case, Check, Section, Step};
use super::{fence, get, post};

const FIELDS: &str = "RFC 9110 section 5";
const HOP: &str = "RFC 9110 section 7.6.1";
const LIMIT: &str = "RFC 6585 section 5";

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Fields on their way to the cell",
            about: "What is end to end arrives to the byte; what belongs to one connection, or only claims to be so, is \
                    told apart.",
            cases: fields(),
        },
        Section {
            title: "Heads beyond all limits",
            about: "What is larger than anybody's limit is refused, and tells the client so.",
            cases: limits(),
        },
    ]
}

/// One request with these lines, of which `must` holds.
fn with(name: &'static str, source: &'static str, lines: &[u8], must: Vec<Check>) -> Case {
    let head = [b"GET /x HTTP/1.1\r\nhost: HOST\r\n", lines, b"\r\n"].concat();
    let all = [must, vec![Check::Requests(2), Check::Answered(2)]].concat();
    Case::holds(name, source, vec![Step::Send([head, fence()].concat())], all)
}

fn fields() -> Vec<Case> {
    let long = vec![b'v'; 7000];
    let long: &'static [u8] = Box::leak(long.into_boxed_slice());
    let many: String = (0..80).map(|n| format!("x-{n}: {n}\r\n")).collect();
    vec![
        with("a name of every legal character", FIELDS, b"x!#$%&'*+-.^_`|~0aZ: 1\r\n", vec![]).should(vec![Check::Has(0, "x!#$%&'*+-.^_`|~0aZ", b"1")]),
        with("a name with an underscore", FIELDS, b"x_y: 1\r\n", vec![]).should(vec![Check::Has(0, "x_y", b"1")]),
        with("a name of digits", FIELDS, b"123: 1\r\n", vec![Check::Has(0, "123", b"1")]),
        with("a value with bytes over 127", FIELDS, b"x-a: \x80\xff\xc3\xa4\r\n", vec![Check::Has(0, "x-a", b"\x80\xff\xc3\xa4")]),
        with("a value with a tab and blanks inside", FIELDS, b"x-a: b\t c   d\r\n", vec![Check::Has(0, "x-a", b"b\t c   d")]),
        with("a value with quotes, commas and backslashes", FIELDS, b"x-a: \"b\\\"c\", d;e=f\r\n", vec![Check::Has(0, "x-a", b"\"b\\\"c\", d;e=f")]),
        with("blanks around a value", FIELDS, b"x-a: \t b \t \r\n", vec![Check::Has(0, "x-a", b"b")]),
        with("no blank after the colon", FIELDS, b"x-a:b\r\n", vec![Check::Has(0, "x-a", b"b")]),
        with("an empty value", FIELDS, b"x-a:\r\n", vec![Check::Has(0, "x-a", b"")]),
        with("a value of colons", FIELDS, b"x-a: :b:\r\n", vec![Check::Has(0, "x-a", b":b:")]),
        with("a value of 7,000 bytes", FIELDS, &[b"x-a: ", long, b"\r\n"].concat(), vec![Check::Has(0, "x-a", long)]),
        with("eighty fields", FIELDS, many.as_bytes(), vec![Check::Has(0, "x-0", b"0"), Check::Has(0, "x-79", b"79")]),
        with("a field on two lines", FIELDS, b"x-a: 1\r\nx-b: 2\r\nX-A: 3\r\n", vec![Check::Values(0, "x-a", &[b"1", b"3"])]),
        with("Authorization, Cookie, Range and conditions", FIELDS,
            b"authorization: Bearer a.b-c\r\ncookie: a=\"b\"; c=\xff\r\nrange: bytes=0-1\r\nif-none-match: W/\"x\"\r\naccept-encoding: br;q=0\r\n",
            vec![Check::Has(0, "authorization", b"Bearer a.b-c"), Check::Has(0, "cookie", b"a=\"b\"; c=\xff"),
                Check::Has(0, "range", b"bytes=0-1"), Check::Has(0, "if-none-match", b"W/\"x\""), Check::Has(0, "accept-encoding", b"br;q=0")]),
        with("Connection names a field", HOP, b"connection: x-hop\r\nx-hop: 1\r\n", vec![]).should(vec![Check::Lacks(0, "x-hop")]),
        with("Connection names fields on two lines", HOP, b"connection: x-one\r\nx-one: 1\r\nconnection: keep-alive, X-Two\r\nx-two: 1\r\nx-three: 1\r\n",
            vec![Check::Has(0, "x-three", b"1")]).should(vec![Check::Lacks(0, "x-one"), Check::Lacks(0, "x-two")]),
        with("Connection of commas and blanks", HOP, b"connection: , ,x-hop ,\r\nx-hop: 1\r\n", vec![]).should(vec![Check::Lacks(0, "x-hop")]),
        with("Keep-Alive and Proxy-Connection", HOP, b"keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n", vec![])
            .should(vec![Check::Lacks(0, "keep-alive"), Check::Lacks(0, "proxy-connection")]),
        with("`TE: gzip, trailers`", HOP, b"te: gzip, trailers\r\nconnection: te\r\n", vec![]).should(vec![Check::Has(0, "te", b"trailers")]),
        with("`TE: gzip`", HOP, b"te: gzip\r\nconnection: te\r\n", vec![]).should(vec![Check::Lacks(0, "te")]),
        with("Upgrade that Connection does not name", HOP, b"upgrade: websocket\r\n", vec![]).should(vec![Check::Lacks(0, "upgrade")]),
        with("Connection names Host", HOP, b"connection: host\r\n", vec![Check::Present(0, "host")]),
        with("Connection names X-Forwarded-For", HOP, b"connection: x-forwarded-for\r\n", vec![]).should(vec![Check::Has(0, "x-forwarded-for", b"127.0.0.1")]),
        with("Connection names X-Forwarded-For that the client sends", HOP, b"x-forwarded-for: 192.0.2.1\r\nconnection: x-forwarded-for\r\n",
            vec![]).should(vec![Check::Has(0, "x-forwarded-for", b"127.0.0.1")]),
        with("a client claims an address", "RFC 7239 section 8.1", b"x-forwarded-for: 192.0.2.1\r\n", vec![])
            .should(vec![Check::Has(0, "x-forwarded-for", b"127.0.0.1")]),
        Case::holds("Connection names Content-Length", HOP,
            vec![Step::Send([post("connection: content-length\r\ncontent-length: 5\r\n", "hello"), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("Connection names Transfer-Encoding", HOP,
            vec![Step::Send([post("connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), fence()].concat())],
            vec![Check::Body(0, b"hello".to_vec()), Check::Line(1, "GET /end HTTP/1.1"), Check::Answered(2)]),
        Case::holds("`Connection: close` is the client's connection only", HOP,
            vec![Step::Send(get("connection: close\r\n")), Step::End, Step::Connect, Step::Send(fence())],
            vec![Check::Requests(2), Check::Answered(2), Check::Ends]).should(vec![Check::Connections(1)]),
        Case::holds("`Connection: Keep-Alive` in HTTP/1.0", "RFC 9112 section 9.3",
            vec![Step::Send(b"GET /x HTTP/1.0\r\nhost: HOST\r\nconnection: Keep-Alive\r\n\r\n".to_vec()), Step::Answers(1), Step::Send(fence())],
            vec![Check::Answer(0, b"ok".to_vec()), Check::Ends]).should(vec![Check::Answered(2)]),
    ]
}

fn limits() -> Vec<Case> {
    let of = |lines: String| get(&lines);
    let big = 1_000_000;
    vec![
        Case::refused("a value of 1,000,000 bytes", LIMIT, of(format!("x: {}\r\n", "y".repeat(big)))).statuses(&[400, 431]),
        Case::refused("a name of 1,000,000 bytes", LIMIT, of(format!("{}: y\r\n", "x".repeat(big)))).statuses(&[400, 431]),
        Case::refused("1,000,000 bytes in 1,000 fields", LIMIT, of(format!("x: {}\r\n", "y".repeat(995)).repeat(1000))).statuses(&[400, 431]),
        Case::refused("100,000 empty fields", LIMIT, of("x:\r\n".repeat(100_000))).statuses(&[400, 431]),
        Case::refused("a method of 1,000,000 bytes", LIMIT, format!("{} /x HTTP/1.1\r\nhost: HOST\r\n\r\n", "G".repeat(big)).into_bytes())
            .statuses(&[400, 414, 431, 501]),
        Case::refused("a query of 1,000,000 bytes", "RFC 9110 section 15.5.15", format!("GET /x?{} HTTP/1.1\r\nhost: HOST\r\n\r\n", "y".repeat(big)).into_bytes())
            .statuses(&[400, 414]),
        Case::refused("a Host of 100,000 bytes", LIMIT, format!("GET /x HTTP/1.1\r\nhost: {}.HOST\r\n\r\n", "y".repeat(100_000)).into_bytes())
            .statuses(&[400, 431]),
    ]
}
