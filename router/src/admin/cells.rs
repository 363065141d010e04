//! Cells as they are now, and what can be done with their machines.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};
use tokio::time::Duration;
use utoipa::{IntoParams, ToSchema};

use super::View;
use super::asking::{Asked, Named, Word};
use super::editing::Audit;
use super::problem::Problem;
use crate::account::tally::CellCounts;
use crate::live::cells::{Live, Stage};
use crate::live::snapshot::Snapshot;
use crate::outbound::StreamError;
use crate::outbound::wake::{NotAsleep, Waker};
use crate::registry::{Admission, Cell, CellName, Flag, HostName, HostRule, Protocol};

/// Entries on a page unless asked otherwise, and at most.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// The longest that a wake may be waited for, in seconds.
const LONGEST_WAIT: u64 = 60;

/// Which cells are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Part of the name or of a host, that below the domain included.
    #[serde(default)]
    #[param(required = false)]
    search: String,
    /// Only those of which this holds.
    state: Option<Condition>,
    /// The name after which to go on: `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// What may hold of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Condition {
    /// Requests reach it.
    Active,
    /// They wait.
    Paused,
    /// They get 503 with a page that says so.
    Maintenance,
    /// They get 403.
    Disabled,
    /// Its entry is not in force as it is written.
    Flagged,
    /// It is being woken.
    Waking,
    /// Its breaker keeps requests from it.
    BreakerOpen,
    /// Its beats stay away, though it should be awake.
    Missing,
}

/// Some cells, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// The cells.
    cells: Vec<Summary>,
    /// How many fit in all.
    total: usize,
    /// What to give as `after` for the next page; null on the last.
    next: Option<String>,
}

/// A cell in short.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Summary {
    /// Its name.
    name: String,
    /// Its state in the registry: active, paused, maintenance, disabled; or broken, where its entry was never good.
    state: &'static str,
    /// Where it lives.
    placement: String,
    /// Requests on their way to it and back.
    in_flight: u32,
    /// Requests that wait for a place at it.
    queued: u32,
    /// How far the wake has come that is under way: asking, starting, readying.
    waking: Option<&'static str>,
    /// Whether its entry is not in force as it is written; `problems` of the cell says why.
    flagged: bool,
    /// Whether its breaker keeps requests from it, or did so and it has not answered since.
    breaker_open: bool,
    /// Requests since the router's start.
    requests: u64,
    /// Those that went wrong.
    errors: u64,
    /// When the last request ended, in seconds since 1970.
    last_request: Option<u64>,
    /// Since when its beats stay away though it should be awake, in seconds since 1970; null where it is not missing.
    missing_since: Option<u64>,
}

/// A cell with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail {
    /// Its name.
    name: String,
    /// Its state in the registry: active, paused, maintenance, disabled; or broken, where its entry was never good.
    state: &'static str,
    /// Where it lives.
    placement: String,
    /// Requests on their way to it and back.
    in_flight: u32,
    /// Requests that wait for a place at it.
    queued: u32,
    /// How far the wake has come that is under way: asking, starting, readying.
    waking: Option<&'static str>,
    /// Whether its entry is not in force as it is written.
    flagged: bool,
    /// Whether its breaker keeps requests from it, or did so and it has not answered since.
    breaker_open: bool,
    /// What it speaks: http1, http2.
    protocol: Option<&'static str>,
    /// Hosts that it answers at, that below the domain first.
    hosts: Vec<String>,
    /// Path prefixes that it answers at.
    paths: Vec<String>,
    /// Requests since the router's start, by lane.
    #[schema(value_type = HashMap<String, u64>)]
    requests: foldhash::HashMap<&'static str, u64>,
    /// Those that went wrong, by who made the error: client, router, cell.
    #[schema(value_type = HashMap<String, u64>)]
    errors: foldhash::HashMap<&'static str, u64>,
    /// Bytes of bodies from clients.
    bytes_in: u64,
    /// Bytes of bodies to clients.
    bytes_out: u64,
    /// What is wrong with its entry as it is written, where its last good version is in force instead.
    problems: Vec<String>,
    /// When the last request ended, in seconds since 1970.
    last_request: Option<u64>,
    /// How often it is to beat, in seconds; null where it need not.
    beat_every_s: Option<u64>,
    /// When this router heard its last beat, in seconds since 1970.
    last_beat: Option<u64>,
    /// Since when its beats stay away though it should be awake, in seconds since 1970; null where it is not missing.
    missing_since: Option<u64>,
}

