//! Those who edit at once, and one who reads all the time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cell_router::registry::{Registry, Version};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::Options;
use super::books::{Acknowledged, Books, Saved};
use super::scene::{Became, Scene, said, version};
use crate::client::Error;
use crate::numbers::Numbers;
use crate::process::HUNG;

/// How long a person waits at most between two saves, and a program between two edits.
const PAUSE_MS: usize = 25;

/// Lets them edit, and looks whether all is there.
pub(super) async fn at_once(scene: &Scene, options: &Options) -> Result<Books, Error> {
    let seed = |number| Numbers(options.seed.wrapping_mul(16).wrapping_add(number));
    let (over, unsteady) = (AtomicBool::new(false), AtomicU64::new(0));
    let writing = async {
        let count = options.edits;
        let written = tokio::try_join!(
            each("page", count, seed(0), async |cell, value, dice| {
                by_page(scene, cell, value, dice).await
            }),
            each("script", count, seed(1), async |cell, value, dice| {
                by_script(scene, cell, value, dice).await
            }),
            editor(scene, count, seed(2), &unsteady),
        );
        over.store(true, Ordering::SeqCst);
        written
    };
    let (written, read) = tokio::join!(writing, read(scene, &over, &unsteady));
    let ((page, script, saved), read) = (written?, read?);
    let last = Version::of(&scene.text()?).to_string();
    scene
        .router
        .next_event(|event| event["message"] == "registry loaded" && event["version"] == *last)
        .await;
    Books::close(scene, page, script, saved, read)
}

/// The cell and the number that the edit of this number is about: each sets what no other does.
fn subject(name: &str, number: usize) -> (String, usize) {
    let value = 10 * (number + 1) + usize::from(name == "page");
    if number.is_multiple_of(2) {
        (format!("{name}-{number}"), value)
    } else {
        ("shared".to_owned(), value)
    }
}

/// Makes edit after edit, each as often as it takes.
async fn each(
    name: &str,
    count: usize,
    mut dice: Numbers,
    edit: impl AsyncFn(&str, usize, &mut Numbers) -> Result<Became, Error>,
) -> Result<Vec<Acknowledged>, Error> {
    let mut made = Vec::new();
    for number in 0..count {
        let (cell, value) = subject(name, number);
        let (mut overtaken, mut unreadable) = (0, 0);
        let version = loop {
            pause(&mut dice).await;
            match edit(&cell, value, &mut dice).await? {
                Became::Made(version) => break version,
                Became::Overtaken => overtaken += 1,
                Became::Unreadable => unreadable += 1,
            }
        };
        made.push(Acknowledged {
            cell,
            value,
            version,
            overtaken,
            unreadable,
        });
    }
    Ok(made)
}

/// Somebody at the page: reads an entry, and puts another in its place if nobody else has meanwhile.
async fn by_page(
    scene: &Scene,
    cell: &str,
    value: usize,
    dice: &mut Numbers,
) -> Result<Became, Error> {
    let target = format!("/v1/cells/{cell}/entry");
    let new = json!({ "address": "127.0.0.1:1", "max_in_flight": value });
    let answer = if cell == "shared" {
        let entry = scene
            .ask("GET", &target, ("accept", "*/*"), &Value::Null)
            .await?;
        if entry.status == StatusCode::NOT_FOUND {
            return Ok(Became::Unreadable);
        }
        pause(dice).await;
        let tag = ("if-match", entry.header("etag"));
        scene.ask("PUT", &target, tag, &new).await?
    } else {
        scene
            .ask("PUT", &target, ("if-none-match", "*"), &new)
            .await?
    };
    match answer.status {
        StatusCode::OK | StatusCode::CREATED => version(&answer.body).map(Became::Made),
        StatusCode::PRECONDITION_FAILED => Ok(Became::Overtaken),
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT => Ok(Became::Unreadable),
        _ => Err(format!("the page: {} {}", answer.status, answer.text()).into()),
    }
}

