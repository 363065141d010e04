//! Where a request would go, and why: the same resolving and deciding as for a real one.

use std::fmt;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use serde::Serialize;

use crate::config::Place;
use crate::decision::{
    self, Answer, BodyLength, CellState, Decision, Facts, ReplayKind, Surroundings,
};
use crate::registry::{HostName, Placement, Registry, Route, SignIn, SignInBy};
use crate::wire::{fly, forward};

/// A request to be explained, as it would arrive.
#[derive(Debug, Clone)]
pub struct Question {
    /// The method.
    pub method: Method,
    /// An absolute URL; its authority stands for `Host`.
    pub url: Uri,
    /// Header lines beside `Host`.
    pub headers: HeaderMap,
    /// How long the body is.
    pub body: BodyLength,
    /// Where the router would run.
    pub place: Place,
    /// Where plain HTTP is redirected: the port of https; `None` if it is served.
    pub https_redirect: Option<u16>,
    /// The largest body that is replayed, in bytes.
    pub replay_max_bytes: u64,
    /// Whether the cell's machine is asleep.
    pub asleep: bool,
    /// The cell's live state.
    pub state: CellState,
}

/// Why a question cannot be asked.
#[derive(Debug, PartialEq, Eq)]
pub enum BadQuestion {
    /// The URL has no authority.
    NoHost,
    /// A header line is none.
    Header(String),
}

impl fmt::Display for BadQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost => f.write_str(
                "the URL names no host; write it whole, as in http://alice.example.com/path",
            ),
            Self::Header(line) => write!(f, "{line:?} is no header line; write NAME: VALUE"),
        }
    }
}

impl std::error::Error for BadQuestion {}

/// What would become of the request.
#[derive(Debug, Serialize, PartialEq, Eq, utoipa::ToSchema)]
pub struct Explanation {
    /// The cell, where one was found.
    pub cell: Option<String>,
    /// What in the registry matched.
    pub matched: Option<String>,
    /// How its client has to sign in first; what follows is for one that has.
    pub signs_in: Option<String>,
    /// `answer`, `hold`, `stream` or `replay`.
    pub lane: &'static str,
    /// The condition that decided, as in the log.
    pub reason: &'static str,
    /// The condition in words.
    pub because: &'static str,
    /// Where it would be sent.
    pub to: Option<String>,
    /// Path and query as the cell would get them.
    pub target: Option<String>,
    /// The replay instruction, without the signature.
    pub instruction: Option<String>,
    /// The page that a browser would get, where the router answers.
    pub page: Option<String>,
    /// Whether the cell would be woken first, and by whom.
    pub wakes: Option<&'static str>,
}

/// Reads a header line.
///
/// # Errors
/// `BadQuestion::Header`.
pub fn header_line(line: &str) -> Result<(HeaderName, HeaderValue), BadQuestion> {
    let bad = || BadQuestion::Header(line.to_owned());
    let (name, value) = line.split_once(':').ok_or_else(bad)?;
    Ok((
        name.trim().parse().map_err(|_| bad())?,
        value.trim().parse().map_err(|_| bad())?,
    ))
}

/// Explains a question by a registry.
///
/// # Errors
/// `BadQuestion::NoHost`.
pub fn explain(registry: &Registry, question: &Question) -> Result<Explanation, BadQuestion> {
    let authority = question.url.authority().ok_or(BadQuestion::NoHost)?;
    let mut request = Request::new(());
    *request.method_mut() = question.method.clone();
    *request.headers_mut() = question.headers.clone();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| BadQuestion::NoHost)?;
    request.headers_mut().entry(header::HOST).or_insert(host);
    let target = question
        .url
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = target.parse().map_err(|_| BadQuestion::NoHost)?;
    let (head, ()) = request.into_parts();
    let on_fly = question.place != Place::Elsewhere;
    // Elsewhere each router makes up its name when it starts: no request can name it beforehand.
    let pseudonym = question.place.pseudonym().unwrap_or_default();
    let surroundings = Surroundings {
        through_edge: on_fly,
        https_at: question
            .https_redirect
            .filter(|_| question.url.scheme_str() != Some("https")),
        replay_max_bytes: question.replay_max_bytes,
        pseudonym: &pseudonym,
    };
    let facts = match Facts::read(&head, question.body, &surroundings) {
        Ok(facts) => facts,
        Err(fault) => return Ok(refused(Answer::Malformed(fault), registry)),
    };
    let found = match decision::resolve(registry, &facts) {
        Ok(found) => found,
        Err(answer) => return Ok(refused(answer, registry)),
    };
    let decide =
        |facts: &Facts<'_>| decision::decide(facts, &found, question.state, &question.place);
    let mut decided = decide(&facts);
    let signs_in = (decided == Decision::SignIn).then(|| {
        decided = decide(&Facts {
            signed_in: true,
            ..facts.clone()
        });
        found.cell.policy.sign_in.as_deref().map(signs_in)
    });
    let placement = &found.cell.placement;
    let sent = matches!(decided, Decision::Stream(_) | Decision::Replay(_));
    let target = head.uri.path_and_query().filter(|_| sent);
    let target = target.map(|target| match found.stripped_prefix() {
        Some(prefix) => forward::without_prefix(target, prefix).to_string(),
        None => target.to_string(),
    });
    Ok(Explanation {
        cell: Some(found.cell.name.as_str().to_owned()),
        matched: Some(matched(&found.route, &facts)),
        signs_in: signs_in.flatten(),
        lane: decided.lane(),
        reason: decided.reason(),
        because: because(&decided),
        to: match (&decided, &found.cell.policy.files) {
            (Decision::Files, Some(files)) => Some(format!("the folder {}", files.folder)),
            _ => sent.then(|| destination(placement, &decided)),
        },
        target,
        instruction: instruction(&decided, placement),
        page: page(&decided, found.cell.policy.pages.as_deref()),
        wakes: question
            .asleep
            .then(|| wakes(&decided, placement, decision::may_wake(&facts, found.cell)))
            .flatten(),
    })
}

