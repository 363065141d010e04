//! The folder of uploads: whole files only.
//!
//! A file appears under its name when all of it is on disk, or never. What a crash left behind is removed at start.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use axum::body::Bytes;
use ring::digest;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::name::FileName;
use crate::work::Running;

/// Begins the name of a file that is still being written; no [`FileName`] begins with a dot.
const UNFINISHED: &str = ".upload-";

/// Chunks that wait for the disk; then the client waits. A chunk is what one read of the socket gave.
const QUEUED_CHUNKS: usize = 4;

/// A file as a listing shows it.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// Seconds since 1970.
    pub(crate) modified: u64,
}

/// A file that is whole and durable.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: u64,
    /// SHA-256 in lower-case hex.
    pub(crate) sha256: String,
    /// Whether a file of that name was there before.
    pub(crate) replaced: bool,
}

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder if it is absent, and removes what unfinished uploads left in it.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(UNFINISHED.as_bytes())
            {
                fs::remove_file(entry.path())?;
                tracing::info!("removed what an unfinished upload left");
            }
        }
        Ok(Self(path))
    }

    /// Where the file of this name is, or would be.
    pub(crate) fn path(&self, name: &FileName) -> PathBuf {
        self.0.join(name.as_str())
    }

    /// All files, by name. Blocks.
    pub(crate) fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let Ok(Ok(name)) = entry.file_name().into_string().map(FileName::parse) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => entries.push(Entry {
                    name: name.to_string(),
                    bytes: metadata.len(),
                    modified: metadata
                        .modified()?
                        .duration_since(UNIX_EPOCH)
                        .map_or(0, |since| since.as_secs()),
                }),
                Ok(_) => {}
                // Removed since the folder was read.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(problem) => return Err(problem),
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Removes a file; says whether there was one. Blocks.
    pub(crate) fn remove(&self, name: &FileName) -> io::Result<bool> {
        match fs::remove_file(self.path(name)) {
            Ok(()) => sync(&self.0).map(|()| true),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// Begins an upload, which `running` counts until the disk has done with it.
    pub(crate) fn receive(&self, name: FileName, running: Running) -> Upload {
        let (pieces, queue) = mpsc::channel(QUEUED_CHUNKS);
        let folder = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let _running = running;
            let stored = folder.write(&name, queue);
            match &stored {
                Ok(Some(stored)) => {
                    tracing::info!(%name, bytes = stored.bytes, sha256 = stored.sha256, "uploaded");
                }
                Ok(None) => tracing::info!(%name, "upload cut, nothing kept"),
                Err(problem) => tracing::error!(%name, %problem, "upload not stored"),
            }
            stored
        });
        Upload { pieces, written }
    }

    /// `None` if the pieces stopped before the end.
    fn write(
        &self,
        name: &FileName,
        mut queue: mpsc::Receiver<Piece>,
    ) -> io::Result<Option<Stored>> {
        let mut file = NamedTempFile::with_prefix_in(UNFINISHED, &self.0)?;
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut bytes = 0;
        loop {
            match queue.blocking_recv() {
                Some(Piece::Chunk(chunk)) => {
                    digest.update(&chunk);
                    file.write_all(&chunk)?;
                    bytes += chunk.len() as u64;
                }
                Some(Piece::End) => break,
                None => {
                    file.close()?;
                    return Ok(None);
                }
            }
        }
        file.as_file().sync_all()?;
        let path = self.path(name);
        let replaced = path.exists();
        file.persist(&path)?;
        sync(&self.0)?;
        Ok(Some(Stored {
            bytes,
            sha256: hex(digest.finish().as_ref()),
            replaced,
        }))
    }
}

enum Piece {
    Chunk(Bytes),
    End,
}

/// An upload under way. Dropped before [`Upload::end`], it leaves nothing.
pub(crate) struct Upload {
    pieces: mpsc::Sender<Piece>,
    written: JoinHandle<io::Result<Option<Stored>>>,
}

/// Why an upload was not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The disk said no.
    Disk(io::Error),
    /// The process is ending.
    Ending,
}

impl Upload {
    /// Hands a chunk to the disk; waits while the disk is behind. `false`: the disk takes no more, [`Upload::end`] says why.
    pub(crate) async fn push(&self, chunk: Bytes) -> bool {
        self.pieces.send(Piece::Chunk(chunk)).await.is_ok()
    }

    /// Says that this was all, and waits until the file is durable and has its name.
    ///
    /// # Errors
    /// [`NotStored`].
    pub(crate) async fn end(self) -> Result<Stored, NotStored> {
        // Fails only if the writer has ended, and then `written` says why.
        let _ = self.pieces.send(Piece::End).await;
        match self.written.await {
            Ok(Ok(Some(stored))) => Ok(stored),
            Ok(Err(problem)) => Err(NotStored::Disk(problem)),
            Ok(Ok(None)) | Err(_) => Err(NotStored::Ending),
        }
    }

    /// Gives up, and waits until nothing is left on disk.
    pub(crate) async fn cut(self) {
        drop(self.pieces);
        let _ = self.written.await;
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;

    fn name(name: &str) -> FileName {
        FileName::parse(name.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_whole_upload_is_there_under_its_name_and_replaces_the_older() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path().join("files")).unwrap();
        let work = Work::new();
        for (content, replaced) in [("abc", false), ("abcd", true)] {
            let upload = folder.receive(name("a b"), work.begin());
            assert!(upload.push(Bytes::from(content)).await);
            let stored = upload.end().await.unwrap();
            assert_eq!(
                (stored.bytes, stored.replaced),
                (content.len() as u64, replaced)
            );
            assert_eq!(
                fs::read_to_string(folder.path(&name("a b"))).unwrap(),
                content
            );
        }
        let entries = folder.list().unwrap();
        assert_eq!(
            (entries.len(), &*entries[0].name, entries[0].bytes),
            (1, "a b", 4)
        );
        assert!(folder.remove(&name("a b")).unwrap());
        assert!(!folder.remove(&name("a b")).unwrap());
    }

    #[tokio::test]
    async fn sha256_is_that_of_the_bytes() {
        // FIPS 180-2, appendix B.1.
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path().to_owned()).unwrap();
        let upload = folder.receive(name("abc"), Work::new().begin());
        for piece in ["a", "", "bc"] {
            assert!(upload.push(Bytes::from(piece)).await);
        }
        assert_eq!(
            upload.end().await.unwrap().sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[tokio::test]
    async fn a_cut_upload_leaves_nothing_and_ends_its_work() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path().to_owned()).unwrap();
        let work = Work::new();
        let cut = folder.receive(name("cut"), work.begin());
        assert!(cut.push(Bytes::from("half")).await);
        cut.cut().await;
        let dropped = folder.receive(name("dropped"), work.begin());
        assert!(dropped.push(Bytes::from("half")).await);
        drop(dropped);
        work.ended().await;
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn opening_removes_unfinished_uploads_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(".upload-x1"), "half").unwrap();
        fs::write(place.path().join("whole"), "whole").unwrap();
        let folder = Folder::open(place.path().to_owned()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert_eq!(folder.list().unwrap()[0].name, "whole");
    }
}
