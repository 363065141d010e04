//! Everybody edits one registry file at once, and programs are killed amid their edits: no edit is lost, no file is half
//! written, and the history is complete.
//!
//! A person at the page and a program that runs commands are told what became of each edit, and hold the registry to it. An
//! editor knows of no version: what it read it saves over whatever is there by then. Such a save may undo edits, and is on
//! record as what did.

mod books;
mod kills;
mod scene;
mod writers;

use std::fmt;
use std::path::PathBuf;

use self::books::Books;
pub use self::kills::Kills;
use self::scene::Scene;
use crate::client::Error;

/// What a run is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// The router's binary.
    pub router: PathBuf,
    /// How many edits each of the three makes.
    pub edits: usize,
    /// How many programs are killed amid an edit.
    pub kills: usize,
    /// What is drawn is drawn from this.
    pub seed: u64,
}

/// What came of a run in which all held.
#[derive(Debug)]
pub struct Report {
    /// Of the edits at once.
    pub books: Books,
    /// Of the kills.
    pub kills: Kills,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.books, self.kills)
    }
}

/// Runs both.
///
/// # Errors
/// What does not hold, in words.
pub async fn run(options: &Options) -> Result<Report, Error> {
    let scene = Scene::start(options).await?;
    let books = writers::at_once(&scene, options).await?;
    let (scene, kills) = kills::amid_edits(scene, options).await?;
    scene.nothing_is_left_behind()?;
    Ok(Report { books, kills })
}
