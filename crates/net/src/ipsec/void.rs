//! The link that leads nowhere. It is a bridge without ports: every kernel that has networks of ours has bridges.
//!
//! The kernel takes an entry of a tunnel that names a link only if the tunnel's own namespace has a link with that number,
//! whatever it is, and uses the number in the host's namespace. So the number is fixed, and the first bridge of an encrypted
//! network has it too.

use crate::links::Links;
use crate::state::kernel;
use crate::{NetConfig, NetError};

/// Longest link name of the kernel.
const NAME_BYTES: usize = 15;
const SUFFIX: &str = "-void";
/// Whatever the physical links take: packets are measured by the link that they leave by.
const MTU: u32 = 65535;
/// Numbers that kernels give by themselves are far below.
const FIRST_INDEX: u32 = 0x0100_0000;

/// Name and number of a daemon's void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Void {
    pub(crate) name: String,
    pub(crate) index: u32,
}

impl Void {
    /// That of the daemon with this configuration: another has other tables.
    pub(crate) fn of(config: &NetConfig) -> Self {
        let prefix = &config.table_prefix;
        let kept: String = prefix.chars().take(NAME_BYTES - SUFFIX.len()).collect();
        let hash = prefix.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        Self { name: format!("{kept}{SUFFIX}"), index: FIRST_INDEX + (hash & 0x00ff_ffff) }
    }

    /// Makes it if it is missing.
    pub(crate) async fn ensure(&self, links: &Links) -> Result<(), NetError> {
        let action = || kernel(format!("make link {}", self.name));
        if links.index(&self.name).await.map_err(action())?.is_some_and(|index| index != self.index) {
            links.remove(&self.name).await.map_err(action())?;
        }
        links.ensure_numbered_bridge(&self.name, self.index, None, MTU).await.map_err(action())?;
        Ok(())
    }

    /// Whether it is there.
    pub(crate) async fn is_there(&self, links: &Links) -> Result<bool, NetError> {
        let found = links.index(&self.name).await.map_err(kernel(format!("find link {}", self.name)))?;
        Ok(found.is_some())
    }

    /// Removes it. `Ok` if there is none.
    pub(crate) async fn remove(&self, links: &Links) -> Result<(), NetError> {
        links.remove(&self.name).await.map_err(kernel(format!("remove link {}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemons_have_different_voids_whose_names_fit() {
        let void = |prefix: &str| Void::of(&NetConfig { table_prefix: prefix.to_owned(), ..NetConfig::default() });
        assert_eq!(void("skep").name, "skep-void");
        assert_eq!(void("a-rather-long-prefix").name, "a-rather-l-void");
        assert_ne!(void("skep").index, void("other").index);
        assert!([void("skep"), void("skep-test-8231")].iter().all(|void| (1 << 24..1 << 25).contains(&void.index)));
    }
}
