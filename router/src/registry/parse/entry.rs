//! One cell's entry: own values, else defaults, else the table's defaults, made into a [`Cell`].

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;

use super::files::{self, read_files};
use super::folder::{self, read_path};
use super::lists::{read_host_rules, read_path_rules};
use super::object::{Settings, default_choice, default_flag, default_number, default_text, refuse};
use super::placement::{read_app, read_machine, read_placement};
use super::secret::{Template, read_secret};
use super::sign_in::{self, read_sign_in};
use super::tls::{self, read_tls};
use crate::registry::cell::{
    Admission, Cell, Identity, Limits, PathRule, Policy, Protocol, Replay, ReplayKind, WakeFor,
};
use crate::registry::fields::{Key, Scope};
use crate::registry::host::HostRule;
use crate::registry::name::{AppName, CellName, MachineId};
use crate::registry::problem::{Place, Refusal, Report, quoted};

/// What holds for every cell that says nothing else, and what cells share.
pub(super) struct Defaults<'t> {
    pub(super) settings: Settings<'t>,
    ready_path: Arc<str>,
    secret: Option<Template>,
    tls: Option<tls::Template>,
    pages: Option<folder::Template>,
    sign_in: Option<sign_in::Template>,
    files: Option<files::Template>,
    /// Every app that has been named, so that equal names share one allocation.
    pub(super) apps: HashSet<AppName>,
    /// Every policy that a cell has, so that cells which are treated alike share one allocation.
    policies: HashSet<Arc<Policy>>,
}

impl<'t> Defaults<'t> {
    /// Reads the object `defaults`, if there is one.
    pub(super) fn read(json: Option<&'t str>, report: &mut Report<'t>) -> Self {
        let place = Place::Root.member("defaults");
        let settings = match json {
            Some(json) => Settings::read(json, Scope::Defaults, place, report),
            None => Settings::empty(),
        };
        let mut apps = HashSet::default();
        read_app(&settings, place, &mut apps, report);
        let built_in = Arc::from(default_text(Key::ReadyPath).unwrap_or_default());
        Self {
            ready_path: read_ready_path(&settings, place, &built_in, report),
            secret: read_secret(&settings, place, report),
            tls: read_tls(&settings, place, report),
            pages: read_path(&settings, Key::Pages, place, report),
            sign_in: read_sign_in(&settings, place, report),
            files: read_files(&settings, place, report),
            settings,
            apps,
            policies: HashSet::default(),
        }
    }

    /// The folder of pages for requests that no cell has.
    pub(super) fn pages(&self) -> Option<Arc<str>> {
        self.pages.as_ref()?.for_all()
    }

    fn shared(&mut self, policy: Policy) -> Arc<Policy> {
        if let Some(shared) = self.policies.get(&policy) {
            return Arc::clone(shared);
        }
        let policy = Arc::new(policy);
        self.policies.insert(Arc::clone(&policy));
        policy
    }
}

