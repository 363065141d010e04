//! Live state as server-sent events (WHATWG HTML, Server-sent events).
//!
//! One task looks twice a second at what has changed, as long as anybody listens, and puts it into a ring. Each who listens
//! reads the ring at a pace of their own: one who is slow is told to load everything again, and costs nothing.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use axum::Extension;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Duration, MissedTickBehavior, interval, timeout};

use super::View;
use super::access::Pass;
use super::cells::{Summary, summary_of};
use super::problem::{Problem, Sort};
use crate::live::cells::{Live, Stage};
use crate::live::lock;
use crate::live::snapshot::Seen;
use crate::registry::CellName;

/// How often what has changed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many events are kept for those who come back or are slow.
const KEPT: usize = 256;
/// More cells than this in one look are not told one by one.
const MOST_CELLS: usize = 250;
/// How many may listen at once.
const MOST_LISTENERS: usize = 64;
/// How often a connection without news shows that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What is told, and to how many.
#[derive(Debug)]
pub(super) struct Feed {
    /// What all numbers begin with, so that those of a router that ran before are known.
    epoch: u64,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

/// One event: its kind and its data.
type News = (&'static str, Arc<str>);

#[derive(Debug, Default)]
struct Ring {
    /// The number of the first that is kept.
    first: u64,
    kept: VecDeque<News>,
    /// There has been a look with which the next one is compared: what changes from now on is told.
    begun: bool,
}

impl Ring {
    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn push(&mut self, news: News) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.first += 1;
        }
        self.kept.push_back(news);
    }

    /// Forgets all, so that whoever comes back has missed something.
    fn clear(&mut self) {
        self.first = self.next() + 1;
        self.kept.clear();
        self.begun = false;
    }

    /// The event of this number: `Err` where it is gone, or never was; none where it is still to come.
    fn at(&self, number: u64) -> Result<Option<News>, ()> {
        if number < self.first || number > self.next() {
            return Err(());
        }
        let index = usize::try_from(number - self.first).map_err(|_| ())?;
        Ok(self.kept.get(index).cloned())
    }
}

/// One who listens.
struct Listener {
    /// Until it holds no more.
    pass: Pass,
    feed: Arc<Feed>,
    told: watch::Receiver<u64>,
    /// The number of the event that comes next; none where it is not known where to begin.
    next: Option<u64>,
}

impl Feed {
    pub(super) fn new(view: &View) -> Self {
        let epoch = view.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            epoch: u64::try_from(epoch.as_millis()).unwrap_or_default(),
            ring: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }

    /// Where to go on after the event that a client saw last.
    fn after(&self, last: &str) -> Option<u64> {
        let (epoch, number) = last.split_once('-')?;
        let number: u64 = number.parse().ok()?;
        (epoch.parse() == Ok(self.epoch)).then(|| number.checked_add(1))?
    }

    /// From now on changes are told. Whoever is told to load everything before that could miss one.
    fn begin(&self) {
        let number = {
            let mut ring = lock(&self.ring);
            ring.begun = true;
            ring.next()
        };
        self.last.send_replace(number);
    }

    fn tell(&self, news: News) {
        let number = {
            let mut ring = lock(&self.ring);
            ring.push(news);
            ring.next()
        };
        self.last.send_replace(number);
    }

    fn event(&self, number: u64, (kind, data): News) -> Event {
        let id = format!("{}-{number}", self.epoch);
        Event::default().id(id).event(kind).data(&*data)
    }
}

