//! What a changed CA configuration does to a cluster's root: nothing, another key, or a rotation, of which the old root
//! vouches for the new one until every node has a certificate of the new one.
//!
//! ```text
//!   root ── start: cross-signed ──► root + rotation ── every node reports the new issuer ──► new root, new tokens
//!     ▲                                   │ the old certificate is wanted again
//!     └───────────────────────────────────┘
//! ```
//!
//! [`plan_root_ca`] decides without IO; [`settle_root_ca`] asks external CAs what it has to ask. Whoever stores the
//! result is the caller.

use model::{CaConfig, CaProtocol, JoinTokens, RootCa, RootRotation, Timestamp};

use crate::authority::{IssuerInfo, RootAuthority, Signer, SignerError};
use crate::bundle::{BundleError, RootBundle};
use crate::certificate::{self, CertificateError};
use crate::chain::NodeCredential;
use crate::external::{ExternalSigner, probe_external_ca};
use crate::pem::normalize_certificates;
use crate::token::{ca_cert_hash, new_join_token};

/// Least life that a desired root must have left: a year.
const MIN_ROOT_LIFE_SECONDS: i64 = 365 * 86_400;

/// Which of a cluster's CA certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichCa {
    /// The root that nodes trust.
    Current,
    /// The one of the running rotation.
    Next,
    /// The one of the new configuration.
    Desired,
}

impl std::fmt::Display for WhichCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Next => "next",
            Self::Desired => "desired",
        })
    }
}

/// Why a CA configuration is refused; `InvalidArgument` but for [`CaRefusal::CrossSign`], which is `Internal`. Texts are
/// SwarmKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaRefusal {
    /// A key alone.
    #[error("if a signing CA key is provided, the signing CA cert must also be provided")]
    KeyWithoutCertificate,
    /// A bundle.
    #[error("the desired CA certificate cannot contain multiple certificates")]
    MultipleCertificates,
    /// No certificate.
    #[error("could not parse the desired CA certificate")]
    Unreadable,
    /// Less than a year left.
    #[error("CA certificate expires too soon")]
    ExpiresTooSoon,
    /// Key and certificate do not fit, or are not a CA's.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The certificate is not a CA's.
    #[error(transparent)]
    Root(#[from] BundleError),
    /// Neither CA's key is here.
    #[error("rotating from one external CA to a different external CA is not supported")]
    ExternalToExternal,
    /// The old CA's key is not here, nor a place to ask it.
    #[error("must provide an external CA for the current external root CA to generate a cross-signed certificate")]
    NoExternalForCurrent,
    /// No external CA answers for a certificate whose key is not here.
    #[error("there must be at least one valid, reachable external CA corresponding to the {0} CA certificate")]
    Unreachable(WhichCa),
    /// The old CA did not sign the new one.
    #[error("unable to generate a cross-signed certificate for root rotation")]
    CrossSign {
        /// Why, for the log.
        reason: String,
    },
}

/// What is to be done.
#[derive(Debug)]
pub struct CaPlan {
    /// External CAs that must answer first.
    pub probes: Vec<CaProbe>,
    /// What then becomes of the root.
    pub outcome: CaOutcome,
}

/// External CAs of which one must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaProbe {
    /// Where.
    pub urls: Vec<String>,
    /// What their certificates must lead to, PEM.
    pub root_pem: Vec<u8>,
    /// What they are asked for.
    pub which: WhichCa,
}

/// What becomes of the root.
#[derive(Debug)]
pub enum CaOutcome {
    /// It stays.
    Keep,
    /// It becomes this.
    Replace(Box<RootCa>),
    /// It becomes this once an external CA has vouched for the new certificate.
    CrossSignExternally {
        /// The root with the rotation, whose cross-signed certificate is still missing.
        root_ca: Box<RootCa>,
        /// Whom to ask.
        urls: Vec<String>,
    },
}

