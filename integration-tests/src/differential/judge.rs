//! What the cells got, held against what the client sent, and one proxy against the other.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::strict::{self, Stop};

/// A request, as far as it matters where it ends and for what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Reached {
    /// The method.
    pub method: Vec<u8>,
    /// The target in origin form.
    pub target: Vec<u8>,
    /// The body, if it came whole.
    pub body: Option<Vec<u8>>,
}

/// As a first line and a body.
impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            target,
            body,
        } = self;
        write!(f, "{} {}", method.escape_ascii(), target.escape_ascii())?;
        match body {
            Some(body) => write!(f, " \"{}\"", body.escape_ascii()),
            None => f.write_str(" cut"),
        }
    }
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A cell got from the router what is no request, or more than one.
    NotOneRequest,
    /// A cell got from the router what the client's bytes do not hold, at that place.
    NotSent,
    /// The router's log does not say what its cell got.
    NotLogged,
    /// Router and nginx let through different requests, not only fewer, and nginx such as the client's bytes do not hold.
    Disagreement,
    /// A client's or a cell's connection stays open.
    StaysOpen,
}

/// Who let less through, where not both did the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Less {
    /// The router.
    Router,
    /// nginx.
    Nginx,
    /// Each refused what the other let through, of the same requests.
    Each,
    /// The router: what nginx let through is no request after the RFC, such as one with control characters.
    Form,
}

/// How often what came of a row of requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Rows of requests.
    pub rows: u64,
    /// Requests that reached a cell through the router, and through nginx.
    pub reached: [u64; 2],
    /// Rows of which both let the same through.
    pub same: u64,
    /// Rows of which one let less through, by who did and the statuses that router and nginx ended with, each with its
    /// shortest example.
    pub less: BTreeMap<(Less, u16, u16), (u64, Vec<u8>)>,
    /// What must not be, each with what is wrong, and an example.
    pub findings: Vec<(Finding, String, Vec<u8>)>,
}

/// What came over connections to a cell.
///
/// # Errors
/// A connection that holds no request, or more than one.
pub fn reached(connections: &[Vec<u8>]) -> Result<Vec<Reached>, String> {
    let mut found = Vec::new();
    for got in connections {
        let head = match strict::head(got) {
            Ok(head) => head,
            // The proxy left before it had sent a head.
            Err(Stop::More) => continue,
            Err(Stop::Malformed) => return Err(format!("no head: {}", got.escape_ascii())),
        };
        let after = &got[head.bytes..];
        let body = match strict::body(after, head.framing) {
            Ok(body) if body.bytes == after.len() => Some(body.data),
            Err(Stop::More) => None,
            Ok(_) => return Err(format!("more than one request: {}", got.escape_ascii())),
            Err(Stop::Malformed) => return Err(format!("no body: {}", got.escape_ascii())),
        };
        found.push(Reached {
            method: head.method,
            target: head.target,
            body,
        });
    }
    Ok(found)
}

/// The requests that a client's bytes hold, up to what is none.
pub fn sent(bytes: &[u8]) -> Vec<Reached> {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        at += strict::passed_over(&bytes[at..]);
        let Ok(head) = strict::head(&bytes[at..]) else {
            break;
        };
        at += head.bytes;
        let body = strict::body(&bytes[at..], head.framing);
        found.push(Reached {
            method: head.method,
            target: origin(&head.target),
            body: body.as_ref().ok().map(|body| body.data.clone()),
        });
        match body {
            Ok(body) => at += body.bytes,
            Err(_) => break,
        }
    }
    found
}

/// The path and query of a target in absolute form.
fn origin(target: &[u8]) -> Vec<u8> {
    let lower = target.to_ascii_lowercase();
    let schemes = [&b"http://"[..], b"https://"];
    let Some(scheme) = schemes.into_iter().find(|scheme| lower.starts_with(scheme)) else {
        return target.to_vec();
    };
    let rest = &target[scheme.len()..];
    let path = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    match path.map(|at| &rest[at..]) {
        Some(path) if path.starts_with(b"/") => path.to_vec(),
        Some(query) => [b"/", query].concat(),
        None => b"/".to_vec(),
    }
}

/// Whether `fewer` is `all`, less some. What came cut may have been whole when it was sent.
pub fn within(fewer: &[Reached], all: &[Reached]) -> bool {
    let mut rest = all.iter();
    fewer.iter().all(|one| {
        rest.any(|other| {
            one.method == other.method
                && one.target == other.target
                && (one.body.is_none() || one.body == other.body)
        })
    })
}

