//! The check of who a client is, before anything of its request goes on: by a file of passwords, or by asking a server.
//!
//! What cannot be found out is no: a server that is slow, gone or says nothing that can be read lets nobody in. Nothing of
//! a request's body is read here, and no cell is woken.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;

use super::{chain, https};
use crate::live::passwords::Passwords;
use crate::live::sign_ins::{SignIns, Verdict};
use crate::live::trust::Trust;
use crate::registry::{SignIn, SignInBy};
use crate::wire::sign_in::{Credentials, SignedIn, granted};
use crate::wire::{forward, hop_by_hop};

/// The largest answer of a server that is handed on, in bytes.
const LARGEST_ANSWER: usize = 256 * 1024;
/// Idle connections that each worker keeps to a server.
const KEPT: usize = 16;

/// Why a request does not go on.
#[derive(Debug)]
pub enum Refused {
    /// It says not who sends it, or not in one way.
    Unnamed,
    /// Its password is not the name's.
    Wrong,
    /// Its client has failed too often; how long until it may try again.
    TooOften(Duration),
    /// Too many passwords are being checked.
    Busy,
    /// The server's own answer, for the client.
    Answered(Box<Response<Bytes>>),
    /// Nobody can be let in now.
    Unavailable(Unavailable),
}

/// Why it cannot be found out who a client is.
#[derive(Debug)]
pub enum Unavailable {
    /// The passwords could not be read.
    NoPasswords,
    /// The server cannot be reached, or answers what cannot be read.
    Broken(String),
    /// It did not answer in so much time.
    TimedOut(Duration),
    /// It answers more than this many bytes.
    TooLarge(usize),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPasswords => f.write_str("the file of passwords has not been read"),
            Self::Broken(why) => write!(f, "the sign-in server: {why}"),
            Self::TimedOut(after) => {
                write!(
                    f,
                    "the sign-in server: no answer in {} ms",
                    after.as_millis()
                )
            }
            Self::TooLarge(most) => {
                write!(f, "the sign-in server: an answer of more than {most} bytes")
            }
        }
    }
}

impl std::error::Error for Unavailable {}

/// One worker's gate.
pub struct Gate {
    checks: Arc<SignIns>,
    servers: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate that shares its checks of passwords with all workers. `trust` judges servers that are asked by https.
    pub fn new(checks: Arc<SignIns>, trust: &Trust) -> Self {
        let servers = https::client(trust, KEPT);
        Self { checks, servers }
    }

    /// Whether a request with these fields goes on, by a file of passwords.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn by_password(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        passwords: Option<&Arc<Passwords>>,
    ) -> Result<SignedIn, Refused> {
        let passwords = passwords.ok_or(Refused::Unavailable(Unavailable::NoPasswords))?;
        let Credentials { name, password } = Credentials::read(headers).ok_or(Refused::Unnamed)?;
        match self.checks.check(client, passwords, &name, &password).await {
            Verdict::Fits => Ok(SignedIn {
                user: HeaderValue::from_str(&name).ok(),
                fields: HeaderMap::new(),
            }),
            Verdict::Wrong => Err(Refused::Wrong),
            Verdict::TooOften(wait) => Err(Refused::TooOften(wait)),
            Verdict::Busy => Err(Refused::Busy),
        }
    }

    /// Whether a request goes on, by asking a server with the fields of `question`.
    ///
    /// # Errors
    /// `Refused`.
    pub async fn by_asking(
        &self,
        question: HeaderMap,
        sign_in: &SignIn,
    ) -> Result<SignedIn, Refused> {
        let SignInBy::Forward {
            url,
            timeout: patience,
            ..
        } = &sign_in.by
        else {
            return Err(Refused::Unavailable(Unavailable::NoPasswords));
        };
        match timeout(*patience, self.ask(url, question)).await {
            Ok(Ok(answer)) if answer.status().is_success() => {
                Ok(granted(answer.headers(), sign_in))
            }
            Ok(Ok(answer)) => Err(Refused::Answered(Box::new(answer))),
            Ok(Err(why)) => Err(Refused::Unavailable(why)),
            Err(_) => Err(Refused::Unavailable(Unavailable::TimedOut(*patience))),
        }
    }

    /// The server's answer, whole; of one that lets pass, the head.
    async fn ask(&self, url: &Uri, question: HeaderMap) -> Result<Response<Bytes>, Unavailable> {
        let mut request = Request::get(url.clone())
            .body(Empty::new())
            .map_err(|error| Unavailable::Broken(error.to_string()))?;
        *request.headers_mut() = question;
        let answer = self.servers.request(request).await;
        let (mut head, body) = answer
            .map_err(|error| Unavailable::Broken(chain(&error)))?
            .into_parts();
        if head.status.is_success() {
            return Ok(Response::from_parts(head, Bytes::new()));
        }
        if head.status.is_informational() {
            let why = format!("the status {}", head.status.as_u16());
            return Err(Unavailable::Broken(why));
        }
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Unavailable::TooLarge(LARGEST_ANSWER),
            None => Unavailable::Broken(chain(&*error)),
        })?;
        for_client(head.status, &mut head.headers);
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// Takes off what is between router and server, and what would steer the edge or let a cache keep the answer.
fn for_client(status: StatusCode, headers: &mut HeaderMap) {
    hop_by_hop::strip_answer(status, headers);
    forward::unsteer(headers);
    headers.remove(header::CONTENT_LENGTH);
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}
