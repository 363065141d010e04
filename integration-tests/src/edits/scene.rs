//! One registry file with a router that serves it, and the two programs that edit it.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use cell_router::control::store::Store;
use cell_router::control::store::history::Record;
use cell_router::registry::Registry;
use http::Request;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::Options;
use crate::client::{self, Answer, Error, Http};
use crate::{Router, RouterOptions};

/// What is in the folder when nobody edits.
const FILES: [&str; 3] = ["registry.history.jsonl", "registry.json", "tokens"];

/// A registry that two names stand in: `shared`, which all edit, and `mine`, which only the editor does.
const START: &str = "{\n  \"version\": 1,\n  \"domain\": \"example.com\",\n  \"cells\": {\n    \"shared\": { \"address\": \"127.0.0.1:1\", \"max_in_flight\": 1 },\n    \"mine\": { \"address\": \"127.0.0.1:1\", \"max_in_flight\": 1 }\n  }\n}\n";

pub(super) struct Scene {
    pub(super) router: Router,
    pub(super) file: PathBuf,
    admin: std::net::SocketAddr,
    token: String,
    binary: PathBuf,
    folder: TempDir,
}

/// What became of an edit.
#[derive(Debug)]
pub(super) enum Became {
    /// It was made; the version after it.
    Made(String),
    /// Somebody else has edited what it was based on.
    Overtaken,
    /// What is there cannot be edited at this moment: an editor writes it.
    Unreadable,
}

impl Scene {
    pub(super) async fn start(options: &Options) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("registry.json");
        std::fs::write(&file, START)?;
        let made = Command::new(&options.router)
            .args(["token", "anna", "--role", "edit"])
            .output()
            .await?;
        std::fs::write(folder.path().join("tokens"), &made.stdout)?;
        let token = String::from_utf8(made.stderr)?.trim().to_owned();
        let router = Router::start(serve(&folder, &options.router)).await;
        let admin = open(&router).await?;
        Ok(Self {
            router,
            file,
            admin,
            token,
            binary: options.router.clone(),
            folder,
        })
    }

    /// The same with another router, once this one has ended.
    pub(super) async fn again(self) -> Result<Self, Error> {
        drop(self.router);
        let router = Router::start(serve(&self.folder, &self.binary)).await;
        let admin = open(&router).await?;
        Ok(Self {
            router,
            admin,
            ..self
        })
    }

    pub(super) fn store(&self) -> Store {
        Store::new(&self.file)
    }

    pub(super) fn text(&self) -> std::io::Result<Vec<u8>> {
        std::fs::read(&self.file)
    }

    /// The registry, which must be good.
    pub(super) fn registry(&self) -> Result<Registry, Error> {
        let text = self.text()?;
        Registry::parse(&text)
            .map_err(|problems| format!("{problems:?}: {}", String::from_utf8_lossy(&text)).into())
    }

    /// A command on the file, as a person or a script gives it.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .arg("--json")
            .env_clear()
            .env("CELL_ROUTER_REGISTRY", &self.file)
            .env("USER", "script")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// What the page asks the router.
    pub(super) async fn ask(
        &self,
        method: &str,
        target: &str,
        (name, value): (&str, &str),
        body: &Value,
    ) -> Result<Answer, Error> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "admin")
            .header("authorization", format!("Bearer {}", self.token))
            .header("cell-router-client", "page")
            .header("content-type", "application/json")
            .header(name, value)
            .body(client::full(body.to_string()))?;
        client::send(self.admin, Http::One, request).await
    }

    /// Every record with its text; each follows the one before it, and the last is what is there.
    pub(super) fn history(&self) -> Result<Vec<(Record, Vec<u8>)>, Error> {
        let records = self.store().records()?;
        let mut texts = Vec::new();
        for (number, record) in records.iter().enumerate() {
            let text = cell_router::control::store::history::text_at(&records, number)
                .ok_or_else(|| format!("the text of record {number} cannot be had"))?;
            let before = number.checked_sub(1).map(|before| records[before].version);
            if record.of != before {
                return Err(format!("record {number} does not follow the one before it").into());
            }
            texts.push(text);
        }
        if texts.last() != Some(&self.text()?) {
            return Err("the history does not end in what is there".into());
        }
        Ok(records.into_iter().zip(texts).collect())
    }

    /// Nothing but the registry, its history and the tokens is in the folder.
    pub(super) fn nothing_is_left_behind(&self) -> Result<(), Error> {
        let names = std::fs::read_dir(self.folder.path())?.map(|entry| Ok(entry?.file_name()));
        let mut names: Vec<_> = names.collect::<std::io::Result<_>>()?;
        names.sort();
        if names != FILES {
            return Err(format!("left behind: {names:?}").into());
        }
        Ok(())
    }
}

fn serve(folder: &TempDir, binary: &std::path::Path) -> RouterOptions {
    let tokens = folder.path().join("tokens").display().to_string();
    let options = RouterOptions::new("").args(["--workers", "1", "--admin-listen", "127.0.0.1:0"]);
    let mut options = options.args(["--admin-tokens", &tokens]);
    options.registry_file = Some(folder.path().join("registry.json"));
    options.binary = Some(binary.to_owned());
    options
}

async fn open(router: &Router) -> Result<std::net::SocketAddr, Error> {
    let open = router.next_event(|event| event["message"] == "admin listener open");
    Ok(open.await["address"].as_str().unwrap_or_default().parse()?)
}

/// What a command says has become of its edit.
pub(super) fn said(output: &Output) -> Result<Became, Error> {
    let told = || {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "{}: {}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        )
    };
    match output.status.code() {
        Some(0) => version(&output.stdout).map(Became::Made),
        Some(3) => Ok(Became::Overtaken),
        _ if told().contains("mend it, or undo") => Ok(Became::Unreadable),
        _ => Err(told().into()),
    }
}

/// The version in an outcome.
pub(super) fn version(outcome: &[u8]) -> Result<String, Error> {
    let outcome: Value = serde_json::from_slice(outcome)?;
    let version = outcome["version"].as_str();
    Ok(version.ok_or("an outcome has a version")?.to_owned())
}