fn refused(answer: Answer, registry: &Registry) -> Explanation {
    let decided = Decision::Answer(answer);
    Explanation {
        cell: None,
        matched: None,
        signs_in: None,
        lane: decided.lane(),
        reason: decided.reason(),
        because: because(&decided),
        to: None,
        target: None,
        instruction: None,
        page: page(&decided, registry.pages().map(|folder| &**folder)),
        wakes: None,
    }
}

fn matched(route: &Route<'_>, facts: &Facts<'_>) -> String {
    let host = HostName::normalise(facts.authority).unwrap_or_default();
    match route {
        Route::Host => format!("host {host}"),
        Route::Wildcard => format!("wildcard host above {host}"),
        Route::Subdomain => format!("subdomain {host}"),
        Route::Path {
            prefix,
            strip: false,
        } => format!("path {prefix}, kept"),
        Route::Path {
            prefix,
            strip: true,
        } => format!("path {prefix}, taken off"),
        Route::MachinePath => "the machine id in the path".to_owned(),
        Route::Default => "nothing; it is the default cell".to_owned(),
    }
}

fn signs_in(sign_in: &SignIn) -> String {
    match &sign_in.by {
        SignInBy::Basic { file, .. } => format!("with a password of the file {file}; else 401"),
        SignInBy::Forward { url, .. } => format!("as {url} says; else what that answers"),
    }
}

fn destination(placement: &Placement, decided: &Decision) -> String {
    match (placement, decided) {
        (Placement::Machine { app, machine, .. }, Decision::Replay(_)) => {
            format!(
                "machine {} of app {}, by the edge",
                machine.as_str(),
                app.as_str()
            )
        }
        (Placement::Machine { app, machine, port }, _) => {
            format!("{}.vm.{}.internal:{port}", machine.as_str(), app.as_str())
        }
        (Placement::Address { host, port }, _) => format!("{host}:{port}"),
    }
}

fn instruction(decided: &Decision, placement: &Placement) -> Option<String> {
    let (Decision::Replay(kind), Placement::Machine { app, machine, .. }) = (decided, placement)
    else {
        return None;
    };
    let (app, machine) = (app.as_str(), machine.as_str());
    let value = match kind {
        ReplayKind::Strict { timeout } => fly::strict(
            app,
            machine,
            timeout.map(|timeout| timeout.as_millis()),
            None,
        ),
        ReplayKind::Cached { .. } => fly::cached(app, machine),
    };
    value
        .to_str()
        .ok()
        .map(|value| format!("fly-replay: {value}"))
}

/// The operator's page for an answer; the router's own needs no word.
fn page(decided: &Decision, folder: Option<&str>) -> Option<String> {
    let (Decision::Answer(answer), Some(folder)) = (decided, folder) else {
        return None;
    };
    let page = answer.page()?;
    Some(format!(
        "{} of the folder {folder}, if it is there",
        page.file()
    ))
}

fn wakes(decided: &Decision, placement: &Placement, may_wake: bool) -> Option<&'static str> {
    match (decided, placement) {
        (Decision::Replay(_), _) => Some("the edge starts the machine"),
        (Decision::Stream(_), Placement::Machine { .. }) if !may_wake => {
            Some("nobody: it is not a visitor's request, and gets 503")
        }
        (Decision::Stream(_), Placement::Machine { .. }) => Some(
            "the router starts the machine through the Machines API and waits until the cell answers",
        ),
        (Decision::Stream(_), Placement::Address { .. }) => {
            Some("nothing can: the cell lives at an address")
        }
        (Decision::Answer(_) | Decision::Hold | Decision::SignIn | Decision::Files, _) => None,
    }
}

