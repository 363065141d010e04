//! What happens in a soak: requests, faults and edits, each drawn by its number. Pure.

use std::time::Duration;

use super::dice::{Dice, For};

/// Requests that one session may have: a request's id is its session's number times this, plus its place.
pub(crate) const SESSION_REQUESTS: u64 = 8;

/// What everything is drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    /// How many cells there are.
    pub(crate) cells: usize,
    /// The first so many never have a fault and are never edited.
    pub(crate) undisturbed: usize,
}

/// The way a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the platform's edge.
    Edge,
    /// To the router itself, which then never replays.
    Direct,
}

/// How a client uses its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// HTTP/1.1, one request after the other.
    KeepAlive,
    /// HTTP/1.1, one request that says `connection: close`.
    Close,
    /// HTTP/1.1, all requests before the first answer.
    Pipelined,
    /// HTTP/2, all requests at once.
    Http2,
    /// HTTP/1.1, switched to another protocol.
    Tunnel,
}

/// One connection of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) way: Way,
    pub(crate) dialect: Dialect,
    /// 1 to [`SESSION_REQUESTS`].
    pub(crate) requests: u64,
}

/// How a cell is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Subdomain,
    /// A host of its own, which edits change.
    Alias,
    Path,
    /// A path prefix that the cell does not see.
    Stripped,
}

/// A method that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::upper_case_acronyms, reason = "methods are spelled so")]
pub(crate) enum Method {
    GET,
    HEAD,
    POST,
    PUT,
    PATCH,
    DELETE,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::GET => "GET",
            Self::HEAD => "HEAD",
            Self::POST => "POST",
            Self::PUT => "PUT",
            Self::PATCH => "PATCH",
            Self::DELETE => "DELETE",
        }
    }
}

/// A request's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: u64,
    pub(crate) chunked: bool,
    pub(crate) slow: bool,
    /// Sent once the client is told to.
    pub(crate) expect: bool,
    /// The client breaks off after so many bytes, fewer than all.
    pub(crate) cut_after: Option<u64>,
}

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    /// With the connection.
    Close,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: u64,
    pub(crate) framing: Framing,
    /// The client reads it slowly.
    pub(crate) slow: bool,
    /// The client leaves after so many bytes, fewer than all.
    pub(crate) leave_after: Option<u64>,
    /// The cell closes its connection afterwards without a word.
    pub(crate) then_close: bool,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// The cell that it is for.
    pub(crate) cell: usize,
    pub(crate) naming: Naming,
    pub(crate) method: Method,
    pub(crate) upload: Option<Upload>,
    pub(crate) answer: Answer,
    /// The cell refuses the body after so many bytes, fewer than all.
    pub(crate) refuse_after: Option<u64>,
    /// It asks for another protocol, in which the upload is echoed.
    pub(crate) tunnel: bool,
}

impl Request {
    /// Whether a router may send it twice (RFC 9110 section 9.2.2), having nothing but its head to send.
    pub(crate) fn repeatable(&self) -> bool {
        let idempotent = matches!(
            self.method,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE
        );
        let body = self
            .upload
            .is_some_and(|upload| upload.chunked || upload.bytes > 0);
        idempotent && !body
    }

    /// Whether the client breaks off by plan.
    pub(crate) fn breaks_off(&self) -> bool {
        self.upload.is_some_and(|upload| upload.cut_after.is_some())
            || self.answer.leave_after.is_some()
    }
}

/// What goes wrong with a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Its connections are reset, and it is away for a while.
    Kill,
    /// It is stopped, and whoever wants it wakes it.
    Sleep,
    /// It is stopped, and its next start is slow.
    SleepLong,
    /// It is stopped, and its next starts fail.
    SleepDeep,
    /// It is suspended.
    Freeze,
    /// It reads and answers slowly.
    Slow,
    /// It accepts connections and is silent.
    Silent,
    /// It cuts bodies that it gets.
    CutUploads,
    /// It cuts bodies that it sends.
    CutAnswers,
    /// The edge cannot reach it: replays fail.
    Unreachable,
    /// DNS does not know it for a while.
    Unknown,
    /// It gets another address.
    Move,
    /// It gets another address, and another cell gets its old one.
    Replaced,
}

