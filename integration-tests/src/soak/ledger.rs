//! The books: what clients sent and got, what cells got and gave, and whether the two agree.
//!
//! Everything is entered as it happens; what can be judged at once is judged at once, the rest when a request is
//! settled: over at the client, and over at every cell.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::content::Sum;
use super::journal::Line;
use super::plan::{Dialect, Request, SESSION_REQUESTS, Session, Way, World};
use super::rules::{Breaches, Rule};
use crate::process::lock;

/// For how long a request stays open after its client is done: the cells and the access log may lag behind.
const LAG: Duration = Duration::from_secs(3);
/// After so long nothing of a request can be under way.
const OVER: Duration = Duration::from_secs(90);

/// How a request's body ended at a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    Running,
    /// The cell took it for whole.
    Whole(Sum),
    Cut(Sum),
    /// The cell did not want all of it.
    Refused(Sum),
}

/// One request at one cell.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    cell: usize,
    upload: Upload,
    /// The cell has begun to answer.
    answered: bool,
    over: bool,
}

/// An answer's body at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Whole(Sum),
    Cut(Sum),
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an answer. `by` is the cell that it says it is of; none where the router or the edge speaks.
    Answered {
        status: u16,
        by: Option<String>,
        /// The id that it says it answers.
        to: Option<String>,
        got: Got,
    },
    /// Without one.
    Broke(&'static str),
    /// On a connection that carried another before and ended, for this reason, before the request can have been read.
    Stale(&'static str),
    /// By the client's plan.
    Left,
    /// The client gave up in the end.
    Stuck,
}

/// One request in the books.
struct Entry {
    request: Request,
    /// What the client sent, where it sent all.
    sent: Option<Sum>,
    end: Option<(End, Instant)>,
    arrivals: Vec<Arrival>,
    /// The last line of the access log, and all of them as they came.
    line: Option<Line>,
    lines: Vec<String>,
    /// What was found while it ran; told with all that is known in the end.
    found: Vec<(Rule, String)>,
}

/// Figures for the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) settled: u64,
    /// By the client that sent them.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Requests that came to a cell as HTTP/2.
    pub(crate) as_http2: u64,
    /// How requests ended, and how often.
    pub(crate) ends: BTreeMap<String, u64>,
    pub(crate) whole_uploads: u64,
    pub(crate) cut_uploads: u64,
    pub(crate) refused_uploads: u64,
    pub(crate) whole_answers: u64,
    pub(crate) cut_answers: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    pub(crate) repeated: u64,
    /// Requests to cells without faults.
    pub(crate) undisturbed: u64,
}

#[derive(Default)]
struct Books {
    open: HashMap<u64, Entry>,
    /// How often a settled request arrived, so that a late second arrival is seen.
    settled: HashMap<u64, usize>,
    order: VecDeque<(Instant, u64)>,
    tally: Tally,
    breaches: Breaches,
}

impl Books {
    fn found(&mut self, id: u64, rule: Rule, what: String) {
        match self.open.get_mut(&id) {
            Some(entry) => entry.found.push((rule, what)),
            None => self
                .breaches
                .add(rule, format!("{what}\nrequest   {id}, not under way")),
        }
    }
}

/// The books of one soak, shared by clients and cells.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) world: World,
    books: Arc<Mutex<Books>>,
}

