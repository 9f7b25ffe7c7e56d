//! `update`: new limits for an existing cgroup, through the same code that `create` uses.
//!
//! Invariant: rules for devices are left as they are. Caller: `lifecycle`.

use std::path::Path;

use libcgroups::common::{CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use libcontainer::oci_spec::runtime::LinuxResources;

use crate::error::{RuntimeError, chain};

/// Writes the limits that are set in `resources`.
pub(crate) fn apply(cgroup: &Path, resources: &LinuxResources) -> Result<(), RuntimeError> {
    let config = CgroupConfig { cgroup_path: cgroup.to_owned(), systemd_cgroup: false, container_name: String::new() };
    let manager = create_cgroup_manager(config).map_err(|error| RuntimeError::Container(chain(&error)))?;
    let options = ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
    manager.apply(&options).map_err(|error| RuntimeError::Container(chain(&error)))
}
