//! Owns a real Chromium without a window, driven by the DevTools protocol.

use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Error;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page; killed on drop.
#[derive(Debug)]
pub struct Browser {
    _process: Child,
    _profile: TempDir,
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    last: u64,
    /// What it complained of: errors in the page's scripts, and what its policy kept out.
    pub complaints: Vec<String>,
}

impl Browser {
    /// Starts `chromium` with an empty page.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn start() -> Result<Self, Error> {
        let profile = tempfile::tempdir()?;
        let mut process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args([
                "--disable-sync",
                "--disable-quic",
                "--force-color-profile=srgb",
            ])
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = process.stderr.take().ok_or("no standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let url = loop {
            let line = lines.next_line().await?.ok_or("chromium ended")?;
            if let Some((_, url)) = line.split_once("DevTools listening on ") {
                break url.to_owned();
            }
        };
        // A pipe that nobody reads would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let host = url.split('/').nth(2).ok_or("no address")?.to_owned();
        let stream = TcpStream::connect(host).await?;
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await?;
        let mut browser = Self {
            _process: process,
            _profile: profile,
            socket,
            session: None,
            last: 0,
            complaints: Vec::new(),
        };
        let target = browser
            .command("Target.createTarget", json!({ "url": "about:blank" }))
            .await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", attach).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime", "Page", "Log", "Accessibility"] {
            browser
                .command(&format!("{domain}.enable"), json!({}))
                .await?;
        }
        Ok(browser)
    }

    /// Gives a command of the protocol, and waits for its outcome.
    ///
    /// # Errors
    /// It is refused, or the browser is gone.
    pub async fn command(&mut self, method: &str, parameters: Value) -> Result<Value, Error> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await?;
        let id = self.last;
        tokio::time::timeout(PATIENCE, self.outcome(id))
            .await
            .map_err(|_| format!("{method} {parameters}: no answer in {PATIENCE:?}"))?
    }

    async fn outcome(&mut self, id: u64) -> Result<Value, Error> {
        loop {
            let message = self.socket.next().await.ok_or("the browser is gone")??;
            let Message::Text(text) = message else {
                continue;
            };
            let mut said: Value = serde_json::from_str(&text)?;
            if said["id"] == id {
                if !said["error"].is_null() {
                    return Err(said["error"].to_string().into());
                }
                return Ok(said["result"].take());
            }
            let is_error = said["params"]["entry"]["level"] == "error";
            if said["method"] == "Runtime.exceptionThrown" || is_error {
                self.complaints.push(said["params"].to_string());
            }
        }
    }

    /// Goes to a page.
    ///
    /// # Errors
    /// As [`Browser::command`].
    pub async fn open(&mut self, url: &str) -> Result<(), Error> {
        self.command("Page.navigate", json!({ "url": url })).await?;
        Ok(())
    }

    /// The value of a script in the page, which may be a promise.
    ///
    /// # Errors
    /// It throws.
    pub async fn run(&mut self, script: &str) -> Result<Value, Error> {
        let asked = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let mut done = self.command("Runtime.evaluate", asked).await?;
        if !done["exceptionDetails"].is_null() {
            return Err(format!("{script}: {}", done["exceptionDetails"]).into());
        }
        Ok(done["result"]["value"].take())
    }

    /// Waits until a condition holds in the page.
    ///
    /// # Errors
    /// It never does; what the page says then.
    pub async fn until(&mut self, condition: &str) -> Result<(), Error> {
        let script = format!(
            "new Promise((done) => {{ const look = () => (({condition}) ? done(true) : setTimeout(look, 20)); look(); }})"
        );
        let Err(error) = self.run(&script).await else {
            return Ok(());
        };
        let text = self
            .run("document.body.innerText")
            .await
            .unwrap_or_default();
        let text = text.as_str().unwrap_or_default();
        Err(format!(
            "{condition}: {error}; the page says:\n{text}\n{:?}",
            self.complaints
        )
        .into())
    }

    /// Types into what has the focus.
    ///
    /// # Errors
    /// As [`Browser::command`].
    pub async fn typed(&mut self, text: &str) -> Result<(), Error> {
        self.command("Input.insertText", json!({ "text": text }))
            .await?;
        Ok(())
    }

    /// Presses and lets go of a key, such as `Enter` or `/`.
    ///
    /// # Errors
    /// As [`Browser::command`].
    pub async fn key(&mut self, key: &str) -> Result<(), Error> {
        let text = match key {
            "Enter" => "\r",
            key if key.len() == 1 => key,
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Tab" => 9,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event =
                json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code });
            self.command("Input.dispatchKeyEvent", event).await?;
        }
        Ok(())
    }

    /// Takes a picture of the page at this width and height, in the dark or in the light.
    ///
    /// # Errors
    /// As [`Browser::command`].
    pub async fn picture(
        &mut self,
        (width, height): (u32, u32),
        dark: bool,
    ) -> Result<Vec<u8>, Error> {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await?;
        let value = if dark { "dark" } else { "light" };
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.command("Emulation.setEmulatedMedia", scheme).await?;
        let frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
        self.run(frames).await?;
        let taken = self
            .command("Page.captureScreenshot", json!({ "format": "png" }))
            .await?;
        bytes_of(taken["data"].as_str().unwrap_or_default())
    }

    /// Everything in the page that can be pressed or filled in and has no name that a screen reader could say.
    ///
    /// # Errors
    /// As [`Browser::command`].
    pub async fn nameless(&mut self) -> Result<Vec<String>, Error> {
        let tree = self
            .command("Accessibility.getFullAXTree", json!({}))
            .await?;
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let roles = [
            "button",
            "link",
            "textbox",
            "searchbox",
            "combobox",
            "checkbox",
            "meter",
            "dialog",
        ];
        let nameless = nodes.into_iter().filter(|node| {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            let name = node["name"]["value"].as_str().unwrap_or_default();
            roles.contains(&role) && name.is_empty() && node["ignored"] != true
        });
        Ok(nameless.map(|node| node.to_string()).collect())
    }
}

/// Reads base64 (RFC 4648 section 4).
fn bytes_of(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut gathered, mut bits) = (0u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err("this is no base64".into()),
        };
        gathered = gathered << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((gathered >> bits) as u8);
            gathered &= (1 << bits) - 1;
        }
    }
    Ok(bytes)
}