/// Decides what a new configuration does to a root.
pub fn plan_root_ca(current: &RootCa, config: &CaConfig, now: Timestamp) -> Result<CaPlan, CaRefusal> {
    let desired = normalize_certificates(&config.signing_ca_cert);
    if !config.signing_ca_key.is_empty() && config.signing_ca_cert.is_empty() {
        return Err(CaRefusal::KeyWithoutCertificate);
    }
    if desired.is_empty() && !config.signing_ca_cert.is_empty() {
        return Err(CaRefusal::Unreadable);
    }
    let root_pem = normalize_certificates(&current.ca_cert);
    let has_key = !current.ca_key.is_empty();
    let wants_key = !config.signing_ca_key.is_empty();
    let mut probes = Vec::new();
    let adds_the_key = desired == root_pem && wants_key;
    if !has_key && !adds_the_key {
        probes.push(probe(config, &root_pem, &root_pem, WhichCa::Current)?);
    }
    if desired.is_empty() {
        let outcome = if current.last_forced_rotation == config.force_rotate {
            if let Some(rotation) = current.root_rotation.as_ref().filter(|rotation| rotation.ca_key.is_empty()) {
                let next = normalize_certificates(&rotation.ca_cert);
                probes.push(probe(config, &next, &root_pem, WhichCa::Next)?);
            }
            CaOutcome::Keep
        } else {
            let failed = |reason: String| CaRefusal::CrossSign { reason };
            let new = RootAuthority::generate(now).map_err(|error| failed(error.to_string()))?;
            start_rotation(current, config, new.cert_pem, new.key_pem)?
        };
        return Ok(CaPlan { probes, outcome });
    }
    check_desired(&desired, config, now)?;
    if !wants_key {
        probes.push(probe(config, &desired, &root_pem, WhichCa::Desired)?);
    }
    let key = config.signing_ca_key.clone();
    let mut changed = current.clone();
    changed.last_forced_rotation = config.force_rotate;
    if desired == root_pem {
        changed.ca_key = key;
        changed.root_rotation = None;
        return Ok(CaPlan { probes, outcome: CaOutcome::Replace(Box::new(changed)) });
    }
    if let Some(rotation) = &mut changed.root_rotation
        && normalize_certificates(&rotation.ca_cert) == desired
    {
        rotation.ca_key = key;
        return Ok(CaPlan { probes, outcome: CaOutcome::Replace(Box::new(changed)) });
    }
    Ok(CaPlan { probes, outcome: start_rotation(current, config, desired, key)? })
}

/// Whether a certificate that was given can be a cluster's root.
fn check_desired(desired: &[u8], config: &CaConfig, now: Timestamp) -> Result<(), CaRefusal> {
    let roots = RootBundle::parse(desired).map_err(|error| match error {
        BundleError::Certificate(_) => CaRefusal::Unreadable,
        other => CaRefusal::Root(other),
    })?;
    if roots.certificates().len() != 1 {
        return Err(CaRefusal::MultipleCertificates);
    }
    if !config.signing_ca_key.is_empty() {
        Signer::new(desired, &config.signing_ca_key, &[])?;
    }
    let expiry = certificate::certificate_expiry(desired).ok_or(CaRefusal::Unreadable)?;
    if expiry.seconds < now.seconds.saturating_add(MIN_ROOT_LIFE_SECONDS) {
        return Err(CaRefusal::ExpiresTooSoon);
    }
    Ok(())
}

fn start_rotation(
    current: &RootCa,
    config: &CaConfig,
    ca_cert: Vec<u8>,
    ca_key: Vec<u8>,
) -> Result<CaOutcome, CaRefusal> {
    let mut root_ca = Box::new(current.clone());
    root_ca.last_forced_rotation = config.force_rotate;
    if !current.ca_key.is_empty() {
        // With the root that nodes trust, not with what signs now: a rotation may be under way.
        let failed = |reason: String| CaRefusal::CrossSign { reason };
        let old = Signer::new(&current.ca_cert, &current.ca_key, &[]).map_err(|error| failed(error.to_string()))?;
        let cross_signed_ca_cert = old.cross_sign(&ca_cert).map_err(|error| failed(error.to_string()))?;
        root_ca.root_rotation = Some(RootRotation { ca_cert, ca_key, cross_signed_ca_cert });
        return Ok(CaOutcome::Replace(root_ca));
    }
    if ca_key.is_empty() {
        return Err(CaRefusal::ExternalToExternal);
    }
    let root_pem = normalize_certificates(&current.ca_cert);
    let urls = external_urls(config, &root_pem, &root_pem);
    if urls.is_empty() {
        return Err(CaRefusal::NoExternalForCurrent);
    }
    root_ca.root_rotation = Some(RootRotation { ca_cert, ca_key, cross_signed_ca_cert: Vec::new() });
    Ok(CaOutcome::CrossSignExternally { root_ca, urls })
}

fn probe(config: &CaConfig, wanted: &[u8], root_pem: &[u8], which: WhichCa) -> Result<CaProbe, CaRefusal> {
    let urls = external_urls(config, wanted, root_pem);
    if urls.is_empty() {
        return Err(CaRefusal::Unreachable(which));
    }
    Ok(CaProbe { urls, root_pem: wanted.to_vec(), which })
}

