//! PEM in and out. Reading takes every block of the wanted kind and passes over other text, as Go does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};

/// Characters of base64 on a line.
const LINE: usize = 64;
/// The largest text that is looked at: SwarmKit's own bound for a chain.
pub(crate) const MAX_PEM_BYTES: usize = 256 << 10;

/// A block's text.
pub(crate) fn encode(label: &str, der: &[u8]) -> Vec<u8> {
    let encoded = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in encoded.as_bytes().chunks(LINE) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    out
}

/// All certificates of a text, in order.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(format!("{} bytes, at most {MAX_PEM_BYTES}", pem.len()));
    }
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// The certificates of a text, written anew: what is between the blocks is gone, line ends are `\n`. Two texts with the
/// same certificates in the same order become the same bytes, which is how SwarmKit compares them.
pub fn normalize_certificates(pem: &[u8]) -> Vec<u8> {
    let found = certificates(pem).unwrap_or_default();
    found.iter().flat_map(|der| encode("CERTIFICATE", der)).collect()
}

/// A text's private key: PKCS#8, SEC1 or PKCS#1.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())
}

/// A text's certificate request.
pub(crate) fn request(pem: &[u8]) -> Result<CertificateSigningRequestDer<'static>, String> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(format!("{} bytes, at most {MAX_PEM_BYTES}", pem.len()));
    }
    CertificateSigningRequestDer::from_pem_slice(pem).map_err(|error| error.to_string())
}
