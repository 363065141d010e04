//! Every rule of the books can be broken, and is not broken by what is right.

use super::super::cell::name;
use super::super::content::{Content, Meter};
use super::super::plan::Method;
use super::*;

const WORLD: World = World {
    seed: 3,
    cells: 40,
    undisturbed: 4,
};

/// The first planned request that `fits`, in the books.
fn request(ledger: &Ledger, fits: impl Fn(&Request) -> bool) -> Request {
    let plain = |request: &Request| {
        !request.tunnel && request.refuse_after.is_none() && !request.breaks_off()
    };
    let found = (0..100_000)
        .map(|id| WORLD.request(id))
        .find(|request| plain(request) && fits(request));
    let found = found.expect("every kind occurs");
    ledger.open(found);
    found
}

fn sum(content: Content, bytes: u64) -> Sum {
    let mut meter = Meter::new(content);
    meter.give(bytes as usize);
    meter.sum()
}

fn upload(request: &Request, bytes: u64) -> Sum {
    sum(Content::upload(WORLD.seed, request.id), bytes)
}

fn answered(request: &Request, status: u16, cell: usize, bytes: u64) -> End {
    End::Answered {
        status,
        by: Some(name(cell)),
        to: Some(request.id.to_string()),
        got: Got::Whole(sum(Content::answer(WORLD.seed, request.id), bytes)),
    }
}

/// All goes well with it, at `cell`.
fn well(ledger: &Ledger, request: &Request, cell: usize) {
    let arrived = ledger.arrive(request.id, cell);
    let bytes = request.upload.map_or(0, |upload| upload.bytes);
    ledger.sent(request.id, upload(request, bytes));
    arrived.upload(Upload::Whole(upload(request, bytes)));
    arrived.answers();
    let bytes = if request.method == Method::HEAD {
        0
    } else {
        request.answer.bytes
    };
    ledger.close(request.id, answered(request, 200, cell, bytes));
}

fn way(request: &Request) -> Way {
    WORLD.session(request.id / SESSION_REQUESTS).way
}

fn dialect(request: &Request) -> Dialect {
    WORLD.session(request.id / SESSION_REQUESTS).dialect
}

fn broken(ledger: &Ledger) -> Vec<Rule> {
    ledger.settle(true);
    let rules = Rule::ALL.iter().map(|(rule, _)| *rule);
    rules
        .filter(|rule| ledger.with_breaches(|breaches| breaches.of(*rule).0 > 0))
        .collect()
}

fn any(_: &Request) -> bool {
    true
}

fn with_body(request: &Request) -> bool {
    request.upload.is_some_and(|upload| upload.bytes > 10)
}

#[test]
fn what_is_right_breaks_nothing() {
    let ledger = Ledger::new(WORLD);
    for fits in [any, with_body] {
        let request = request(&ledger, fits);
        well(&ledger, &request, request.cell);
    }
    assert_eq!(broken(&ledger), []);
    assert_eq!(ledger.tally().settled, 2);
}

#[test]
fn a_request_at_another_cell() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, any);
    well(&ledger, &request, request.cell + 1);
    let broken = broken(&ledger);
    assert!(
        broken.contains(&Rule::WrongCell) && broken.contains(&Rule::Mixed),
        "{broken:?}"
    );
}

#[test]
fn a_cut_body_that_the_cell_takes_for_whole() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, with_body);
    let arrived = ledger.arrive(request.id, request.cell);
    arrived.upload(Upload::Whole(upload(&request, 7)));
    assert_eq!(broken(&ledger), [Rule::CutUploadWhole]);
}

#[test]
fn a_body_that_is_cut_and_known_to_be() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, |request| {
        with_body(request) && request.cell >= WORLD.undisturbed && way(request) == Way::Edge
    });
    let arrived = ledger.arrive(request.id, request.cell);
    arrived.upload(Upload::Cut(upload(&request, 7)));
    ledger.close(request.id, End::Stale("closed"));
    assert_eq!(broken(&ledger), []);
}

#[test]
fn an_upload_of_no_bytes_is_as_repeatable_as_none() {
    for (chunked, wanted) in [(false, [].as_slice()), (true, &[Rule::Doubled])] {
        let ledger = Ledger::new(WORLD);
        let empty = |request: &Request| {
            let put = request.method == Method::PUT;
            let fits = |upload: &super::super::plan::Upload| {
                upload.bytes == 0 && upload.chunked == chunked
            };
            put && request.upload.is_some_and(|upload| fits(&upload))
        };
        let request = request(&ledger, empty);
        drop(ledger.arrive(request.id, request.cell));
        well(&ledger, &request, request.cell);
        assert_eq!(broken(&ledger), wanted, "chunked: {chunked}");
    }
}