/// What the log says of a cell, held against what it got.
///
/// # Errors
/// What does not fit.
pub fn logged<'a>(records: impl Iterator<Item = &'a Value>, got: &[Reached]) -> Result<(), String> {
    let streamed = records.filter(|record| record["lane"] == "stream");
    let key = |record: &Value| {
        let path = record["path"].as_str().unwrap_or_default();
        format!("{} {path}", record["method"].as_str().unwrap_or_default())
    };
    let mut said: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for record in streamed {
        let counts = said.entry(key(record)).or_default();
        counts.0 += 1;
        counts.1 += usize::from(record["status"] == 200);
    }
    let mut came: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for one in got {
        let target = String::from_utf8_lossy(&one.target);
        let path = target.split('?').next().unwrap_or_default();
        let counts = came
            .entry(format!("{} {path}", String::from_utf8_lossy(&one.method)))
            .or_default();
        counts.0 += 1;
        counts.1 += usize::from(one.body.is_some());
    }
    for (request, (all, answered)) in &said {
        let (came, whole) = came.get(request).copied().unwrap_or_default();
        if whole < *answered || came > *all {
            return Err(format!(
                "{request}: logged {all}, answered {answered}; came {came}, whole {whole}"
            ));
        }
    }
    match came.keys().find(|request| !said.contains_key(*request)) {
        Some(request) => Err(format!("{request} is not in the log")),
        None => Ok(()),
    }
}

impl Tally {
    /// Counts rows of which one let less through.
    pub fn note(&mut self, key: (Less, u16, u16), count: u64, example: Vec<u8>) {
        let known = self.less.entry(key).or_insert((0, example.clone()));
        known.0 += count;
        if example.len() < known.1.len() {
            known.1 = example;
        }
    }

    /// Takes what another one has counted.
    pub fn add(&mut self, other: Tally) {
        self.rows += other.rows;
        self.same += other.same;
        self.reached[0] += other.reached[0];
        self.reached[1] += other.reached[1];
        self.findings.extend(other.findings);
        for (key, (count, example)) in other.less {
            self.note(key, count, example);
        }
    }

    fn count(&self, who: Less) -> u64 {
        let by = self.less.iter().filter(|((less, ..), _)| *less == who);
        by.map(|(_, (count, _))| count).sum()
    }
}

/// One line, then where one let less through than the other, then what must not be.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rows,
            reached,
            same,
            findings,
            ..
        } = self;
        writeln!(
            f,
            "{rows} rows; requests that reached cells: {} (router), {} (nginx); rows with the same: {same}, with less by \
             the router: {}, by nginx: {}, by each of another: {}, with what is no request by nginx: {}; findings: {}",
            reached[0],
            reached[1],
            self.count(Less::Router),
            self.count(Less::Nginx),
            self.count(Less::Each),
            self.count(Less::Form),
            findings.len()
        )?;
        for ((who, router, nginx), (count, example)) in &self.less {
            let example = example.escape_ascii();
            writeln!(
                f,
                "  {who:?}, statuses {router} and {nginx}: {count}, such as \"{example}\""
            )?;
        }
        for (finding, why, example) in findings {
            writeln!(
                f,
                "{finding:?}: {why}\n  sent: \"{}\"",
                example.escape_ascii()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(method: &str, target: &str) -> Reached {
        Reached {
            method: method.into(),
            target: target.into(),
            body: Some(Vec::new()),
        }
    }

    #[test]
    fn who_refuses_another_request_has_read_the_same_ones() {
        // The router refuses the first for its Host and nginx the second, which has none.
        let bytes = b"GET http://a.example.com/abs HTTP/1.1\r\nHost: b.example.com\r\n\r\n\
            GET /1/a HTTP/1.1\r\nX-A: 1\r\n\r\n\
            GET /fence HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
        let (router, nginx) = ([one("GET", "/fence")], [one("GET", "/abs")]);
        assert!(!within(&router, &nginx) && !within(&nginx, &router));
        assert!(within(&router, &sent(bytes)) && within(&nginx, &sent(bytes)));
        let smuggled = [one("GET", "/smuggled")];
        assert!(!within(&smuggled, &sent(bytes)));
    }
}
