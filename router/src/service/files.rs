//! Files that the router serves for a cell.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use http::header;
use http::request::Parts;
use http::{HeaderValue, Response};
use hyper::body::Body as _;

use super::{Body, Service};
use crate::account::file::Sent;
use crate::account::pace::Taking;
use crate::account::record::{Blame, Record};
use crate::decision::{self, Facts};
use crate::live::snapshot::Snapshot;
use crate::outbound::files::{self, Found, Keeping};
use crate::registry::{Cell, Files};
use crate::respond::{self, Audience, Sheet, Words};

/// Where to look.
pub(super) struct Shelf {
    cell: Arc<Cell>,
    files: Arc<Files>,
    folder: Arc<PathBuf>,
    /// The path as the cell sees it, below that of the files.
    rest: String,
}

impl Shelf {
    /// That of a request; none where the router serves no files there.
    pub(super) fn of(
        snapshot: &Snapshot,
        found: &decision::Found<'_>,
        facts: &Facts<'_>,
    ) -> Option<Self> {
        let files = found.cell.policy.files.as_ref()?;
        let rest = files.path.rest(&found.path(facts))?.to_owned();
        Some(Self {
            cell: Arc::clone(found.cell),
            files: Arc::clone(files),
            folder: Arc::clone(snapshot.folder(found.cell)?),
            rest,
        })
    }

    /// Whether it is the same place by another version of the registry, so that what was not there is not there.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.files, &self.folder, &self.rest) == (&other.files, &other.folder, &other.rest)
    }
}

impl Service {
    /// Answers with a file; `None` where there is none.
    pub(super) async fn file(
        &self,
        head: &Parts,
        audience: Audience,
        record: &Rc<Record>,
        shelf: &Shelf,
    ) -> Option<Response<Body>> {
        let Shelf {
            cell,
            files,
            folder,
            rest,
        } = shelf;
        let keeping = Keeping {
            max_age: files.max_age,
            // A cache that many share asks nobody who its clients are.
            private: cell.policy.sign_in.is_some(),
        };
        let found = files::find(head, folder, rest, keeping).await;
        let own = |words: &dyn Fn(Sheet<'_>) -> Words| {
            let pages = self.pages(record);
            let sheet = Sheet {
                audience,
                request_id: &record.id,
                pages: pages.as_deref(),
            };
            words(sheet).map(|words| Body::own(words, Rc::clone(record)))
        };
        match found {
            Ok(Found::Nothing) => None,
            Ok(Found::File(file)) => {
                let limits = &cell.policy.limits;
                let taking = Taking::new(limits.min_answer_rate, limits.idle_timeout);
                Some(sent(*file, taking, record))
            }
            Ok(Found::Folder(location)) => {
                record.reason.set("static_folder");
                Some(own(&|sheet| respond::folder(location.clone(), sheet)))
            }
            Err(error) => {
                record.reason.set("static_unreadable");
                record.blame.set(Some(Blame::Router));
                record.error.replace(Some(error.to_string()));
                Some(own(&respond::unreadable))
            }
        }
    }
}

/// With the length that it has, so that one that changes meanwhile is seen to.
fn sent(
    file: Response<crate::account::file::Bytestream>,
    taking: Taking,
    record: &Rc<Record>,
) -> Response<Body> {
    let (head, body) = file.into_parts();
    let ends = body.is_end_stream() || body.size_hint().exact() == Some(0);
    let length = head
        .headers
        .get(header::CONTENT_LENGTH)
        .map(HeaderValue::to_str)
        .and_then(|length| length.ok()?.parse().ok())
        .filter(|_| !ends)
        .unwrap_or(0);
    let body = Sent::new(body, length, Rc::clone(record), taking);
    Response::from_parts(head, Body::File(Box::new(body)))
}
