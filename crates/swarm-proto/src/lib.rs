//! SwarmKit's protobuf messages and gRPC services as they travel between nodes, and their conversions to and from
//! `model`. Conversions lose nothing and decide nothing.

#![forbid(unsafe_code)]

pub mod convert;

/// Package `docker.swarmkit.v1`: messages, clients and servers.
#[allow(missing_docs, clippy::all, reason = "generated from proto/swarmkit.proto, where the documentation is")]
pub mod swarmkit {
    tonic::include_proto!("docker.swarmkit.v1");
}

/// Package `raftpb`: etcd raft's messages.
#[allow(missing_docs, clippy::all, reason = "generated from proto/raftpb.proto, where the documentation is")]
pub mod raftpb {
    tonic::include_proto!("raftpb");
}
