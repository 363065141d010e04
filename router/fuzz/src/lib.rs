//! What must hold for every input of the router's parsers and of its decision.
//!
//! One function for each target: it panics where an input shows that something does not hold. A fuzzer calls them with
//! what it makes up (`.ci/fuzz`); `router/tests/corpus.rs` calls them with the inputs in `seeds`, so that every input
//! that ever showed a defect is tried in every test run. Where there is another way to the same answer, it is written
//! here a second time, plain and slow, and the two have to agree.

pub mod answer;
pub mod certificates;
pub mod choices;
pub mod chunked;
pub mod connection;
pub mod decision;
pub mod head;
pub mod headers;
pub mod http2;
pub mod lookup;
pub mod pieces;
pub mod registry;
pub mod replay;
pub mod signature;
pub mod strict;
pub mod websocket;

/// What must hold for an input; panics where it does not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its folder in `seeds`.
pub const TARGETS: [(&str, Target); 13] = [
    ("answer", answer::holds),
    ("certificates", certificates::holds),
    ("chunked", chunked::holds),
    ("connection", connection::holds),
    ("decision", decision::holds),
    ("head", head::holds),
    ("headers", headers::holds),
    ("http2", http2::holds),
    ("lookup", lookup::holds),
    ("registry", registry::holds),
    ("replay", replay::holds),
    ("signature", signature::holds),
    ("websocket", websocket::holds),
];
