//! How a proxy behaves on hostile and unlucky input: cases as pure data, and a runner that puts the same case to any
//! proxy at an address.
//!
//! A case is what a client sends, what its cell does, and what is right. The cell is a scripted upstream that records
//! exactly what it got. `docs/behaviours.md` is made of the outcomes.

pub mod cases;
pub mod frames;
pub mod judge;
pub mod message;
pub mod proxies;
pub mod report;
pub mod run;
pub mod upstream;

/// Stands for the case's host in what a client sends.
pub const HOST: &[u8] = b"HOST";

/// Stands for the case's host where its length has been written before it, as in HTTP/2: it has that of every host.
pub const AUTHORITY: &str = "cNNN.example.com";

/// What opens a connection of HTTP/2 (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A class of behaviours: one section of the table.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What its rows have in common.
    pub about: &'static str,
    /// Its rows.
    pub cases: Vec<Case>,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is sent, as a fact.
    pub name: &'static str,
    /// Where it is said what is right.
    pub source: &'static str,
    /// What the client does.
    pub client: Vec<Step>,
    /// What the cell does with the first request that reaches it, with the second, and so on. It reads any further one
    /// to its end and answers 200.
    pub cell: Vec<Vec<Turn>>,
    /// What is right.
    pub right: Right,
    /// Why the router does otherwise, where it does.
    pub exception: Option<&'static str>,
}

/// What a client does. A step that waits for what does not come is over when the runner's patience is.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes; [`HOST`] and [`AUTHORITY`] in them are the case's host.
    Send(Vec<u8>),
    /// Waits until so many requests have reached the cell.
    Reached(usize),
    /// Waits until the cell has done so many of its turns.
    Done(usize),
    /// Waits until so many answers have come whole over this connection, or were given up.
    Answers(usize),
    /// Waits until the proxy has answered a `PING`, and so has seen all that was sent before it.
    Pong,
    /// Waits for so many interim answers over this connection.
    Interim(usize),
    /// Waits until the proxy has ended this connection.
    End,
    /// Says that it sends no more.
    Finish,
    /// Closes the connection.
    Leave,
    /// Goes on over a fresh connection; the one before stays open.
    Connect,
    /// Reads nothing from now on, until the next step that waits for an answer.
    Rest,
}

