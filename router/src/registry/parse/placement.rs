//! Where a cell lives: a machine with its app and port, or an address.

use std::net::Ipv6Addr;

use foldhash::HashSet;

use super::entry::{Defaults, number};
use super::object::{Settings, refuse};
use crate::registry::cell::Placement;
use crate::registry::fields::Key;
use crate::registry::host::HostName;
use crate::registry::name::{AppName, MachineId};
use crate::registry::problem::{Place, Refusal, Report, quoted};

/// The app that is written here; equal names share one allocation.
pub(super) fn read_app(
    own: &Settings<'_>,
    place: Place<'_>,
    apps: &mut HashSet<AppName>,
    report: &mut Report<'_>,
) -> Option<AppName> {
    let text = own.text(Key::App)?;
    if let Some(known) = apps.get(text) {
        return Some(known.clone());
    }
    match AppName::parse(text) {
        Ok(app) => {
            apps.insert(app.clone());
            Some(app)
        }
        Err(refusal) => {
            refuse(own, Key::App, place, refusal, report);
            None
        }
    }
}

pub(super) fn read_machine<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    report: &mut Report<'t>,
) -> Option<(MachineId, &'t str)> {
    let text = own.text(Key::Machine)?;
    match MachineId::parse(text) {
        Ok(machine) => Some((machine, own.source(Key::Machine)?)),
        Err(refusal) => {
            refuse(own, Key::Machine, place, refusal, report);
            None
        }
    }
}

pub(super) fn read_placement<'t>(
    own: &Settings<'t>,
    machine: Option<&(MachineId, &'t str)>,
    key: &'t str,
    place: Place<'_>,
    defaults: &mut Defaults<'t>,
    report: &mut Report<'t>,
) -> Option<Placement> {
    let own_app = read_app(own, place, &mut defaults.apps, report);
    match (own.source(Key::Machine), own.source(Key::Address)) {
        (Some(_), Some(_)) => {
            let refusal = Refusal::new(
                "the cell has both a machine and an address",
                "keep the one where it lives",
            );
            refuse(own, Key::Address, place, refusal, report);
            None
        }
        (None, None) => {
            report.add(
                key,
                place,
                Refusal::new(
                    "the cell has no machine and no address",
                    "write where it lives: \"machine\": \"3d8d9e67c2e123\" or \"address\": \"127.0.0.1:9000\"",
                ),
            );
            None
        }
        (Some(source), None) => {
            let app = own_app.or_else(|| {
                let default = defaults.settings.text(Key::App)?;
                defaults.apps.get(default).cloned()
            });
            let named = own.source(Key::App).or(defaults.settings.source(Key::App));
            if named.is_none() {
                report.add(
                    source,
                    place.member("machine"),
                    Refusal::new(
                        "no app is named for this machine",
                        "write \"app\" beside it or in defaults",
                    ),
                );
            }
            let port = number(own, &defaults.settings, Key::Port);
            Some(Placement::Machine {
                app: app?,
                machine: machine?.0.clone(),
                port: u16::try_from(port).ok()?,
            })
        }
        (None, Some(_)) => {
            for key in [Key::App, Key::Port] {
                if own.source(key).is_some() {
                    let refusal = Refusal::new(
                        "this goes with a machine, and the cell has an address",
                        "take it out; the port of an address is part of it",
                    );
                    refuse(own, key, place, refusal, report);
                }
            }
            match read_address(own.text(Key::Address)?) {
                Ok(placement) => Some(placement),
                Err(refusal) => {
                    refuse(own, Key::Address, place, refusal, report);
                    None
                }
            }
        }
    }
}

/// Reads `host:port`, `ip:port` or `[v6]:port`.
fn read_address(text: &str) -> Result<Placement, Refusal> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(Refusal::new(
            format!("{} has no port", quoted(text)),
            format!("write {}", quoted(&format!("{text}:8080"))),
        ));
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = port.parse::<u16>().ok().filter(|port| digits && *port > 0) else {
        return Err(Refusal::new(
            format!("{} ends in no port", quoted(text)),
            "write a number from 1 to 65535 after the last colon",
        ));
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = match inner {
        Some(inner) => match inner.parse::<Ipv6Addr>() {
            Ok(address) => address.to_string(),
            Err(_) => {
                return Err(Refusal::new(
                    format!("{} is no IPv6 address", quoted(host)),
                    "write, for example, \"[::1]:9000\"",
                ));
            }
        },
        None if host.parse::<Ipv6Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok() => {
            return Err(Refusal::new(
                format!("{} has an IPv6 address without brackets", quoted(text)),
                "write, for example, \"[::1]:9000\"",
            ));
        }
        None => HostName::parse(host)?.as_str().to_owned(),
    };
    Ok(Placement::Address {
        host: host.into(),
        port: number,
    })
}