#[test]
fn a_changed_byte() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, with_body);
    let mut meter = Meter::new(Content::upload(WORLD.seed, request.id));
    meter.take(b"something else");
    ledger
        .arrive(request.id, request.cell)
        .upload(Upload::Cut(meter.sum()));
    assert_eq!(broken(&ledger), [Rule::Altered]);
}

#[test]
fn a_post_that_comes_twice_also_long_after() {
    for late in [false, true] {
        let ledger = Ledger::new(WORLD);
        let request = request(&ledger, |request| request.method == Method::POST);
        well(&ledger, &request, request.cell);
        if late {
            ledger.settle(true);
        }
        drop(ledger.arrive(request.id, request.cell));
        assert_eq!(broken(&ledger), [Rule::Doubled], "late: {late}");
    }
}

#[test]
fn a_get_that_comes_twice() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, |request| request.method == Method::GET);
    drop(ledger.arrive(request.id, request.cell));
    well(&ledger, &request, request.cell);
    assert_eq!(broken(&ledger), []);
    assert_eq!(ledger.tally().repeated, 1);
}

#[test]
fn an_answer_of_another_request() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, any);
    well(&ledger, &request, request.cell);
    let End::Answered {
        status, by, got, ..
    } = answered(&request, 200, request.cell, request.answer.bytes)
    else {
        return;
    };
    let to = Some("4711".to_owned());
    ledger.close(
        request.id,
        End::Answered {
            status,
            by,
            to,
            got,
        },
    );
    assert_eq!(broken(&ledger), [Rule::Mixed]);
}

#[test]
fn a_cut_answer_that_the_client_takes_for_whole() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, |request| {
        request.method == Method::GET && request.answer.bytes > 10
    });
    well(&ledger, &request, request.cell);
    ledger.close(request.id, answered(&request, 200, request.cell, 9));
    assert_eq!(broken(&ledger), [Rule::CutAnswerWhole]);
}

#[test]
fn a_success_that_no_cell_gave() {
    let ledger = Ledger::new(WORLD);
    let request = request(&ledger, |request| request.cell >= WORLD.undisturbed);
    let got = Got::Whole(sum(Content::answer(0, 0), 2));
    let end = End::Answered {
        status: 200,
        by: None,
        to: None,
        got,
    };
    ledger.close(request.id, end);
    assert_eq!(broken(&ledger), [Rule::Unseen]);
}

#[test]
fn a_request_that_nobody_sent() {
    let ledger = Ledger::new(WORLD);
    let cell = WORLD.request(99).cell;
    drop(ledger.arrive(99, cell));
    assert_eq!(broken(&ledger), [Rule::Unrequested]);
}

#[test]
fn a_connection_that_the_router_ends_without_an_answer() {
    for (of, end, arrives, expected) in [
        (Way::Direct, End::Broke("closed"), false, true),
        (Way::Direct, End::Stale("closed"), true, true),
        (Way::Direct, End::Stale("closed"), false, false),
        (Way::Edge, End::Broke("closed"), false, false),
        (Way::Edge, End::Stale("closed"), true, false),
    ] {
        let ledger = Ledger::new(WORLD);
        let request = request(&ledger, |request| {
            request.cell >= WORLD.undisturbed && way(request) == of
        });
        if arrives {
            drop(ledger.arrive(request.id, request.cell));
        }
        ledger.close(request.id, end);
        let expected: &[Rule] = if expected { &[Rule::Unanswered] } else { &[] };
        assert_eq!(broken(&ledger), expected);
    }
}

#[test]
fn a_failure_at_a_cell_without_faults() {
    for (pipelined, expected) in [(false, &[Rule::Disturbed][..]), (true, &[])] {
        let ledger = Ledger::new(WORLD);
        let request = request(&ledger, |request| {
            request.cell < WORLD.undisturbed
                && way(request) == Way::Edge
                && (dialect(request) == Dialect::Pipelined) == pipelined
        });
        drop(ledger.arrive(request.id, request.cell));
        ledger.close(request.id, End::Stale("closed"));
        assert_eq!(broken(&ledger), expected, "{pipelined}");
    }
}
