//! Capabilities: dockerd's default set, and what `--cap-add`, `--cap-drop` and `--privileged` make of it.
//!
//! Pure. Caller: `spec::build`, and the validation of `create`.

use oci_spec::runtime::{Capabilities, Capability};

use super::SpecError;

/// dockerd 28's default set, in its order.
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// All that Linux knows, in the kernel's order (bit 0 first).
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Whether a container is `--privileged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privilege {
    /// Confined.
    #[default]
    Ordinary,
    /// `--privileged`.
    Privileged,
}

enum Named {
    All,
    One(Capability),
}

/// The capabilities of a container. `available` limits what `ALL` means (what the daemon itself may give away).
pub fn resolve(
    privilege: Privilege,
    add: &[String],
    drop: &[String],
    available: &Capabilities,
) -> Result<Capabilities, SpecError> {
    // The names are checked even where they have no effect, as dockerd does.
    let add = add.iter().map(|name| parse(name)).collect::<Result<Vec<_>, _>>()?;
    let drop = drop.iter().map(|name| parse(name)).collect::<Result<Vec<_>, _>>()?;
    let every = || ALL.iter().copied().filter(|capability| available.contains(capability));
    if privilege == Privilege::Privileged {
        return Ok(every().collect());
    }
    let adds_all = add.iter().any(|named| matches!(named, Named::All));
    let drops_all = drop.iter().any(|named| matches!(named, Named::All));
    let dropped =
        |capability: &Capability| drop.iter().any(|named| matches!(named, Named::One(one) if one == capability));
    let added = add.iter().filter_map(|named| match named {
        Named::One(capability) => Some(*capability),
        Named::All => None,
    });
    Ok(match (adds_all, drops_all) {
        // Everything but what is dropped by name.
        (true, _) => every().filter(|capability| !dropped(capability)).collect(),
        // Nothing but what is added by name.
        (false, true) => added.collect(),
        (false, false) => DEFAULT.iter().copied().filter(|capability| !dropped(capability)).chain(added).collect(),
    })
}

/// `net_admin`, `CAP_NET_ADMIN`, `ALL`, in any case.
fn parse(name: &str) -> Result<Named, SpecError> {
    let upper = name.trim().to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(Named::All);
    }
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    bare.parse().map(Named::One).map_err(|_| SpecError::UnknownCapability(format!("CAP_{bare}")))
}
