//! How the certificates of cells are judged.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use webpki::EndEntityCert;

/// What is asked of a certificate. Two that ask the same are equal, whenever they were read.
#[derive(Debug)]
pub struct Trust {
    asks: [u8; 32],
    config: Arc<ClientConfig>,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.asks == other.asks
    }
}

impl Trust {
    /// A certificate that one of the authorities in this PEM text has signed, for the cell's name and in force.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn authorities(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
            roots
                .add(certificate)
                .map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
        }
        if roots.is_empty() {
            return Err("it holds no certificate".to_owned());
        }
        let config = builder()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::new(pem, config))
    }

    /// A certificate that one of the usual public authorities has signed, for the server's name and in force.
    ///
    /// # Errors
    /// Where the TLS library cannot be set up, as text.
    pub fn public() -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let config = builder()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self::new(b"public", config))
    }

    /// Any certificate for the public key whose SHA-256 is `pin`, whatever its name and its dates.
    ///
    /// # Errors
    /// Where the TLS library cannot be set up, as text.
    pub fn key(pin: [u8; 32]) -> Result<Self, String> {
        let config = builder()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(pin, provider())))
            .with_no_client_auth();
        Ok(Self::new(&pin, config))
    }

    fn new(asks: &[u8], config: ClientConfig) -> Self {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, asks).as_ref());
        Self {
            asks: sum,
            config: Arc::new(config),
        }
    }

    /// The settings of a client that asks this.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<Builder, Error> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

/// Asks for one key, and for proof that the cell has it.
#[derive(Debug)]
struct Pinned([u8; 32], Arc<CryptoProvider>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = EndEntityCert::try_from(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let key = digest(&SHA256, certificate.subject_public_key_info().as_ref());
        if key.as_ref() == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        let other = OtherError(Arc::new(OtherKey(key.as_ref().to_vec())));
        Err(Error::InvalidCertificate(CertificateError::Other(other)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.1.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.1.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// The key of a certificate that was not the one asked for.
#[derive(Debug)]
struct OtherKey(Vec<u8>);

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its key is not the one pinned, but sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::error::Error for OtherKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_trusts_nobody() {
        for (text, said) in [
            ("", "no certificate"),
            ("hello", "no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                "no PEM",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "cannot be used",
            ),
        ] {
            let error = Trust::authorities(text.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn what_asks_the_same_is_equal() {
        assert_eq!(Trust::key([1; 32]).unwrap(), Trust::key([1; 32]).unwrap());
        assert_ne!(Trust::key([1; 32]).unwrap(), Trust::key([2; 32]).unwrap());
    }
}
