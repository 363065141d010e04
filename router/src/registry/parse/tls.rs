//! How a cell proves by TLS who it is.

use super::object::{Settings, refuse};
use crate::registry::cell::{Tls, TrustSource};
use crate::registry::fields::{Key, Scope};
use crate::registry::host::HostName;
use crate::registry::name::CellName;
use crate::registry::problem::{Place, Refusal, Report};

const CELL: &str = "{cell}";
const FILE_MAX: usize = 1000;
const PIN: &str = "sha256:";

/// What is written of TLS, before `{cell}` is replaced.
pub(super) struct Template {
    trust: TrustSource,
    name: Option<String>,
}

impl Template {
    /// What it means for one cell.
    pub(super) fn for_cell(&self, cell: &CellName) -> Tls {
        let trust = match &self.trust {
            TrustSource::Authorities(path) => {
                TrustSource::Authorities(path.replace(CELL, cell.as_str()))
            }
            TrustSource::Key(pin) => TrustSource::Key(*pin),
        };
        let name = self.name.as_ref();
        Tls {
            trust,
            name: name.map(|name| name.replace(CELL, cell.as_str()).into()),
        }
    }
}

/// Reads the key `tls` of an entry or of the defaults.
pub(super) fn read_tls<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<Template> {
    let json = own.nested(Key::Tls)?;
    let place = place.member("tls");
    let written = Settings::read(json, Scope::Tls, place, report);
    let before = report.count();
    let name = written.text(Key::ServerName).map(str::to_owned);
    if let Some(name) = &name
        && let Err(refusal) = HostName::parse(&name.replace(CELL, "cell"))
    {
        refuse(&written, Key::ServerName, place, refusal, report);
    }
    let trust = match (written.source(Key::Ca), written.source(Key::Pin)) {
        (Some(_), None) => authorities(&written, place, report),
        (None, Some(_)) => pin(&written, place, report),
        (Some(_), Some(_)) => {
            let refusal = Refusal::new("there are both ca and pin", "keep one of the two");
            refuse(&written, Key::Pin, place, refusal, report);
            None
        }
        (None, None) => {
            let refusal = Refusal::new(
                "it is not said which certificate is the cell's",
                "write {\"ca\": \"FILE.pem\"} or {\"pin\": \"sha256:HEX\"}",
            );
            report.add(json, place, refusal);
            None
        }
    };
    let trust = trust.filter(|_| report.count() == before)?;
    Some(Template { trust, name })
}

fn authorities(
    written: &Settings<'_>,
    place: Place<'_>,
    report: &mut Report<'_>,
) -> Option<TrustSource> {
    let path = written.text(Key::Ca)?;
    if !path.is_empty() && path.chars().count() <= FILE_MAX && !path.contains(char::is_control) {
        return Some(TrustSource::Authorities(path.to_owned()));
    }
    let refusal = Refusal::new(
        "this is no path of a file",
        "use 1 to 1000 characters without control characters, as in \"cells-ca.pem\"",
    );
    refuse(written, Key::Ca, place, refusal, report);
    None
}

fn pin(written: &Settings<'_>, place: Place<'_>, report: &mut Report<'_>) -> Option<TrustSource> {
    let text = written.text(Key::Pin)?;
    if let Some(sum) = text.strip_prefix(PIN).and_then(sum) {
        return Some(TrustSource::Key(sum));
    }
    let refusal = Refusal::new(
        "this is no pin",
        "write sha256: and 64 hexadecimal digits, of the certificate's public key: openssl x509 -in CERT.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum",
    );
    refuse(written, Key::Pin, place, refusal, report);
    None
}

fn sum(hex: &str) -> Option<[u8; 32]> {
    let mut sum = [0; 32];
    if hex.len() != 2 * sum.len() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in sum.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(sum)
}
