//! Compiles proto/*.proto with protox: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let raft = protox::compile(["proto/raftpb.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(raft)?;
    let swarm = protox::compile(["proto/swarmkit.proto"], ["proto"])?;
    tonic_prost_build::configure().extern_path(".raftpb", "crate::raftpb").compile_fds(swarm)?;
    Ok(())
}