/// The external CAs that sign with `wanted`; one that names no certificate signs with the current root. Both normalized.
fn external_urls(config: &CaConfig, wanted: &[u8], root_pem: &[u8]) -> Vec<String> {
    let signs = |own: &[u8]| if own.is_empty() { root_pem == wanted } else { normalize_certificates(own) == wanted };
    let fitting = config.external_cas.iter().filter(|ca| ca.protocol == CaProtocol::Cfssl && signs(&ca.ca_cert));
    fitting.map(|ca| ca.url.clone()).collect()
}

/// Decides, asks the external CAs that have to be asked, and tells what the root becomes; `None` if it stays.
pub async fn settle_root_ca(
    current: &RootCa,
    config: &CaConfig,
    node: Option<&NodeCredential>,
    now: Timestamp,
) -> Result<Option<RootCa>, CaRefusal> {
    let plan = plan_root_ca(current, config, now)?;
    for probe in &plan.probes {
        let unreachable = CaRefusal::Unreachable(probe.which);
        let Ok(root) = RootBundle::parse(&probe.root_pem) else { return Err(unreachable) };
        probe_external_ca(&probe.urls, &root, node).await.map_err(|_| unreachable)?;
    }
    let (mut root_ca, urls) = match plan.outcome {
        CaOutcome::Keep => return Ok(None),
        CaOutcome::Replace(root_ca) => return Ok(Some(*root_ca)),
        CaOutcome::CrossSignExternally { root_ca, urls } => (root_ca, urls),
    };
    let old = RootBundle::parse(&current.ca_cert)?;
    let signer = ExternalSigner { urls: &urls, tls_roots: &old, node, intermediates_pem: &[] };
    if let Some(rotation) = &mut root_ca.root_rotation {
        let signed = signer.cross_sign(&rotation.ca_cert, &rotation.ca_key, &old).await;
        rotation.cross_signed_ca_cert = signed.map_err(|error| CaRefusal::CrossSign { reason: error.to_string() })?;
    }
    Ok(Some(*root_ca))
}

/// Who signs nodes' requests now.
pub enum ActiveSigner {
    /// A key of the cluster's.
    Local(Signer),
    /// External CAs; what is appended to each leaf, PEM. No URL means that nobody signs.
    External {
        /// Where.
        urls: Vec<String>,
        /// Appended to each leaf.
        intermediates_pem: Vec<u8>,
        /// What their HTTPS certificates lead to: the root and, in a rotation, the new one.
        tls_roots: RootBundle,
    },
}

impl ActiveSigner {
    /// Of a cluster: the new root's key during a rotation, else the root's.
    pub fn of(root_ca: &RootCa, config: &CaConfig) -> Result<Self, SignerError> {
        let (cert, key, intermediates) = match &root_ca.root_rotation {
            Some(rotation) => (&rotation.ca_cert, &rotation.ca_key, rotation.cross_signed_ca_cert.as_slice()),
            None => (&root_ca.ca_cert, &root_ca.ca_key, [].as_slice()),
        };
        if !key.is_empty() {
            return Ok(Self::Local(Signer::new(cert, key, intermediates)?));
        }
        let (wanted, root_pem) = (normalize_certificates(cert), normalize_certificates(&root_ca.ca_cert));
        let both = if wanted == root_pem { root_pem.clone() } else { [&root_pem[..], &wanted[..]].concat() };
        let tls_roots = RootBundle::parse(&both).map_err(|_| SignerError::NoCertificate)?;
        let urls = external_urls(config, &wanted, &root_pem);
        Ok(Self::External { urls, intermediates_pem: normalize_certificates(intermediates), tls_roots })
    }
}

/// The issuer that every node must report before a rotation is over; without one, the root's own.
pub fn wanted_issuer(root_ca: &RootCa) -> Result<IssuerInfo, CertificateError> {
    IssuerInfo::of_ca(root_ca.root_rotation.as_ref().map_or(&root_ca.ca_cert, |rotation| &rotation.ca_cert))
}

/// The root after every node has reported the new issuer: new certificate and key, new tokens. `None` without a rotation.
pub fn finish_rotation(root_ca: &RootCa) -> Option<RootCa> {
    let rotation = root_ca.root_rotation.as_ref()?;
    Some(RootCa {
        ca_key: rotation.ca_key.clone(),
        ca_cert: rotation.ca_cert.clone(),
        ca_cert_hash: ca_cert_hash(&rotation.ca_cert),
        join_tokens: JoinTokens {
            worker: new_join_token(&rotation.ca_cert),
            manager: new_join_token(&rotation.ca_cert),
        },
        root_rotation: None,
        last_forced_rotation: root_ca.last_forced_rotation,
    })
}
