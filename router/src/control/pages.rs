//! Reads pages of the operator's own.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::load::Missing;
use super::look::read_text;
use crate::decision::Page;
use crate::live::pages::Pages;

/// The largest page, in bytes.
const LARGEST: u64 = 256 * 1024;

/// Reads the pages in a folder, whose path is meant from the registry's.
pub(super) fn read(source: &str, folder: &Path) -> Result<Pages, Missing> {
    let (path, named) = (folder.join(source), format!("the folder {source}"));
    // Without this a folder that is not there looks like one without pages.
    let found = std::fs::metadata(&path).map_err(|error| Missing::unread(&named, &error))?;
    if !found.is_dir() {
        return Err(Missing::new(&named, "it is no folder"));
    }
    let mut files = [const { None }; 4];
    for (page, text) in Page::ALL.iter().zip(&mut files) {
        let named = format!("{named}: {}", page.file());
        *text = file(&path.join(page.file())).map_err(|error| Missing::unread(&named, &error))?;
    }
    Pages::parse(files).map_err(|why| Missing::new(&named, why))
}

fn file(path: &Path) -> io::Result<Option<String>> {
    match read_text(path, LARGEST) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
