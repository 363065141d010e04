//! Clients' bytes, made up: requests as they should be, and then something is wrong with them.

use crate::numbers::Numbers;

const METHODS: [&str; 12] = [
    "GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "get", "G@T",
    "TRACE",
];
const TARGETS: [&str; 16] = [
    "/",
    "/a",
    "/a/b?c=d",
    "/%2e%2e/x",
    "/a//b",
    "/a;b",
    "/a|b",
    "/a b",
    "http://HOST/abs",
    "HTTP://HOST/abs?x",
    "http://other.example.com/abs",
    "*",
    "/a#b",
    "/\u{e9}",
    "//HOST/x",
    "x",
];
const VERSIONS: [&str; 10] = [
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/1.01",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/11",
];
const ENDS: [&str; 6] = ["\n", "\r", "\r\r\n", "\r\n\r\n", "\n\r\n", " \r\n"];
const LENGTHS: [&str; 16] = [
    "+5",
    "-5",
    "0x5",
    "5, 5",
    "5,6",
    "5 5",
    "05",
    "000000000000000000005",
    "18446744073709551621",
    "5;",
    "\"5\"",
    "",
    "5\u{b}",
    "1e1",
    "5.",
    "5_0",
];
const CODINGS: [&str; 20] = [
    "chunked",
    "Chunked",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, gzip",
    "identity",
    "identity, chunked",
    "chunked;q=1",
    "xchunked",
    "chunked,",
    ", chunked",
    "\"chunked\"",
    "\u{b}chunked",
    "chunked\u{b}",
    "\tchunked",
    "chunked\t",
    "ch\u{fc}nked",
    "",
    "x",
    "chunked identity",
];
const NAMES: [&str; 16] = [
    "Transfer-Encoding ",
    "Transfer_Encoding",
    "Transfer-Encoding\t",
    " Transfer-Encoding",
    "Transfer-Encoding\0",
    "Content-Length ",
    "Content_Length",
    "Content-Length\u{b}",
    "\u{b}Content-Length",
    "Content-Length\r",
    "Host ",
    "Host",
    "X\0",
    "X:",
    "(X)",
    "",
];
const EXTENSIONS: [&str; 14] = [
    ";a",
    ";a=b",
    ";a=\"b;c\"",
    " ;a",
    ";",
    ";;",
    ";a=\"",
    ";\"",
    " ",
    "\t",
    ";a\u{7f}",
    ";a\n",
    ";a\r",
    ";\u{e9}",
];
const SIZES: [&str; 12] = [
    "+5",
    "-5",
    "0x5",
    "05",
    "0000000000000000000000005",
    " 5",
    "5 ",
    "10000000000000005",
    "FFFFFFFFFFFFFFFF",
    "g",
    "",
    "5_",
];
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n";

