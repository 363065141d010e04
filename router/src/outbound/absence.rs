//! Who of those that are to beat is missing: looked at twice a second, and told.
//!
//! It wakes nothing and connects to no cell: of a machine that has fallen silent the platform is asked whether it sleeps,
//! one machine at a time.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::machines::ApiError;
use super::wake::{NotAsleep, Waker};
use super::webhook::{Event, Notice, Notices};
use crate::decision::beat::{Home, INTERVALS, Silence, Verdict, home, judge};
use crate::live::beats::Beats;
use crate::live::cells::Cells;
use crate::live::snapshot::{Publisher, Seen, Snapshot};
use crate::registry::{Admission, Cell, CellName, Placement};

/// How often silences are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look that comes later than this means that the router itself stood still: what it did not hear says nothing then.
const STALL: Duration = Duration::from_secs(5);
/// A cell that goes missing again and again is told of no more often than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is looked at, and to whom it is told.
#[derive(Debug)]
pub struct Absence {
    /// The registry in force.
    pub publisher: Publisher,
    /// The live state of all cells.
    pub cells: Arc<Cells>,
    /// What is heard of them.
    pub beats: Arc<Beats>,
    /// The way to ask the platform for a machine's state; without it no machine is called missing.
    pub waker: Option<Waker>,
    /// The webhook, if there is one.
    pub notices: Option<Notices>,
}

/// One cell that is to beat.
#[derive(Debug)]
struct Watch {
    cell: Arc<Cell>,
    /// When it was heard of last, or is awaited from.
    since: Instant,
    home: Home,
    /// When the platform was asked about this silence.
    asked: Option<Instant>,
    /// Whether it stands among those of which the platform is to be asked.
    queued: bool,
    /// Since when it is missing.
    missing: Option<SystemTime>,
    /// What happened last, and since when it was missing then.
    news: Option<(Event, SystemTime)>,
    told: Told,
}

/// What was told of a cell. Its first absence is told at once, a later one after a pause that doubles; a return always is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    missing: bool,
    at: Option<Instant>,
    pause: Duration,
}

/// What the platform says of a cell's machine.
struct Answer {
    cell: CellName,
    asked: Instant,
    /// Why it does not say anything, else.
    found: Result<Home, String>,
}

/// A question to the platform.
type Look = BoxFuture<'static, Answer>;

impl Absence {
    /// Looks for ever.
    pub async fn follow(self) -> Infallible {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = Watched::default();
        let mut look: Option<Look> = None;
        loop {
            let answer = async {
                match &mut look {
                    Some(look) => look.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => watched.pass(&self, Instant::now()),
                answer = answer => {
                    look = None;
                    watched.learn(&self, answer);
                }
            }
            if look.is_none() {
                look = watched
                    .next(Instant::now())
                    .and_then(|cell| self.look(cell));
            }
        }
    }

    fn look(&self, cell: Arc<Cell>) -> Option<Look> {
        let (waker, asked) = (self.waker.clone()?, Instant::now());
        let found = async move {
            let found = match waker.look(&cell).await {
                Ok(state) => Ok(home(&state)),
                Err(NotAsleep::Platform(ApiError::Refused(StatusCode::NOT_FOUND, _))) => {
                    Ok(Home::Lost)
                }
                Err(error) => Err(error.to_string()),
            };
            Answer {
                cell: cell.name.clone(),
                asked,
                found,
            }
        };
        Some(found.boxed())
    }

    /// Has the webhook told, if there is one; whether there was room for it.
    fn tell(&self, event: Event, cell: &CellName, since: SystemTime) -> bool {
        self.notices.as_ref().is_none_or(|notices| {
            notices.tell(Notice {
                event,
                cell: cell.clone(),
                at: SystemTime::now(),
                since,
            })
        })
    }
}

/// All cells that are to beat, by one snapshot of the registry.
#[derive(Debug, Default)]
struct Watched {
    seen: Seen,
    watches: HashMap<CellName, Watch>,
    /// Those of which the platform is to be asked.
    asks: VecDeque<CellName>,
    looked: Option<Instant>,
    /// Whether the platform did not tell when it was asked last.
    platform_away: bool,
}

impl Watched {
    fn pass(&mut self, absence: &Absence, now: Instant) {
        let stalled = self.looked.replace(now).is_some_and(|at| now - at > STALL);
        let snapshot = absence.publisher.current();
        if !self.seen.is(&snapshot) {
            self.read(absence, &snapshot, now);
        }
        for (name, watch) in &mut self.watches {
            if stalled {
                watch.begin_anew(now);
            }
            if watch.look(absence, now) && !watch.queued {
                watch.queued = true;
                self.asks.push_back(name.clone());
            }
        }
    }