/// What a cell does with a request whose head it has read.
#[derive(Debug, Clone)]
pub enum Turn {
    /// Reads the request to its end.
    Whole,
    /// Reads so many bytes of its body.
    Bytes(usize),
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Reads on until these bytes have come.
    Until(&'static [u8]),
    /// Reads on until the connection ends.
    Drain,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// What is right.
#[derive(Debug, Clone)]
pub enum Right {
    /// The cell gets nothing, and the connection ends.
    Refused {
        /// The statuses that tell the client why.
        statuses: &'static [u16],
        /// What it is worth if the cell gets the message after all, without what could be read in two ways.
        cleaned: Verdict,
        /// Its end is in doubt, so the connection ends, too.
        ends: bool,
    },
    /// All of this holds.
    Holds {
        /// What must hold.
        must: Vec<Check>,
        /// What should hold.
        should: Vec<Check>,
    },
}

/// What an outcome is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// What is right.
    Right,
    /// Within the letter of the RFC, or harmless, and not what the row asks for.
    Debatable,
    /// Bytes were lost, leaked, doubled, or could be read in two ways.
    Wrong,
}

/// One thing that holds or does not. Requests, answers and connections are counted from 0.
#[derive(Debug, Clone)]
pub enum Check {
    /// So many requests reach the cell.
    Requests(usize),
    /// Nothing but the request itself and the one that follows it.
    NothingElse,
    /// At most so many do.
    RequestsAtMost(usize),
    /// The first line of a request at the cell.
    Line(usize, &'static str),
    /// A header line of a request at the cell, once: name in any case, value to the byte.
    Has(usize, &'static str, &'static [u8]),
    /// The values of a field of a request at the cell, over its lines; joined by commas they are the same.
    Values(usize, &'static str, &'static [&'static [u8]]),
    /// A field is there, once, whatever its value.
    Present(usize, &'static str),
    /// No such header line in a request at the cell.
    Lacks(usize, &'static str),
    /// The body of a request at the cell, whole.
    Body(usize, Vec<u8>),
    /// The body of a request at the cell is cut, and is seen to be.
    BodyCut(usize),
    /// A trailer of a request at the cell.
    Trailer(usize, &'static str),
    /// No such trailer in a request at the cell.
    NoTrailer(usize, &'static str),
    /// The cell is asked over so many connections.
    Connections(usize),
    /// The connection over which a request reached the cell is closed by the proxy.
    CellClosed(usize),
    /// The client gets so many final answers.
    Answered(usize),
    /// The status of an answer is one of these.
    Status(usize, &'static [u16]),
    /// The body of an answer, whole.
    Answer(usize, Vec<u8>),
    /// An answer is not taken for a whole one.
    AnswerCut(usize),
    /// A header line of an answer.
    AnswerHas(usize, &'static str, &'static str),
    /// The header lines of a field of an answer.
    AnswerValues(usize, &'static str, &'static [&'static str]),
    /// No such header line in an answer.
    AnswerLacks(usize, &'static str),
    /// A trailer of an answer.
    AnswerTrailer(usize, &'static str),
    /// No such trailer of an answer.
    AnswerNoTrailer(usize, &'static str),
    /// An answer is given up with one of these codes (RFC 9113 section 7).
    Reset(usize, &'static [u32]),
    /// The client's connection is given up with one of these codes.
    Goaway(&'static [u32]),
    /// The client gets not one byte.
    Unanswered,
    /// An answer is an error of the client's, or is given up, or the connection is.
    Refused(usize),
    /// The body of the request for this path is cut, and is seen to be, if it reaches the cell at all.
    BodyCutOf(&'static str),
    /// An answer came whole, and nothing more of its request is waited for.
    Over(usize),
    /// The proxy ends the client's first connection.
    EndsItself,
    /// The last of the client's connections gets the cell's usual answer.
    Served,
    /// One of these holds.
    Any(Vec<Check>),
    /// The interim answers that the client gets, by status.
    Interims(&'static [u16]),
    /// The client gets these bytes after a switch of protocols.
    Tunnel(&'static str),
    /// The client never gets these bytes.
    Never(&'static str),
    /// The client's connection ends.
    Ends,
}

impl Case {
    /// A request that is to be refused with 400, followed by another one on the same connection.
    pub fn refused(name: &'static str, source: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            name,
            source,
            client: vec![Step::Send([bytes, cases::fence()].concat())],
            cell: Vec::new(),
            right: Right::Refused {
                statuses: &[400],
                cleaned: Verdict::Wrong,
                ends: true,
            },
            exception: None,
        }
    }

    /// A case of which `must` holds.
    pub fn holds(
        name: &'static str,
        source: &'static str,
        client: Vec<Step>,
        must: Vec<Check>,
    ) -> Self {
        Self {
            name,
            source,
            client,
            cell: Vec::new(),
            right: Right::Holds {
                must,
                should: Vec::new(),
            },
            exception: None,
        }
    }

    /// The client opens its first connection with HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        let first = self.client.iter().find_map(|step| match step {
            Step::Send(bytes) => Some(bytes),
            _ => None,
        });
        first.is_some_and(|bytes| bytes.starts_with(PREFACE))
    }

    /// Named as an exception, for this reason.
    pub fn except(mut self, why: &'static str) -> Self {
        self.exception = Some(why);
        self
    }

    /// Whether the router is known to do otherwise.
    pub fn excepted(&self) -> bool {
        self.exception.is_some()
    }

    /// Of which the end is clear: the connection may go on.
    pub fn may_go_on(mut self) -> Self {
        if let Right::Refused { ends, .. } = &mut self.right {
            *ends = false;
        }
        self
    }

    /// With these statuses instead of 400.
    pub fn statuses(mut self, with: &'static [u16]) -> Self {
        if let Right::Refused { statuses, .. } = &mut self.right {
            *statuses = with;
        }
        self
    }

    /// A message that the RFC lets a recipient repair: doing so is debatable.
    pub fn repairable(mut self) -> Self {
        if let Right::Refused { cleaned, .. } = &mut self.right {
            *cleaned = Verdict::Debatable;
        }
        self
    }

    /// A message that may as well be passed on.
    pub fn acceptable(mut self) -> Self {
        if let Right::Refused { cleaned, .. } = &mut self.right {
            *cleaned = Verdict::Right;
        }
        self
    }

    /// What the cell does.
    pub fn cell(mut self, turns: Vec<Vec<Turn>>) -> Self {
        self.cell = turns;
        self
    }

    /// A client that reads nothing for now.
    pub fn resting(mut self) -> Self {
        self.client.insert(0, Step::Rest);
        self
    }

    /// Of which this must hold, and this should.
    pub fn right_is(mut self, must: Vec<Check>, should: Vec<Check>) -> Self {
        self.right = Right::Holds { must, should };
        self
    }

    /// What should hold, too.
    pub fn should(mut self, checks: Vec<Check>) -> Self {
        if let Right::Holds { should, .. } = &mut self.right {
            *should = checks;
        }
        self
    }
}