impl Trouble {
    pub(crate) const ALL: [(u64, Self); 13] = [
        (10, Self::Kill),
        (10, Self::Sleep),
        (4, Self::SleepLong),
        (3, Self::SleepDeep),
        (4, Self::Freeze),
        (10, Self::Slow),
        (6, Self::Silent),
        (10, Self::CutUploads),
        (10, Self::CutAnswers),
        (5, Self::Unreachable),
        (4, Self::Unknown),
        (6, Self::Move),
        (10, Self::Replaced),
    ];
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) trouble: Trouble,
    pub(crate) cell: usize,
    /// The cell that gets its address, where one does; may be the same, which is none.
    pub(crate) other: usize,
    pub(crate) lasts: Duration,
    /// Until the next fault.
    pub(crate) pause: Duration,
}

/// How a registry file is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It ends in the middle.
    Cut,
    /// One entry has an unknown key.
    Entry,
    /// It is empty.
    Empty,
}

/// One edit of the registry, from the state in which all cells are active.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edit {
    pub(crate) paused: Vec<usize>,
    pub(crate) maintained: Vec<usize>,
    pub(crate) removed: Vec<usize>,
    pub(crate) renamed: Vec<usize>,
    pub(crate) broken: Option<Broken>,
}

/// Whether the router is to speak HTTP/2 to this cell, as every fifth.
pub(crate) fn speaks_http2(cell: usize) -> bool {
    cell % 5 == 3
}

impl World {
    /// The session of this number.
    pub(crate) fn session(&self, number: u64) -> Session {
        let mut dice = Dice::new(self.seed, For::Session, number);
        let dialect = dice.pick(&[
            (36, Dialect::KeepAlive),
            (22, Dialect::Close),
            (12, Dialect::Pipelined),
            (20, Dialect::Http2),
            (10, Dialect::Tunnel),
        ]);
        let requests = match dialect {
            Dialect::Close | Dialect::Tunnel => 1,
            Dialect::KeepAlive | Dialect::Pipelined | Dialect::Http2 => {
                dice.between(2, SESSION_REQUESTS + 1)
            }
        };
        Session {
            number,
            way: dice.pick(&[(45, Way::Edge), (55, Way::Direct)]),
            dialect,
            requests,
        }
    }

    /// The request of this id.
    pub(crate) fn request(&self, id: u64) -> Request {
        let dialect = self.session(id / SESSION_REQUESTS).dialect;
        let mut dice = Dice::new(self.seed, For::Request, id);
        let mut cell = dice.below(self.cells as u64) as usize;
        if dialect == Dialect::Tunnel && speaks_http2(cell) {
            // Such a cell cannot switch to another protocol.
            cell -= 1;
        }
        let disturbed = cell >= self.undisturbed;
        let tunnel = dialect == Dialect::Tunnel;
        let pipelined = dialect == Dialect::Pipelined;
        let upload = (tunnel || dice.percent(45)).then(|| upload(&mut dice, dialect));
        let method = match upload {
            _ if tunnel => Method::GET,
            Some(_) => dice.pick(&[(5, Method::POST), (3, Method::PUT), (2, Method::PATCH)]),
            None => dice.pick(&[
                (60, Method::GET),
                (25, Method::POST),
                (8, Method::HEAD),
                (7, Method::DELETE),
            ]),
        };
        let bytes = size(&mut dice);
        let framing = dice.pick(&[
            (5, Framing::Length),
            (4, Framing::Chunked),
            (1, Framing::Close),
        ]);
        let cut_short = upload.is_some_and(|upload| upload.cut_after.is_some());
        let leaves = !cut_short && !pipelined && !tunnel && bytes > 1 && dice.percent(4);
        let refuses = upload.filter(|upload| {
            !tunnel && !pipelined && upload.cut_after.is_none() && upload.bytes > 1
        });
        Request {
            id,
            cell,
            naming: dice.pick(&[
                (5, Naming::Subdomain),
                (2, Naming::Alias),
                (2, Naming::Path),
                (1, Naming::Stripped),
            ]),
            method,
            upload,
            answer: Answer {
                bytes: if tunnel {
                    upload.map_or(0, |upload| upload.bytes)
                } else {
                    bytes
                },
                framing,
                slow: dice.percent(4),
                leave_after: (leaves && method != Method::HEAD).then(|| dice.below(bytes)),
                then_close: disturbed && dice.percent(15),
            },
            refuse_after: refuses
                .filter(|_| dice.percent(6))
                .map(|upload| dice.below(upload.bytes)),
            tunnel,
        }
    }

