//! A store as S3 is one, in this process, that a test can take away, slow down, or stop at any request.
//!
//! It keeps to conditions (Amazon S3 User Guide, Conditional requests), gives sums of texts as ETags, and lists a few keys
//! at a time. Signatures are not checked, only whose they are.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::extract::Query;
use bytes::Bytes;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::process::HUNG;

/// The bucket's name.
pub const BUCKET: &str = "cells";

/// Who may read and write, and who may read only; with their secrets.
const WRITER: (&str, &str) = ("writer", "writers-secret");
const READER: (&str, &str) = ("reader", "readers-secret");

/// How many keys are listed at a time.
const LISTED: usize = 3;

/// The store; it ends when this is dropped.
#[derive(Debug)]
pub struct S3 {
    kept: Arc<Kept>,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

/// What is to become of a request in place of what it asks for.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is answered with this status and code, and not carried out.
    Refused(StatusCode, &'static str),
    /// Its connection ends without an answer.
    Cut(Carried),
    /// It is not answered, and its connection ends when everything works again.
    Stopped(Carried),
    /// Its conditions are passed over.
    Unconditional,
    /// Its answer says that the object is this large.
    Large(u64),
}

/// Whether a request is carried out first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// It is.
    Out,
    /// It is not.
    Not,
}

/// A request, as far as it decides about faults.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The object's key; empty for the bucket itself.
    pub key: String,
    /// Which request it is since the fault was set, from 0.
    pub number: usize,
}

type Fits = Box<dyn Fn(&Asked) -> bool + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    faults: Vec<(Fits, Fault, usize)>,
}

#[derive(Debug, Clone)]
struct Object {
    text: Bytes,
    modified: SystemTime,
}

struct Kept {
    state: Mutex<State>,
    /// How many requests were stopped.
    stopped: watch::Sender<usize>,
    /// Changes when everything works again.
    mended: watch::Sender<()>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object {
    fn etag(&self) -> String {
        let sum = digest(&SHA256, &self.text);
        let sum: String = sum.as_ref()[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("\"{sum}\"")
    }
}

impl S3 {
    /// An empty bucket on the loopback interface.
    ///
    /// # Panics
    /// It has no free port.
    pub async fn start() -> Self {
        let mut this = Self {
            kept: Arc::new(Kept {
                state: Mutex::default(),
                stopped: watch::Sender::new(0),
                mended: watch::Sender::new(()),
            }),
            address: ([127, 0, 0, 1], 0).into(),
            serving: None,
        };
        this.come_back().await;
        this
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What a program that reads and writes there has in its environment.
    pub fn writer(&self) -> Vec<(String, String)> {
        self.variables(WRITER)
    }

    /// What a program that may only read has in its environment.
    pub fn reader(&self) -> Vec<(String, String)> {
        self.variables(READER)
    }

    fn variables(&self, (key, secret): (&str, &str)) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL_S3", &*endpoint),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "auto"),
            ("BUCKET_NAME", BUCKET),
        ];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        owned.into()
    }

    /// Goes away: connections end, and new ones are refused.
    pub async fn go_away(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Comes back with what it had.
    ///
    /// # Panics
    /// Somebody else has its port.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await;
        let listener = listener.expect("the loopback interface has that port");
        self.address = listener
            .local_addr()
            .expect("a bound socket has an address");
        self.serving = Some(tokio::spawn(serve(listener, Arc::clone(&self.kept))));
    }

    /// Puts a text there, as whoever may write to the bucket can.
    pub fn put(&self, key: &str, text: &str) {
        let object = Object {
            text: Bytes::copy_from_slice(text.as_bytes()),
            modified: SystemTime::now(),
        };
        self.kept.state().objects.insert(key.to_owned(), object);
    }

    /// Takes an object away.
    pub fn remove(&self, key: &str) {
        self.kept.state().objects.remove(key);
    }

    /// The text of an object.
    pub fn text(&self, key: &str) -> Option<String> {
        let state = self.kept.state();
        let text = &state.objects.get(key)?.text;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        self.kept.state().objects.keys().cloned().collect()
    }

    /// What shall become of requests that fit, in place of the faults there were.
    pub fn fault(&self, fault: Fault, fits: impl Fn(&Asked) -> bool + Send + 'static) {
        self.kept.state().faults = vec![(Box::new(fits), fault, 0)];
    }

    /// Everything works again.
    pub fn mend(&self) {
        self.kept.state().faults.clear();
        self.kept.mended.send_replace(());
    }

    /// Waits until so many requests were stopped since the store began. Cancel safe.
    ///
    /// # Panics
    /// None is.
    pub async fn stopped(&self, count: usize) {
        let mut stopped = self.kept.stopped.subscribe();
        let waiting = stopped.wait_for(|now| *now >= count);
        let waited = tokio::time::timeout(HUNG, waiting).await;
        waited
            .expect("no request is stopped")
            .expect("the store is there");
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(listener: TcpListener, kept: Arc<Kept>) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let kept = Arc::clone(&kept);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&kept), request));
            let io = TokioIo::new(socket);
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(io, service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

type Answer = Response<Either<Full<Bytes>, Silent>>;

/// A body of which nothing ever comes.
#[derive(Debug)]
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// An error here ends the connection.
async fn answer(kept: Arc<Kept>, request: Request<Incoming>) -> Result<Answer, std::fmt::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|_| std::fmt::Error)?
        .to_bytes();
    let path = head.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let fault = kept.state().fault(&head.method, key);
    let mut headers = head.headers;
    if bucket != BUCKET {
        return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket"));
    }
    if matches!(fault, Some(Fault::Unconditional)) {
        headers.remove(IF_MATCH);
        headers.remove(IF_NONE_MATCH);
    }
    let may_write = match whose(&headers) {
        Some(key) if key == WRITER.0 => true,
        Some(key) if key == READER.0 => false,
        _ => return Ok(refusal(StatusCode::FORBIDDEN, "InvalidAccessKeyId")),
    };
    if !may_write && head.method == Method::PUT {
        return Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    let carry_out = || {
        let mut state = kept.state();
        match head.method {
            Method::PUT => state.put(key, body.clone(), &headers),
            _ if key.is_empty() => state.list(&head.uri),
            _ => state.get(key, &headers, head.method == Method::HEAD),
        }
    };
    match fault {
        Some(Fault::Refused(status, code)) => Ok(refusal(status, code)),
        Some(Fault::Cut(carried)) => {
            if carried == Carried::Out {
                carry_out();
            }
            Err(std::fmt::Error)
        }
        Some(Fault::Stopped(carried)) => {
            if carried == Carried::Out {
                carry_out();
            }
            let mut mended = kept.mended.subscribe();
            kept.stopped.send_modify(|stopped| *stopped += 1);
            // Whether it was mended or is gone altogether.
            let _ = mended.changed().await;
            Err(std::fmt::Error)
        }
        Some(Fault::Large(bytes)) => {
            let mut answer = carry_out();
            let length = HeaderValue::from(bytes);
            answer
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length);
            *answer.body_mut() = Either::Right(Silent);
            Ok(answer)
        }
        Some(Fault::Unconditional) | None => Ok(carry_out()),
    }
}

