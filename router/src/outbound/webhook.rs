//! Word to another program that a cell is missing or back, signed so that it can tell who says it.
//!
//! Source: Standard Webhooks 1.0.0 (standardwebhooks.com): the body, its headers and their signature. Nothing waits for it:
//! the queue is bounded, and what does not fit is told once there is room.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use ring::hmac;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::{chain, https};
use crate::account::record::rfc3339;
use crate::config::{chance, seed};
use crate::live::beats::Beats;
use crate::live::trust::Trust;
use crate::registry::CellName;

/// Notices that wait to be told.
const QUEUE: usize = 1024;
/// How often one is told before it is given up.
const TRIES: u32 = 6;
/// How long the receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before the next try; doubled each time, half of it at random.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What each line of the file of secrets begins with.
const SECRET: &str = "whsec_";

/// What happened to a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Event {
    /// Its beats stay away, though it should be awake.
    #[serde(rename = "cell.missing")]
    Missing,
    /// It beats again.
    #[serde(rename = "cell.returned")]
    Returned,
    /// It is not expected to beat any more: it sleeps, is paused, in maintenance, disabled or removed.
    #[serde(rename = "cell.excused")]
    Excused,
}

/// What is told.
#[derive(Debug, Clone)]
pub struct Notice {
    /// What happened.
    pub event: Event,
    /// To which cell.
    pub cell: CellName,
    /// When.
    pub at: SystemTime,
    /// Since when it is, or was, missing.
    pub since: SystemTime,
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: Event,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    cell: &'a str,
    missing_since: String,
    router: &'a str,
}

/// Where notices go, and the secrets that sign them.
#[derive(Clone)]
pub struct Receiver {
    url: Uri,
    keys: Vec<hmac::Key>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    /// The receiver at `url`; `file` holds its secret, `whsec_` and base64, or one in each line while one is rotated.
    ///
    /// # Errors
    /// What is wrong, with the flag.
    pub fn read(url: &str, file: &Path) -> Result<Self, String> {
        let parsed: Option<Uri> = url.parse().ok();
        let url = parsed.filter(is_asked).ok_or_else(|| {
            format!("--webhook {url}: write a URL, such as https://alerts.example.com/cells")
        })?;
        let shown = format!("--webhook-secret {}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
        let keys: Option<Vec<_>> = text.split_whitespace().map(key).collect();
        let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
            format!("{shown}: write {SECRET} and base64 of 24 to 64 random bytes, as `echo {SECRET}$(openssl rand -base64 32)` does")
        })?;
        Ok(Self { url, keys })
    }

    /// The signatures of a message, one for each secret.
    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signed = [id.as_bytes(), timestamp.to_string().as_bytes(), body].join(&b'.');
        let one = |key| format!("v1,{}", BASE64.encode(hmac::sign(key, &signed).as_ref()));
        let all: Vec<_> = self.keys.iter().map(one).collect();
        all.join(" ")
    }
}

fn is_asked(url: &Uri) -> bool {
    let plain = url
        .authority()
        .is_some_and(|host| !host.as_str().contains('@'));
    plain && matches!(url.scheme_str(), Some("http" | "https"))
}

fn key(word: &str) -> Option<hmac::Key> {
    let bytes = BASE64.decode(word.strip_prefix(SECRET)?.as_bytes()).ok()?;
    (24..=64)
        .contains(&bytes.len())
        .then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// The way to have something told.
#[derive(Debug, Clone)]
pub struct Notices(mpsc::Sender<Notice>);

impl Notices {
    /// Has a notice told, if there is room for it; whether there is. Never waits.
    pub fn tell(&self, notice: Notice) -> bool {
        self.0.try_send(notice).is_ok()
    }
}

/// What tells notices.
pub struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    receiver: Receiver,
    router: String,
    beats: Arc<Beats>,
    queue: mpsc::Receiver<Notice>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl Webhook {
    /// One that tells `receiver`, whose certificate `trust` judges, in the name of `router`; `beats` counts.
    pub fn new(
        receiver: Receiver,
        trust: &Trust,
        router: String,
        beats: Arc<Beats>,
    ) -> (Self, Notices) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let webhook = Self {
            client: https::client(trust, 1),
            receiver,
            router,
            beats,
            queue,
        };
        (webhook, Notices(sender))
    }

    /// Tells one notice after another, until nobody has any more to tell.
    pub async fn run(mut self) {
        while let Some(notice) = self.queue.recv().await {
            let told = self.tell(&notice).await;
            let cell = notice.cell.as_str();
            match told {
                Ok(()) => {
                    self.beats.count_notice("delivered");
                    tracing::info!(cell, event = ?notice.event, "webhook: delivered");
                }
                Err(why) => {
                    self.beats.count_notice("failed");
                    tracing::error!(cell, event = ?notice.event, why, "webhook: given up");
                }
            }
        }
    }

    /// Tells a notice, several times if need be, each under the same id, so that the receiver knows one that it has.
    async fn tell(&self, notice: &Notice) -> Result<(), String> {
        let id = format!("msg_{:016x}{:016x}", seed(), seed());
        let body = body(notice, &self.router);
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let why = match timeout(PATIENCE, self.post(&id, body.clone())).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
            };
            if tries == TRIES {
                return Err(why);
            }
            tries += 1;
            sleep(pause.mul_f64(0.5 + 0.5 * chance())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn post(&self, id: &str, body: Bytes) -> Result<(), String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.unwrap_or_default().as_secs();
        let request = Request::post(self.receiver.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header(
                "webhook-signature",
                self.receiver.sign(id, timestamp, &body),
            )
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await;
        let status = answer.map_err(|error| chain(&error))?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(refusal(status)),
        }
    }
}

