//! HTTP for `object_store` by the hyper and rustls that everything else here uses, so that the tree has one of each.

use std::error::Error;
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, client};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

/// Time for a connection to the store.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time from a request to the head of its answer, besides what its body takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The slowest way up that is reckoned with, in bytes a second.
const SLOWEST: u64 = 256 * 1024;

/// How long an idle connection is kept: longer than the time between two looks, shorter than servers keep it.
const IDLE: Duration = Duration::from_secs(15);

/// What a condition may be answered with, besides success; these go to `object_store` as they are.
const CONDITIONS: [StatusCode; 3] = [
    StatusCode::NOT_MODIFIED,
    StatusCode::PRECONDITION_FAILED,
    StatusCode::CONFLICT,
];

/// The largest text of a refusal that is read, in bytes.
const LARGEST_REFUSAL: usize = 64 * 1024;

/// Asks Tigris to answer from where the object is written, wherever this runs (Tigris docs, Consistency). Others pass over it.
const CONSISTENT: (&str, HeaderValue) = ("x-tigris-consistent", HeaderValue::from_static("true"));

/// A client of HTTP/1.1 over TCP or TLS.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    client: Client<HttpsConnector<HttpConnector>, HttpRequestBody>,
}

impl Connector {
    /// TLS is believed by the authorities in a PEM file, or else by the usual public ones.
    ///
    /// # Errors
    /// Why the file cannot be used, as text.
    pub(super) fn new(authorities: Option<&str>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots(authorities)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { client })
    }
}

fn roots(authorities: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = authorities else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let wrong = |why: &dyn fmt::Display| format!("AWS_CA_BUNDLE: {path}: {why}");
    let pem = fs::read(path).map_err(|error| wrong(&error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"it holds no PEM certificate"));
    }
    Ok(roots)
}

impl client::HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        request.headers_mut().insert(CONSISTENT.0, CONSISTENT.1);
        let length = request.body().content_length() as u64;
        let patience = ANSWER_TIMEOUT + Duration::from_secs(length / SLOWEST);
        let answered = timeout(patience, self.client.request(request)).await;
        let response = answered
            .map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?
            .map_err(|error| {
                let kind = if error.is_connect() {
                    HttpErrorKind::Connect
                } else {
                    HttpErrorKind::Request
                };
                HttpError::new(kind, Told(chain(&error)))
            })?;
        let status = response.status();
        if status.is_success() || CONDITIONS.contains(&status) {
            return Ok(response.map(|body| {
                let failed = |error| HttpError::new(HttpErrorKind::Interrupted, error);
                HttpResponseBody::new(body.map_err(failed))
            }));
        }
        let read = Limited::new(response.into_body(), LARGEST_REFUSAL).collect();
        let body = match timeout(ANSWER_TIMEOUT, read).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        let answer = Answer::read(status, &String::from_utf8_lossy(&body));
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// An answer that is no success. Of the store's words it has only their code and their message: the rest may hold what was
/// signed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: StatusCode,
    /// The store's own code, such as `NoSuchBucket`; empty where it gives none.
    pub(super) code: String,
    message: String,
}

impl Answer {
    /// From an error's XML, if it is that.
    fn read(status: StatusCode, body: &str) -> Self {
        let element = |name| element(body, name).unwrap_or_default().to_owned();
        Self {
            status,
            code: element("Code"),
            message: element("Message"),
        }
    }
}

/// `403 AccessDenied: no rights`
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        match (&*self.code, &*self.message) {
            ("", "") => Ok(()),
            (code, "") => write!(f, " {code}"),
            (code, message) => write!(f, " {code}: {message}"),
        }
    }
}

impl Error for Answer {}

/// What stands in an XML element that has no attributes and no elements inside.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(inside, _)| inside)
}

/// An error in one line, with its causes.
#[derive(Debug)]
struct Told(String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Told {}

fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_only_code_and_message_are_told() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message>\
                    <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>hush</StringToSign></Error>";
        let answer = Answer::read(StatusCode::FORBIDDEN, body);
        assert_eq!(answer.to_string(), "403 SignatureDoesNotMatch: No.");
        for body in ["", "<html>", "<Error><Code>Half"] {
            let answer = Answer::read(StatusCode::BAD_GATEWAY, body);
            assert_eq!(answer.to_string(), "502", "{body}");
        }
    }
}