impl Listener {
    /// The next event; none where the token is taken out, which is looked at before each event and every so often.
    ///
    /// Cancel safe: an event that was not taken comes again.
    async fn event(&mut self) -> Option<Event> {
        loop {
            if !self.pass.holds() {
                return None;
            }
            // Before the ring is looked at, so that nothing falls in between.
            self.told.borrow_and_update();
            {
                let ring = lock(&self.feed.ring);
                match self.next.map(|next| (next, ring.at(next))) {
                    Some((at, Ok(Some(news)))) => {
                        self.next = Some(at + 1);
                        return Some(self.feed.event(at, news));
                    }
                    None | Some((_, Err(()))) if ring.begun => {
                        let before = ring.next();
                        let resync = ("resync", Arc::from("{}"));
                        // It bears the number of the event before the next one.
                        self.next = Some(before);
                        return Some(self.feed.event(before.wrapping_sub(1), resync));
                    }
                    Some((_, Ok(None) | Err(()))) | None => {}
                }
            }
            if let Ok(changed) = timeout(KEEP_ALIVE, self.told.changed()).await {
                changed.ok()?;
            }
        }
    }
}

/// What is compared of a cell between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Look {
    in_flight: u32,
    queued: u32,
    waking: Option<Stage>,
    breaker_open: bool,
    missing: bool,
}

impl Look {
    fn at(live: &Live) -> Self {
        Self {
            in_flight: live.in_flight(),
            queued: live.queued(),
            waking: live.waking(),
            breaker_open: live.breaker.is_open(),
            missing: false,
        }
    }
}

#[derive(Serialize)]
struct NewRegistry {
    version: String,
    cells: usize,
    flagged: usize,
}

/// So many have changed that they are not told one by one.
#[derive(Serialize)]
struct Many {
    cells: usize,
}

#[derive(Serialize)]
struct NewCells {
    cells: Vec<Summary>,
}

/// The names of those that do not look as before.
fn changed<'l>(
    before: &'l HashMap<CellName, Look>,
    now: &'l HashMap<CellName, Look>,
) -> Vec<&'l CellName> {
    before
        .iter()
        .filter(|(name, look)| now.get(*name) != Some(look))
        .chain(now.iter().filter(|(name, _)| !before.contains_key(*name)))
        .map(|(name, _)| name)
        .collect()
}

/// What is told of those that have changed.
fn news(changed: &[&CellName], summary: impl Fn(&CellName) -> Option<Summary>) -> Option<News> {
    if changed.is_empty() {
        return None;
    }
    if changed.len() > MOST_CELLS {
        let cells = changed.len();
        return Some(("many", json(&Many { cells })));
    }
    let cells = changed.iter().filter_map(|name| summary(name)).collect();
    Some(("cells", json(&NewCells { cells })))
}

/// Looks for changes for ever, as long as anybody listens.
pub(super) async fn follow(view: Arc<View>, feed: Arc<Feed>) -> Infallible {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks: Option<(Seen, HashMap<CellName, Look>)> = None;
    loop {
        ticks.tick().await;
        if feed.last.receiver_count() == 0 {
            if looks.take().is_some() {
                lock(&feed.ring).clear();
            }
            continue;
        }
        let snapshot = view.publisher.current();
        let mut now = HashMap::new();
        view.cells.each(|name, live| {
            let look = Look::at(live);
            if look != Look::default() {
                now.insert(name.clone(), look);
            }
        });
        for name in view.beats.missing() {
            now.entry(name).or_default().missing = true;
        }
        if let Some((seen, before)) = &looks {
            if !seen.is(&snapshot) {
                let news = NewRegistry {
                    version: snapshot.version.to_string(),
                    cells: snapshot.registry.len(),
                    flagged: snapshot.flags.len(),
                };
                feed.tell(("registry", json(&news)));
            }
            let summary = |name: &CellName| summary_of(&view, &snapshot, name.as_str());
            if let Some(news) = news(&changed(before, &now), summary) {
                feed.tell(news);
            }
        }
        if looks.replace((Seen::of(&snapshot), now)).is_none() {
            feed.begin();
        }
    }
}

fn json(news: &impl Serialize) -> Arc<str> {
    // Numbers, names and lists of them always have a JSON text.
    serde_json::to_string(news).unwrap_or_default().into()
}