/// The cells whose names or hosts contain what is searched for, in the order of names.
#[utoipa::path(get, path = "/v1/cells", tag = "cells", params(Wanted), responses(
    (status = 200, body = Page),
))]
pub(super) async fn list(
    State(view): State<Arc<View>>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<Page>, Problem> {
    let limit = wanted.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let detail = format!("limit is {limit}; write 1 to {LARGEST_PAGE}.");
        return Err(Problem::malformed(detail));
    }
    let snapshot = view.publisher.current();
    let search = Finder::new(&wanted.search);
    let own = own_host(&wanted.search, snapshot.registry.domain());
    let named = wanted
        .state
        .and_then(|state| named(&view, &snapshot, state));
    let left_out = snapshot.flags.iter().filter(|flag| !flag.kept);
    let left_out = left_out.map(|flag| (flag.cell.as_str(), None));
    let cells = snapshot.registry.cells();
    let wanted_ones = cells
        .map(|cell| (cell.name.as_str(), Some(cell)))
        .chain(left_out)
        .filter(|(name, cell)| {
            contains(name, &search) || has_host(*cell, &search) || is_own(*cell, own)
        })
        .filter(|(name, cell)| match (wanted.state, &named) {
            (None, _) => true,
            (Some(_), Some(named)) => named.contains(*name),
            (Some(condition), None) => is(*cell, condition),
        });
    let after = wanted.after.as_deref();
    let (mut found, total) = first(wanted_ones, after, limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let cells: Vec<_> = found
        .iter()
        .map(|(name, cell)| summary(&view, &snapshot, name, cell.map(|cell| &**cell)))
        .collect();
    let next = cells.last().filter(|_| more).map(|last| last.name.clone());
    Ok(Json(Page { cells, total, next }))
}

/// One that is listed: its name, and the cell, if its entry was ever good.
type Found<'s> = (&'s str, Option<&'s Arc<Cell>>);

/// The first `most` by name of those after `after`, and how many there are in all. Only so many are ever in memory.
fn first<'s>(
    all: impl Iterator<Item = Found<'s>>,
    after: Option<&str>,
    most: usize,
) -> (Vec<Found<'s>>, usize) {
    let mut total = 0;
    let mut kept: BTreeMap<&str, Option<&Arc<Cell>>> = BTreeMap::new();
    for (name, cell) in all {
        total += 1;
        let is_before = |(last, _): (&&str, &Option<&Arc<Cell>>)| name < *last;
        let fits = kept.len() < most || kept.last_key_value().is_some_and(is_before);
        if fits && after.is_none_or(|after| name > after) {
            kept.insert(name, cell);
            if kept.len() > most {
                kept.pop_last();
            }
        }
    }
    (kept.into_iter().collect(), total)
}

/// What ends the names of those cells whose hosts below the domain are searched for: `ice` for `ice.exam`.
fn own_host<'s>(search: &'s str, domain: Option<&HostName>) -> Option<&'s str> {
    let (end, rest) = search.split_once('.')?;
    domain?.as_str().starts_with(rest).then_some(end)
}

/// Whether a cell's name ends so.
fn is_own(cell: Option<&Arc<Cell>>, end: Option<&str>) -> bool {
    let names = cell.zip(end);
    names.is_some_and(|(cell, end)| cell.name.as_str().ends_with(end))
}

fn contains(text: &str, part: &Finder<'_>) -> bool {
    part.find(text.as_bytes()).is_some()
}

fn has_host(cell: Option<&Arc<Cell>>, part: &Finder<'_>) -> bool {
    let mut hosts = cell.iter().flat_map(|cell| &cell.hosts);
    hosts.any(|host| match host {
        HostRule::Exact(host) | HostRule::Wildcard(host) => contains(host.as_str(), part),
    })
}

/// The names of those of which a condition holds that is none of the entry; none where the entry tells.
fn named(view: &View, snapshot: &Snapshot, condition: Condition) -> Option<HashSet<String>> {
    let live = |holds: fn(&Live) -> bool| {
        let mut names = HashSet::new();
        view.cells.each(|name, live| {
            if holds(live) {
                names.insert(name.to_string());
            }
        });
        Some(names)
    };
    match condition {
        Condition::Flagged => {
            let flags = snapshot.flags.iter();
            Some(flags.map(|flag| flag.cell.clone()).collect())
        }
        Condition::Waking => live(|live| live.waking().is_some()),
        Condition::BreakerOpen => live(|live| live.breaker.is_open()),
        Condition::Missing => {
            let missing = view.beats.missing();
            Some(missing.iter().map(ToString::to_string).collect())
        }
        Condition::Active | Condition::Paused | Condition::Maintenance | Condition::Disabled => {
            None
        }
    }
}

fn is(cell: Option<&Arc<Cell>>, condition: Condition) -> bool {
    let state = match condition {
        Condition::Active => Admission::Active,
        Condition::Paused => Admission::Paused,
        Condition::Maintenance => Admission::Maintenance,
        Condition::Disabled => Admission::Disabled,
        Condition::Flagged | Condition::Waking | Condition::BreakerOpen | Condition::Missing => {
            return false;
        }
    };
    cell.is_some_and(|cell| cell.policy.state == state)
}

