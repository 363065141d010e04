//! What an operator can see of single requests: the last ones of a cell, and its uploads under way.
//!
//! Each worker keeps its own and shares none of it. Whoever wants to see asks every worker, which answers between two pieces of
//! its work; an upload is looked at only then, so its progress costs nothing while nobody asks.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::recent::{Ended, Recent, merged};
use super::record::Record;
use crate::registry::CellName;

/// How many of a cell's uploads are told of at once.
pub const MOST_UPLOADS: usize = 50;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions that may wait for a worker.
const QUESTIONS: usize = 16;

/// An upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// When its head came.
    pub began: Instant,
    /// Its method, shortened as in [`Ended`].
    pub method: http::Method,
    /// Its path without the query, shortened as in [`Ended`].
    pub path: Box<str>,
    /// The lane that it takes.
    pub lane: &'static str,
    /// Bytes that have come.
    pub bytes: u64,
    /// Bytes that there are in all, where the client has said so.
    pub of: Option<u64>,
    /// How long no byte has gone through, in either direction.
    pub silent: Duration,
}

/// What there is to see of a cell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its last requests, the newest first.
    pub ended: Vec<Ended>,
    /// Uploads to it under way, the oldest first, [`MOST_UPLOADS`] at most.
    pub uploads: Vec<Upload>,
}

/// A worker did not answer in time: its thread is held up.
#[derive(Debug, PartialEq, Eq)]
pub struct Silent;

#[derive(Debug)]
struct Question {
    cell: CellName,
    answer: oneshot::Sender<Seen>,
}

/// What one worker has to show.
#[derive(Debug, Default)]
pub struct Sight {
    recent: RefCell<Recent>,
    uploads: RefCell<Slab<Weak<Record>>>,
}

/// A body that can be seen to come.
#[derive(Debug)]
pub struct Coming {
    sight: Rc<Sight>,
    number: usize,
    /// Its length in bytes, where that is known.
    pub length: Option<u64>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.sight.uploads.borrow_mut().remove(self.number);
    }
}

/// Where a worker is asked.
#[derive(Debug, Clone)]
pub struct Asker(mpsc::Sender<Question>);

/// The questions that a worker is asked.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// A way to ask a worker.
pub fn channel() -> (Asker, Questions) {
    let (asker, questions) = mpsc::channel(QUESTIONS);
    (Asker(asker), Questions(questions))
}

impl Sight {
    /// A request of a cell is over.
    pub fn ended(&self, cell: &CellName, ended: Ended) {
        self.recent.borrow_mut().push(cell, ended);
    }

    /// A request has begun, with a body of this length where that is known. It can be seen to come until the guard is dropped.
    pub fn comes(self: &Rc<Self>, record: Weak<Record>, length: Option<u64>) -> Coming {
        Coming {
            number: self.uploads.borrow_mut().insert(record),
            sight: Rc::clone(self),
            length,
        }
    }

    /// Forgets the requests of cells that `keep` does not name, of some cells from a place on; where to go on, if there are
    /// more.
    pub fn retain(&self, from: usize, keep: impl Fn(&CellName) -> bool) -> Option<usize> {
        self.recent.borrow_mut().retain(from, keep)
    }

    /// Answers questions for as long as it is polled. Cancel safe: who has asked is told that nobody answers.
    pub async fn answer(&self, mut questions: Questions) {
        while let Some(Question { cell, answer }) = questions.0.recv().await {
            // Who has left does not hear it.
            let _ = answer.send(self.seen(&cell));
        }
    }

    fn seen(&self, cell: &CellName) -> Seen {
        let uploads = self.uploads.borrow();
        let running = uploads.iter().filter_map(|(_, record)| record.upgrade());
        let of_cell = running.filter(|record| record.cell().as_deref() == Some(cell));
        let uploads = of_cell.filter_map(|record| record.upload());
        Seen {
            ended: self.recent.borrow().of_cell(cell),
            uploads: oldest(uploads.collect()),
        }
    }
}

fn oldest(mut uploads: Vec<Upload>) -> Vec<Upload> {
    uploads.sort_by_key(|upload| upload.began);
    uploads.truncate(MOST_UPLOADS);
    uploads
}

impl Asker {
    async fn ask(&self, cell: &CellName) -> Seen {
        let (answer, seen) = oneshot::channel();
        let cell = cell.clone();
        // A worker that has ended has nothing to show any more.
        let _ = self.0.send(Question { cell, answer }).await;
        seen.await.unwrap_or_default()
    }
}

/// What all workers together have to show of a cell.
///
/// # Errors
/// `Silent` if one of them does not answer within a second.
pub async fn ask(workers: &[Asker], cell: &CellName) -> Result<Seen, Silent> {
    let asked = futures_util::future::join_all(workers.iter().map(|worker| worker.ask(cell)));
    let seen = timeout(PATIENCE, asked).await.map_err(|_| Silent)?;
    let (ended, uploads): (Vec<_>, Vec<_>) = seen
        .into_iter()
        .map(|seen| (seen.ended, seen.uploads))
        .unzip();
    Ok(Seen {
        ended: merged(ended),
        uploads: oldest(uploads.concat()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> CellName {
        CellName::parse("alice").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_held_up_is_told_of_and_one_that_has_ended_is_not() {
        let (ended, questions) = channel();
        drop(questions);
        let workers = [ended];
        assert_eq!(ask(&workers, &alice()).await, Ok(Seen::default()));
        let (held_up, _questions) = channel();
        let workers = [held_up, workers[0].clone()];
        assert_eq!(ask(&workers, &alice()).await, Err(Silent));
    }

    #[test]
    fn the_oldest_uploads_are_told_of() {
        let now = Instant::now();
        let upload = |second| Upload {
            began: now + Duration::from_secs(second),
            method: http::Method::PUT,
            path: "/".into(),
            lane: "stream",
            bytes: 0,
            of: None,
            silent: Duration::ZERO,
        };
        let told = oldest((0..MOST_UPLOADS as u64 + 5).rev().map(upload).collect());
        assert_eq!(told.len(), MOST_UPLOADS);
        assert_eq!((&told[0], told.last()), (&upload(0), Some(&upload(49))));
    }
}