/// Changes as they happen. `registry`: another version is in force, or more of the same. `cells`: those whose requests, wakes or breakers have
/// changed, or which are missing or back; `many`: so many that only their number is told. `resync`: something was missed, so load again what you show; it comes first, unless `Last-Event-ID` names an
/// event that is known still.
#[utoipa::path(get, path = "/v1/events", tag = "router",
    params(("Last-Event-ID" = Option<String>, Header, description = "The event that was seen last.")),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    Extension(feed): Extension<Arc<Feed>>,
    Extension(pass): Extension<Pass>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if feed.last.receiver_count() >= MOST_LISTENERS {
        let detail = format!("{MOST_LISTENERS} listen already; try again later.");
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            Sort::Refused,
            detail,
        ));
    }
    let last = headers
        .get("last-event-id")
        .and_then(|last| last.to_str().ok());
    let listener = Listener {
        pass,
        next: last.and_then(|last| feed.after(last)),
        told: feed.last.subscribe(),
        feed,
    };
    let stream = futures_util::stream::unfold(listener, |mut listener| async {
        let event = listener.event().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let kept = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(stream).keep_alive(kept).into_response())
}

#[cfg(test)]
mod tests {
    use super::super::access::{Access, NewToken, Role};
    use super::*;

    fn numbered(number: usize) -> News {
        ("cells", number.to_string().into())
    }

    #[test]
    fn when_many_cells_change_only_their_number_is_told() {
        let names: Vec<_> = (0..=MOST_CELLS)
            .map(|number| CellName::parse(&format!("c{number}")).unwrap())
            .collect();
        let told = |count: usize| {
            let looks = |in_flight| {
                let look = Look {
                    in_flight,
                    ..Look::default()
                };
                names[..count].iter().map(move |name| (name.clone(), look))
            };
            let (before, now) = (looks(1).collect(), looks(2).collect());
            news(&changed(&before, &now), |_| None)
        };
        assert_eq!(told(0), None);
        assert_eq!(told(1), Some(("cells", "{\"cells\":[]}".into())));
        assert_eq!(told(MOST_CELLS).map(|(kind, _)| kind), Some("cells"));
        let many = Some(("many", "{\"cells\":251}".into()));
        assert_eq!(told(MOST_CELLS + 1), many, "which is no resync");
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_their_token_is_sent_away_though_nothing_happens() {
        let new = NewToken::new("ops", Role::Read).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, &new.line).unwrap();
        let access = Arc::new(Access::new(Some(file.clone())).unwrap());
        let feed = Arc::new(Feed {
            epoch: 1,
            ring: Mutex::default(),
            last: watch::Sender::new(0),
        });
        let mut listener = Listener {
            pass: Pass::new(&access, Some(&new.token)),
            told: feed.last.subscribe(),
            next: Some(0),
            feed,
        };
        let quiet = timeout(KEEP_ALIVE * 3, listener.event()).await;
        assert!(quiet.is_err(), "nothing has happened");
        std::fs::write(&file, "").unwrap();
        let ended = timeout(KEEP_ALIVE * 2, listener.event()).await;
        assert!(ended.is_ok_and(|event| event.is_none()));
    }

    #[test]
    fn a_ring_tells_what_it_keeps_and_what_is_gone() {
        let mut ring = Ring::default();
        assert_eq!(ring.at(0), Ok(None));
        assert_eq!(ring.at(1), Err(()), "what never was");
        (0..KEPT + 3).for_each(|number| ring.push(numbered(number)));
        assert_eq!(ring.at(2), Err(()));
        assert_eq!(ring.at(3), Ok(Some(numbered(3))));
        assert_eq!(ring.at(KEPT as u64 + 2), Ok(Some(numbered(KEPT + 2))));
        assert_eq!(ring.at(KEPT as u64 + 3), Ok(None));
        ring.clear();
        assert_eq!(ring.at(KEPT as u64 + 3), Err(()), "something was missed");
        assert_eq!(ring.kept.len(), 0);
    }
}
