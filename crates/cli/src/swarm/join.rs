//! `skep swarm join` and `skep swarm leave`.

#![allow(rustdoc::broken_intra_doc_links, reason = "doc comments are help texts: brackets stand for what is optional")]

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::context::Context;
use crate::json::at;

/// Options of `swarm join`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Advertised address (format: "<ip|interface>[:port]").
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// Availability of the node (active, pause, drain).
    #[arg(long, default_value = "active")]
    availability: String,
    /// Address or interface to use for data path traffic.
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// Listen address (format: "<ip|interface>[:port]").
    #[arg(long, default_value = "0.0.0.0:2377")]
    listen_addr: String,
    /// Token for entry into the swarm.
    #[arg(long, default_value = "", hide_default_value = true)]
    token: String,
    /// A manager of the swarm.
    remote: String,
}

impl Join {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let body = json!({
            "ListenAddr": self.listen_addr, "AdvertiseAddr": self.advertise_addr, "DataPathAddr": self.data_path_addr,
            "RemoteAddrs": [self.remote], "JoinToken": self.token, "Availability": self.availability,
        });
        context.client.post("/swarm/join", Some(&body)).await?;
        let info: Value = context.client.get("/info").await?;
        let manager = at(&info, "Swarm.ControlAvailable").as_bool().unwrap_or(false);
        println!("This node joined a swarm as a {}.", if manager { "manager" } else { "worker" });
        Ok(())
    }
}

/// Options of `swarm leave`.
#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// Force this node to leave the swarm, ignoring warnings.
    #[arg(short, long)]
    force: bool,
}

impl Leave {
    pub(crate) async fn run(self, context: &Context) -> Result<()> {
        let path = if self.force { "/swarm/leave?force=1" } else { "/swarm/leave" };
        context.client.post(path, None::<&Value>).await?;
        println!("Node left the swarm.");
        Ok(())
    }
}