/// One row of requests over one connection, for the host of this name.
pub fn made(numbers: &mut Numbers, host: &str) -> Vec<u8> {
    let mut text = String::new();
    for turn in 0..1 + numbers.below(3) {
        let wrong = if numbers.below(6) == 0 {
            0
        } else {
            1 + numbers.below(2)
        };
        text.push_str(&request(numbers, host, wrong, turn));
    }
    let mut bytes: Vec<u8> = text
        .replace("HOST", host)
        .chars()
        .map(|c| c as u32 as u8)
        .collect();
    if numbers.below(4) == 0 {
        for _ in 0..1 + numbers.below(3) {
            scratch(numbers, &mut bytes);
        }
    }
    // What comes after all of it shows where its end was seen.
    let fence = format!("GET /fence HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    bytes.extend_from_slice(fence.as_bytes());
    bytes
}

/// A request as a list of parts, of which `wrong` are replaced by what they should not be.
fn request(numbers: &mut Numbers, host: &str, wrong: usize, turn: usize) -> String {
    let mut method = METHODS[numbers.below(9)].to_owned();
    let mut target = format!("/{turn}{}", TARGETS[numbers.below(3)]);
    let mut version = "HTTP/1.1".to_owned();
    let mut lines = vec!["Host: HOST".to_owned(), "X-A: 1".to_owned()];
    let mut ends: Vec<String> = Vec::new();
    let mut front = String::new();
    let data = if numbers.below(2) == 0 {
        "hello".to_owned()
    } else {
        SMUGGLED.replace("HOST", host)
    };
    let mut chunks = vec![(
        format!("{:x}", data.len()),
        String::new(),
        data.clone(),
        "\r\n".to_owned(),
    )];
    if numbers.below(2) == 0 {
        chunks.push((
            "3".to_owned(),
            String::new(),
            "abc".to_owned(),
            "\r\n".to_owned(),
        ));
    }
    chunks.push((
        "0".to_owned(),
        String::new(),
        String::new(),
        "\r\n".to_owned(),
    ));
    let framing = numbers.below(4);
    match framing {
        0 => lines.push(format!("Content-Length: {}", data.len())),
        1 => lines.push("Transfer-Encoding: chunked".to_owned()),
        2 => {
            lines.push("Transfer-Encoding: chunked".to_owned());
            lines.push("Trailer: X-Sum".to_owned());
            if let Some(last) = chunks.last_mut() {
                last.3 = "X-Sum: 1\r\n\r\n".to_owned();
            }
        }
        _ => {}
    }
    for _ in 0..wrong {
        let at = numbers.below(lines.len());
        match numbers.below(20) {
            0 => method = numbers.of(&METHODS),
            1 => target = numbers.of(&TARGETS),
            2 => version = numbers.of(&VERSIONS),
            3 => {
                ends = (0..=at)
                    .map(|line| {
                        if line == at {
                            numbers.of(&ENDS)
                        } else {
                            "\r\n".to_owned()
                        }
                    })
                    .collect()
            }
            4 => lines.push(format!("Content-Length: {}", numbers.of(&LENGTHS))),
            5 => lines.push(format!("Content-Length: {}", numbers.below(60))),
            6 => lines.push(format!("Transfer-Encoding: {}", numbers.of(&CODINGS))),
            7 => lines.insert(
                at,
                format!("{}: {}", numbers.of(&NAMES), numbers.of(&CODINGS)),
            ),
            8 => lines.insert(at, format!("{}: {}", numbers.of(&NAMES), numbers.below(20))),
            9 => lines.insert(
                at + 1,
                format!("{}{}", [" ", "\t"][numbers.below(2)], numbers.of(&CODINGS)),
            ),
            10 => {
                lines[at] = lines[at].replace(
                    ": ",
                    [":", " : ", ":\t", ": \u{b}", "\t:"][numbers.below(5)],
                )
            }
            11 => lines.push(format!(
                "Host: {}",
                ["HOST", "other.example.com", "HOST:80", "u@HOST", ""][numbers.below(5)]
            )),
            12 => drop(lines.remove(at)),
            13 => lines.push(format!(
                "Connection: {}",
                [
                    "close",
                    "keep-alive",
                    "content-length",
                    "transfer-encoding",
                    "host",
                    "upgrade"
                ][numbers.below(6)]
            )),
            14 => lines.push(
                [
                    "Expect: 100-continue",
                    "Expect: x",
                    "Upgrade: h2c",
                    "Upgrade: websocket",
                ][numbers.below(4)]
                .to_owned(),
            ),
            15 => front = ["\r\n", "\n", "\r", "\r\n\r\n", " ", "\0"][numbers.below(6)].to_owned(),
            16 => chunk(numbers, &mut chunks).0 = numbers.of(&SIZES),
            17 => chunk(numbers, &mut chunks).1 = numbers.of(&EXTENSIONS),
            18 => {
                chunk(numbers, &mut chunks).3 = [
                    "",
                    "\n",
                    "\r",
                    "X\r\n",
                    "\r\n\r\n",
                    "X: 1\n\r\n",
                    "X : 1\r\n\r\n",
                    " x\r\n\r\n",
                ][numbers.below(8)]
                .to_owned()
            }
            _ => {
                let size = numbers.below(40);
                chunk(numbers, &mut chunks).0 = format!("{size:X}");
            }
        }
    }
    let mut text = format!("{front}{method} {target} {version}\r\n");
    for (at, line) in lines.iter().enumerate() {
        text.push_str(line);
        text.push_str(ends.get(at).map_or("\r\n", |end| end));
    }
    text.push_str("\r\n");
    match framing {
        0 => text.push_str(&data),
        1 | 2 => {
            for (size, extensions, data, end) in chunks {
                text.push_str(&format!("{size}{extensions}\r\n{data}{end}"));
            }
        }
        _ => {}
    }
    text
}

type Chunk = (String, String, String, String);

fn chunk<'a>(numbers: &mut Numbers, chunks: &'a mut [Chunk]) -> &'a mut Chunk {
    let at = numbers.below(chunks.len());
    &mut chunks[at]
}

/// Something that nobody would think of.
fn scratch(numbers: &mut Numbers, bytes: &mut Vec<u8>) {
    let at = numbers.below(bytes.len());
    const BYTES: &[u8] = b"\r\n\0 \t:;,=\"0159afX\x0b\x7f\x80\xff";
    let byte = BYTES[numbers.below(BYTES.len())];
    match numbers.below(5) {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => drop(bytes.remove(at)),
        3 => {
            let end = (at + 1 + numbers.below(30)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let to = numbers.below(bytes.len());
            bytes.splice(to..to, part);
        }
        _ => bytes.swap(at, at.saturating_sub(1)),
    }
}
