//! What an outcome is worth.

use std::fmt;

use super::message::Message;
use super::run::{Got, Observed};
use super::upstream::End;
use super::{Case, Check, Right, Verdict};

/// The first line of what follows a request that may be refused.
const FENCE: &str = "GET /end HTTP/1.1";

/// The verdict on what was observed, and what is not as it should be.
pub fn judge(case: &Case, observed: &Observed) -> (Verdict, Option<String>) {
    if let Some(flaw) = flaw(observed) {
        return (Verdict::Wrong, Some(flaw));
    }
    match &case.right {
        Right::Refused {
            statuses,
            cleaned,
            ends,
        } => refused(observed, statuses, *cleaned, *ends),
        Right::Holds { must, should } => {
            let view = View::of(observed);
            let broken = |checks: &[Check]| {
                checks
                    .iter()
                    .find(|check| !view.holds(check))
                    .map(|check| format!("not: {check}"))
            };
            if let Some(fault) = broken(must) {
                (Verdict::Wrong, Some(fault))
            } else if let Some(fault) = broken(should) {
                (Verdict::Debatable, Some(fault))
            } else {
                (Verdict::Right, None)
            }
        }
    }
}

/// What nobody may pass on, whatever the case: a message that two readers could read in two ways.
fn flaw(observed: &Observed) -> Option<String> {
    for connection in &observed.cell.connections {
        let (requests, rest) = connection.requests();
        if let Some(flaw) = requests.iter().find_map(|request| request.flaw) {
            return Some(format!("the cell gets what {flaw}"));
        }
        let cut = requests.last().is_some_and(|last| !last.whole);
        if !rest.is_empty() && !cut && connection.end.is_some_and(|end| end != End::Ours) {
            return Some("the cell gets half a head".to_owned());
        }
    }
    let (interim, finals, _) = observed.answers();
    let answers = interim.iter().chain(&finals);
    let flaw = answers.filter_map(|answer| answer.flaw).next()?;
    Some(format!("the client gets what {flaw}"))
}

fn refused(
    observed: &Observed,
    statuses: &[u16],
    cleaned: Verdict,
    ends: bool,
) -> (Verdict, Option<String>) {
    let (_, answers, _) = observed.answers();
    let requests = observed.cell.requests();
    let follows = |request: &Message| request.line == FENCE;
    let got = requests.iter().filter(|(_, one)| !follows(one)).count();
    if got > 0 {
        let fault = match got {
            1 => "the cell gets it".to_owned(),
            count => format!("the cell gets {count} requests of it"),
        };
        let verdict = if got == 1 { cleaned } else { Verdict::Wrong };
        return (verdict, (verdict != Verdict::Right).then_some(fault));
    }
    let silent = observed
        .cell
        .connections
        .iter()
        .all(|one| one.got.is_empty());
    if requests.is_empty() && !silent {
        return (Verdict::Wrong, Some("the cell gets bytes".to_owned()));
    }
    let http2 = observed.client.iter().any(|got| got.http2);
    let reset = answers.first().is_some_and(|first| first.reset.is_some());
    let given_up = |got: &Got| got.goaway().is_some_and(|code| code != 0);
    if http2 && (reset || observed.client.iter().any(given_up)) {
        return (Verdict::Right, None);
    }
    let status = answers
        .first()
        .map(Message::status)
        .filter(|status| *status > 0);
    let ended = observed.client.iter().all(|got| got.end.is_some());
    let debatable = |fault: &str| (Verdict::Debatable, Some(fault.to_owned()));
    match status {
        Some(200) => (Verdict::Wrong, Some("it is passed over".to_owned())),
        Some(status) if http2 && statuses.contains(&status) => (Verdict::Right, None),
        Some(_) if http2 => debatable("another status"),
        Some(_) if !ended || (ends && !requests.is_empty()) => debatable("the connection goes on"),
        Some(status) if !statuses.contains(&status) => debatable("another status"),
        Some(_) if answers.len() > 1 && requests.is_empty() => debatable("two answers"),
        Some(_) => (Verdict::Right, None),
        None if ended => debatable("no answer"),
        None => debatable("waits for more"),
    }
}

