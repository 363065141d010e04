//! The lists of the file: hosts and path prefixes.

use http::HeaderName;

use super::object::{Settings, default_flag, read_string, wrong_shape};
use super::syntax;
use crate::registry::cell::PathRule;
use crate::registry::fields::{Key, Scope, field};
use crate::registry::host::{HostName, HostRule};
use crate::registry::json::{self, Shape};
use crate::registry::path::PathPrefix;
use crate::registry::problem::{Place, Refusal, Report};
use crate::registry::sign_in::{PlainPath, copied_header};

/// Good items, each with its index and where it is written.
pub(super) type Items<'t, T> = Vec<(usize, T, &'t str)>;

/// Reads `path_hosts`.
pub(super) fn read_path_hosts<'t>(
    own: &Settings<'t>,
    report: &mut Report<'t>,
) -> Items<'t, HostName> {
    read(
        own,
        Key::PathHosts,
        Place::Root,
        report,
        |json, place, report| read_text(json, place, report, HostName::parse),
    )
}

/// Reads `hosts` of a cell.
pub(super) fn read_host_rules<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Items<'t, HostRule> {
    read(own, Key::Hosts, place, report, |json, place, report| {
        read_text(json, place, report, HostRule::parse)
    })
}

/// Reads `paths` of a cell.
pub(super) fn read_path_rules<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Items<'t, PathRule> {
    read(own, Key::Paths, place, report, read_path_rule)
}

/// Reads `public` of a sign-in.
pub(super) fn read_public_paths<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Items<'t, PlainPath> {
    read(own, Key::Public, place, report, |json, place, report| {
        read_text(json, place, report, PlainPath::parse)
    })
}

/// Reads `copy_headers` of a sign-in.
pub(super) fn read_copied_headers<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Items<'t, HeaderName> {
    read(
        own,
        Key::CopyHeaders,
        place,
        report,
        |json, place, report| read_text(json, place, report, copied_header),
    )
}

fn read_path_rule<'t>(
    json: &'t str,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<PathRule> {
    if Shape::of(json) != Shape::Object {
        let prefix = read_text(json, place, report, PathPrefix::parse)?;
        let strip = default_flag(Key::Strip);
        return Some(PathRule { prefix, strip });
    }
    let rule = Settings::read(json, Scope::Path, place, report);
    let Some(source) = rule.source(Key::Prefix) else {
        let refusal = Refusal::new(
            "there is no prefix here",
            "write, for example, {\"prefix\": \"/a\", \"strip\": true}",
        );
        report.add(json, place, refusal);
        return None;
    };
    match PathPrefix::parse(rule.text(Key::Prefix)?) {
        Ok(prefix) => Some(PathRule {
            prefix,
            strip: rule
                .flag(Key::Strip)
                .unwrap_or_else(|| default_flag(Key::Strip)),
        }),
        Err(refusal) => {
            report.add(source, place.member("prefix"), refusal);
            None
        }
    }
}

fn read<'t, T>(
    own: &Settings<'t>,
    key: Key,
    place: Place<'_>,
    report: &mut Report<'t>,
    mut item: impl FnMut(&'t str, Place<'_>, &mut Report<'t>) -> Option<T>,
) -> Items<'t, T> {
    let mut found = Vec::new();
    let Some(json) = own.nested(key) else {
        return found;
    };
    let list = place.member(field(key).name);
    let mut index = 0;
    let read = json::items(json, |json| {
        if let Some(value) = item(json, list.item(index), report) {
            found.push((index, value, json));
        }
        index += 1;
    });
    if let Err(error) = read {
        syntax::add(json, &error, list, report);
    }
    found
}

fn read_text<'t, T>(
    json: &'t str,
    place: Place<'_>,
    report: &mut Report<'t>,
    parse: impl FnOnce(&str) -> Result<T, Refusal>,
) -> Option<T> {
    let shape = Shape::of(json);
    if shape != Shape::Text {
        report.add(
            json,
            place,
            wrong_shape(shape, "a text", "write it in double quotes".to_owned()),
        );
        return None;
    }
    let text = read_string(json, place, report)?;
    parse(&text)
        .map_err(|refusal| report.add(json, place, refusal))
        .ok()
}
