//! Where a cell's secret is to be found. No message here repeats a value: someone may have put the secret itself there.

use super::object::Settings;
use crate::registry::cell::SecretSource;
use crate::registry::fields::{Key, Scope};
use crate::registry::name::CellName;
use crate::registry::problem::{Place, Refusal, Report};

const CELL: &str = "{cell}";
const ENV_MAX: usize = 200;
const FILE_MAX: usize = 1000;

/// A secret's source before `{cell}` is replaced.
pub(super) enum Template {
    Env(String),
    File(String),
}

impl Template {
    /// The source for one cell.
    pub(super) fn for_cell(&self, cell: &CellName) -> SecretSource {
        match self {
            Template::Env(name) => {
                let cell = cell.as_str().to_ascii_uppercase().replace('-', "_");
                SecretSource::Env(name.replace(CELL, &cell).into())
            }
            Template::File(path) => SecretSource::File(path.replace(CELL, cell.as_str()).into()),
        }
    }
}

/// Reads the key `secret` of an entry or of the defaults.
pub(super) fn read_secret<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<Template> {
    let json = own.nested(Key::Secret)?;
    let place = place.member("secret");
    let source = Settings::read(json, Scope::Secret, place, report);
    match (source.source(Key::Env), source.source(Key::File)) {
        (Some(env), None) => {
            let name = source.text(Key::Env)?;
            let rest = name.replace(CELL, "");
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if !name.is_empty() && name.len() <= ENV_MAX && rest.bytes().all(plain) {
                return Some(Template::Env(name.to_owned()));
            }
            let refusal = Refusal::new(
                "this is no name of an environment variable",
                "use up to 200 of A-Z, a-z, 0-9, _ and {cell}, as in \"CELL_SECRET_{cell}\"; never write the secret itself",
            );
            report.add(env, place.member("env"), refusal);
        }
        (None, Some(file)) => {
            let path = source.text(Key::File)?;
            if !path.is_empty()
                && path.chars().count() <= FILE_MAX
                && !path.contains(char::is_control)
            {
                return Some(Template::File(path.to_owned()));
            }
            let refusal = Refusal::new(
                "this is no path of a file",
                "use 1 to 1000 characters without control characters, as in \"/run/secrets/{cell}\"",
            );
            report.add(file, place.member("file"), refusal);
        }
        (Some(_), Some(file)) => {
            let refusal = Refusal::new("the secret has both env and file", "keep one of the two");
            report.add(file, place.member("file"), refusal);
        }
        (None, None) => {
            let refusal = Refusal::new(
                "it is not said where the secret is to be found",
                "write {\"env\": \"NAME\"} or {\"file\": \"PATH\"}",
            );
            report.add(json, place, refusal);
        }
    }
    None
}