/// One cell.
#[utoipa::path(get, path = "/v1/cells/{name}", tag = "cells",
    params(("name" = String, Path, description = "The cell's name.")), responses(
    (status = 200, body = Detail),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(
    State(view): State<Arc<View>>,
    // A broken entry may have a name that is none.
    Word(name): Word,
) -> Result<Json<Detail>, Problem> {
    let name = name.as_str();
    let snapshot = view.publisher.current();
    let cell = snapshot.registry.cell(name);
    let problems: Vec<_> = flags(&snapshot, name)
        .flat_map(|flag| &flag.problems)
        .map(ToString::to_string)
        .collect();
    if cell.is_none() && problems.is_empty() {
        return Err(Problem::no_cell(name));
    }
    let mut counts = CellCounts::default();
    for tally in &view.tallies {
        tally
            .cell(name)
            .into_iter()
            .for_each(|more| counts.merge(more));
    }
    let Summary {
        name,
        state,
        placement,
        in_flight,
        queued,
        waking,
        flagged,
        breaker_open,
        last_request,
        missing_since,
        ..
    } = summary(&view, &snapshot, name, cell.map(|cell| &**cell));
    let own = snapshot.registry.domain().filter(|_| cell.is_some());
    let own = own.map(|domain| format!("{name}.{}", domain.as_str()));
    let hosts = cell.iter().flat_map(|cell| &cell.hosts);
    let paths = cell.iter().flat_map(|cell| &cell.paths);
    Ok(Json(Detail {
        state,
        placement,
        in_flight,
        queued,
        waking,
        flagged,
        breaker_open,
        last_request,
        missing_since,
        beat_every_s: cell
            .map(|cell| cell.policy.limits.beat_every.as_secs())
            .filter(|every| *every > 0),
        last_beat: view.beats.pulse(&name).last.map(|last| last.at_s),
        protocol: cell.map(|cell| match cell.policy.protocol {
            Protocol::Http1 => "http1",
            Protocol::Http2 => "http2",
        }),
        hosts: own
            .into_iter()
            .chain(hosts.map(ToString::to_string))
            .collect(),
        paths: paths.map(|rule| rule.prefix.to_string()).collect(),
        requests: counts.requests,
        errors: counts.errors,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        problems,
        name,
    }))
}

/// What the platform says of a cell's machine.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Machine {
    /// Its state, such as started, stopped or suspended; null where it is not known.
    state: Option<String>,
    /// Whether the next request has to wake it; null where that is not known.
    asleep: Option<bool>,
    /// Why it is not known.
    why: Option<String>,
}

/// The state of a cell's machine, as the platform tells it. Asking wakes nothing.
#[utoipa::path(get, path = "/v1/cells/{name}/machine", tag = "cells",
    params(("name" = String, Path, description = "The cell's name.")), responses(
    (status = 200, body = Machine),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn machine(
    State(view): State<Arc<View>>,
    Named(name): Named,
) -> Result<Json<Machine>, Problem> {
    let cell = cell(&view, &name)?;
    let found = match waker(&view) {
        Ok(waker) => waker.look(&cell).await.map_err(|why| why.to_string()),
        Err(problem) => Err(problem.detail),
    };
    Ok(Json(match found {
        Ok(state) => Machine {
            asleep: Some(!matches!(state.as_str(), "started" | "starting")),
            state: Some(state),
            why: None,
        },
        Err(why) => Machine {
            state: None,
            asleep: None,
            why: Some(why),
        },
    }))
}

/// How long to wait for a wake.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// How long to wait for the end of it, in seconds, 0 to 60.
    #[serde(default)]
    #[param(required = false, maximum = 60)]
    wait_s: u64,
}

/// A wake.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Woken {
    /// How far it has come: asking, starting, readying, ready.
    stage: &'static str,
}