/// What was observed, taken apart once.
struct View<'a> {
    observed: &'a Observed,
    requests: Vec<(usize, Message)>,
    interim: Vec<Message>,
    answers: Vec<Message>,
    rest: Vec<u8>,
}

impl<'a> View<'a> {
    fn of(observed: &'a Observed) -> Self {
        let (interim, answers, rest) = observed.answers();
        Self {
            observed,
            requests: observed.cell.requests(),
            interim,
            answers,
            rest,
        }
    }

    fn request(&self, at: usize) -> Option<&Message> {
        self.requests.get(at).map(|(_, request)| request)
    }

    fn holds(&self, check: &Check) -> bool {
        let request = |at: &usize| self.request(*at);
        let answer = |at: &usize| self.answers.get(*at);
        match check {
            Check::Requests(count) => self.requests.len() == *count,
            Check::NothingElse => {
                let itself = |request: &Message| request.line.split(' ').nth(1) == Some("/x");
                let follows = |request: &Message| request.line == FENCE;
                let count = |fits: &dyn Fn(&Message) -> bool| {
                    self.requests.iter().filter(|(_, one)| fits(one)).count()
                };
                let (itself, follows) = (count(&itself), count(&follows));
                itself <= 1 && follows <= 1 && itself + follows == self.requests.len()
            }
            Check::RequestsAtMost(count) => self.requests.len() <= *count,
            Check::Line(at, line) => request(at).is_some_and(|request| request.line == *line),
            Check::Has(at, name, value) => request(at)
                .is_some_and(|request| request.values(name).collect::<Vec<_>>() == [*value]),
            Check::Values(at, name, values) => request(at).is_some_and(|request| {
                let got: Vec<_> = request.values(name).collect();
                got == *values || got == [values.join(&b", "[..])]
            }),
            Check::Present(at, name) => {
                request(at).is_some_and(|request| request.values(name).count() == 1)
            }
            Check::Lacks(at, name) => {
                request(at).is_some_and(|request| request.values(name).next().is_none())
            }
            Check::Body(at, body) => {
                request(at).is_some_and(|request| request.whole && request.body == *body)
            }
            Check::BodyCut(at) => {
                let ended = self.requests.get(*at).is_none_or(|(connection, _)| {
                    self.observed.cell.connections[*connection].end.is_some()
                });
                ended && request(at).is_none_or(|request| !request.whole)
            }
            Check::Trailer(at, name) => request(at).is_some_and(|request| trailer(request, name)),
            Check::NoTrailer(at, name) => {
                request(at).is_some_and(|request| request.whole && !trailer(request, name))
            }
            Check::Connections(count) => {
                let used = &self.observed.cell.connections;
                used.iter().filter(|one| !one.got.is_empty()).count() == *count
            }
            Check::CellClosed(at) => self.requests.get(*at).is_some_and(|(connection, _)| {
                self.observed.cell.connections[*connection].end.is_some()
            }),
            Check::Answered(count) => {
                let answered = |answer: &&Message| answer.status() > 0;
                self.answers.iter().filter(answered).count() == *count
            }
            Check::Status(at, statuses) => {
                answer(at).is_some_and(|answer| statuses.contains(&answer.status()))
            }
            Check::Answer(at, body) => {
                answer(at).is_some_and(|answer| answer.whole && answer.body == *body)
            }
            Check::AnswerCut(at) => {
                let ended = self.observed.client.iter().all(|got| got.end.is_some());
                let reset = answer(at).is_some_and(|answer| answer.reset.is_some());
                (ended || reset) && answer(at).is_none_or(|answer| !answer.whole)
            }
            Check::AnswerHas(at, name, value) => answer(at).is_some_and(|answer| {
                answer.values(name).collect::<Vec<_>>() == [value.as_bytes()]
            }),
            Check::AnswerValues(at, name, values) => answer(at).is_some_and(|answer| {
                let wanted = values.iter().map(|value| value.as_bytes());
                answer.values(name).eq(wanted)
            }),
            Check::AnswerLacks(at, name) => {
                answer(at).is_some_and(|answer| answer.values(name).next().is_none())
            }
            Check::AnswerTrailer(at, name) => {
                answer(at).is_some_and(|answer| answer.whole && trailer(answer, name))
            }
            Check::AnswerNoTrailer(at, name) => {
                answer(at).is_some_and(|answer| answer.whole && !trailer(answer, name))
            }
            Check::Reset(at, codes) => answer(at)
                .is_some_and(|answer| answer.reset.is_some_and(|code| codes.contains(&code))),
            Check::Goaway(codes) => {
                let given_up = |got: &Got| got.goaway().is_some_and(|code| codes.contains(&code));
                self.observed.client.iter().any(given_up)
            }
            Check::Unanswered => self.observed.client.iter().all(|got| got.bytes.is_empty()),
            Check::Refused(at) => {
                let given_up = |got: &Got| got.goaway().is_some_and(|code| code != 0);
                let refused = |answer: &Message| {
                    answer.reset.is_some() || (400..500).contains(&answer.status())
                };
                answer(at).is_some_and(refused) || self.observed.client.iter().any(given_up)
            }
            Check::BodyCutOf(path) => {
                let of = format!(" {path} ");
                self.requests.iter().all(|(connection, request)| {
                    let ended = self.observed.cell.connections[*connection].end.is_some();
                    !request.line.contains(&of) || (ended && !request.whole)
                })
            }
            Check::Over(at) => answer(at)
                .is_some_and(|answer| answer.whole && answer.reset.is_some_and(|code| code == 0)),
            Check::EndsItself => {
                let first = self.observed.client.first();
                first.is_some_and(|got| matches!(got.end, Some(End::Closed | End::Reset)))
            }
            Check::Served => self.observed.client.last().is_some_and(|got| {
                let (answers, _) = got.answers();
                answers
                    .iter()
                    .any(|answer| answer.whole && answer.body == b"ok")
            }),
            Check::Any(checks) => checks.iter().any(|check| self.holds(check)),
            Check::Interims(statuses) => {
                let got: Vec<u16> = self.interim.iter().map(Message::status).collect();
                got == *statuses
            }
            Check::Tunnel(bytes) => {
                let switched = self.answers.last().is_some_and(|last| last.status() == 101);
                switched && self.rest == bytes.as_bytes()
            }
            Check::Never(bytes) => self
                .observed
                .client
                .iter()
                .all(|got| super::message::find(&got.bytes, bytes.as_bytes()).is_none()),
            Check::Ends => self.observed.client.iter().all(|got| got.end.is_some()),
        }
    }
}

