//! A reader of HTTP/1.1 messages as strict as the RFC can be read, for what came out of a proxy.
//!
//! It shares nothing with the router: it is the measure.

use std::ops::Range;

/// Whose message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A client's.
    Request,
    /// A server's, to a request of a method other than `HEAD`.
    Answer,
    /// A server's, to `HEAD`.
    HeadAnswer,
}

/// A message, as far as it came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its first line.
    pub line: String,
    /// Its header lines: names in lower case, values without blanks around them.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Its body, without framing.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Vec<(String, Vec<u8>)>,
    /// All of it came.
    pub whole: bool,
    /// Why it could be read in more than one way.
    pub flaw: Option<&'static str>,
    /// It ends where the connection does.
    pub to_the_end: bool,
    /// It was given up with this code (RFC 9113 section 7).
    pub reset: Option<u32>,
    /// Where it lies in what came.
    pub span: Range<usize>,
}

impl Message {
    /// The status of an answer; 0 if it has none.
    pub fn status(&self) -> u16 {
        let status = self.line.split(' ').nth(1);
        status
            .and_then(|status| status.parse().ok())
            .unwrap_or_default()
    }

    /// The values of a field.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        values(&self.fields, name)
    }

    /// Nothing more comes of it.
    pub fn over(&self) -> bool {
        self.whole || self.reset.is_some()
    }

    pub(super) fn interim(&self) -> bool {
        (100..200).contains(&self.status()) && self.status() != 101
    }
}

fn values<'a>(fields: &'a [(String, Vec<u8>)], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields
        .iter()
        .filter(move |(one, _)| one.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_slice())
}

/// The messages in what came over a connection, and what is left after them. `ended` says whether the connection was
/// closed in order.
pub fn messages(bytes: &[u8], role: Role, ended: bool) -> (Vec<Message>, &[u8]) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(message) = message(bytes, at, role, ended) {
        at = message.span.end;
        let over = !message.whole
            || message.flaw.is_some()
            || (role != Role::Request && message.status() == 101);
        found.push(message);
        if over {
            break;
        }
    }
    (found, &bytes[at..])
}

fn message(bytes: &[u8], from: usize, role: Role, ended: bool) -> Option<Message> {
    let end = find(&bytes[from..], b"\r\n\r\n")? + from;
    let head = &bytes[from..end + 2];
    let mut message = Message {
        flaw: lines_flaw(head),
        ..Message::default()
    };
    let mut lines = split_lines(head);
    message.line = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    for line in lines {
        match field(line) {
            Ok(field) => message.fields.push(field),
            Err(flaw) => message.flaw = message.flaw.or(Some(flaw)),
        }
    }
    if role == Role::Request && message.values("host").count() > 1 {
        message.flaw = message.flaw.or(Some("has several hosts"));
    }
    let start = end + 4;
    message.span = from..start;
    let coding: Vec<&[u8]> = message.values("transfer-encoding").collect();
    let lengths: Vec<&[u8]> = message.values("content-length").collect();
    let framing = match (&coding[..], &lengths[..]) {
        ([], []) => Ok(None),
        ([one], []) if one.eq_ignore_ascii_case(b"chunked") => Ok(Some(None)),
        ([], [one]) => number(one).map(|length| Some(Some(length))),
        ([], _) => Err("has several lengths"),
        (_, []) => Err("has a transfer coding other than `chunked`"),
        (_, _) => Err("has a length and a transfer coding"),
    };
    let framing = match framing {
        Ok(framing) => framing,
        Err(flaw) => {
            message.flaw = message.flaw.or(Some(flaw));
            return Some(message);
        }
    };
    let status = message.status();
    let bodiless = match role {
        Role::Request => false,
        Role::HeadAnswer => true,
        Role::Answer => (100..200).contains(&status) || status == 204 || status == 304,
    } || (role == Role::HeadAnswer && message.interim());
    if bodiless {
        message.whole = true;
        if (status == 204 || (100..200).contains(&status))
            && !matches!(framing, None | Some(Some(0)))
            && role != Role::Request
        {
            message.flaw = message.flaw.or(Some("has framing where there is no body"));
        }
        return Some(message);
    }
    match framing {
        None if role == Role::Request => message.whole = true,
        None => {
            message.to_the_end = true;
            message.body = bytes[start..].to_vec();
            message.span.end = bytes.len();
            message.whole = ended;
        }
        Some(Some(length)) => {
            let stop = bytes.len().min(start.saturating_add(length));
            message.body = bytes[start..stop].to_vec();
            message.span.end = stop;
            message.whole = stop - start == length;
        }
        Some(None) => chunks(bytes, start, &mut message),
    }
    Some(message)
}

fn chunks(bytes: &[u8], from: usize, message: &mut Message) {
    let mut at = from;
    loop {
        message.span.end = at;
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return;
        };
        let line = &bytes[at..at + end];
        let Some(size) = hexadecimal(line) else {
            message.flaw = Some("has a malformed chunk");
            return;
        };
        at += end + 2;
        if size == 0 {
            break;
        }
        let stop = bytes.len().min(at.saturating_add(size));
        message.body.extend_from_slice(&bytes[at..stop]);
        message.span.end = stop;
        if stop - at < size || bytes.len() < stop + 2 {
            return;
        }
        if &bytes[stop..stop + 2] != b"\r\n" {
            message.flaw = Some("has a malformed chunk");
            return;
        }
        at = stop + 2;
    }
    let mut trailers = Vec::new();
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else {
            return;
        };
        let line = &bytes[at..at + end];
        at += end + 2;
        if line.is_empty() {
            break;
        }
        match field(line) {
            Ok(field) => trailers.push(field),
            Err(flaw) => {
                message.flaw = Some(flaw);
                return;
            }
        }
    }
    message.span.end = at;
    message.trailers = trailers;
    message.whole = true;
}

fn hexadecimal(line: &[u8]) -> Option<usize> {
    let digits = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(line).ok().filter(|_| digits)?;
    usize::from_str_radix(text, 16).ok()
}

fn number(value: &[u8]) -> Result<usize, &'static str> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .ok_or("has a length that is no number")
}

/// What is wrong with a head's line ends and characters.
fn lines_flaw(head: &[u8]) -> Option<&'static str> {
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || head[at - 1] != b'\r' => return Some("has a bare line feed"),
            b'\r' if head.get(at + 1) != Some(&b'\n') => return Some("has a bare carriage return"),
            0 => return Some("has a NUL"),
            _ => {}
        }
    }
    None
}

fn split_lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = find(rest, b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        Some(line)
    })
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("has a folded line");
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or("has a line without a colon")?;
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if colon == 0 || !line[..colon].iter().all(token) {
        return Err("has a name that is no token");
    }
    let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
    Ok((name, line[colon + 1..].trim_ascii().to_vec()))
}

/// Where `wanted` first is in `bytes`.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

/// Interim and final answers, apart.
pub fn sort(answers: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    answers.into_iter().partition(Message::interim)
}