/// An entry as read. The hosts and paths stand beside the cell, as they are claimed even if the cell is not good.
pub(super) struct Entry<'t> {
    /// The cell without hosts and paths, if all of the rest is good.
    pub(super) cell: Option<Cell>,
    /// The machine, if it is good, and where it is written.
    pub(super) machine: Option<(MachineId, &'t str)>,
    /// Hosts, each with its index and where it is written.
    pub(super) hosts: Vec<(usize, HostRule, &'t str)>,
    /// Paths, each with its index and where it is written.
    pub(super) paths: Vec<(usize, PathRule, &'t str)>,
}

impl Entry<'_> {
    /// Takes hosts and paths from a cell that has the same.
    pub(super) fn share(&mut self, same: &Cell) {
        for ((_, rule, _), theirs) in std::iter::zip(&mut self.hosts, &same.hosts) {
            rule.clone_from(theirs);
        }
        for ((_, rule, _), theirs) in std::iter::zip(&mut self.paths, &same.paths) {
            rule.clone_from(theirs);
        }
    }
}

/// Reads the entry of the cell that `key` names. `name` is absent if the key is no cell name.
pub(super) fn read_entry<'t>(
    name: Option<&CellName>,
    key: &'t str,
    json: &'t str,
    place: Place<'_>,
    defaults: &mut Defaults<'t>,
    report: &mut Report<'t>,
) -> Entry<'t> {
    let before = report.count();
    let own = Settings::read(json, Scope::Cell, place, report);
    let machine = read_machine(&own, place, report);
    let placement = read_placement(&own, machine.as_ref(), key, place, defaults, report);
    let replay = read_replay(&own, place, &defaults.settings, report);
    let ready_path = read_ready_path(&own, place, &defaults.ready_path, report);
    let own_secret = read_secret(&own, place, report);
    let identity = read_identity(&own, key, place, &defaults.settings, report);
    check_beats(&own, key, place, &defaults.settings, report);
    let own_tls = read_tls(&own, place, report);
    let own_pages = read_path(&own, Key::Pages, place, report);
    let own_sign_in = read_sign_in(&own, place, report);
    let own_files = read_files(&own, place, report);
    let hosts = read_host_rules(&own, place, report);
    let paths = read_path_rules(&own, place, report);
    let good = report.count() == before;
    let cell = match (name, placement) {
        (Some(name), Some(placement)) if good => Some(Cell {
            name: name.clone(),
            placement,
            hosts: hosts.iter().map(|(_, rule, _)| rule.clone()).collect(),
            paths: paths.iter().map(|(_, rule, _)| rule.clone()).collect(),
            secret: own_secret
                .as_ref()
                .or(defaults.secret.as_ref())
                .map(|template| Box::new(template.for_cell(name))),
            policy: defaults.shared(Policy {
                state: Admission::ALL[choice(&own, &defaults.settings, Key::State)].1,
                replay,
                limits: limits(&own, &defaults.settings),
                identity,
                tls: own_tls
                    .as_ref()
                    .or(defaults.tls.as_ref())
                    .map(|template| template.for_cell(name)),
                protocol: Protocol::ALL[choice(&own, &defaults.settings, Key::Protocol)].1,
                ready_path,
                may_replay: own
                    .flag(Key::MayReplay)
                    .or(defaults.settings.flag(Key::MayReplay))
                    .unwrap_or_else(|| default_flag(Key::MayReplay)),
                pages: own_pages
                    .as_ref()
                    .or(defaults.pages.as_ref())
                    .map(|template| template.for_cell(name)),
                sign_in: own_sign_in
                    .as_ref()
                    .or(defaults.sign_in.as_ref())
                    .and_then(|template| template.for_cell(name)),
                files: own_files
                    .as_ref()
                    .or(defaults.files.as_ref())
                    .map(|template| template.for_cell(name)),
                wake_for: WakeFor::ALL[choice(&own, &defaults.settings, Key::WakeFor)].1,
            }),
        }),
        _ => None,
    };
    Entry {
        cell,
        machine,
        hosts,
        paths,
    }
}

/// The number of `key`: the cell's own, else the default.
pub(super) fn number(own: &Settings<'_>, defaults: &Settings<'_>, key: Key) -> u64 {
    own.number(key)
        .or(defaults.number(key))
        .or(default_number(key))
        .unwrap_or_default()
}

fn choice(own: &Settings<'_>, defaults: &Settings<'_>, key: Key) -> usize {
    own.choice(key)
        .or(defaults.choice(key))
        .unwrap_or_else(|| default_choice(key))
}

fn limits(own: &Settings<'_>, defaults: &Settings<'_>) -> Limits {
    let number = |key| number(own, defaults, key);
    let milliseconds = |key| Duration::from_millis(number(key));
    Limits {
        max_in_flight: u32::try_from(number(Key::MaxInFlight)).unwrap_or(u32::MAX),
        queue_timeout: milliseconds(Key::QueueTimeout),
        max_body_bytes: own
            .number(Key::MaxBodyBytes)
            .or(defaults.number(Key::MaxBodyBytes)),
        min_body_rate: number(Key::MinBodyRate),
        min_answer_rate: number(Key::MinAnswerRate),
        connect_timeout: milliseconds(Key::ConnectTimeout),
        first_byte_timeout: milliseconds(Key::FirstByteTimeout),
        idle_timeout: milliseconds(Key::IdleTimeout),
        tunnel_idle_timeout: milliseconds(Key::TunnelIdleTimeout),
        wake_timeout: milliseconds(Key::WakeTimeout),
        waking_page_after: milliseconds(Key::WakingPageAfter),
        hold_timeout: milliseconds(Key::HoldTimeout),
        retry_after: Duration::from_secs(number(Key::RetryAfter)),
        beat_every: Duration::from_secs(number(Key::BeatEvery)),
    }
}

