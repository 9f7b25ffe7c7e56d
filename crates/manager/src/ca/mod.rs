//! The cluster's CA: joiners' and nodes' requests become certificates, a new root takes the old one's place.
//!
//! ```text
//!  IssueNodeCertificate ─► node object PENDING or RENEW ─► signing loop ─► ISSUED | FAILED ─► NodeCertificateStatus
//!  UpdateCluster ─► root_rotation set ─► reconciler: nodes to ROTATE, 30 at a time ─► all renewed ─► new root, new tokens
//! ```
//!
//! Invariants: a token or a node's own certificate decides who a certificate is for, the node object which role it
//! gives, both read when it is signed *and* when it is written; what a request asks for is never looked at.

mod reconciler;
mod rotation;
mod service;
mod signer;
mod signing;

pub(crate) use reconciler::run_reconciler;
pub(crate) use service::CaService;
pub(crate) use signer::run_signer;