fn because(decided: &Decision) -> &'static str {
    use crate::decision::{Malformed, StreamReason};
    match decided {
        Decision::Files => "there are files at this path that the router serves itself",
        Decision::SignIn => "the client has to sign in before the cell",
        Decision::Hold => "the cell is paused: the request waits until its entry changes",
        Decision::Replay(ReplayKind::Strict { .. }) => {
            "no body or a small one: the edge delivers it, and brings it back if it cannot"
        }
        Decision::Replay(ReplayKind::Cached { .. }) => {
            "no body or a small one: the edge delivers it, and the next ones without asking"
        }
        Decision::Stream(reason) => match reason {
            StreamReason::NotOnFly => "the router does not run on Fly.io",
            StreamReason::NotThroughEdge => "the request did not come through Fly's edge",
            StreamReason::ReplayNever => "the cell's entry says so",
            StreamReason::AddressCell => {
                "the cell lives at an address, where the edge cannot deliver"
            }
            StreamReason::SignsIn => {
                "clients sign in before the cell, and the edge would let them claim to be others"
            }
            StreamReason::ReplayFailed => "the edge hands back a replay that failed",
            StreamReason::AlreadyReplayed => "the router replayed this request before",
            StreamReason::StripsPrefix => {
                "the path prefix is taken off, which a replay would not do"
            }
            StreamReason::NotToWake => {
                "the cell is not to be woken for such a request, as the edge would to deliver it"
            }
            StreamReason::LargeBody => "the body is longer than the edge re-sends",
            StreamReason::UnknownLength => "nobody knows yet how long the body is",
        },
        Decision::Answer(answer) => match answer {
            Answer::Malformed(Malformed::Host) => "it names no valid host, or several",
            Answer::Malformed(Malformed::AuthorityMismatch) => {
                "its request line and its Host name different hosts"
            }
            Answer::Malformed(Malformed::Target) => "its target is neither a path nor a URL",
            Answer::Malformed(Malformed::Method) => "no cell is asked for this method",
            Answer::AmbiguousPath => {
                "the path chooses the cell here, and it can be read in two ways"
            }
            Answer::NoSuchCell => "no cell has this host or path",
            Answer::Up => "it is the router's own health check",
            Answer::Reserved => "the path is kept for the router",
            Answer::Loop => "it has passed through this router before",
            Answer::LastHop => "it is to be forwarded no further",
            Answer::UseHttps(_) => "it comes by plain HTTP, and is to come by https",
            Answer::Disabled => "the cell is disabled",
            Answer::Maintenance(_) => "the cell is in maintenance",
            Answer::NoSuchFile => "there are only files at this path, and this is none",
            Answer::FilesOnly => "there are only files at this path, and they are only read",
            Answer::TooLarge => "the body is larger than the cell's entry allows",
            Answer::Full(_) => "the cell has as many requests in flight as its entry allows",
            Answer::BreakerOpen(_) => {
                "the cell could not be reached, and is left alone for a while"
            }
        },
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: Option<&str>| match value {
            Some(value) => writeln!(f, "{name:<12}{value}"),
            None => Ok(()),
        };
        row("cell", Some(self.cell.as_deref().unwrap_or("none")))?;
        row("matched", self.matched.as_deref())?;
        row("signs in", self.signs_in.as_deref())?;
        row("lane", Some(self.lane))?;
        row("reason", Some(self.reason))?;
        row("because", Some(self.because))?;
        row("to", self.to.as_deref())?;
        row("target", self.target.as_deref())?;
        row("sends", self.instruction.as_deref())?;
        row("page", self.page.as_deref())?;
        row("wakes", self.wakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(target: &str, state: &str) -> String {
        let text = format!(
            r#"{{"version": 1, "domain": "example.com", "defaults": {{"pages": "p"}}, "cells": {{"alice": {{
                "address": "h:1", "state": "{state}", "static": {{"folder": "site", "path": "/art"}},
                "sign_in": {{"basic": "people", "public": ["/open"]}}
            }}}}}}"#
        );
        let registry = Registry::parse(text.as_bytes()).unwrap();
        let question = Question {
            method: Method::GET,
            url: format!("https://alice.example.com{target}")
                .parse()
                .unwrap(),
            headers: HeaderMap::new(),
            body: BodyLength::None,
            place: Place::Elsewhere,
            https_redirect: None,
            replay_max_bytes: 1_000_000,
            asleep: false,
            state: CellState::default(),
        };
        let Explanation {
            lane,
            reason,
            signs_in,
            to,
            page,
            ..
        } = explain(&registry, &question).unwrap();
        let said = [signs_in, to, page];
        let said: Vec<_> = said.into_iter().flatten().collect();
        format!("{lane}/{reason}: {}", said.join("; "))
    }

    #[test]
    fn what_stands_before_a_cell_is_explained() {
        const SIGNS_IN: &str = "with a password of the file people; else 401";
        assert_eq!(
            explained("/x", "active"),
            format!("stream/not_on_fly: {SIGNS_IN}; h:1")
        );
        assert_eq!(explained("/open/x", "active"), "stream/not_on_fly: h:1");
        assert_eq!(
            explained("/art/x", "paused"),
            format!("static/static_file: {SIGNS_IN}; the folder site")
        );
        assert_eq!(
            explained("/x", "maintenance"),
            "answer/maintenance: maintenance.html of the folder p, if it is there"
        );
    }
}
