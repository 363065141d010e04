//! A second reader of HTTP/1.1: slow, plain, after the grammar of RFC 9112 and RFC 9110 and nothing else.
//!
//! It shares no code with the router. What it does not know, such as limits of size, is not its business.

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// They may become one: more has to come.
    More,
    /// They never will.
    Malformed,
}

/// Names in lower case, and values without the blanks around them.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: Vec<u8>,
    /// The target.
    pub target: Vec<u8>,
    /// Whether the version is 1.1; else it is 1.0.
    pub modern: bool,
    /// Its header lines.
    pub fields: Fields,
    /// How the body is framed.
    pub framing: Framing,
    /// How many bytes the head has, an empty line in front of it included.
    pub bytes: usize,
}

/// An answer's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    /// The status.
    pub status: u16,
    /// The words after it.
    pub reason: Vec<u8>,
    /// Whether the version is 1.1; else it is 1.0.
    pub modern: bool,
    /// Its header lines.
    pub fields: Fields,
    /// How the body is framed, if there is one.
    pub framing: Framing,
    /// Whether its fields frame it in more than one way.
    pub ambiguous: bool,
    /// How many bytes the head has, an empty line in front of it included.
    pub bytes: usize,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length, which may be 0.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the connection's end.
    ToEnd,
}

/// A body, without its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// What it holds.
    pub data: Vec<u8>,
    /// What follows it.
    pub trailers: Fields,
    /// How many bytes it has with its framing.
    pub bytes: usize,
}

impl Head {
    /// The values of a field, by its name in lower case.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        values(&self.fields, name)
    }

    /// Whether a comma-separated field has this token, whatever its case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        lists(&self.fields, name, token)
    }
}

/// The values of a field, by its name in lower case.
pub fn values<'a>(
    fields: &'a [(Vec<u8>, Vec<u8>)],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> {
    let found = move |(key, _): &&(Vec<u8>, Vec<u8>)| key == name.as_bytes();
    fields.iter().filter(found).map(|(_, value)| &value[..])
}

/// Whether a comma-separated field has this token, whatever its case.
pub fn lists(fields: &[(Vec<u8>, Vec<u8>)], name: &str, token: &str) -> bool {
    values(fields, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|one| trim(one).eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether these are the same fields.
pub fn same(headers: &http::HeaderMap, fields: &[(Vec<u8>, Vec<u8>)]) -> bool {
    let all = |name: &http::HeaderName| {
        let ours = headers
            .get_all(name)
            .iter()
            .map(http::HeaderValue::as_bytes);
        ours.eq(values(fields, name.as_str()))
    };
    headers.len() == fields.len() && headers.keys().all(all)
}

/// How many bytes of empty lines are passed over between two requests, before the one that may stand in front of any head.
pub fn passed_over(text: &[u8]) -> usize {
    let lines = text.chunks(2).take_while(|line| line == b"\r\n");
    2 * lines.take(3).count()
}

/// Reads a request's head (RFC 9112 sections 2 to 6).
pub fn head(text: &[u8]) -> Result<Head, Stop> {
    let (first, fields, bytes) = block(text)?;
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Stop::Malformed);
    };
    let modern = modern(version)?;
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Stop::Malformed);
    }
    let mut head = Head {
        method: method.to_vec(),
        target: target.to_vec(),
        modern,
        fields,
        framing: Framing::Length(0),
        bytes,
    };
    let lengths: Vec<&[u8]> = head.values("content-length").collect();
    let codings: Vec<&[u8]> = head.values("transfer-encoding").collect();
    head.framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::Length(0),
        ([length], []) => Framing::Length(number(length, 10)?),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && modern => Framing::Chunked,
        _ => return Err(Stop::Malformed),
    };
    Ok(head)
}

/// Reads an answer's head (RFC 9112 sections 4 to 6).
pub fn answer(text: &[u8]) -> Result<AnswerHead, Stop> {
    let (first, fields, bytes) = block(text)?;
    let mut parts = first.splitn(3, |byte| *byte == b' ');
    let modern = modern(parts.next().unwrap_or_default())?;
    let digits = parts.next().unwrap_or_default();
    let status = number(digits, 10)?;
    let reason = parts.next().unwrap_or_default();
    if digits.len() != 3 || !(100..600).contains(&status) || !reason.iter().all(|b| is_text(*b)) {
        return Err(Stop::Malformed);
    }
    let mut lengths = values(&fields, "content-length")
        .map(|length| number(length, 10))
        .collect::<Result<Vec<_>, _>>()?;
    lengths.dedup();
    let codings: Vec<&[u8]> = values(&fields, "transfer-encoding").collect();
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::ToEnd,
        ([length], []) => Framing::Length(*length),
        ([] | [_], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && modern => {
            Framing::Chunked
        }
        _ => return Err(Stop::Malformed),
    };
    Ok(AnswerHead {
        status: u16::try_from(status).map_err(|_| Stop::Malformed)?,
        reason: reason.to_vec(),
        modern,
        framing,
        ambiguous: !lengths.is_empty() && !codings.is_empty(),
        fields,
        bytes,
    })
}