fn refusal(status: StatusCode) -> String {
    format!("the receiver says {}", status.as_u16())
}

fn body(notice: &Notice, router: &str) -> Bytes {
    let message = Message {
        r#type: notice.event,
        timestamp: rfc3339(notice.at),
        data: Data {
            cell: notice.cell.as_str(),
            missing_since: rfc3339(notice.since),
            router,
        },
    };
    // Texts always have a JSON text.
    serde_json::to_vec(&message).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(url: &str, secrets: &str) -> Result<Receiver, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, secrets).unwrap();
        Receiver::read(url, &file)
    }

    /// The example of the specification's own libraries.
    #[test]
    fn a_message_is_signed_as_the_specification_says() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let one = receiver("https://a.example/", secret).unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = one.sign(id, 1_614_265_330, br#"{"test": 2432232314}"#);
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signed, expected);
        let two = receiver("https://a.example/", &format!("{secret}\n{secret}\n")).unwrap();
        let signed = two.sign(id, 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(
            signed,
            format!("{expected} {expected}"),
            "while one is rotated"
        );
    }

    #[test]
    fn what_cannot_be_told_or_signed_is_refused_at_the_start() {
        let good = format!("whsec_{}", BASE64.encode(&[7; 24]));
        for (url, secret, said) in [
            (
                "alerts.example.com",
                &*good,
                "--webhook alerts.example.com: write a URL",
            ),
            ("ftp://a.example/", &good, "write a URL"),
            ("https://user:pass@a.example/", &good, "write a URL"),
            ("/path", &good, "write a URL"),
            ("http://a.example", "", "write whsec_"),
            ("http://a.example", "hush", "write whsec_"),
            (
                "http://a.example",
                "whsec_c2hvcnQ=",
                "24 to 64 random bytes",
            ),
            ("http://a.example", "whsec_!", "write whsec_"),
        ] {
            let error = receiver(url, secret).unwrap_err();
            assert!(error.contains(said), "{url} {secret}: {error}");
        }
        assert!(receiver("http://a.example", &good).is_ok());
        let shown = format!("{:?}", receiver("http://a.example", &good));
        assert!(!shown.contains("BwcH"), "{shown}");
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_not_taken() {
        let secret = format!("whsec_{}", BASE64.encode(&[7; 24]));
        let receiver = receiver("http://a.example", &secret).unwrap();
        let trust = Trust::public().unwrap();
        let (mut webhook, notices) = Webhook::new(receiver, &trust, String::new(), Arc::default());
        let notice = Notice {
            event: Event::Missing,
            cell: CellName::parse("alice").unwrap(),
            at: UNIX_EPOCH,
            since: UNIX_EPOCH,
        };
        assert!((0..QUEUE).all(|_| notices.tell(notice.clone())));
        assert!(!notices.tell(notice.clone()));
        webhook.queue.recv().await.unwrap();
        assert!(notices.tell(notice));
    }

    #[test]
    fn a_notice_says_what_when_and_who() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let notice = Notice {
            event: Event::Missing,
            cell: CellName::parse("alice").unwrap(),
            at: at(1_790_000_030),
            since: at(1_790_000_000),
        };
        let body: serde_json::Value =
            serde_json::from_slice(&body(&notice, "cell-router-1")).unwrap();
        let expected = serde_json::json!({
            "type": "cell.missing",
            "timestamp": "2026-09-21T14:13:50.000Z",
            "data": { "cell": "alice", "missing_since": "2026-09-21T14:13:20.000Z", "router": "cell-router-1" },
        });
        assert_eq!(body, expected);
    }
}
