//! A cluster's CA: making a root, signing nodes' requests, vouching for a new root with the old one's key.
//!
//! A request gives nothing but a public key, which it must prove to hold: subject, names, usages, life and whether the
//! result is a CA are the signer's alone, so that a node cannot choose to be another, or more, than it is.

use model::{ClusterId, NodeId, NodeRole, NodeTlsInfo, Timestamp};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::certificate::{self, CA, CertificateError, role_name};
use crate::csr::{self, CsrError, NodeKey};
use crate::der;
use crate::pem;
use crate::random::random_bytes;
use crate::signature::{self, Key};

/// Life of a root: 20 years of 365 days.
pub(crate) const ROOT_SECONDS: i64 = 630_720_000;
/// How far a root is back-dated.
const ROOT_BACKDATE_SECONDS: i64 = 5 * 60;
/// How far a node's certificate is back-dated, for nodes whose clocks are slow.
const NODE_BACKDATE_SECONDS: i64 = 3600;
/// Shortest life of a node's certificate; who asks for less gets the default.
pub const MIN_NODE_LIFE_SECONDS: i64 = 3600;
/// Life of a node's certificate when the cluster does not say.
pub const DEFAULT_NODE_LIFE_SECONDS: i64 = 2160 * 3600;

// Contents of the object identifiers used.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 4, 11];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 29, 14];
const KEY_USAGE: &[u8] = &[0x55, 29, 15];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 29, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 29, 19];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 29, 35];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 29, 37];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
/// digitalSignature, keyEncipherment.
const LEAF_USAGE: (&[u8], u8) = (&[0xa0], 5);
/// keyCertSign, cRLSign.
const CA_USAGE: (&[u8], u8) = (&[0x06], 1);

/// A root: certificate and key.
pub struct RootAuthority {
    /// The certificate, PEM: the trust root of every node.
    pub cert_pem: Vec<u8>,
    /// Its key, PEM.
    pub key_pem: Vec<u8>,
}

/// A node certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, PEM.
    pub cert_pem: Vec<u8>,
    /// The key, PKCS#8 PEM.
    pub key_pem: Vec<u8>,
}

/// Signs with a CA's key.
pub struct Signer {
    key: Key,
    /// The issuer's certificate, DER.
    certificate: Vec<u8>,
    /// Its name, DER.
    subject: Vec<u8>,
    /// Its key's identifier.
    key_id: Vec<u8>,
    not_after_seconds: i64,
    /// What is appended to each leaf, PEM.
    intermediates: Vec<u8>,
}

/// What a node's certificate is to say.
#[derive(Clone, Copy, Debug)]
pub struct LeafRequest<'a> {
    /// The node's request, PEM.
    pub csr_pem: &'a [u8],
    /// CN.
    pub node: &'a NodeId,
    /// OU.
    pub role: NodeRole,
    /// O.
    pub cluster: &'a ClusterId,
}