    /// Takes over what another snapshot of the registry says. A cell that has moved is awaited anew.
    fn read(&mut self, absence: &Absence, snapshot: &Arc<Snapshot>, now: Instant) {
        self.seen = Seen::of(snapshot);
        let mut before = std::mem::take(&mut self.watches);
        let awaited = snapshot.registry.cells();
        for cell in awaited.filter(|cell| !cell.policy.limits.beat_every.is_zero()) {
            let watch = match before.remove(&cell.name) {
                Some(watch) => watch.edited(cell, now),
                None => Watch::new(cell, now),
            };
            self.watches.insert(cell.name.clone(), watch);
        }
        for (name, watch) in before {
            if let (true, Some((_, since))) = (watch.told.missing, watch.news) {
                let told = absence.tell(Event::Excused, &name, since);
                if !told {
                    let cell = name.as_str();
                    tracing::error!(cell, "gone while it was missing: the webhook is not told");
                    absence.beats.count_notice("dropped");
                }
            }
        }
        let watches = &self.watches;
        absence.beats.retain(|name| watches.contains_key(name));
    }

    /// The next cell of which the platform is to be asked, if nothing was heard of it meanwhile.
    fn next(&mut self, now: Instant) -> Option<Arc<Cell>> {
        while let Some(name) = self.asks.pop_front() {
            let Some(watch) = self.watches.get_mut(&name) else {
                continue;
            };
            watch.queued = false;
            if watch.is_silent(now) {
                watch.asked = Some(now);
                return Some(Arc::clone(&watch.cell));
            }
        }
        None
    }

    /// Takes over what the platform said of a silence, unless it has ended.
    fn learn(&mut self, absence: &Absence, answer: Answer) {
        let Answer { cell, asked, found } = answer;
        let away = found.is_err();
        if let (Err(why), false) = (&found, self.platform_away) {
            tracing::warn!(why, "who is silent may sleep: the platform does not tell");
        }
        self.platform_away = away;
        let now = Instant::now();
        let silent = |watch: &&mut Watch| watch.since <= asked;
        let watch = self.watches.get_mut(&cell).filter(silent);
        let (Some(watch), Ok(home)) = (watch, found) else {
            return;
        };
        if watch.home != home {
            tracing::info!(cell = cell.as_str(), machine = ?home, "silent");
        }
        watch.home = home;
        if home == Home::Awake {
            watch.heard(now);
        }
        watch.look(absence, now);
    }
}

/// What has been heard of a cell since the last look.
struct Heard {
    /// It has beaten.
    beat: bool,
    /// It is being woken.
    wakes: bool,
}

impl Watch {
    fn new(cell: &Arc<Cell>, now: Instant) -> Self {
        Self {
            home: match cell.placement {
                Placement::Machine { .. } => Home::Unseen,
                Placement::Address { .. } => Home::Address,
            },
            cell: Arc::clone(cell),
            since: now,
            asked: None,
            queued: false,
            missing: None,
            news: None,
            told: Told::default(),
        }
    }

    fn edited(self, cell: &Arc<Cell>, now: Instant) -> Self {
        let same = self.cell.policy.limits.beat_every == cell.policy.limits.beat_every;
        if self.cell.placement != cell.placement {
            let Self {
                missing,
                news,
                told,
                ..
            } = self;
            return Self {
                missing,
                news,
                told,
                ..Self::new(cell, now)
            };
        }
        let mut edited = Self {
            cell: Arc::clone(cell),
            ..self
        };
        if !same {
            edited.begin_anew(now);
        }
        edited
    }

    /// It is awaited from now on, whatever was silent before; what was said of its machine is to be said again.
    fn begin_anew(&mut self, now: Instant) {
        self.since = now;
        self.asked = None;
        if matches!(self.home, Home::Running | Home::Lost) {
            self.home = Home::Awake;
        }
    }

    /// Whether it has been silent for so long that it is to be asked why.
    fn is_silent(&self, now: Instant) -> bool {
        let lasts = now.saturating_duration_since(self.since);
        lasts >= self.cell.policy.limits.beat_every * INTERVALS
    }

    /// It was awake then.
    fn heard(&mut self, at: Instant) {
        self.since = at;
        self.asked = None;
        if self.home != Home::Address {
            self.home = Home::Awake;
        }
    }

