//! Reads pages of the operator's own.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use super::load::MEND_FILE;
use crate::decision::Page;
use crate::live::pages::Pages;
use crate::registry::Refusal;

/// The largest page, in bytes.
const LARGEST: u64 = 256 * 1024;

/// Reads the pages in a folder, whose path is meant from the registry's.
pub(super) fn read(source: &str, folder: &Path) -> Result<Pages, Refusal> {
    let path = folder.join(source);
    let refuse = |why: String| Refusal {
        what: format!("the folder {source}: {why}"),
        fix: MEND_FILE.to_owned(),
    };
    // Without this a folder that is not there looks like one without pages.
    let found = std::fs::metadata(&path).map_err(|error| refuse(error.to_string()))?;
    if !found.is_dir() {
        return Err(refuse("it is no folder".to_owned()));
    }
    let mut files = [const { None }; 4];
    for (page, text) in Page::ALL.iter().zip(&mut files) {
        *text = file(&path.join(page.file()))
            .map_err(|error| refuse(format!("{}: {error}", page.file())))?;
    }
    Pages::parse(files).map_err(refuse)
}

fn file(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!(
            "it is larger than {LARGEST} bytes"
        )));
    }
    Ok(Some(text))
}