/// A program that runs commands; every other time it says which version it has seen.
async fn by_script(
    scene: &Scene,
    cell: &str,
    value: usize,
    dice: &mut Numbers,
) -> Result<Became, Error> {
    let what = format!("max_in_flight={value}");
    let mut args = match cell {
        "shared" => vec!["cell", "set", "shared", &what],
        _ => vec!["cell", "add", cell, "address=127.0.0.1:1", &what],
    };
    let seen = Version::of(&scene.text()?).to_string();
    if dice.below(2) == 0 {
        args.extend(["--if-version", &seen]);
    }
    said(&scene.command(&args).output().await?)
}

/// A person with an editor: reads the file, thinks, and saves over what is there, in one of the ways that editors have.
/// `unsteady` is odd while the file may be broken.
async fn editor(
    scene: &Scene,
    count: usize,
    mut dice: Numbers,
    unsteady: &AtomicU64,
) -> Result<Vec<Saved>, Error> {
    let mut saved = Vec::new();
    for number in 0..count {
        let read = String::from_utf8(scene.text()?)?;
        // One digit more or less: another text each time.
        let new = edited(&read, number + 2)?;
        pause(&mut dice).await;
        unsteady.fetch_add(1, Ordering::SeqCst);
        let way = match dice.below(4) {
            0 => {
                in_place(scene, &new, &mut dice).await?;
                "in place"
            }
            1 => {
                let half = &new[..dice.below(new.len())];
                by_rename(scene, half)?;
                on_record(scene, half).await?;
                by_rename(scene, &new)?;
                "broken for a moment"
            }
            _ => {
                by_rename(scene, &new)?;
                "by a rename"
            }
        };
        unsteady.fetch_add(1, Ordering::SeqCst);
        on_record(scene, &new).await?;
        let version = Version::of(new.as_bytes());
        saved.push(Saved { way, version });
    }
    Ok(saved)
}

/// The text with another number in the entry that is the editor's.
fn edited(text: &str, value: usize) -> Result<String, Error> {
    let from = text.find("\"mine\"").ok_or("the editor's cell is gone")?;
    let (before, entry) = text.split_at(from);
    let (key, rest) = entry.split_once("\"max_in_flight\": ").ok_or("no number")?;
    let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
    Ok(format!("{before}{key}\"max_in_flight\": {value}{rest}"))
}

fn by_rename(scene: &Scene, text: &str) -> std::io::Result<()> {
    let draft = scene.file.with_extension("json~");
    std::fs::write(&draft, text)?;
    std::fs::rename(&draft, &scene.file)
}

/// Cuts the file, and writes it in two pieces.
async fn in_place(scene: &Scene, text: &str, dice: &mut Numbers) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(&scene.file)?;
    let (one, other) = text.as_bytes().split_at(dice.below(text.len()));
    file.write_all(one)?;
    pause(dice).await;
    file.write_all(other)
}

/// Waits until a text is on record, as it must be soon.
async fn on_record(scene: &Scene, text: &str) -> Result<(), Error> {
    let history = scene.file.with_extension("history.jsonl");
    let version = format!("\"version\":\"{}\"", Version::of(text.as_bytes()));
    let looking = async {
        while !std::fs::read_to_string(&history)?.contains(&version) {
            sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, Error>(())
    };
    timeout(HUNG, looking)
        .await
        .unwrap_or_else(|_| Err(format!("a save is not on record: {text}").into()))
}

async fn pause(dice: &mut Numbers) {
    sleep(Duration::from_millis(dice.below(PAUSE_MS) as u64)).await;
}

/// What a reader saw.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) looks: usize,
    pub(super) versions: BTreeSet<Version>,
}

/// Reads the file again and again: it is whole whenever no editor is amid a save that breaks it.
async fn read(scene: &Scene, over: &AtomicBool, unsteady: &AtomicU64) -> Result<Read, Error> {
    let mut read = Read::default();
    while !over.load(Ordering::SeqCst) {
        let before = unsteady.load(Ordering::SeqCst);
        let text = scene.text()?;
        let is_steady = before.is_multiple_of(2) && before == unsteady.load(Ordering::SeqCst);
        if is_steady {
            read.looks += 1;
            if Registry::parse(&text).is_err() {
                return Err(format!("half a file: {}", String::from_utf8_lossy(&text)).into());
            }
            read.versions.insert(Version::of(&text));
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(read)
}
