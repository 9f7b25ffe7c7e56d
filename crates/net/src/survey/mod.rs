//! Looking at this machine for `doctor`: what the kernel can do, what it is set to, who else is there. Nothing is changed:
//! what has to be tried is tried in a namespace of its own. Also without a daemon.

mod card;
mod holders;
mod kernel;
mod links;
mod matches;
mod rules;

use doctor::firewall::Rules;
use doctor::{Conntrack, Host, LegacyPolicies, Own};

use crate::ingress::sandbox_path;
use crate::legacy;
use crate::links::Links;
use crate::netns::Namespace;
use crate::{Net, NetConfig, NetError};

/// Ports of a swarm whose holders are looked for, VXLAN's beside.
const SWARM_PORTS: [u16; 2] = [2377, 7946];

/// Whose the table of connections of the daemon's own namespace is.
const THIS_MACHINE: &str = "this machine";

/// What a daemon with these settings makes here.
pub fn own_names(config: &NetConfig) -> Own {
    let tables =
        ["filter", "ports", "ingress", "overlay", "ipsec"].map(|what| format!("{}-{what}", config.table_prefix));
    let stand_ins = tables.iter().map(|table| format!("{table}-stand-in")).collect::<Vec<_>>();
    Own {
        tables: tables.into_iter().chain(stand_ins).collect(),
        bridges: vec![config.bridge_name.clone(), config.gwbridge_name.clone()],
    }
}

/// Looks. What cannot be seen is left out; only without a route netlink socket nothing can be.
pub async fn survey(own: Own, data_path_port: u16) -> Result<Host, NetError> {
    let mut host = look_at_links(own).await?;
    host.features = kernel::features().await;
    // Small files of /proc, and requests that the kernel answers while they are made.
    let looked = tokio::task::spawn_blocking(move || {
        host.name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        host.kernel = kernel::release();
        host.settings = kernel::settings();
        host.conntracks.extend(kernel::conntrack(THIS_MACHINE));
        host.clock = kernel::clock();
        host.firewall = read_rules(&host.own);
        host.legacy = legacy_policies();
        host.holders = holders::find(&SWARM_PORTS, data_path_port);
        card::fill(&mut host.links);
        host
    });
    Ok(looked.await.expect("looking does not panic"))
}

/// Tables of connections; nothing where the kernel has none.
#[derive(Clone, Debug, Default)]
pub struct Conntracks {
    /// This machine's.
    pub host: Option<Conntrack>,
    /// That of the mesh, which has a namespace of its own.
    pub mesh: Option<Conntrack>,
}

impl Net {
    /// The tables of connections. Reads small files of `/proc`, the mesh's on a thread of its own.
    pub fn conntracks(&self) -> Conntracks {
        Conntracks { host: kernel::conntrack(THIS_MACHINE), mesh: self.mesh_conntrack() }
    }

    /// The table of connections through the mesh.
    pub fn mesh_conntrack(&self) -> Option<Conntrack> {
        let path = sandbox_path(&self.inner().config);
        let namespace = Namespace::pinned(&path).ok().flatten()?;
        namespace.enter(|| Ok(kernel::conntrack("the mesh"))).ok().flatten()
    }
}

/// Looks at links and at the firewall only: enough to tell a peer what keeps its packets out.
pub async fn survey_firewall(own: Own) -> Result<Host, NetError> {
    let mut host = look_at_links(own).await?;
    let looked = tokio::task::spawn_blocking(move || {
        host.firewall = read_rules(&host.own);
        host
    });
    Ok(looked.await.expect("looking does not panic"))
}

async fn look_at_links(own: Own) -> Result<Host, NetError> {
    let action = crate::state::kernel;
    let here = Namespace::current().map_err(action("open the host's network namespace"))?;
    let links = Links::open_in(&here).map_err(action("open a route netlink socket"))?;
    let mut host = Host { own, ..Host::default() };
    links::fill(&links, &mut host).await.map_err(action("list links and routes"))?;
    Ok(host)
}

fn read_rules(own: &Own) -> Rules {
    rules::read(&own.tables).map_or_else(|error| Rules::Unread(error.to_string()), Rules::Read)
}

fn legacy_policies() -> LegacyPolicies {
    let read = || {
        Ok::<_, std::io::Error>(LegacyPolicies {
            input_drops: legacy::drops(legacy::Chain::Input)?,
            forward_drops: legacy::drops(legacy::Chain::Forward)?,
            output_drops: legacy::drops(legacy::Chain::Output)?,
        })
    };
    read().unwrap_or_default()
}