    /// The fault of this number. Undisturbed cells have none.
    pub(crate) fn fault(&self, number: u64) -> Fault {
        let mut dice = Dice::new(self.seed, For::Fault, number);
        let (low, high) = (self.undisturbed as u64, self.cells as u64);
        Fault {
            trouble: dice.pick(&Trouble::ALL),
            cell: dice.between(low, high) as usize,
            other: dice.between(low, high) as usize,
            lasts: Duration::from_millis(dice.between(100, 2500)),
            // Each cell has one every ten seconds or so, however many there are.
            pause: Duration::from_millis(dice.below(20_000) / (high - low)),
        }
    }

    /// The edit of this number.
    pub(crate) fn edit(&self, number: u64) -> Edit {
        let mut dice = Dice::new(self.seed, For::Edit, number);
        let (low, high) = (self.undisturbed as u64, self.cells as u64);
        let share = 1 + (high - low) / 60;
        let some = |dice: &mut Dice| {
            (0..dice.below(share + 1))
                .map(|_| dice.between(low, high) as usize)
                .collect()
        };
        Edit {
            paused: some(&mut dice),
            maintained: some(&mut dice),
            removed: some(&mut dice),
            renamed: some(&mut dice),
            broken: dice.pick(&[
                (8, None),
                (1, Some(Broken::Cut)),
                (1, Some(Broken::Entry)),
                (1, Some(Broken::Empty)),
            ]),
        }
    }
}

fn upload(dice: &mut Dice, dialect: Dialect) -> Upload {
    let tunnel = dialect == Dialect::Tunnel;
    let bytes = if tunnel {
        dice.below(200_000)
    } else {
        size(dice)
    };
    let pipelined = dialect == Dialect::Pipelined;
    Upload {
        bytes,
        chunked: dice.percent(40),
        slow: dice.percent(4),
        expect: dialect == Dialect::KeepAlive && bytes > 0 && dice.percent(10),
        cut_after: (bytes > 1 && !pipelined && dice.percent(7)).then(|| dice.below(bytes)),
    }
}

/// A body's length in bytes: most are small, a few are over the million that is the most the edge replays.
fn size(dice: &mut Dice) -> u64 {
    let (low, high) = dice.pick(&[
        (6, (0, 16)),
        (44, (16, 2_048)),
        (38, (2_048, 65_536)),
        (9, (65_536, 999_000)),
        (1, (999_990, 1_000_010)),
        (2, (1_000_010, 5_000_000)),
    ]);
    dice.between(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World = World {
        seed: 5,
        cells: 50,
        undisturbed: 5,
    };

    #[test]
    fn the_same_seed_draws_the_same_and_another_draws_other() {
        let other = World { seed: 6, ..WORLD };
        let all = |world: World| (0..100).map(move |id| format!("{:?}", world.request(id)));
        assert!(all(WORLD).eq(all(WORLD)));
        assert!(all(WORLD).zip(all(other)).filter(|(a, b)| a == b).count() < 5);
    }

    #[test]
    fn undisturbed_cells_have_no_faults_and_no_edits() {
        for number in 0..2000 {
            let fault = WORLD.fault(number);
            assert!(fault.cell >= WORLD.undisturbed && fault.other >= WORLD.undisturbed);
            let edit = WORLD.edit(number);
            let all = [edit.paused, edit.maintained, edit.removed, edit.renamed].concat();
            assert!(all.iter().all(|cell| *cell >= WORLD.undisturbed));
        }
    }

    #[test]
    fn a_cut_falls_short_of_the_whole_and_every_kind_occurs() {
        let requests: Vec<Request> = (0..20_000).map(|id| WORLD.request(id)).collect();
        for request in &requests {
            assert!(!(request.tunnel && speaks_http2(request.cell)));
            if let Some(upload) = request.upload {
                assert!(upload.cut_after.is_none_or(|cut| cut < upload.bytes));
                assert!(request.refuse_after.is_none_or(|cut| cut < upload.bytes));
            }
            let answer = request.answer;
            assert!(answer.leave_after.is_none_or(|cut| cut < answer.bytes));
        }
        let some = |fits: fn(&Request) -> bool| requests.iter().any(fits);
        assert!(some(|request| request.refuse_after.is_some()));
        assert!(some(|request| request.answer.leave_after.is_some()));
        assert!(some(|request| request.upload.is_some_and(|u| u.expect)));
        assert!(some(|request| request
            .upload
            .is_some_and(|u| u.cut_after.is_some())));
        assert!(some(|request| request
            .upload
            .is_some_and(|u| u.bytes > 1_000_000)));
    }
}