    /// Takes over what this router has heard and done.
    fn listen(&mut self, absence: &Absence, now: Instant) -> Heard {
        let last = absence.beats.pulse(self.cell.name.as_str()).last;
        let last = last.filter(|last| last.at > self.since);
        if let Some(last) = &last {
            if matches!(self.home, Home::Unseen | Home::Asleep) {
                tracing::info!(cell = self.cell.name.as_str(), "beats");
            }
            self.heard(last.at);
        }
        let live = absence.cells.find(self.cell.name.as_str());
        let wakes = live.as_ref().is_some_and(|live| live.waking().is_some());
        let woke = live.is_some_and(|live| live.was_told_since(&self.cell.placement, self.since));
        // A wake says something of one that was asleep; of one that was awake only that it has come to a good end.
        if woke || wakes && matches!(self.home, Home::Unseen | Home::Asleep) {
            self.heard(now);
        }
        Heard {
            beat: last.is_some(),
            wakes,
        }
    }

    /// Judges its silence, and tells what has changed; whether the platform is to be asked.
    fn look(&mut self, absence: &Absence, now: Instant) -> bool {
        let Heard { beat, wakes } = self.listen(absence, now);
        let every = self.cell.policy.limits.beat_every;
        let lasts = now.saturating_duration_since(self.since);
        let verdict = if wakes && self.missing.is_none() {
            // How that ends says more. Until then it is silent as long as before.
            Verdict::Well
        } else {
            judge(Silence {
                every,
                admission: self.cell.policy.state,
                lasts,
                home: self.home,
            })
        };
        match verdict {
            Verdict::Missing => self.miss(absence, lasts),
            Verdict::Well | Verdict::Excused => self.end(absence, beat),
            Verdict::Ask => {}
        }
        if self.cell.policy.state != Admission::Active {
            self.begin_anew(now);
        }
        if let Some((event, since)) = self.news
            && let missing = event == Event::Missing
            && self.told.is_due(missing, now)
            && absence.tell(event, &self.cell.name, since)
        {
            self.told.tell(missing, every, now);
        }
        let long_ago = |at: Instant| now.saturating_duration_since(at) >= every * INTERVALS;
        let may_sleep = matches!(self.home, Home::Running | Home::Lost);
        let open = verdict == Verdict::Ask || (verdict == Verdict::Missing && may_sleep);
        open && self.asked.is_none_or(long_ago)
    }

    fn end(&mut self, absence: &Absence, beat: bool) {
        let Some(since) = self.missing.take() else {
            return;
        };
        let event = if beat {
            Event::Returned
        } else {
            Event::Excused
        };
        self.news = Some((event, since));
        absence.beats.set_missing(&self.cell.name, None);
        tracing::info!(
            cell = self.cell.name.as_str(),
            beats = beat,
            "not missing any more"
        );
    }

    fn miss(&mut self, absence: &Absence, lasts: Duration) {
        if self.missing.is_some() {
            return;
        }
        let since = SystemTime::now().checked_sub(lasts).unwrap_or(UNIX_EPOCH);
        self.missing = Some(since);
        self.news = Some((Event::Missing, since));
        let seconds = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = Some(seconds.as_secs());
        absence.beats.set_missing(&self.cell.name, seconds);
        let (cell, machine) = (self.cell.name.as_str(), self.home);
        let silent_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(cell, silent_ms, ?machine, "missing");
    }
}

impl Told {
    /// Whether it is time to tell whether a cell is missing.
    fn is_due(&self, missing: bool, now: Instant) -> bool {
        let calm = self.calm(now).is_none_or(|calm| calm >= self.pause);
        missing != self.missing && (calm || !missing)
    }

    /// It is told.
    fn tell(&mut self, missing: bool, every: Duration, now: Instant) {
        if missing {
            self.pause = match self.calm(now) {
                Some(calm) if calm < LONGEST_PAUSE => self.pause * 2,
                Some(_) | None => every * INTERVALS * 4,
            };
            self.pause = self.pause.min(LONGEST_PAUSE);
            self.at = Some(now);
        }
        self.missing = missing;
    }

    /// For how long no absence was told.
    fn calm(&self, now: Instant) -> Option<Duration> {
        self.at.map(|at| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_comes_and_goes_is_told_of_less_and_less() {
        let (begin, every) = (Instant::now(), Duration::from_secs(10));
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut told = Told::default();
        for (seconds, missing, due) in [
            (0, false, false),
            (30, true, true),
            (31, true, false),
            (40, false, true),
            (41, false, false),
            // Within two minutes of the first word.
            (70, true, false),
            (90, false, false),
            (149, true, false),
            (150, true, true),
            (160, false, true),
            // Then within four.
            (389, true, false),
            (390, true, true),
            (400, false, true),
            (869, true, false),
            // After an hour of quiet all is as at first.
            (390 + 3600, true, true),
            (390 + 3610, false, true),
            (390 + 3719, true, false),
            (390 + 3720, true, true),
        ] {
            let now = after(seconds);
            assert_eq!(told.is_due(missing, now), due, "{seconds}");
            if due {
                told.tell(missing, every, now);
            }
        }
    }
}
