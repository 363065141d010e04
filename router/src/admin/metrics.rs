//! Metrics in the Prometheus text format, under the field's names.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::View;
use crate::account::tally::{BOUNDS, Counts, Histogram, Lane};

/// All of them, as they are now.
///
/// # Errors
/// None in practice: writing to a string cannot fail.
pub(super) fn text(view: &Arc<View>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("cell_router");
    registry.register_collector(Box::new(Now(Arc::clone(view))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Reads everything when it is asked.
#[derive(Debug)]
struct Now(Arc<View>);

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let view = &*self.0;
        let mut counts = Counts::default();
        view.tallies
            .iter()
            .for_each(|tally| counts.merge(tally.totals()));
        requests(&mut encoder, &counts)?;
        lanes(&mut encoder, &counts)?;
        cells(&mut encoder, &counts, view)?;
        process(&mut encoder, view)
    }
}

fn requests(encoder: &mut DescriptorEncoder, counts: &Counts) -> fmt::Result {
    let help = "Requests that are over, by lane, reason, class of status, and who made the error";
    let mut family = encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    for (kind, count) in &counts.requests {
        let class = match kind.class {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        let labels = [
            ("lane", kind.lane),
            ("reason", kind.reason),
            ("code", class),
            ("error_by", kind.blame.map_or("", |blame| blame.name())),
        ];
        family
            .encode_family(&labels)?
            .encode_counter::<NoLabelSet, _, u64>(count, None)?;
    }
    Ok(())
}

fn lanes(encoder: &mut DescriptorEncoder, counts: &Counts) -> fmt::Result {
    type Part = fn(&Lane) -> &Histogram;
    let histograms: [(&str, &str, Part); 3] = [
        (
            "request_duration",
            "From a request's head to the end of its answer",
            |lane| &lane.duration,
        ),
        (
            "time_to_first_byte",
            "From a request's head to that of its answer",
            |lane| &lane.first_byte,
        ),
        (
            "wait_duration",
            "How long requests waited for their cell that had to",
            |lane| &lane.waited,
        ),
    ];
    for (name, help, part) in histograms {
        let by_lane = counts.lanes.iter().map(|(lane, all)| (*lane, part(all)));
        histogram(encoder, name, help, "lane", by_lane)?;
    }
    let help = "Bytes of bodies of requests that are over, by lane and by whether they went in from clients or out to them";
    let mut family =
        encoder.encode_descriptor("body", help, Some(&Unit::Bytes), MetricType::Counter)?;
    for (lane, all) in &counts.lanes {
        for (direction, bytes) in [("in", all.bytes_in), ("out", all.bytes_out)] {
            family
                .encode_family(&[("lane", *lane), ("direction", direction)])?
                .encode_counter::<NoLabelSet, _, u64>(&bytes, None)?;
        }
    }
    Ok(())
}

fn cells(encoder: &mut DescriptorEncoder, counts: &Counts, view: &View) -> fmt::Result {
    let wakes = counts
        .wakes
        .iter()
        .map(|(outcome, times)| (*outcome, times));
    let help = "How long wakes of cells took, by how they ended";
    histogram(encoder, "wake_duration", help, "outcome", wakes)?;
    counters(
        encoder,
        "cell_connections",
        "Connections to cells, by whether one was opened, one was reused, or none could be made",
        "outcome",
        &counts.connections,
    )?;
    let census = view.cells.census();
    let held = u64::try_from(census.held).unwrap_or(u64::MAX);
    for (name, help, value) in [
        (
            "requests_in_flight",
            "Requests on their way to cells and back",
            census.in_flight,
        ),
        (
            "requests_queued",
            "Requests that wait for a place at a full cell",
            census.queued,
        ),
        (
            "requests_held",
            "Requests that wait for a sleeping or paused cell",
            held,
        ),
        (
            "requests_held_limit",
            "How many of these there may be",
            u64::try_from(view.config.max_held).unwrap_or(u64::MAX),
        ),
        ("cells_waking", "Cells that are being woken", census.waking),
        (
            "cells_missing",
            "Cells whose beats stay away, though they should be awake",
            u64::try_from(view.beats.missing().len()).unwrap_or(u64::MAX),
        ),
        (
            "breakers_open",
            "Cells whose breaker is open",
            census.breakers_open,
        ),
    ] {
        gauge(encoder, name, help, value)?;
    }
    let counts = view.beats.counts();
    let help = "Beats of cells, by whether they were accepted, or why not";
    counters(encoder, "beats", help, "outcome", &counts.beats)?;
    let help = "What the webhook was told, by whether it was delivered, given up or dropped";
    counters(encoder, "webhooks", help, "outcome", &counts.notices)
}

fn process(encoder: &mut DescriptorEncoder, view: &View) -> fmt::Result {
    let snapshot = Arc::clone(&view.publisher.subscribe().borrow());
    let cells = u64::try_from(snapshot.registry.len()).unwrap_or(u64::MAX);
    gauge(encoder, "registry_cells", "Cells in the registry", cells)?;
    let flags = u64::try_from(snapshot.flags.len()).unwrap_or(u64::MAX);
    let help = "Entries of the registry that are not in force as they are written";
    gauge(encoder, "registry_problems", help, flags)?;
    let taken = u64::try_from(view.room.taken()).unwrap_or(u64::MAX);
    gauge(
        encoder,
        "client_connections",
        "Connections of clients",
        taken,
    )?;
    let most = u64::try_from(view.room.most()).unwrap_or(u64::MAX);
    gauge(
        encoder,
        "client_connections_limit",
        "How many of these there may be",
        most,
    )?;
    let help = "Lines of the access log that were dropped, for whoever reads it is too slow";
    encoder
        .encode_descriptor("access_log_lines_dropped", help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&view.log.dropped(), None)?;
    if let Some(spans) = &view.spans {
        let help = "Spans of traces, by whether they were exported, dropped for want of room, given up, or rejected";
        counters(encoder, "spans", help, "outcome", &spans.outcomes())?;
    }
    let began = view.began.duration_since(std::time::UNIX_EPOCH);
    let mut family = encoder.encode_descriptor(
        "start_time",
        "When the router began, in seconds since 1970",
        Some(&Unit::Seconds),
        MetricType::Gauge,
    )?;
    family.encode_gauge(&began.unwrap_or_default().as_secs_f64())?;
    let mut info = encoder.encode_descriptor("build", "The program", None, MetricType::Info)?;
    info.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    // A gauge's numbers are exact up to 2^53.
    #[expect(clippy::cast_precision_loss, reason = "nothing here is counted so far")]
    let value = value as f64;
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&value)
}

fn counters(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    counts: &HashMap<&'static str, u64, impl BuildHasher>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (word, count) in counts {
        family
            .encode_family(&[(label, *word)])?
            .encode_counter::<NoLabelSet, _, u64>(count, None)?;
    }
    Ok(())
}

fn histogram<'a>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    label: &str,
    all: impl Iterator<Item = (&'static str, &'a Histogram)>,
) -> fmt::Result {
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    for (word, times) in all {
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(times.buckets).collect();
        family
            .encode_family(&[(label, word)])?
            .encode_histogram::<NoLabelSet>(times.sum, times.count(), &buckets, None)?;
    }
    Ok(())
}