/// Why a certificate and a key do not make a signer. Texts are dockerd's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The certificate cannot be read.
    #[error("invalid signing CA cert")]
    Certificate(#[from] CertificateError),
    /// There is no certificate.
    #[error("no valid signing CA certificates found")]
    NoCertificate,
    /// The certificate is no CA's.
    #[error("certificate not a CA")]
    NotCa,
    /// The key cannot be read, or is of a kind that cannot sign here.
    #[error("malformed private key")]
    Key(String),
    /// The key is another one's.
    #[error("certificate key mismatch")]
    Mismatch,
    /// An intermediate cannot be read.
    #[error("invalid intermediate chain")]
    Intermediate(String),
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The request is unusable.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// The new root cannot be read.
    #[error("could not parse new CA certificate")]
    Certificate(#[from] CertificateError),
    /// The new root is no CA.
    #[error("certificate not a CA")]
    NotCa,
    /// The CA's own certificate has expired or is about to.
    #[error("the CA certificate has expired")]
    CaExpired,
    /// The key did not sign.
    #[error("failed to sign node certificate: {0}")]
    Key(String),
}

impl RootAuthority {
    /// A new root with a new key.
    pub fn generate(now: Timestamp) -> Result<Self, SignError> {
        let key = NodeKey::generate();
        let signing = signature::read_key(&key.pem).map_err(SignError::Key)?;
        let spki = signature::public_key(&signing);
        let not_before = rounded(now) - ROOT_BACKDATE_SECONDS;
        let subject = name(&[(COMMON_NAME, CA)]);
        let template = Template {
            issuer: &subject,
            subject: &subject,
            spki: &spki,
            validity: (not_before, not_before + ROOT_SECONDS),
            extensions: ca_extensions(&key_id(&spki), None),
        };
        let der = template.sign(&signing)?;
        Ok(Self { cert_pem: pem::encode("CERTIFICATE", &der), key_pem: key.pem })
    }

    /// Issues a certificate with a fresh key for a node of this machine.
    pub fn issue(
        &self,
        node: &NodeId,
        role: NodeRole,
        cluster: &ClusterId,
        life: Option<model::Duration>,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let signer = Signer::new(&self.cert_pem, &self.key_pem, &[])?;
        let key = NodeKey::generate();
        let request = key.request().map_err(SignError::Key)?;
        let leaf = LeafRequest { csr_pem: &request, node, role, cluster };
        let cert_pem = signer.sign_csr(leaf, life, now)?;
        Ok(Issued { cert_pem, key_pem: key.pem })
    }
}

/// Why no certificate was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The CA cannot sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Signer {
    /// A signer. The issuer is the first certificate of `cert_pem`; `intermediates_pem` is appended to each leaf (the
    /// cross-signed certificate while a root is replaced), else empty.
    pub fn new(cert_pem: &[u8], key_pem: &[u8], intermediates_pem: &[u8]) -> Result<Self, SignerError> {
        let found = pem::certificates(cert_pem).map_err(CertificateError::Unreadable)?;
        let der = found.first().ok_or(SignerError::NoCertificate)?;
        let parsed = certificate::parse(der)?;
        if !parsed.is_ca() {
            return Err(SignerError::NotCa);
        }
        let key = signature::read_key(key_pem).map_err(SignerError::Key)?;
        let spki = signature::public_key(&key);
        if spki != parsed.public_key().raw {
            return Err(SignerError::Mismatch);
        }
        let intermediates = pem::certificates(intermediates_pem).map_err(SignerError::Intermediate)?;
        for intermediate in &intermediates {
            certificate::parse(intermediate).map_err(|error| SignerError::Intermediate(error.to_string()))?;
        }
        Ok(Self {
            subject: parsed.subject().as_raw().to_vec(),
            key_id: certificate::key_identifier(&parsed).unwrap_or_else(|| key_id(&spki)),
            not_after_seconds: parsed.validity().not_after.timestamp(),
            certificate: der.to_vec(),
            intermediates: pem::normalize_certificates(intermediates_pem),
            key,
        })
    }

    /// Signs a node's request. The result is the leaf and the intermediates, PEM.
    pub fn sign_csr(
        &self,
        leaf: LeafRequest<'_>,
        life: Option<model::Duration>,
        now: Timestamp,
    ) -> Result<Vec<u8>, SignError> {
        let spki = csr::public_key(leaf.csr_pem)?;
        let life = life.map(|life| life.seconds).filter(|life| *life >= MIN_NODE_LIFE_SECONDS);
        let not_before = rounded(now) - NODE_BACKDATE_SECONDS;
        let wanted = not_before + NODE_BACKDATE_SECONDS + life.unwrap_or(DEFAULT_NODE_LIFE_SECONDS);
        // Past its issuer's end a leaf is worth nothing, and its renewal would be due too late.
        let not_after = wanted.min(self.not_after_seconds);
        if not_after <= now.seconds {
            return Err(SignError::CaExpired);
        }
        let unit = role_name(leaf.role);
        let subject = name(&[
            (ORGANIZATION, leaf.cluster.as_str()),
            (ORGANIZATIONAL_UNIT, unit),
            (COMMON_NAME, leaf.node.as_str()),
        ]);
        let mut names = vec![unit, leaf.node.as_str()];
        if leaf.role == NodeRole::Manager {
            names.push(CA);
        }
        let template = Template {
            issuer: &self.subject,
            subject: &subject,
            spki: &spki,
            validity: (not_before, not_after),
            extensions: leaf_extensions(&names, &key_id(&spki), &self.key_id),
        };
        let mut chain = pem::encode("CERTIFICATE", &template.sign(&self.key)?);
        chain.extend_from_slice(&self.intermediates);
        Ok(chain)
    }

    /// Vouches for another root: its name, key and life under this CA's signature. PEM.
    pub fn cross_sign(&self, new_root_pem: &[u8]) -> Result<Vec<u8>, SignError> {
        let found = pem::certificates(new_root_pem).map_err(CertificateError::Unreadable)?;
        let der = found.first().ok_or_else(|| CertificateError::Unreadable("no certificate".to_owned()))?;
        let parsed = certificate::parse(der)?;
        if !parsed.is_ca() {
            return Err(SignError::NotCa);
        }
        let spki = parsed.public_key().raw;
        let own_id = certificate::key_identifier(&parsed).unwrap_or_else(|| key_id(spki));
        let template = Template {
            issuer: &self.subject,
            subject: parsed.subject().as_raw(),
            spki,
            validity: (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()),
            extensions: ca_extensions(&own_id, Some(&self.key_id)),
        };
        Ok(pem::encode("CERTIFICATE", &template.sign(&self.key)?))
    }

    /// What nodes with this signer's certificates report.
    pub fn issuer_info(&self) -> IssuerInfo {
        IssuerInfo { subject: self.subject.clone(), public_key: signature::public_key(&self.key) }
    }

    /// The issuer's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

/// Who issued a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerInfo {
    /// Name, DER.
    pub subject: Vec<u8>,
    /// Public key, DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

impl IssuerInfo {
    /// The first certificate of a text, as an issuer: what a root rotation waits for in each node's description.
    pub fn of_ca(ca_pem: &[u8]) -> Result<Self, CertificateError> {
        let info = certificate::tls_info(&[], ca_pem)?;
        Ok(Self { subject: info.cert_issuer_subject, public_key: info.cert_issuer_public_key })
    }

    /// Whether a node reports this issuer.
    pub fn is_reported_by(&self, info: &NodeTlsInfo) -> bool {
        self.subject == info.cert_issuer_subject && self.public_key == info.cert_issuer_public_key
    }
}

/// All that a certificate says.
struct Template<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    spki: &'a [u8],
    validity: (i64, i64),
    extensions: Vec<u8>,
}