/// A head's first line, its fields, and how many bytes it has.
fn block(text: &[u8]) -> Result<(&[u8], Fields, usize), Stop> {
    let skipped = if text.starts_with(b"\r\n") { 2 } else { 0 };
    let text = &text[skipped..];
    let mut lines = Vec::new();
    let mut from = 0;
    loop {
        let line = line(&text[from..])?;
        from += line.len() + 2;
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let Some((first, lines)) = lines.split_first() else {
        return Err(Stop::Malformed);
    };
    let fields = lines
        .iter()
        .map(|line| field(line))
        .collect::<Result<_, _>>()?;
    Ok((first, fields, skipped + from))
}

/// Whether this is version 1.1; else it is 1.0.
fn modern(version: &[u8]) -> Result<bool, Stop> {
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Stop::Malformed),
    }
}

/// Reads a body.
pub fn body(text: &[u8], framing: Framing) -> Result<Body, Stop> {
    match framing {
        Framing::Length(length) => {
            let bytes = usize::try_from(length).map_err(|_| Stop::More)?;
            let data = text.get(..bytes).ok_or(Stop::More)?.to_vec();
            Ok(Body {
                data,
                trailers: Vec::new(),
                bytes,
            })
        }
        Framing::Chunked => chunked(text),
        Framing::ToEnd => Ok(Body {
            data: text.to_vec(),
            trailers: Vec::new(),
            bytes: text.len(),
        }),
    }
}

/// RFC 9112 section 7.1.
fn chunked(text: &[u8]) -> Result<Body, Stop> {
    let mut body = Body {
        data: Vec::new(),
        trailers: Vec::new(),
        bytes: 0,
    };
    loop {
        let first = line(&text[body.bytes..])?;
        let digits = first
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let size = number(&first[..digits], 16)?;
        extensions(&first[digits..])?;
        body.bytes += first.len() + 2;
        if size == 0 {
            break;
        }
        let size = usize::try_from(size).map_err(|_| Stop::More)?;
        let rest = &text[body.bytes..];
        body.data
            .extend_from_slice(rest.get(..size).ok_or(Stop::More)?);
        match rest.get(size..).unwrap_or_default() {
            [b'\r', b'\n', ..] => body.bytes += size + 2,
            [] | [b'\r'] => return Err(Stop::More),
            _ => return Err(Stop::Malformed),
        }
    }
    loop {
        let line = line(&text[body.bytes..])?;
        body.bytes += line.len() + 2;
        if line.is_empty() {
            return Ok(body);
        }
        body.trailers.push(field(line)?);
    }
}

/// RFC 9112 section 7.1.1: `*( BWS ";" BWS name [ BWS "=" BWS value ] )`.
fn extensions(mut rest: &[u8]) -> Result<(), Stop> {
    while !rest.is_empty() {
        rest = trim_start(rest).strip_prefix(b";").ok_or(Stop::Malformed)?;
        rest = token(trim_start(rest))?;
        if let Some(value) = trim_start(rest).strip_prefix(b"=") {
            let value = trim_start(value);
            rest = match value.strip_prefix(b"\"") {
                Some(quoted) => quoted_rest(quoted)?,
                None => token(value)?,
            };
        }
    }
    Ok(())
}

/// What follows a token.
fn token(text: &[u8]) -> Result<&[u8], Stop> {
    let end = text.iter().take_while(|byte| is_token(&[**byte])).count();
    if end == 0 {
        return Err(Stop::Malformed);
    }
    Ok(&text[end..])
}

/// What follows a quoted string, whose first quote was read (RFC 9110 section 5.6.4).
fn quoted_rest(mut text: &[u8]) -> Result<&[u8], Stop> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', byte, rest @ ..] if is_text(*byte) => rest,
            [b'\\', ..] => return Err(Stop::Malformed),
            [byte, rest @ ..] if is_text(*byte) => rest,
            _ => return Err(Stop::Malformed),
        }
    }
}

/// The line at the front, without its end; a carriage return or a line feed alone ends nothing.
fn line(text: &[u8]) -> Result<&[u8], Stop> {
    let Some(end) = text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return Err(Stop::More);
    };
    match text[end..] {
        [b'\r', b'\n', ..] => Ok(&text[..end]),
        [b'\r'] => Err(Stop::More),
        _ => Err(Stop::Malformed),
    }
}

fn field(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Stop> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Stop::Malformed)?;
    let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
    if !is_token(name) || !value.iter().all(|byte| is_text(*byte)) {
        return Err(Stop::Malformed);
    }
    Ok((name.to_ascii_lowercase(), value.to_vec()))
}

fn number(digits: &[u8], radix: u32) -> Result<u64, Stop> {
    let plain = !digits.is_empty() && digits.iter().all(|byte| char::from(*byte).is_digit(radix));
    let text = std::str::from_utf8(digits).ok().filter(|_| plain);
    text.and_then(|text| u64::from_str_radix(text, radix).ok())
        .ok_or(Stop::Malformed)
}

fn is_token(text: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(allowed)
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7E | 0x80..)
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    &text[blanks..]
}

fn trim(text: &[u8]) -> &[u8] {
    let text = trim_start(text);
    let blanks = text
        .iter()
        .rev()
        .take_while(|byte| matches!(byte, b' ' | b'\t'))
        .count();
    &text[..text.len() - blanks]
}