impl Ledger {
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            books: Arc::default(),
        }
    }

    pub(crate) fn breach(&self, rule: Rule, what: impl Into<String>) {
        lock(&self.books).breaches.add(rule, what.into());
    }

    pub(crate) fn with_breaches<T>(&self, look: impl FnOnce(&Breaches) -> T) -> T {
        look(&lock(&self.books).breaches)
    }

    /// Findings that nobody has been told yet.
    pub(crate) fn fresh(&self) -> Vec<(Rule, String)> {
        lock(&self.books).breaches.fresh()
    }

    pub(crate) fn tally(&self) -> Tally {
        lock(&self.books).tally.clone()
    }

    /// A client is about to send this request.
    pub(crate) fn open(&self, request: Request) {
        let mut books = lock(&self.books);
        books.tally.opened += 1;
        let entry = Entry {
            request,
            sent: None,
            end: None,
            arrivals: Vec::new(),
            line: None,
            lines: Vec::new(),
            found: Vec::new(),
        };
        books.open.insert(request.id, entry);
    }

    /// The client has sent all of the body.
    pub(crate) fn sent(&self, id: u64, sum: Sum) {
        if let Some(entry) = lock(&self.books).open.get_mut(&id) {
            entry.sent = Some(sum);
        }
    }

    /// The request is over for its client.
    pub(crate) fn close(&self, id: u64, end: End) {
        if let Some(entry) = lock(&self.books).open.get_mut(&id) {
            entry.end = Some((end, Instant::now()));
        }
    }

    /// What the router's access log says of it.
    pub(crate) fn logged(&self, id: u64, line: Line, text: &str) {
        if let Some(entry) = lock(&self.books).open.get_mut(&id) {
            // A request of the replay lane has two lines; the one that says more is the last.
            entry.line = Some(line);
            entry.lines.push(text.to_owned());
        }
    }

    /// Something is wrong with request `id`.
    pub(crate) fn found(&self, id: u64, rule: Rule, what: impl Into<String>) {
        lock(&self.books).found(id, rule, what.into());
    }

    /// The head of request `id` is at `cell`.
    pub(crate) fn arrive(&self, id: u64, cell: usize) -> Arrived {
        let mut arrived = Arrived {
            ledger: self.clone(),
            id,
            place: 0,
        };
        let mut books = lock(&self.books);
        let books = &mut *books;
        let request = self.world.request(id);
        if request.cell != cell {
            books.found(id, Rule::WrongCell, format!("it came to cell {cell}"));
        }
        let before = match (books.open.get_mut(&id), books.settled.get_mut(&id)) {
            (Some(entry), _) => {
                entry.arrivals.push(Arrival {
                    cell,
                    upload: Upload::Running,
                    answered: false,
                    over: false,
                });
                arrived.place = entry.arrivals.len();
                arrived.place - 1
            }
            (None, Some(arrivals)) => {
                *arrivals += 1;
                *arrivals - 1
            }
            (None, None) => {
                books.found(id, Rule::Unrequested, format!("at cell {cell}"));
                0
            }
        };
        if before > 0 && !request.repeatable() {
            books.found(id, Rule::Doubled, "it came again".to_owned());
        }
        arrived
    }

    /// Settles what is over, or all there is.
    pub(crate) fn settle(&self, all: bool) {
        let now = Instant::now();
        let mut books = lock(&self.books);
        let over = |entry: &Entry| {
            let Some((_, at)) = &entry.end else {
                return all;
            };
            let running = entry.arrivals.iter().any(|arrival| !arrival.over);
            all || at.elapsed() > OVER || (at.elapsed() > LAG && !running)
        };
        let done: Vec<u64> = books
            .open
            .iter()
            .filter(|(_, entry)| over(entry))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            let Some(entry) = books.open.remove(&id) else {
                continue;
            };
            books.settled.insert(id, entry.arrivals.len());
            books.order.push_back((now, id));
            let Books {
                tally, breaches, ..
            } = &mut *books;
            Judge {
                entry: &entry,
                world: self.world,
                tally,
                breaches,
            }
            .settle();
        }
        while let Some((at, id)) = books.order.front().copied()
            && at + OVER < now
        {
            books.order.pop_front();
            books.settled.remove(&id);
        }
    }

    /// Requests that are not settled.
    pub(crate) fn unsettled(&self) -> usize {
        lock(&self.books).open.len()
    }

    fn at(&self, arrived: &Arrived, change: impl FnOnce(&mut Arrival)) {
        let mut books = lock(&self.books);
        let entry = books.open.get_mut(&arrived.id);
        let place = arrived.place.checked_sub(1);
        if let Some(arrival) = entry
            .zip(place)
            .and_then(|(entry, place)| entry.arrivals.get_mut(place))
        {
            change(arrival);
        }
    }
}

/// A request at a cell, until the cell is done with it.
pub(crate) struct Arrived {
    ledger: Ledger,
    id: u64,
    /// Counted from 1; 0 for one that is not in the books.
    place: usize,
}

