//! What a certificate says: whose it is, for how long, who issued it. Reading trusts nothing: a name counts only after
//! the chain was verified (`chain`).

use model::{ClusterId, NodeId, NodeRole, NodeTlsInfo, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::pem;

/// OU of a manager, and the server name that clients expect of one.
pub(crate) const MANAGER: &str = "swarm-manager";
/// OU of a worker.
pub(crate) const WORKER: &str = "swarm-worker";
/// CN of a root, and the server name of a manager while a node has no certificate.
pub(crate) const CA: &str = "swarm-ca";

/// Who a node is, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// CN.
    pub node_id: NodeId,
    /// OU.
    pub role: NodeRole,
    /// O.
    pub cluster_id: ClusterId,
    /// First moment of its life.
    pub not_before: Timestamp,
    /// Last moment of its life.
    pub not_after: Timestamp,
}

/// Why a certificate names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("could not parse the certificate: {0}")]
    Unreadable(String),
    /// A part of the name is missing, or stands there twice.
    #[error("the certificate has no single {0}")]
    NoName(&'static str),
    /// The OU is no role.
    #[error("failed to parse role: {0}")]
    UnknownRole(String),
    /// It is a CA's.
    #[error("the certificate is a CA's, not a node's")]
    IsCa,
}

impl PeerIdentity {
    /// Who a certificate is made out to. Says nothing of who signed it.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let leaf = parse(der)?;
        if leaf.is_ca() {
            return Err(CertificateError::IsCa);
        }
        let subject = leaf.subject();
        let texts = |parts: Vec<Option<String>>| parts.into_iter().flatten().filter(|text| !text.is_empty());
        let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| part.as_str().ok().map(str::to_owned);
        // Go takes the last CN, others the first: of two, none.
        let mut names = texts(subject.iter_common_name().map(text).collect());
        let (Some(node_id), None) = (names.next(), names.next()) else {
            return Err(CertificateError::NoName("common name"));
        };
        let cluster_id = texts(subject.iter_organization().map(text).collect()).next();
        let units: Vec<String> = texts(subject.iter_organizational_unit().map(text).collect()).collect();
        let role = match () {
            () if units.iter().any(|unit| unit == MANAGER) => NodeRole::Manager,
            () if units.iter().any(|unit| unit == WORKER) => NodeRole::Worker,
            () => return Err(CertificateError::UnknownRole(units.join(", "))),
        };
        Ok(Self {
            node_id: node_id.into(),
            role,
            cluster_id: cluster_id.ok_or(CertificateError::NoName("organization"))?.into(),
            not_before: seconds(leaf.validity().not_before.timestamp()),
            not_after: seconds(leaf.validity().not_after.timestamp()),
        })
    }

    /// Who the first certificate of a text is made out to.
    pub fn from_pem(chain_pem: &[u8]) -> Result<Self, CertificateError> {
        let chain = pem::certificates(chain_pem).map_err(CertificateError::Unreadable)?;
        Self::from_der(chain.first().ok_or_else(|| CertificateError::Unreadable("no certificate".to_owned()))?)
    }
}

/// The OU of a role.
pub fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Worker => WORKER,
        NodeRole::Manager => MANAGER,
    }
}

/// Reads a certificate; nothing may follow it.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CertificateError::Unreadable("trailing bytes".to_owned())),
        Err(error) => Err(CertificateError::Unreadable(error.to_string())),
    }
}

/// A certificate's subject key identifier.
pub(crate) fn key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    use x509_parser::extensions::ParsedExtension;
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// Whole seconds.
pub(crate) fn seconds(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

/// When the first certificate of a PEM bundle expires; `None` for none.
pub fn certificate_expiry(bundle_pem: &[u8]) -> Option<Timestamp> {
    let chain = pem::certificates(bundle_pem).ok()?;
    let certificate = parse(chain.first()?).ok()?;
    Some(seconds(certificate.validity().not_after.timestamp()))
}

/// What a node tells of its certificate: trust root, issuer's subject and public key, both DER. The issuer is the first
/// certificate of `issuer_pem`.
pub fn tls_info(root_pem: &[u8], issuer_pem: &[u8]) -> Result<NodeTlsInfo, CertificateError> {
    let chain = pem::certificates(issuer_pem).map_err(CertificateError::Unreadable)?;
    let first = chain.first().ok_or_else(|| CertificateError::Unreadable("no certificate".to_owned()))?;
    let issuer = parse(first)?;
    Ok(NodeTlsInfo {
        trust_root: root_pem.to_vec(),
        cert_issuer_subject: issuer.subject().as_raw().to_vec(),
        cert_issuer_public_key: issuer.public_key().raw.to_vec(),
    })
}
