//! The root CA of a cluster and the node certificates that it signs.

use model::{ClusterId, NodeId, NodeRole, NodeTlsInfo, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SanType, SerialNumber, string::PrintableString,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use crate::IdentityError;
use crate::random::random_bytes;

/// Life of a root: 20 years of 365 days.
const ROOT_SECONDS: i64 = 630_720_000;
/// How far a root is back-dated.
const ROOT_BACKDATE: Duration = Duration::minutes(5);
/// How far a node's certificate is back-dated.
const NODE_BACKDATE: Duration = Duration::hours(1);
/// Shortest life of a node's certificate.
const MIN_NODE_LIFE: Duration = Duration::hours(1);
/// Life of a node's certificate when the cluster does not say.
const DEFAULT_NODE_LIFE: Duration = Duration::hours(2160);

/// The cluster's root: certificate and key.
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

impl RootAuthority {
    /// A new root with a new key.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&[(DnType::CommonName, "swarm-ca")]);
        params.not_before = rounded_now() - ROOT_BACKDATE;
        params.not_after = params.not_before + Duration::seconds(ROOT_SECONDS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        params.key_identifier_method = key_identifier(&key);
        let certificate = params.self_signed(&key)?;
        Ok(Self { cert_pem: certificate.pem().into_bytes(), key_pem: key.serialize_pem().into_bytes() })
    }

    /// Issues a certificate with a fresh key for a node of this machine.
    pub fn issue(
        &self,
        node: &NodeId,
        role: NodeRole,
        cluster: &ClusterId,
        life: Option<model::Duration>,
    ) -> Result<Issued, IdentityError> {
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|e| IdentityError::Read(e.to_string()));
        let ca_key = KeyPair::from_pem(&utf8(&self.key_pem)?)?;
        let issuer = Issuer::from_ca_cert_pem(&utf8(&self.cert_pem)?, ca_key)?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let unit = role_name(role);
        params.distinguished_name = name(&[
            (DnType::OrganizationName, cluster.as_str()),
            (DnType::OrganizationalUnitName, unit),
            (DnType::CommonName, node.as_str()),
        ]);
        let mut names = vec![unit, node.as_str()];
        if role == NodeRole::Manager {
            names.push("swarm-ca");
        }
        for dns in names {
            params.subject_alt_names.push(SanType::DnsName(dns.try_into()?));
        }
        let asked = life.map(|life| Duration::seconds(life.seconds)).filter(|life| *life >= MIN_NODE_LIFE);
        params.not_before = rounded_now() - NODE_BACKDATE;
        params.not_after = params.not_before + NODE_BACKDATE + asked.unwrap_or(DEFAULT_NODE_LIFE);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = key_identifier(&key);
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued { cert_pem: certificate.pem().into_bytes(), key_pem: key.serialize_pem().into_bytes() })
    }
}

/// The OU of a role.
pub(crate) fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Worker => "swarm-worker",
        NodeRole::Manager => "swarm-manager",
    }
}

/// Printable strings where they can be, as Go encodes them: programs compare subjects byte for byte.
fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, text) in parts {
        match PrintableString::try_from(*text) {
            Ok(printable) => name.push(kind.clone(), DnValue::PrintableString(printable)),
            Err(_) => name.push(kind.clone(), *text),
        }
    }
    name
}

/// 20 random bytes with the top bit cleared.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 20] = random_bytes();
    bytes[0] &= 0x7f;
    SerialNumber::from_slice(&bytes)
}

/// SHA-1 of the public key's bit string, as Go makes it.
fn key_identifier(key: &KeyPair) -> KeyIdMethod {
    KeyIdMethod::PreSpecified(digest(&SHA1_FOR_LEGACY_USE_ONLY, key.public_key_raw()).as_ref().to_vec())
}

/// Now, rounded to the minute.
fn rounded_now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    let seconds = (now.unix_timestamp() + 30) / 60 * 60;
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(now)
}

/// When the first certificate of a PEM bundle expires; `None` for none.
pub fn certificate_expiry(pem: &[u8]) -> Option<Timestamp> {
    let pem = Pem::iter_from_buffer(pem).next()?.ok()?;
    let certificate = pem.parse_x509().ok()?;
    Some(Timestamp { seconds: certificate.validity().not_after.timestamp(), nanos: 0 })
}

/// What a node tells of its certificate: trust root, issuer's subject and public key, both DER.
pub fn tls_info(root_pem: &[u8], issuer_pem: &[u8]) -> Result<NodeTlsInfo, IdentityError> {
    let unreadable = |error: &dyn std::fmt::Display| IdentityError::Read(error.to_string());
    let pem = Pem::iter_from_buffer(issuer_pem).next().ok_or_else(|| unreadable(&"no certificate"))?;
    let pem = pem.map_err(|error| unreadable(&error))?;
    let issuer = pem.parse_x509().map_err(|error| unreadable(&error))?;
    Ok(NodeTlsInfo {
        trust_root: root_pem.to_vec(),
        cert_issuer_subject: issuer.subject().as_raw().to_vec(),
        cert_issuer_public_key: issuer.public_key().raw.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_certificate_says_who_it_is() {
        let root = RootAuthority::generate().unwrap();
        let cluster = ClusterId::from("cluster");
        let issued = root.issue(&"node".into(), NodeRole::Manager, &cluster, None).unwrap();
        let pem = Pem::iter_from_buffer(&issued.cert_pem).next().unwrap().unwrap();
        let leaf = pem.parse_x509().unwrap();
        let root_pem = Pem::iter_from_buffer(&root.cert_pem).next().unwrap().unwrap();
        let ca = root_pem.parse_x509().unwrap();
        assert_eq!(leaf.subject().to_string(), "O=cluster, OU=swarm-manager, CN=node");
        assert_eq!(leaf.issuer(), ca.subject());
        assert_eq!(ca.subject().to_string(), "CN=swarm-ca");
        // as Go writes it: a set of one sequence, the type, and a printable string (tag 0x13)
        assert_eq!(ca.subject().as_raw(), b"\x30\x13\x31\x11\x30\x0f\x06\x03\x55\x04\x03\x13\x08swarm-ca");
        assert!(ca.is_ca() && !leaf.is_ca());
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 3);
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(life, (2160 + 1) * 3600);
        let ca_life = ca.validity().not_after.timestamp() - ca.validity().not_before.timestamp();
        assert_eq!(ca_life, ROOT_SECONDS);
        assert_eq!(certificate_expiry(&issued.cert_pem).unwrap().seconds, leaf.validity().not_after.timestamp());
        let info = tls_info(&root.cert_pem, &root.cert_pem).unwrap();
        assert_eq!(info.cert_issuer_public_key, ca.public_key().raw);
    }
}
