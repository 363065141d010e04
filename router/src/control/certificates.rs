//! The folder of certificates: read at start, and again whenever it changes.
//!
//! `NAME.pem` (or `.crt`) holds a chain, leaf first, and may hold the key; else `NAME.key` does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::time::{MissedTickBehavior, interval};
use webpki::EndEntityCert;

use super::look::{Seen, look, may_pass, read};
use crate::live::certificates::{Certificates, Chooser};

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The largest file of a chain or a key, in bytes.
const LARGEST: u64 = 1 << 20;

/// A certificate with the names it is for.
type Entry = (Vec<String>, Arc<CertifiedKey>);

/// The folder, with what was last good in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    good: BTreeMap<PathBuf, Entry>,
    /// What was there when it was read last.
    loaded: Vec<(PathBuf, Option<Seen>)>,
    /// Whether something there could not be read, and may be by the next look.
    passing: bool,
}

impl Folder {
    /// A folder that has not been read yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            good: BTreeMap::new(),
            loaded: Vec::new(),
            passing: false,
        }
    }

    /// Reads the folder. A bad file is told of, and the last good certificate of that name serves on.
    ///
    /// # Errors
    /// Where the folder itself cannot be read, as text.
    pub fn read(&mut self) -> Result<(Certificates, Vec<String>), String> {
        // Looked at before it is read: a change that falls in between is seen as one.
        self.loaded = self.seen();
        // What cannot be listed is listed again.
        self.passing = true;
        let chains = self.chains()?;
        if chains.is_empty() && !self.good.is_empty() {
            return Err(format!("{}: no certificate is left", self.path.display()));
        }
        self.passing = false;
        let mut problems = Vec::new();
        self.good.retain(|chain, _| chains.contains(chain));
        for chain in chains {
            match certificate(&chain) {
                Ok(entry) => {
                    self.good.insert(chain, entry);
                }
                Err(why) => {
                    self.passing |= may_pass(&why);
                    problems.push(format!("{}: {why}", chain.display()));
                }
            }
        }
        let mut certificates = Certificates::default();
        for (names, certificate) in self.good.values() {
            certificates.add(names.iter().cloned(), certificate);
        }
        Ok((certificates, problems))
    }

    /// Follows the folder for ever, putting what is good in force when files have changed and come to rest.
    pub async fn follow(mut self, chooser: &Chooser) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = self.loaded.clone();
        let mut said = Vec::new();
        loop {
            ticks.tick().await;
            let now = self.seen();
            let at_rest = now == last;
            last.clone_from(&now);
            let is_news = now != self.loaded;
            if !at_rest || !(is_news || self.passing) {
                continue;
            }
            let problems = match self.read() {
                Ok((certificates, problems)) => {
                    let names = certificates.names();
                    // What is told of is in force already.
                    chooser.replace(certificates);
                    if is_news || problems != said {
                        tracing::info!(folder = %self.path.display(), names, "certificates loaded");
                    }
                    problems
                }
                Err(why) => vec![why],
            };
            if is_news || problems != said {
                problems
                    .iter()
                    .for_each(|problem| tracing::error!("{problem}; the last good one serves on"));
            }
            said = problems;
        }
    }

    fn files(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut files = fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }

    fn chains(&self) -> Result<Vec<PathBuf>, String> {
        let files = self
            .files()
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        let chain = |file: &PathBuf| {
            file.extension()
                .is_some_and(|end| end == "pem" || end == "crt")
        };
        Ok(files.into_iter().filter(chain).collect())
    }

    fn seen(&self) -> Vec<(PathBuf, Option<Seen>)> {
        let files = self.files().unwrap_or_default();
        files
            .into_iter()
            .map(|file| (file.clone(), look(&file)))
            .collect()
    }
}

fn certificate(file: &Path) -> io::Result<Entry> {
    let text = read(file, LARGEST)?;
    if PrivateKeyDer::from_pem_slice(&text).is_ok() {
        return entry(&text, &text).map_err(io::Error::other);
    }
    let beside = file.with_extension("key");
    match read(&beside, LARGEST) {
        Ok(key) => entry(&text, &key).map_err(io::Error::other),
        Err(error) if may_pass(&error) => Err(error),
        // What is wrong with the chain comes first.
        Err(error) => entry(&text, &[])
            .map_err(|why| format!("{why} ({}: {error})", beside.display()))
            .map_err(io::Error::other),
    }
}

fn entry(chain: &[u8], key: &[u8]) -> Result<Entry, String> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("no PEM certificates: {error}"))?;
    let leaf = chain
        .first()
        .ok_or("it holds no certificate; put the chain in it, leaf first")?;
    let names = names(leaf)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("no key in it, nor in the .key beside it: {error}"))?;
    let key =
        any_supported_type(&key).map_err(|error| format!("its key cannot be used: {error}"))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(|error| format!("key and certificate do not belong together: {error}"))?;
    Ok((names, Arc::new(certified)))
}

fn names(leaf: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let leaf = EndEntityCert::try_from(leaf)
        .map_err(|error| format!("its first certificate cannot be read: {error}"))?;
    let names: Vec<String> = leaf
        .valid_dns_names()
        .map(str::to_ascii_lowercase)
        .collect();
    if names.is_empty() {
        Err("its first certificate is for no DNS name".to_owned())
    } else {
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_fails_to_read_is_read_again() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("a.pem");
        // As regular as any, and the system fails to read it.
        std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        assert_eq!(folder.read().unwrap().1.len(), 1);
        assert!(folder.passing);
        fs::remove_file(&file).unwrap();
        fs::write(&file, "no certificate").unwrap();
        assert_eq!(folder.read().unwrap().1.len(), 1);
        assert!(!folder.passing, "that is for somebody to mend");
        fs::remove_dir_all(place.path()).unwrap();
        assert!(folder.read().is_err());
        assert!(folder.passing);
    }
}