fn read_replay<'t>(
    own: &Settings<'t>,
    place: Place<'_>,
    defaults: &Settings<'t>,
    report: &mut Report<'t>,
) -> Replay {
    let is_address = own.source(Key::Address).is_some() && own.source(Key::Machine).is_none();
    let kind = if is_address {
        if let Some(own_kind) = own.choice(Key::Replay)
            && ReplayKind::ALL[own_kind].1 != ReplayKind::Never
        {
            let refusal = Refusal::new(
                "only a Fly Machine can be replayed to, and the cell has an address",
                "write \"never\", or take it out",
            );
            refuse(own, Key::Replay, place, refusal, report);
        }
        ReplayKind::Never
    } else {
        ReplayKind::ALL[choice(own, defaults, Key::Replay)].1
    };
    for (key, goes_with, word) in [
        (Key::ReplayTtl, ReplayKind::Cached, "cached"),
        (Key::ReplayTimeout, ReplayKind::Strict, "strict"),
    ] {
        if own.number(key).is_some() && kind != goes_with {
            let refusal = Refusal::new(
                format!("this counts only for a cell whose replay is {word}"),
                if is_address {
                    "take it out; a cell with an address is never replayed".to_owned()
                } else {
                    format!("take it out, or write \"replay\": \"{word}\" for this cell")
                },
            );
            refuse(own, key, place, refusal, report);
        }
    }
    match kind {
        ReplayKind::Never => Replay::Never,
        ReplayKind::Strict => Replay::Strict {
            timeout: own
                .number(Key::ReplayTimeout)
                .or(defaults.number(Key::ReplayTimeout))
                .map(Duration::from_millis),
        },
        ReplayKind::Cached => Replay::Cached {
            ttl: Duration::from_secs(number(own, defaults, Key::ReplayTtl)),
        },
    }
}

/// Without a secret nothing can be proven: where that is asked for outright, it is a mistake.
fn read_identity<'t>(
    own: &Settings<'t>,
    key: &'t str,
    place: Place<'_>,
    defaults: &Settings<'t>,
    report: &mut Report<'t>,
) -> Identity {
    let identity = Identity::ALL[choice(own, defaults, Key::Identity)].1;
    let secret = own.source(Key::Secret);
    if secret.or(defaults.source(Key::Secret)).is_some() {
        return identity;
    }
    let asked = own.choice(Key::Identity).or(defaults.choice(Key::Identity));
    if asked.is_some() && identity == Identity::Challenge {
        let source = own.source(Key::Identity).unwrap_or(key);
        let refusal = Refusal::new(
            "the cell is to answer a challenge, and it has no secret to answer with",
            "give it a \"secret\", or write \"identity\": \"none\"",
        );
        report.add(source, place.member("identity"), refusal);
    }
    Identity::None
}

/// A beat is signed: a cell without a secret has none that could be believed.
fn check_beats<'t>(
    own: &Settings<'t>,
    key: &'t str,
    place: Place<'_>,
    defaults: &Settings<'t>,
    report: &mut Report<'t>,
) {
    let secret = own.source(Key::Secret).or(defaults.source(Key::Secret));
    if secret.is_some() || number(own, defaults, Key::BeatEvery) == 0 {
        return;
    }
    let source = own.source(Key::BeatEvery).unwrap_or(key);
    let refusal = Refusal::new(
        "the cell is to post beats, and it has no secret to sign them with",
        "give it a \"secret\", or write \"beat_every_s\": 0",
    );
    report.add(source, place.member("beat_every_s"), refusal);
}

fn read_ready_path(
    own: &Settings<'_>,
    place: Place<'_>,
    default: &Arc<str>,
    report: &mut Report<'_>,
) -> Arc<str> {
    let Some(text) = own.text(Key::ReadyPath) else {
        return Arc::clone(default);
    };
    let plain = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
            )
    };
    if !text.starts_with('/') || text.len() > 256 || !text.bytes().all(plain) {
        let refusal = Refusal::new(
            format!("{} is no path", quoted(text)),
            "write a slash and up to 255 characters that may stand in a URL, such as \"/up\"",
        );
        refuse(own, Key::ReadyPath, place, refusal, report);
        return Arc::clone(default);
    }
    if text == &**default {
        return Arc::clone(default);
    }
    text.into()
}
