//! Whether an address is the cell: asked on each new connection, before anything of a request is sent.
//!
//! The platform gives addresses to others. The question and its answer are defined in docs/signature.md.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::time::timeout;

use super::channel::{Channel, Message};
use super::{chain, now};
use crate::account::body::Relayed;
use crate::account::record::Record;
use crate::registry::Cell;
use crate::wire::CELL_SIGNATURE;
use crate::wire::lines::Lines;
use crate::wire::signature::{Bound, Challenge, Keys};

/// The largest answer that is read, in bytes: room for far more lines than a cell has secrets.
const LARGEST_ANSWER: usize = 4096;

/// Why it is not known that the address is the cell.
#[derive(Debug)]
pub enum Doubt {
    /// It answered, and not with 200.
    Status(StatusCode),
    /// No line of its answer was made with a secret of the cell.
    Unproven,
    /// Its answer was longer than any proof.
    TooLong,
    /// It did not answer in time.
    Silent(Duration),
    /// The connection broke, or what came is no HTTP.
    Broken(String),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(StatusCode::FORBIDDEN) => f.write_str(
                "it refused the challenge with 403: it is another's, or it and the router do not agree on the secret",
            ),
            Self::Status(status) => write!(
                f,
                "it answered the challenge with {}; a cell that cannot answer needs \"identity\": \"none\" in its entry",
                status.as_u16()
            ),
            Self::Unproven => f.write_str("its answer was made with no secret of the cell"),
            Self::TooLong => write!(f, "its answer was longer than {LARGEST_ANSWER} bytes"),
            Self::Silent(after) => write!(f, "no answer in {} ms", after.as_millis()),
            Self::Broken(why) => write!(f, "the challenge broke off: {why}"),
        }
    }
}

impl std::error::Error for Doubt {}

/// Has whoever is at the other end prove that it has one of the secrets of `cell`, within the time that its first byte
/// may take.
///
/// # Errors
/// `Doubt`; nothing of a request has been sent.
pub async fn prove(
    channel: &mut Channel,
    cell: &Cell,
    keys: &Keys,
    record: &Rc<Record>,
) -> Result<(), Doubt> {
    let patience = cell.policy.limits.first_byte_timeout;
    timeout(patience, ask(channel, cell, keys, record))
        .await
        .map_err(|_| Doubt::Silent(patience))?
}

async fn ask(
    channel: &mut Channel,
    cell: &Cell,
    keys: &Keys,
    record: &Rc<Record>,
) -> Result<(), Doubt> {
    let (nonce, address) = (nonce(), channel.address().to_string());
    let challenge = Challenge {
        cell: cell.name.as_str(),
        nonce: &nonce,
        address: &address,
    };
    let mut question = Message {
        head: &mut question(challenge, keys),
        lines: Lines::default(),
        as_is: false,
        body: Some(Relayed::absent(Rc::clone(record))),
    };
    let answer = channel
        .ask(&mut question)
        .await
        .map_err(|error| Doubt::Broken(chain(&error)))?;
    if answer.status() != StatusCode::OK {
        return Err(Doubt::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect();
    let body = body.await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Doubt::TooLong
        } else {
            Doubt::Broken(chain(&*error))
        }
    })?;
    if keys.prove(&body.to_bytes(), challenge) {
        Ok(())
    } else {
        Err(Doubt::Unproven)
    }
}

/// The question, signed as every request is. It says nothing of the request that waits.
fn question(challenge: Challenge<'_>, keys: &Keys) -> Parts {
    let target = challenge.target();
    let token = keys.sign(
        Bound {
            cell: challenge.cell,
            method: "GET",
            host: challenge.cell,
            target: &target,
        },
        now(),
    );
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = target
        .parse()
        .expect("hexadecimal digits and an address make a target");
    let lines = [
        (header::HOST, challenge.cell),
        (header::ACCEPT, "text/plain"),
        (CELL_SIGNATURE, &token),
    ];
    for (name, value) in lines {
        let value = HeaderValue::from_str(value);
        let value = value.expect("names and tokens are visible ASCII");
        request.headers_mut().insert(name, value);
    }
    request.into_parts().0
}

/// 32 hexadecimal digits that nobody can guess.
fn nonce() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("a system that runs has random bytes");
    format!("{:032x}", u128::from_be_bytes(bytes))
}
