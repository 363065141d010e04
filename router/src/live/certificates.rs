//! The certificates in force, chosen by the name that a client asks for (RFC 6066 section 3).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// One set of certificates.
#[derive(Debug, Default, Clone)]
pub struct Certificates {
    /// By lower-case name; a wildcard's begins with `*.`.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds a certificate for the names it holds. The first one of a name is kept.
    pub fn add(
        &mut self,
        names: impl IntoIterator<Item = String>,
        certificate: &Arc<CertifiedKey>,
    ) {
        for name in names {
            self.by_name
                .entry(name)
                .or_insert_with(|| Arc::clone(certificate));
        }
    }

    /// How many names have a certificate.
    pub fn names(&self) -> usize {
        self.by_name.len()
    }

    /// The certificate for a name: its own, or the wildcard's for exactly one label in front.
    pub fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard)
    }

    /// The only certificate, where there is just one: it serves clients that ask for no name.
    fn sole(&self) -> Option<&Arc<CertifiedKey>> {
        let mut all = self.by_name.values();
        let first = all.next()?;
        all.all(|other| Arc::ptr_eq(first, other)).then_some(first)
    }
}

/// The set in force; asked once for each handshake.
#[derive(Debug, Default)]
pub struct Chooser(RwLock<Arc<Certificates>>);

impl Chooser {
    /// Puts another set in force. Connections that are there keep what they have.
    pub fn replace(&self, certificates: Certificates) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificates);
    }

    fn current(&self) -> Arc<Certificates> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.current();
        match hello.server_name() {
            Some(name) => certificates.find(name).cloned(),
            None => certificates.sole().cloned(),
        }
    }
}
