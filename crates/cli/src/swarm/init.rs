//! `skep swarm init`.

#![allow(rustdoc::broken_intra_doc_links, reason = "doc comments are help texts: brackets stand for what is optional")]

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::{token, update};
use crate::context::Context;

/// Options of `swarm init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Advertised address (format: "<ip|interface>[:port]").
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// Enable manager autolocking (requiring an unlock key to start a stopped manager).
    #[arg(long)]
    autolock: bool,
    /// Availability of the node (active, pause, drain).
    #[arg(long, default_value = "active")]
    availability: String,
    /// Address or interface to use for data path traffic.
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// Port number to use for data path traffic (1024 - 49151); 0 is 4789.
    #[arg(long, default_value_t = 0)]
    data_path_port: u32,
    /// Default address pool in CIDR format.
    #[arg(long, value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length.
    #[arg(long, default_value_t = 24)]
    default_addr_pool_mask_length: u32,
    /// Force create a new cluster from current state.
    #[arg(long)]
    force_new_cluster: bool,
    /// Listen address (format: "<ip|interface>[:port]").
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    #[command(flatten)]
    spec: update::SpecOptions,
}

impl Init {
    pub(crate) async fn run(self: Box<Self>, context: &Context) -> Result<()> {
        let mut spec = json!({"Name": "default", "Labels": {}, "Orchestration": {}, "Raft": {}, "Dispatcher": {},
            "CAConfig": {}, "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": self.autolock}});
        self.spec.apply(&mut spec, "")?;
        let body = json!({
            "ListenAddr": self.listen_addr, "AdvertiseAddr": self.advertise_addr, "DataPathAddr": self.data_path_addr,
            "DataPathPort": self.data_path_port, "DefaultAddrPool": self.default_addr_pool,
            "SubnetSize": self.default_addr_pool_mask_length, "ForceNewCluster": self.force_new_cluster,
            "AutoLockManagers": self.autolock, "Availability": self.availability, "Spec": spec,
        });
        let answer = context.client.post("/swarm/init", Some(&body)).await.map_err(advise)?;
        let node: String = serde_json::from_slice(&answer)?;
        println!("Swarm initialized: current node ({node}) is now a manager.\n");
        print!("{}", token::join_text(context, "worker").await?);
        println!("To add a manager to this swarm, run 'skep swarm join-token manager' and follow the instructions.");
        if self.autolock {
            let key: Value = context.client.get("/swarm/unlockkey").await?;
            print!("{}", token::unlock_key_text(&key));
        }
        Ok(())
    }
}

fn advise(error: client::ClientError) -> anyhow::Error {
    let text = error.to_string();
    if text.contains("could not choose an IP address") || text.contains("could not find the system's IP address") {
        return anyhow::anyhow!("{text} - specify one with --advertise-addr");
    }
    error.into()
}
