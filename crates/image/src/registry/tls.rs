//! TLS settings of a registry: the system's certificates, those of `certs.d/<host>`, or no check for insecure ones.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::endpoint::Verify;

/// Makes and keeps what TLS needs.
#[derive(Debug)]
pub(super) struct TlsSettings {
    ca_bundle: PathBuf,
    certs_dir: PathBuf,
    system: OnceLock<Arc<RootCertStore>>,
}

impl TlsSettings {
    pub(super) fn new(ca_bundle: PathBuf, certs_dir: PathBuf) -> Self {
        Self { ca_bundle, certs_dir, system: OnceLock::new() }
    }

    /// The settings for `host` (with its port, if it has one).
    pub(super) fn client(&self, host: &str, verify: Verify) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match verify {
            Verify::No => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
            Verify::Yes => builder.with_root_certificates(self.roots(host)?),
        };
        let mut config = match self.client_certificate(host)? {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self, host: &str) -> Result<Arc<RootCertStore>, String> {
        let system = self.system.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            match read_certificates(&self.ca_bundle) {
                Ok(certificates) => {
                    roots.add_parsable_certificates(certificates);
                }
                Err(error) => tracing::warn!(%error, "no system certificates"),
            }
            Arc::new(roots)
        });
        let own = self.files(host, "crt");
        if own.is_empty() {
            return Ok(system.clone());
        }
        let mut roots = RootCertStore::clone(system);
        for path in own {
            let certificates = read_certificates(&path)?;
            roots.add_parsable_certificates(certificates);
        }
        Ok(Arc::new(roots))
    }

    /// The first pair of `*.cert` and `*.key` of the host.
    #[allow(clippy::type_complexity)]
    fn client_certificate(
        &self,
        host: &str,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, String> {
        let Some(certificate) = self.files(host, "cert").into_iter().next() else { return Ok(None) };
        let key = certificate.with_extension("key");
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", key.display());
        let file = File::open(&key).map_err(|error| failed(&error))?;
        let key = rustls_pemfile::private_key(&mut BufReader::new(file)).map_err(|error| failed(&error))?;
        let key = key.ok_or_else(|| failed(&"no private key"))?;
        Ok(Some((read_certificates(&certificate)?, key)))
    }

    fn files(&self, host: &str, extension: &str) -> Vec<PathBuf> {
        let Ok(list) = fs::read_dir(self.certs_dir.join(host)) else { return Vec::new() };
        let mut files: Vec<_> = list.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files.sort();
        files
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    rustls_pemfile::certs(&mut BufReader::new(file)).collect::<Result<_, _>>().map_err(failed)
}

/// Accepts every certificate: the user has called the registry insecure.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