/// Wakes a cell: once, for all who want it. It goes on whether anybody waits for it or not.
#[utoipa::path(post, path = "/v1/cells/{name}/wake", tag = "operations",
    params(("name" = String, Path, description = "The cell's name."), Patience), responses(
    (status = 200, body = Woken, description = "The cell is awake."),
    (status = 202, body = Woken, description = "It is being woken."),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn wake(
    State(view): State<Arc<View>>,
    Named(name): Named,
    Asked(patience): Asked<Patience>,
) -> Result<Response, Problem> {
    if patience.wait_s > LONGEST_WAIT {
        let detail = format!("wait_s is {}; write 0 to {LONGEST_WAIT}.", patience.wait_s);
        return Err(Problem::malformed(detail));
    }
    let (cell, waker) = (cell(&view, &name)?, waker(&view)?);
    let live = view.cells.live(&cell.name);
    let patience = Duration::from_secs(patience.wait_s);
    let (status, stage) = match waker.wake(&cell, &live, Some(patience)).await {
        Ok(()) => (StatusCode::OK, "ready"),
        Err(StreamError::Waking(stage, _)) => (StatusCode::ACCEPTED, word(stage)),
        Err(error) => return Err(Problem::refused(format!("{error}."))),
    };
    let audit = axum::Extension(Audit(stage.to_owned()));
    Ok((status, audit, Json(Woken { stage })).into_response())
}

/// Stops a cell's machine, unless this router has a request for it. The next request wakes it.
#[utoipa::path(post, path = "/v1/cells/{name}/sleep", tag = "operations",
    params(("name" = String, Path, description = "The cell's name.")), responses(
    (status = 202, body = Machine, description = "It stops."),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn sleep(
    State(view): State<Arc<View>>,
    Named(name): Named,
) -> Result<Response, Problem> {
    let (cell, waker) = (cell(&view, &name)?, waker(&view)?);
    let live = view.cells.live(&cell.name);
    match waker.sleep(&cell, &live).await {
        Ok(()) => {
            let stopping = Machine {
                state: Some("stopping".to_owned()),
                asleep: Some(true),
                why: None,
            };
            let audit = axum::Extension(Audit("stopping".to_owned()));
            Ok((StatusCode::ACCEPTED, audit, Json(stopping)).into_response())
        }
        Err(
            why @ (NotAsleep::NoMachine
            | NotAsleep::InUse(_)
            | NotAsleep::Waking
            | NotAsleep::Platform(_)
            | NotAsleep::Stopping),
        ) => Err(Problem::refused(format!("Not put to sleep: {why}."))),
    }
}

/// A cell that is in force.
pub(super) fn cell(view: &View, name: &CellName) -> Result<Arc<Cell>, Problem> {
    let snapshot = view.publisher.current();
    let found = snapshot.registry.cell(name.as_str()).map(Arc::clone);
    found.ok_or_else(|| Problem::no_cell(name.as_str()))
}

fn waker(view: &View) -> Result<&Waker, Problem> {
    let none = "This router has no token for the Machines API; give it CELL_ROUTER_FLY_API_TOKEN.";
    view.waker.as_ref().ok_or_else(|| Problem::refused(none))
}

fn flags<'s>(snapshot: &'s Snapshot, name: &str) -> impl Iterator<Item = &'s Flag> {
    let flags = snapshot.flags.iter();
    flags.filter(move |flag| flag.cell == name)
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Asking => "asking",
        Stage::Starting => "starting",
        Stage::Readying => "readying",
    }
}

/// A cell in short, by its name; none where there is none.
pub(super) fn summary_of(view: &View, snapshot: &Snapshot, name: &str) -> Option<Summary> {
    let cell = snapshot.registry.cell(name)?;
    Some(summary(view, snapshot, name, Some(&**cell)))
}

fn summary(view: &View, snapshot: &Snapshot, name: &str, cell: Option<&Cell>) -> Summary {
    let live = view.cells.find(name);
    let (mut requests, mut errors, mut last) = (0, 0, 0);
    for tally in &view.tallies {
        let (more, wrong, at) = tally.brief(name);
        requests += more;
        errors += wrong;
        last = last.max(at);
    }
    Summary {
        name: name.to_owned(),
        state: cell.map_or("broken", |cell| cell.policy.state.as_str()),
        placement: cell.map_or_else(String::new, |cell| cell.placement.to_string()),
        in_flight: live.as_ref().map_or(0, |live| live.in_flight()),
        queued: live.as_ref().map_or(0, |live| live.queued()),
        waking: live.as_ref().and_then(|live| live.waking()).map(word),
        flagged: flags(snapshot, name).next().is_some(),
        breaker_open: live.is_some_and(|live| live.breaker.is_open()),
        requests,
        errors,
        last_request: Some(last).filter(|at| *at > 0),
        missing_since: view.beats.pulse(name).missing_since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_the_first_names_after_the_one_before() {
        let names = ["d", "b", "e", "a", "c"];
        let page = |after, most| {
            let (found, total) = first(names.into_iter().map(|name| (name, None)), after, most);
            let found: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
            (found.concat(), total)
        };
        assert_eq!(page(None, 2), ("ab".to_owned(), 5));
        assert_eq!(page(Some("b"), 2), ("cd".to_owned(), 5));
        assert_eq!(page(Some("bb"), 9), ("cde".to_owned(), 5));
        assert_eq!(page(Some("e"), 2), (String::new(), 5));
    }
}