/// Whose signature it is (AWS Signature Version 4).
fn whose(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (_, credential) = value.split_once("Credential=")?;
    credential.split('/').next().map(str::to_owned)
}

fn refusal(status: StatusCode, code: &str) -> Answer {
    let message = "as the test wants it";
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = status;
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}

impl State {
    /// What is to become of this request.
    fn fault(&mut self, method: &Method, key: &str) -> Option<Fault> {
        self.faults.iter_mut().find_map(|(fits, fault, number)| {
            let asked = Asked {
                method: method.clone(),
                key: key.to_owned(),
                number: *number,
            };
            *number += 1;
            fits(&asked).then(|| fault.clone())
        })
    }

    fn put(&mut self, key: &str, text: Bytes, headers: &HeaderMap) -> Answer {
        let there = self.objects.get(key);
        if headers.contains_key(IF_NONE_MATCH) && there.is_some() {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        if let Some(etag) = headers.get(IF_MATCH) {
            match there {
                None => return refusal(StatusCode::NOT_FOUND, "NoSuchKey"),
                Some(there) if there.etag() != *etag => {
                    return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                Some(_) => {}
            }
        }
        let modified = SystemTime::now();
        let object = Object { text, modified };
        let mut answer = empty(StatusCode::OK);
        set(&mut answer, ETAG, &object.etag());
        self.objects.insert(key.to_owned(), object);
        answer
    }

    fn get(&self, key: &str, headers: &HeaderMap, head: bool) -> Answer {
        let Some(object) = self.objects.get(key) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let known = headers.get(IF_NONE_MATCH);
        let mut answer = if known.is_some_and(|etag| object.etag() == *etag) {
            empty(StatusCode::NOT_MODIFIED)
        } else if head {
            let mut answer = empty(StatusCode::OK);
            let length = object.text.len().to_string();
            set(&mut answer, http::header::CONTENT_LENGTH, &length);
            answer
        } else {
            Response::new(Either::Left(Full::from(object.text.clone())))
        };
        set(&mut answer, ETAG, &object.etag());
        let modified = httpdate::fmt_http_date(object.modified);
        set(&mut answer, LAST_MODIFIED, &modified);
        answer
    }

    fn list(&self, uri: &http::Uri) -> Answer {
        let asked = Query::<HashMap<String, String>>::try_from_uri(uri);
        let asked = asked.map(|query| query.0).unwrap_or_default();
        let given = |name: &str| asked.get(name).map_or("", String::as_str);
        let after = given("start-after").max(given("continuation-token"));
        let mut keys = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(given("prefix")) && key.as_str() > after);
        let most = given("max-keys").parse().unwrap_or(LISTED);
        let page: Vec<_> = keys.by_ref().take(most.min(LISTED)).collect();
        let contents: String = page
            .iter()
            .map(|(key, object)| {
                let (etag, size) = (object.etag().replace('"', "&quot;"), object.text.len());
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag><Size>{size}</Size></Contents>"
                )
            })
            .collect();
        let more = match (keys.next(), page.last()) {
            (Some(_), Some((last, _))) => format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            ),
            _ => "<IsTruncated>false</IsTruncated>".to_owned(),
        };
        let body = format!("<ListBucketResult>{more}{contents}</ListBucketResult>");
        Response::new(Either::Left(Full::from(body)))
    }
}

fn set(answer: &mut Answer, name: http::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("what is made here is visible ASCII");
    answer.headers_mut().insert(name, value);
}
