//! The admin API of a running router, as commands ask it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use cell_router::admin::problem::{Problem, Sort};
use cell_router::live::trust::Trust;
use http::header;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::failure::{Failure, Kind};

/// Where Debian and those who follow it keep the authorities that the system trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Which running router does it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Which {
    /// The admin API of a running router, such as http://127.0.0.1:9090: it does what is asked, in place of --registry.
    #[arg(
        id = "admin_url",
        long = "url",
        global = true,
        env = "CELL_ROUTER_URL",
        value_name = "URL"
    )]
    url: Option<Uri>,
    /// The file with the token for it.
    #[arg(
        long,
        global = true,
        env = "CELL_ROUTER_TOKEN_FILE",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
    /// The PEM file of the authorities that sign its certificate, if the URL is an https one.
    #[arg(long, global = true, env = "CELL_ROUTER_CA", value_name = "FILE", default_value = AUTHORITIES)]
    ca: PathBuf,
}

impl Which {
    /// The router, if one is named.
    pub(super) fn remote(&self) -> Result<Option<Remote>, Failure> {
        let Some(url) = self.url.clone() else {
            return Ok(None);
        };
        let token = self.token_file.as_deref().map(read).transpose()?;
        let base = url.path().trim_end_matches('/').to_owned();
        let https = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("--url {url}: write http:// or https://").into()),
        };
        let host = url
            .host()
            .ok_or_else(|| format!("--url {url}: it names no host"))?;
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Some(Remote {
            host: host.trim_matches(['[', ']']).to_owned(),
            authority: url.authority().map(ToString::to_string).unwrap_or_default(),
            port,
            base,
            token,
            ca: https.then(|| self.ca.clone()),
        }))
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::from(format!("{}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

/// A running router.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    host: String,
    authority: String,
    port: u16,
    base: String,
    token: Option<String>,
    ca: Option<PathBuf>,
}

/// What it answered.
pub(super) struct Reply {
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::from(format!("the router's answer cannot be read: {error}")))
    }
}

impl Remote {
    pub(super) fn get(&self, target: &str) -> Result<Reply, Failure> {
        self.send(Method::GET, target, None, Bytes::new())
    }

    /// Asks, and waits for the answer.
    pub(super) fn send(
        &self,
        method: Method,
        target: &str,
        if_match: Option<String>,
        body: impl Into<Bytes>,
    ) -> Result<Reply, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header("cell-router-client", "cli");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(tag) = if_match {
            request = request.header(header::IF_MATCH, tag);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| {
            Failure::from(format!("the token or the URL is malformed: {error}"))
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (status, reply) = runtime
            .block_on(self.exchange(request))
            .map_err(|error| format!("{}:{}: {error}", self.host, self.port))?;
        if status.is_success() {
            return Ok(reply);
        }
        Err(refusal(status, &reply))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Reply), String> {
        let socket = TcpStream::connect((&*self.host, self.port))
            .await
            .map_err(|error| error.to_string())?;
        let Some(ca) = &self.ca else {
            return over(socket, request).await;
        };
        let pem = std::fs::read(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
        let trust = Trust::authorities(&pem).map_err(|why| format!("{}: {why}", ca.display()))?;
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .map_err(|error| error.to_string())?;
        let tls = tokio_rustls::TlsConnector::from(trust.config())
            .connect(name, socket)
            .await
            .map_err(|error| format!("TLS: {error}"))?;
        over(tls, request).await
    }
}

async fn over(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Reply), String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the answer.
    let connection = tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    Ok((
        head.status,
        Reply {
            body: body.to_bytes(),
        },
    ))
}

fn refusal(status: StatusCode, reply: &Reply) -> Failure {
    let Ok(problem) = reply.json::<Problem>() else {
        return format!("the router says {status}").into();
    };
    let kind = match problem.error {
        Sort::Conflict => Kind::Conflict,
        Sort::Unconfirmed => Kind::Unconfirmed,
        Sort::NotFound => Kind::NotFound,
        Sort::Denied | Sort::Malformed | Sort::Refused | Sort::Failed => Kind::Refused,
    };
    let places = problem.problems.iter().map(|place| {
        let (line, column) = (place.line, place.column);
        format!(
            "{line}:{column}: {}: {}; {}",
            place.path, place.what, place.fix
        )
    });
    let lines: Vec<_> = std::iter::once(problem.detail.clone())
        .chain(places)
        .collect();
    Failure::new(kind, lines.join("\n"))
}