fn trailer(message: &Message, name: &str) -> bool {
    message.trailers.iter().any(|(one, _)| one == name)
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                statuses, cleaned, ..
            } => {
                write!(f, "{}, the cell gets nothing", list(statuses))?;
                match cleaned {
                    Verdict::Right => f.write_str("; or passed on in one way"),
                    Verdict::Debatable | Verdict::Wrong => Ok(()),
                }
            }
            Self::Holds { must, should } => {
                for (at, check) in must.iter().chain(should).enumerate() {
                    if at > 0 {
                        f.write_str("; ")?;
                    }
                    check.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

fn list(statuses: &[u16]) -> String {
    let each: Vec<_> = statuses.iter().map(u16::to_string).collect();
    each.join(" or ")
}

fn codes_list(codes: &[u32]) -> String {
    let each: Vec<_> = codes
        .iter()
        .map(|code| super::frames::code(*code))
        .collect();
    each.join(" or ")
}

fn nth(at: usize, of: &str) -> String {
    let first = ["first", "second", "third", "fourth"].get(at).copied();
    format!("{} {of}", first.unwrap_or("last"))
}

fn shown(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "no body".to_owned(),
        1..=24 => format!("body `{}`", bytes.escape_ascii()),
        count => format!("body of {count} bytes"),
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_request = |at: &usize| match at {
            0 => String::new(),
            at => format!(" in the {}", nth(*at, "request")),
        };
        let of_answer = |at: &usize| match at {
            0 => "answer".to_owned(),
            at => nth(*at, "answer"),
        };
        match self {
            Self::Requests(0) => f.write_str("the cell gets nothing"),
            Self::Requests(1) => f.write_str("the cell gets one request"),
            Self::Requests(count) => write!(f, "the cell gets {count} requests"),
            Self::NothingElse => f.write_str("the cell gets nothing that was not asked"),
            Self::RequestsAtMost(1) => f.write_str("the cell gets it once at most"),
            Self::RequestsAtMost(count) => write!(f, "the cell gets {count} requests at most"),
            Self::Line(at, line) => write!(f, "the cell gets `{line}`{}", of_request(at)),
            Self::Has(at, name, value) if value.len() < 48 => {
                write!(
                    f,
                    "the cell gets `{name}: {}`{}",
                    value.escape_ascii(),
                    of_request(at)
                )
            }
            Self::Has(at, name, _) => write!(f, "the cell gets `{name}` whole{}", of_request(at)),
            Self::Values(at, name, values) => write!(
                f,
                "the cell gets `{name}` {} times{}",
                values.len(),
                of_request(at)
            ),
            Self::Present(at, name) => write!(f, "the cell gets one `{name}`{}", of_request(at)),
            Self::Lacks(at, name) => write!(f, "the cell gets no `{name}`{}", of_request(at)),
            Self::Body(at, body) => write!(f, "the cell gets {}{}", shown(body), of_request(at)),
            Self::BodyCut(at) => write!(f, "the cell sees a cut body{}", of_request(at)),
            Self::Trailer(at, name) => {
                write!(f, "the cell gets trailer `{name}`{}", of_request(at))
            }
            Self::NoTrailer(at, name) => {
                write!(f, "the cell gets no trailer `{name}`{}", of_request(at))
            }
            Self::Connections(1) => f.write_str("one connection to the cell"),
            Self::Connections(count) => write!(f, "{count} connections to the cell"),
            Self::CellClosed(_) => f.write_str("its connection to the cell is closed"),
            Self::Answered(1) => f.write_str("one answer"),
            Self::Answered(count) => write!(f, "{count} answers"),
            Self::Status(0, statuses) => f.write_str(&list(statuses)),
            Self::Status(at, statuses) => write!(f, "then {} ({})", list(statuses), at + 1),
            Self::Answer(at, body) => write!(f, "{} with {}", of_answer(at), shown(body)),
            Self::AnswerCut(at) => write!(f, "{} is seen to be cut", of_answer(at)),
            Self::AnswerHas(at, name, value) => {
                write!(f, "{} has `{name}: {value}`", of_answer(at))
            }
            Self::AnswerValues(at, name, values) => {
                write!(f, "{} has `{name}` {} times", of_answer(at), values.len())
            }
            Self::AnswerLacks(at, name) => write!(f, "{} has no `{name}`", of_answer(at)),
            Self::AnswerTrailer(at, name) => write!(f, "{} has trailer `{name}`", of_answer(at)),
            Self::AnswerNoTrailer(at, name) => {
                write!(f, "{} has no trailer `{name}`", of_answer(at))
            }
            Self::Reset(at, codes) => {
                write!(f, "{} is reset with {}", of_answer(at), codes_list(codes))
            }
            Self::Goaway(codes) => {
                write!(f, "the connection is given up with {}", codes_list(codes))
            }
            Self::Unanswered => f.write_str("no answer at all"),
            Self::Refused(at) => write!(f, "{} is a refusal", of_answer(at)),
            Self::BodyCutOf(path) => write!(f, "the cell sees no whole body for `{path}`"),
            Self::Over(at) => write!(
                f,
                "after the {} the stream is reset without error",
                of_answer(at)
            ),
            Self::EndsItself => f.write_str("the connection ends"),
            Self::Served => f.write_str("the next client is served"),
            Self::Any(checks) => {
                for (at, check) in checks.iter().enumerate() {
                    write!(f, "{}{check}", if at == 0 { "" } else { ", or " })?;
                }
                Ok(())
            }
            Self::Interims([]) => f.write_str("no interim answer"),
            Self::Interims(statuses) => {
                let each: Vec<_> = statuses.iter().map(u16::to_string).collect();
                write!(f, "interim {}", each.join(", "))
            }
            Self::Tunnel(bytes) => write!(f, "101, then `{bytes}`"),
            Self::Never(bytes) => write!(f, "`{bytes}` never reaches a client"),
            Self::Ends => f.write_str("the connection ends"),
        }
    }
}
