//! Where the registry is: in a file, or with a running router. Commands are the same for both.

use std::ops::ControlFlow;
use std::path::Path;

use cell_router::admin::edits::{Edits, Outcome, Past, Pasts, Step};
use cell_router::control::store::{By, Edit, Store, propose, who};
use cell_router::registry::edit::Operation;
use cell_router::registry::{CellName, Registry, Version};
use http::Method;
use serde::Deserialize;

use super::failure::Failure;
use super::remote::{self, Remote};

/// Versions that a router is asked for at once.
const PAGE: usize = 1000;

/// A registry, wherever it is.
#[derive(Debug)]
pub(super) enum Backend {
    /// In a file.
    File(Store),
    /// With a running router.
    Router(Remote),
}

impl Backend {
    pub(super) fn new(file: &Path, which: &remote::Which) -> Result<Self, Failure> {
        Ok(match which.remote()? {
            Some(remote) => Self::Router(remote),
            None => Self::File(Store::new(file)),
        })
    }

    /// The text as it is.
    pub(super) fn read(&self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::File(store) => Ok(store.read()?),
            Self::Router(remote) => Ok(remote.get("/v1/registry")?.body.into()),
        }
    }

    /// The text of a version.
    pub(super) fn text_of(&self, version: Version) -> Result<Vec<u8>, Failure> {
        match self {
            Self::File(store) => Ok(store.text_of(version)?),
            Self::Router(remote) => {
                let target = format!("/v1/registry/versions/{version}");
                Ok(remote.get(&target)?.body.into())
            }
        }
    }

    /// The newest versions, or those that changed a cell, at most so many, the newest last.
    pub(super) fn versions(
        &self,
        most: usize,
        cell: Option<&CellName>,
    ) -> Result<Vec<Past>, Failure> {
        let touches = |past: &Past| cell.is_none_or(|cell| past.touches(cell.as_str()));
        let mut found: Vec<Past> = match self {
            Self::File(store) => {
                let mut found = Vec::new();
                store.walk(None, most, |_, record| {
                    let past = Past::from(&record);
                    if found.len() < most && touches(&past) {
                        found.push(past);
                    }
                    if found.len() < most {
                        return ControlFlow::Continue(());
                    }
                    ControlFlow::Break(())
                })?;
                found
            }
            Self::Router(remote) => {
                let (mut found, mut before) = (Vec::new(), String::new());
                let only = cell.map_or_else(String::new, |cell| format!("&cell={cell}"));
                loop {
                    let limit = most.clamp(1, PAGE);
                    let target = format!("/v1/registry/versions?limit={limit}{only}{before}");
                    let page: Pasts = remote.get(&target)?.json()?;
                    found.extend(page.versions);
                    let Some(next) = page.next.filter(|_| found.len() < most) else {
                        break;
                    };
                    before = format!("&before={next}");
                }
                found.truncate(most);
                found
            }
        };
        found.reverse();
        Ok(found)
    }

    /// The text of the version before `text`, by the rule of [`Store::then`]. `version` is which one that is, unless it is
    /// what is there.
    pub(super) fn before(&self, version: Option<Version>, text: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::File(store) => Ok(store.then(None, Version::of(text))?),
            Self::Router(remote) => {
                let to = version.map_or_else(String::new, |version| format!("?to={version}"));
                let found: Compared = remote.get(&format!("/v1/registry/diff{to}"))?.json()?;
                self.text_of(
                    found
                        .from
                        .parse()
                        .map_err(|_| "it names no version".to_owned())?,
                )
            }
        }
    }

    /// Edits, or says what would change.
    pub(super) fn edit(
        &self,
        through: &str,
        edit: &Edit,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let remote = match self {
            Self::File(store) if dry_run => {
                let (text, _) = store.planned(|_| Ok::<_, Failure>(edit.operations.clone()))?;
                return Ok(Outcome::of(&propose(&text, edit)?, true));
            }
            Self::File(store) => {
                return Ok(Outcome::of(&store.edit(edit, &by(through))?, false));
            }
            Self::Router(remote) => remote,
        };
        if let [Operation::Replace { text }] = edit.operations.as_slice() {
            let tag = tag(edit).unwrap_or_else(|| "*".to_owned());
            let target = format!("/v1/registry{}", query(edit, dry_run));
            return remote
                .send(Method::PUT, &target, Some(tag), text.clone())?
                .json();
        }
        let steps: Option<Vec<_>> = edit.operations.iter().map(Step::of).collect();
        let steps = steps.ok_or_else(|| "a value of it is no JSON".to_owned())?;
        let body = serde_json::to_vec(&Edits { steps }).map_err(|error| error.to_string())?;
        let target = format!("/v1/registry/edits{}", query(edit, dry_run));
        remote.send(Method::POST, &target, tag(edit), body)?.json()
    }

    /// Brings back a version, or says what would change.
    pub(super) fn undo(
        &self,
        to: Option<Version>,
        edit: &Edit,
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        match self {
            Self::File(store) if dry_run => {
                let (text, operations) = store.planned(|text| {
                    let text = store.then(to, Version::of(text))?;
                    Ok::<_, Failure>(vec![Operation::Replace { text }])
                })?;
                let edit = Edit {
                    operations,
                    ..edit.clone()
                };
                Ok(Outcome::of(&propose(&text, &edit)?, true))
            }
            Self::File(store) => {
                let proposal = store.undo(to, edit, &by("registry undo"))?;
                Ok(Outcome::of(&proposal, false))
            }
            Self::Router(remote) => {
                let body = serde_json::json!({ "to": to.map(|to| to.to_string()) });
                let target = format!("/v1/registry/undo{}", query(edit, dry_run));
                let body = body.to_string();
                remote.send(Method::POST, &target, tag(edit), body)?.json()
            }
        }
    }

    /// The registry, if it is good as a whole.
    pub(super) fn registry(&self, file: &Path) -> Result<Registry, Failure> {
        match self {
            Self::File(_) => cell_router::control::check::check(file)
                .map_err(|error| error.lines(file).join("\n").into()),
            Self::Router(_) => Registry::parse(&self.read()?).map_err(|problems| {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                lines.join("\n").into()
            }),
        }
    }

    /// The running router that starts and stops machines.
    pub(super) fn router(&self) -> Result<&Remote, Failure> {
        match self {
            Self::Router(remote) => Ok(remote),
            Self::File(_) => {
                let why = "a running router starts and stops machines: name it with --url";
                Err(why.to_owned().into())
            }
        }
    }
}

/// What is read of a comparison that a router has made.
#[derive(Debug, Deserialize)]
struct Compared {
    from: String,
}

fn tag(edit: &Edit) -> Option<String> {
    edit.based_on.map(|version| format!("\"{version}\""))
}

fn query(edit: &Edit, dry_run: bool) -> String {
    format!("?dry_run={dry_run}&confirm_unplug={}", edit.confirmed)
}

/// Who runs this command.
fn by(through: &str) -> By {
    By {
        who: who(|name| std::env::var(name).ok()),
        through: through.to_owned(),
    }
}