impl Arrived {
    /// How its body ended. What is wrong with it is judged here, also where the client is gone.
    pub(crate) fn upload(&self, upload: Upload) {
        let (Upload::Whole(sum) | Upload::Cut(sum) | Upload::Refused(sum)) = upload else {
            return;
        };
        let request = self.ledger.world.request(self.id);
        let length = request.upload.map_or(0, |upload| upload.bytes);
        if !sum.intact || sum.bytes > length {
            let what = format!("its body, {} of {length} bytes", sum.bytes);
            self.ledger.found(self.id, Rule::Altered, what);
        }
        if matches!(upload, Upload::Whole(_)) && sum.bytes != length {
            let what = format!("{} of {length} bytes", sum.bytes);
            self.ledger.found(self.id, Rule::CutUploadWhole, what);
        }
        self.ledger.at(self, |arrival| arrival.upload = upload);
    }

    /// It came as HTTP/2.
    pub(crate) fn as_http2(&self) {
        lock(&self.ledger.books).tally.as_http2 += 1;
    }

    /// The cell begins to answer.
    pub(crate) fn answers(&self) {
        self.ledger.at(self, |arrival| arrival.answered = true);
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.ledger.at(self, |arrival| arrival.over = true);
    }
}

/// Judges one request that is over.
struct Judge<'a> {
    entry: &'a Entry,
    world: World,
    tally: &'a mut Tally,
    breaches: &'a mut Breaches,
}