impl Template<'_> {
    fn sign(&self, key: &Key) -> Result<Vec<u8>, SignError> {
        let mut serial: [u8; 20] = random_bytes();
        serial[0] &= 0x7f;
        let build = |algorithm: &[u8]| {
            der::sequence(&[
                &der::explicit(0, &der::integer(&[2])),
                &der::integer(&serial),
                algorithm,
                self.issuer,
                &der::sequence(&[&der::time(self.validity.0), &der::time(self.validity.1)]),
                self.subject,
                self.spki,
                &der::explicit(3, &self.extensions),
            ])
        };
        signature::sign(key, build).map_err(SignError::Key)
    }
}

fn name(parts: &[(&[u8], &str)]) -> Vec<u8> {
    let part = |(kind, text): &(&[u8], &str)| der::set(&der::sequence(&[&der::oid(kind), &der::text(text)]));
    let parts: Vec<Vec<u8>> = parts.iter().map(part).collect();
    der::sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn critical(kind: &[u8], value: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(kind), &der::yes(), &der::octets(value)])
}

fn extension(kind: &[u8], value: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(kind), &der::octets(value)])
}

fn authority_key(id: &[u8]) -> Vec<u8> {
    extension(AUTHORITY_KEY_ID, &der::sequence(&[&der::implicit(0, id)]))
}

fn leaf_extensions(names: &[&str], own_id: &[u8], issuer_id: &[u8]) -> Vec<u8> {
    let names: Vec<u8> = names.iter().flat_map(|name| der::implicit(2, name.as_bytes())).collect();
    der::sequence(&[
        &critical(KEY_USAGE, &der::bits(LEAF_USAGE.0, LEAF_USAGE.1)),
        &extension(EXTENDED_KEY_USAGE, &der::sequence(&[&der::oid(SERVER_AUTH), &der::oid(CLIENT_AUTH)])),
        &critical(BASIC_CONSTRAINTS, &der::sequence(&[])),
        &extension(SUBJECT_KEY_ID, &der::octets(own_id)),
        &authority_key(issuer_id),
        &extension(SUBJECT_ALT_NAME, &der::sequence(&[&names])),
    ])
}

fn ca_extensions(own_id: &[u8], issuer_id: Option<&[u8]>) -> Vec<u8> {
    let issuer = issuer_id.map(authority_key).unwrap_or_default();
    der::sequence(&[
        &critical(KEY_USAGE, &der::bits(CA_USAGE.0, CA_USAGE.1)),
        &critical(BASIC_CONSTRAINTS, &der::sequence(&[&der::yes()])),
        &extension(SUBJECT_KEY_ID, &der::octets(own_id)),
        &issuer,
    ])
}

/// SHA-1 of the public key's bits, as Go makes it.
fn key_id(spki: &[u8]) -> Vec<u8> {
    let parts = der::read_sequence(spki).unwrap_or_default();
    let bits = parts.get(1).and_then(der::read_bit_string).unwrap_or_default();
    digest(&SHA1_FOR_LEGACY_USE_ONLY, bits).as_ref().to_vec()
}

/// Rounded to the minute, in seconds.
fn rounded(now: Timestamp) -> i64 {
    (now.seconds + 30).div_euclid(60) * 60
}
