//! The router's own part of the traces that requests belong to: which are exported, and what waits for it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SpanData};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use crate::config::traces::Sampling;
use crate::wire::trace::{RANDOM, SAMPLED, SpanId, TraceId, TraceParent};

/// The span that the router is of a request.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// As those are to name it who are asked next.
    pub own: TraceParent,
    /// Whether the client came by https.
    pub https: bool,
}

/// One worker's way to have spans exported.
#[derive(Debug)]
pub struct Tracer {
    sampling: Sampling,
    ids: RandomIdGenerator,
    ended: RefCell<Vec<SpanData>>,
    spans: Spans,
}

impl Tracer {
    /// One that names and samples so, and hands spans over to `spans`.
    pub fn new(sampling: Sampling, spans: Spans) -> Self {
        Self {
            sampling,
            ids: RandomIdGenerator::default(),
            ended: RefCell::default(),
            spans,
        }
    }

    /// A new span: of the trace that the request names, or of a new one. What is known of a trace stays known.
    pub(super) fn step(&self, parent: Option<TraceParent>) -> TraceParent {
        let trace = parent.map_or_else(|| self.trace_id(), |parent| parent.trace);
        let sampled = match parent {
            Some(parent) if self.sampling.parent_based => parent.is_sampled(),
            Some(_) | None => falls_under(trace, self.sampling.ratio),
        };
        let known = parent.map_or(0, |parent| parent.flags & RANDOM);
        TraceParent {
            trace,
            span: self.span_id(),
            flags: known | if sampled { SAMPLED } else { 0 },
        }
    }

    fn trace_id(&self) -> TraceId {
        loop {
            let id = u128::from_be_bytes(self.ids.new_trace_id().to_bytes());
            if let Some(id) = TraceId::new(id) {
                return id;
            }
        }
    }

    pub(super) fn span_id(&self) -> SpanId {
        loop {
            let id = u64::from_be_bytes(self.ids.new_span_id().to_bytes());
            if let Some(id) = SpanId::new(id) {
                return id;
            }
        }
    }

    pub(super) fn ended(&self, spans: impl IntoIterator<Item = SpanData>) {
        self.ended.borrow_mut().extend(spans);
    }

    /// Hands over all spans that wait.
    pub(super) fn flush(&self) {
        let mut ended = self.ended.borrow_mut();
        if !ended.is_empty() {
            self.spans.offer(&mut ended);
        }
    }
}

/// Whether a trace is of the share that is exported: by its id, as every other program finds that samples by OpenTelemetry's
/// `TraceIdRatioBased`.
fn falls_under(trace: TraceId, ratio: f64) -> bool {
    const ALL: f64 = (1_u64 << 63) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of all is a part of it"
    )]
    let bound = (ratio * ALL) as u64;
    trace.low() >> 1 < bound
}

#[derive(Debug, Default)]
struct Waiting {
    spans: VecDeque<SpanData>,
    /// Those that are just being exported.
    under_way: usize,
    closed: bool,
    outcomes: HashMap<&'static str, u64>,
}

#[derive(Debug)]
struct Shared {
    most: usize,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

/// Spans on their way to who exports them; its clones are the same. Whoever has some never waits.
#[derive(Debug, Clone)]
pub struct Spans(Arc<Shared>);

impl Spans {
    /// Room for so many.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared {
            most,
            waiting: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = self.0.waiting.lock();
        waiting.unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes spans over. Those that there is no room for are dropped and counted.
    fn offer(&self, spans: &mut Vec<SpanData>) {
        let mut waiting = self.waiting();
        let room = self.0.most.saturating_sub(waiting.spans.len());
        let taken = spans.len().min(room);
        waiting.spans.extend(spans.drain(..taken));
        let dropped = spans.len();
        spans.clear();
        if dropped > 0 {
            *waiting.outcomes.entry("dropped").or_default() += dropped as u64;
        }
        drop(waiting);
        self.0.changed.notify_one();
    }