impl Judge<'_> {
    /// With all that is known of the request: who asked, what was to be, what each side saw.
    fn breach(&mut self, rule: Rule, what: &str) {
        let entry = self.entry;
        let session = self.session();
        let lines = if entry.lines.is_empty() {
            "no line".to_owned()
        } else {
            entry.lines.join("\n          ")
        };
        let words = format!(
            "{what}\nrequest   {} for {}\nclient    {session:?}\nplan      {:?}\nsent      {}\nseen      {:?}\n\
             cells     {:?}\nrouter    {lines}",
            entry.request.id,
            super::cell::name(entry.request.cell),
            entry.request,
            entry
                .sent
                .map_or("not all".to_owned(), |sum| format!("{sum:?}")),
            entry.end.as_ref().map(|(end, _)| end),
            entry.arrivals,
        );
        self.breaches.add(rule, words);
    }

    fn session(&self) -> Session {
        self.world.session(self.entry.request.id / SESSION_REQUESTS)
    }

    fn settle(mut self) {
        let entry = self.entry;
        for (rule, what) in &entry.found {
            self.breach(*rule, what);
        }
        let Some((end, _)) = &entry.end else { return };
        self.count(end);
        match end {
            End::Answered {
                status,
                by,
                to,
                got,
            } => {
                if let Some(by) = by {
                    self.of_the_right_cell(by, to.as_deref());
                    self.as_given(*status, got);
                } else if (200..300).contains(status) || *status == 101 {
                    self.breach(Rule::Unseen, "a success without a cell");
                }
            }
            End::Stuck => self.breach(Rule::Stuck, "given up"),
            // The edge may have reasons of its own.
            End::Broke(_) if self.session().way == Way::Direct => {
                self.breach(Rule::Unanswered, "no answer");
            }
            End::Stale(_) if self.session().way == Way::Direct && !entry.arrivals.is_empty() => {
                self.breach(Rule::Unanswered, "a cell has it, and no answer came");
            }
            End::Broke(_) | End::Stale(_) | End::Left => {}
        }
        if entry.request.cell < self.world.undisturbed {
            self.undisturbed(end);
        }
        self.blame(end);
    }

    /// The answer says that it is of the cell that was asked, and of this request.
    fn of_the_right_cell(&mut self, by: &str, to: Option<&str>) {
        let request = &self.entry.request;
        let right = by == super::cell::name(request.cell);
        if !right || to != Some(&request.id.to_string()) {
            self.breach(Rule::Mixed, "an answer of another");
        }
        let seen = |arrival: &Arrival| arrival.answered && arrival.cell == request.cell;
        if !self.entry.arrivals.iter().any(seen) {
            self.breach(Rule::Unseen, "an answer that no cell gave");
        }
    }

    /// Body for body what the cell got and gave.
    fn as_given(&mut self, status: u16, got: &Got) {
        let request = &self.entry.request;
        let expected = if request.method == super::plan::Method::HEAD {
            0
        } else {
            request.answer.bytes
        };
        let (Got::Whole(sum) | Got::Cut(sum)) = got;
        if !sum.intact || sum.bytes > expected {
            self.breach(Rule::Altered, "an answer's bytes");
        }
        if matches!(got, Got::Whole(_)) && sum.bytes != expected {
            self.breach(Rule::CutAnswerWhole, "an answer");
        }
        if (status == 200 || status == 101) && request.upload.is_some() {
            let taken = self.entry.arrivals.iter().any(|arrival| {
                matches!(arrival.upload, Upload::Whole(sum) if Some(sum) == self.entry.sent)
            });
            if matches!(got, Got::Whole(_)) && !taken {
                self.breach(Rule::CutUploadWhole, "a success for a body that differs");
            }
        }
    }

    fn undisturbed(&mut self, end: &End) {
        self.tally.undisturbed += 1;
        let (request, session) = (&self.entry.request, self.session());
        let status = |wanted: u16| matches!(end, End::Answered { status, by: Some(_), got: Got::Whole(_), .. } if *status == wanted);
        let well = match end {
            // Where the emulated edge closes a pipeline with requests unread, its reset takes whole answers along.
            End::Stale(_) if session.way == Way::Edge && session.dialect == Dialect::Pipelined => {
                true
            }
            End::Stale(_) => self.entry.arrivals.is_empty(),
            End::Left => request.breaks_off(),
            _ if request.tunnel => status(101),
            _ if request.refuse_after.is_some() => status(413),
            _ => status(200),
        };
        if !well {
            self.breach(Rule::Disturbed, "failed");
        }
    }

    /// Who made the error, as the access log has it.
    fn blame(&mut self, end: &End) {
        let Some(line) = self.entry.line.clone().filter(|line| line.lane != "replay") else {
            return;
        };
        let request = &self.entry.request;
        let left = request.breaks_off()
            || request.refuse_after.is_some()
            || matches!(end, End::Left | End::Stuck | End::Stale(_) | End::Broke(_));
        match line.error_by.as_deref() {
            Some("client") if !left && line.status != 499 => {
                self.breach(Rule::WrongBlame, "blamed on the client");
            }
            Some(by @ ("cell" | "router")) if request.cell < self.world.undisturbed => {
                self.breach(Rule::WrongBlame, &format!("blamed on the {by}"));
            }
            _ => {}
        }
    }

    fn count(&mut self, end: &End) {
        let session = self.session();
        let kind = format!("{:?}, {:?}", session.way, session.dialect);
        let tally = &mut *self.tally;
        *tally.kinds.entry(kind).or_default() += 1;
        tally.settled += 1;
        let name = match end {
            End::Answered {
                status, by, got, ..
            } => {
                let who = if by.is_some() {
                    "cell"
                } else {
                    "router or edge"
                };
                let cut = if matches!(got, Got::Cut(_)) {
                    ", cut"
                } else {
                    ""
                };
                let (Got::Whole(sum) | Got::Cut(sum)) = got;
                tally.bytes_down += sum.bytes;
                match got {
                    Got::Whole(_) => tally.whole_answers += 1,
                    Got::Cut(_) => tally.cut_answers += 1,
                }
                format!("{status} by {who}{cut}")
            }
            End::Broke(why) => format!("no answer: {why}"),
            End::Stale(why) => format!("its connection was over: {why}"),
            End::Left => "client broke off, as planned".to_owned(),
            End::Stuck => "stuck".to_owned(),
        };
        *tally.ends.entry(name).or_default() += 1;
        tally.repeated += (self.entry.arrivals.len() as u64).saturating_sub(1);
        for arrival in &self.entry.arrivals {
            match arrival.upload {
                Upload::Whole(sum) => {
                    tally.bytes_up += sum.bytes;
                    tally.whole_uploads += u64::from(sum.bytes > 0);
                }
                Upload::Cut(sum) => {
                    tally.bytes_up += sum.bytes;
                    tally.cut_uploads += 1;
                }
                Upload::Refused(sum) => {
                    tally.bytes_up += sum.bytes;
                    tally.refused_uploads += 1;
                }
                Upload::Running => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
