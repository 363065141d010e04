//! How clients sign in before they reach a cell.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::folder::{self, read_path};
use super::lists::{read_copied_headers, read_public_paths};
use super::object::{Settings, default_flag, default_number, default_text, refuse, refuse_stray};
use crate::registry::fields::{Key, Scope};
use crate::registry::name::CellName;
use crate::registry::problem::{Place, Refusal, Report};
use crate::registry::sign_in::{PlainPath, SignIn, SignInBy, copied_header, forward_url};

const CELL: &str = "{cell}";

/// What is written of it, before `{cell}` is replaced.
pub(super) struct Template {
    by: By,
    public: Box<[PlainPath]>,
    /// Where it is the same for all cells.
    for_all: Option<Arc<SignIn>>,
}

enum By {
    Basic {
        file: folder::Template,
        realm: Box<str>,
        keep_authorization: bool,
    },
    Forward {
        url: String,
        timeout: Duration,
        user_from: HeaderName,
        copy: Box<[HeaderName]>,
    },
}

impl Template {
    /// What it means for one cell; one allocation for all for which it is the same.
    pub(super) fn for_cell(&self, cell: &CellName) -> Option<Arc<SignIn>> {
        if let Some(for_all) = &self.for_all {
            return Some(Arc::clone(for_all));
        }
        self.filled(cell.as_str()).map(Arc::new)
    }

    fn filled(&self, cell: &str) -> Option<SignIn> {
        let by = match &self.by {
            By::Basic {
                file,
                realm,
                keep_authorization,
            } => SignInBy::Basic {
                file: file.for_name(cell),
                realm: realm.clone(),
                keep_authorization: *keep_authorization,
            },
            By::Forward {
                url,
                timeout,
                user_from,
                copy,
            } => SignInBy::Forward {
                // It was one with another name in it.
                url: forward_url(&url.replace(CELL, cell)).ok()?,
                timeout: *timeout,
                user_from: user_from.clone(),
                copy: copy.clone(),
            },
        };
        Some(SignIn {
            by,
            public: self.public.clone(),
        })
    }

    fn is_for_all(&self) -> bool {
        match &self.by {
            By::Basic { file, .. } => file.for_all().is_some(),
            By::Forward { url, .. } => !url.contains(CELL),
        }
    }
}

/// Reads the key `sign_in` of an entry or of the defaults.
pub(super) fn read_sign_in<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<Template> {
    let json = own.nested(Key::SignIn)?;
    let place = place.member("sign_in");
    let written = Settings::read(json, Scope::SignIn, place, report);
    let before = report.count();
    let public = read_public_paths(&written, place, report);
    let public = public.into_iter().map(|(_, path, _)| path).collect();
    let by = match (written.source(Key::Basic), written.source(Key::Forward)) {
        (Some(_), None) => basic(&written, place, report),
        (None, Some(_)) => forward(&written, place, report),
        (Some(_), Some(_)) => {
            let refusal = Refusal::new("there are both basic and forward", "keep one of the two");
            refuse(&written, Key::Forward, place, refusal, report);
            None
        }
        (None, None) => {
            let refusal = Refusal::new(
                "it is not said who knows the clients",
                "write {\"basic\": \"FILE.htpasswd\"} or {\"forward\": \"http://HOST/PATH\"}",
            );
            report.add(json, place, refusal);
            None
        }
    };
    let mut template = Template {
        by: by.filter(|_| report.count() == before)?,
        public,
        for_all: None,
    };
    if template.is_for_all() {
        template.for_all = template.filled("").map(Arc::new);
    }
    Some(template)
}

fn basic(written: &Settings<'_>, place: Place<'_>, report: &mut Report<'_>) -> Option<By> {
    let stray = [Key::UserFrom, Key::CopyHeaders, Key::SignInTimeout];
    refuse_stray(written, &stray, "forward", place, report);
    let realm = written
        .text(Key::Realm)
        .or(default_text(Key::Realm))
        .unwrap_or_default();
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    if realm.is_empty() || realm.len() > 100 || !realm.bytes().all(plain) {
        let refusal = Refusal::new(
            "this is no name of a realm",
            "use 1 to 100 printable ASCII characters, neither \" nor \\",
        );
        refuse(written, Key::Realm, place, refusal, report);
    }
    Some(By::Basic {
        realm: realm.into(),
        keep_authorization: written
            .flag(Key::KeepAuthorization)
            .unwrap_or_else(|| default_flag(Key::KeepAuthorization)),
        file: read_path(written, Key::Basic, place, report)?,
    })
}

fn forward<'t>(written: &Settings<'t>, place: Place<'_>, report: &mut Report<'t>) -> Option<By> {
    let stray = [Key::Realm, Key::KeepAuthorization];
    refuse_stray(written, &stray, "basic", place, report);
    let copy = read_copied_headers(written, place, report);
    let user_from = written
        .text(Key::UserFrom)
        .or(default_text(Key::UserFrom))
        .unwrap_or_default();
    let user_from = copied_header(user_from)
        .map_err(|refusal| refuse(written, Key::UserFrom, place, refusal, report))
        .ok()?;
    let url = written.text(Key::Forward)?;
    if let Err(refusal) = forward_url(&url.replace(CELL, "cell")) {
        refuse(written, Key::Forward, place, refusal, report);
        return None;
    }
    let timeout = written
        .number(Key::SignInTimeout)
        .or(default_number(Key::SignInTimeout));
    Some(By::Forward {
        url: url.to_owned(),
        timeout: Duration::from_millis(timeout.unwrap_or_default()),
        user_from,
        copy: copy.into_iter().map(|(_, name, _)| name).collect(),
    })
}
