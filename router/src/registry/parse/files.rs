//! Files of a cell that the router serves itself.

use std::sync::Arc;
use std::time::Duration;

use super::folder::{self, read_path};
use super::object::{Settings, default_choice, default_number, default_text, refuse};
use crate::registry::fields::{Key, Scope};
use crate::registry::files::{Files, Missing};
use crate::registry::name::CellName;
use crate::registry::problem::{Place, Refusal, Report};
use crate::registry::sign_in::PlainPath;

/// What is written of them, before `{cell}` is replaced.
pub(super) struct Template {
    folder: folder::Template,
    /// With the folder of no cell.
    files: Arc<Files>,
}

impl Template {
    /// What it means for one cell; one allocation for all for which it is the same.
    pub(super) fn for_cell(&self, cell: &CellName) -> Arc<Files> {
        if self.folder.for_all().is_some() {
            return Arc::clone(&self.files);
        }
        Arc::new(Files {
            folder: self.folder.for_cell(cell),
            ..Files::clone(&self.files)
        })
    }
}

/// Reads the key `static` of an entry or of the defaults.
pub(super) fn read_files<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<Template> {
    let json = own.nested(Key::Static)?;
    let place = place.member("static");
    let written = Settings::read(json, Scope::Static, place, report);
    if written.source(Key::Folder).is_none() {
        let refusal = Refusal::new(
            "it is not said where the files are",
            "write, for example, {\"folder\": \"site\", \"path\": \"/assets\"}",
        );
        report.add(json, place, refusal);
        return None;
    }
    let path = written
        .text(Key::FilesPath)
        .or(default_text(Key::FilesPath))
        .unwrap_or_default();
    let path = PlainPath::parse(path)
        .map_err(|refusal| refuse(&written, Key::FilesPath, place, refusal, report));
    let folder = read_path(&written, Key::Folder, place, report)?;
    let missing = written
        .choice(Key::Missing)
        .unwrap_or_else(|| default_choice(Key::Missing));
    let max_age = written.number(Key::MaxAge).or(default_number(Key::MaxAge));
    let files = Files {
        folder: folder.for_name(""),
        path: path.ok()?,
        missing: Missing::ALL[missing].1,
        max_age: Duration::from_secs(max_age.unwrap_or_default()),
    };
    Some(Template {
        folder,
        files: Arc::new(files),
    })
}
