//! Who is who in a swarm: the cluster's root CA, node certificates, join tokens, keys, how they lie on disk, and TLS
//! between nodes. Formats are SwarmKit's, so that a dockerd can take them over.
//!
//! What decides is a plain function with the time as a parameter; only `dial`, `listen`, `join` and `external` touch a
//! socket.

#![forbid(unsafe_code)]

mod authority;
mod authorize;
mod bundle;
mod certificate;
mod chain;
mod csr;
mod der;
mod dial;
mod disk;
mod external;
mod join;
mod keys;
mod listen;
mod lock;
mod pem;
mod places;
mod random;
mod renewal;
mod rotation;
mod signature;
mod tls;
mod token;

pub use authority::{
    DEFAULT_NODE_LIFE_SECONDS, IssueError, Issued, IssuerInfo, LeafRequest, MIN_NODE_LIFE_SECONDS, RootAuthority,
    SignError, Signer, SignerError,
};
pub use authorize::{Refusal, authorize};
pub use bundle::{BundleError, MAX_ROOTS, RootBundle};
pub use certificate::{CertificateError, PeerIdentity, certificate_expiry, role_name, tls_info};
pub use chain::{ChainError, Expiry, NodeCredential, Usage, verify_chain};
pub use csr::{CsrError, NodeKey};
pub use dial::{CONNECT_TIMEOUT, DialError, connect, connect_lazy, tls_connect};
pub use disk::{CertificateFiles, CredentialsError, DiskError, NodeIdentity};
pub use external::{ExternalError, ExternalSigner, probe_external_ca};
pub use join::{
    CertificateRequest, Granted, JoinError, Outcome, RemoteList, Remotes, TRIES, UnlockKey, fetch_root,
    fetch_unlock_key, request_certificate,
};
pub use keys::{KeyFile, parse_unlock_key, unlock_key_text};
pub use listen::{ListenLimits, PeerInfo, PeerListener, PeerStream, tls_accept};
pub use lock::KeyFileError;
pub use pem::normalize_certificates;
pub use places::{Full, Place, Places, host_of};
pub use random::{new_dek, new_kek, random_bytes, random_id, random_raft_id, system_now};
pub use renewal::{FORCED_PAUSE, RenewalBackOff, UNREADABLE_PAUSE, next_renewal};
pub use rotation::{
    ActiveSigner, CaOutcome, CaPlan, CaProbe, CaRefusal, WhichCa, finish_rotation, plan_root_ca, settle_root_ca,
    wanted_issuer,
};
pub use signature::SignatureError;
pub use tls::{CredentialState, Credentials, ServerRole, unverified_client_config};
pub use token::{JoinToken, TokenError, ca_cert_hash, new_join_token, tokens_equal};