    /// The next spans: up to `most`, once there are so many, the first has waited for `delay`, or no more will come. `None`
    /// when all are gone. For one that exports.
    pub async fn batch(&self, most: usize, delay: Duration) -> Option<Vec<SpanData>> {
        let mut due = None;
        self.waiting().under_way = 0;
        loop {
            {
                let mut waiting = self.waiting();
                let count = waiting.spans.len();
                if waiting.closed && count == 0 {
                    return None;
                }
                let is_due = due.is_some_and(|due| due <= Instant::now());
                if count >= most || (count > 0 && (waiting.closed || is_due)) {
                    waiting.under_way = count.min(most);
                    return Some(waiting.spans.drain(..count.min(most)).collect());
                }
                if count > 0 && due.is_none() {
                    due = Some(Instant::now() + delay);
                }
            }
            let changed = self.0.changed.notified();
            match due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// No more will come.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.0.changed.notify_one();
    }

    /// Spans that wait, or are just being exported.
    pub fn left(&self) -> usize {
        let waiting = self.waiting();
        waiting.spans.len() + waiting.under_way
    }

    /// Counts what became of some.
    pub fn count(&self, outcome: &'static str, spans: u64) {
        *self.waiting().outcomes.entry(outcome).or_default() += spans;
    }

    /// What became of all so far.
    pub fn outcomes(&self) -> HashMap<&'static str, u64> {
        self.waiting().outcomes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::span::plain;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";

    fn parent(flags: &str) -> Option<TraceParent> {
        TraceParent::parse(&[PARENT, flags.as_bytes()].concat())
    }

    fn tracer(parent_based: bool, ratio: f64) -> Tracer {
        let sampling = Sampling {
            parent_based,
            ratio,
        };
        Tracer::new(sampling, Spans::new(1))
    }

    #[test]
    fn who_asks_decides_else_the_share_does() {
        for (parent_based, ratio, asked, flags) in [
            (true, 0.0, None, 0),
            (true, 1.0, None, 1),
            (true, 0.0, Some("01"), 1),
            (true, 1.0, Some("00"), 0),
            (false, 0.0, Some("01"), 0),
            (false, 1.0, Some("00"), 1),
            // What else is known of the trace stays known; what nobody knows yet is not told on.
            (true, 0.0, Some("03"), 3),
            (true, 0.0, Some("02"), 2),
            (true, 0.0, Some("ff"), 3),
        ] {
            let asked = asked.map(|flags| parent(flags).unwrap());
            let step = tracer(parent_based, ratio).step(asked);
            assert_eq!(step.flags, flags, "{parent_based} {ratio} {asked:?}");
            if let Some(asked) = asked {
                assert_eq!(step.trace, asked.trace);
                assert_ne!(step.span, asked.span);
            }
        }
    }

    #[test]
    fn ids_are_new_each_time() {
        let tracer = tracer(true, 1.0);
        let (one, another) = (tracer.step(None), tracer.step(None));
        assert_ne!(one.trace, another.trace);
        assert_ne!(one.span, another.span);
    }

    /// As by the sampler of OpenTelemetry's SDK, so that a trace is whole whoever samples it.
    #[test]
    fn a_share_has_the_same_traces_as_elsewhere() {
        use opentelemetry::trace::{SpanKind, TraceId as Id};
        use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _};
        let tracer = tracer(true, 1.0);
        for ratio in [0.0, 1e-9, 0.1, 0.5, 0.999, 1.0] {
            let sampler = Sampler::TraceIdRatioBased(ratio);
            for _ in 0..1000 {
                let trace = tracer.step(None).trace;
                let id = Id::from_bytes(trace.to_bytes());
                let theirs = sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
                let theirs = theirs.decision == SamplingDecision::RecordAndSample;
                assert_eq!(falls_under(trace, ratio), theirs, "{trace} {ratio}");
            }
        }
    }

    fn some(count: usize) -> Vec<SpanData> {
        let own = parent("01").unwrap();
        let now = std::time::SystemTime::now();
        vec![plain(own, "GET", now, now); count]
    }

    #[tokio::test(start_paused = true)]
    async fn spans_go_together_once_there_are_many_or_one_has_waited() {
        let delay = Duration::from_secs(5);
        let spans = Spans::new(10);
        spans.offer(&mut some(7));
        let began = Instant::now();
        assert_eq!(spans.batch(4, delay).await.unwrap().len(), 4);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(spans.left(), 7);
        assert_eq!(spans.batch(4, delay).await.unwrap().len(), 3);
        assert_eq!(spans.left(), 3);
        assert_eq!(began.elapsed(), delay);
        spans.offer(&mut some(5));
        spans.close();
        assert_eq!(spans.batch(4, delay).await.unwrap().len(), 4);
        assert_eq!(spans.batch(4, delay).await.unwrap().len(), 1);
        assert!(spans.batch(4, delay).await.is_none());
        assert_eq!(began.elapsed(), delay);
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let spans = Spans::new(10);
        spans.offer(&mut some(7));
        let mut more = some(7);
        spans.offer(&mut more);
        assert!(more.is_empty());
        assert_eq!(spans.left(), 10);
        assert_eq!(spans.outcomes(), HashMap::from([("dropped", 4)]));
    }
}
