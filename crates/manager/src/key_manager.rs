//! The keys of the nodes' gossip and of encrypted networks: made where there are none, and one of each kind replaced every
//! twelve hours. The rotation is pure; the loop around it runs while this manager leads.
//!
//! Invariants: all keys share one clock; a change adds one key of a kind at the most and drops one at the most, since
//! nodes take no more; of three keys the middle one is in use, so nodes have each key before any of them sends with it.

use std::sync::Arc;
use std::time::Duration;

use model::{Cluster, EncryptionAlgorithm, EncryptionKey};

use crate::error::ControlError;
use crate::writer::Writer;

/// What the keys are for.
const SUBSYSTEMS: [&str; 2] = ["networking:gossip", "networking:ipsec"];
/// Keys of each kind.
const KEYS_EACH: usize = 3;
/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;
/// Time between rotations; SwarmKit's.
const ROTATION_INTERVAL: Duration = Duration::from_secs(12 * 3600);

/// Runs until the leadership ends. Each leader counts from its beginning, as SwarmKit's do.
pub(crate) async fn run(writer: Arc<Writer>) {
    change(&writer, fill_up).await;
    loop {
        tokio::time::sleep(ROTATION_INTERVAL).await;
        change(&writer, rotate).await;
    }
}

async fn change(writer: &Writer, edit: fn(&mut Cluster, fn() -> [u8; KEY_BYTES])) {
    let written = writer.write(|transaction| {
        let Some(stored) = transaction.the_cluster().cloned() else { return Ok(()) };
        let mut cluster = Cluster::clone(&stored);
        edit(&mut cluster, identity::random_bytes);
        if cluster == *stored { Ok(()) } else { transaction.update(cluster).map_err(ControlError::from) }
    });
    if let Err(error) = written.await {
        tracing::warn!(%error, "network keys could not be changed");
    }
}

/// A cluster without keys of a kind gets all of them. One with too few gets the next at each rotation.
pub(crate) fn fill_up(cluster: &mut Cluster, random: fn() -> [u8; KEY_BYTES]) {
    for subsystem in SUBSYSTEMS {
        if !cluster.network_bootstrap_keys.iter().any(|key| key.subsystem == subsystem) {
            (0..KEYS_EACH).for_each(|_| add(cluster, subsystem, random()));
        }
    }
}

/// Each kind gets a new key and loses its oldest one.
pub(crate) fn rotate(cluster: &mut Cluster, random: fn() -> [u8; KEY_BYTES]) {
    for subsystem in SUBSYSTEMS {
        let of_kind = || cluster.network_bootstrap_keys.iter().filter(|key| key.subsystem == subsystem);
        let count = of_kind().count();
        let oldest = of_kind().map(|key| key.lamport_time).min();
        if count >= KEYS_EACH {
            cluster.network_bootstrap_keys.retain(|key| key.subsystem != subsystem || Some(key.lamport_time) != oldest);
        }
        // With more than there should be, only the oldest goes.
        if count <= KEYS_EACH {
            add(cluster, subsystem, random());
        }
    }
}

fn add(cluster: &mut Cluster, subsystem: &str, key: [u8; KEY_BYTES]) {
    let newest = cluster.network_bootstrap_keys.iter().map(|key| key.lamport_time).max().unwrap_or(0);
    // The stored clock may be behind if another program wrote the keys.
    let lamport_time = cluster.encryption_key_lamport_clock.max(newest) + 1;
    cluster.encryption_key_lamport_clock = lamport_time;
    cluster.network_bootstrap_keys.push(EncryptionKey {
        subsystem: subsystem.to_owned(),
        algorithm: EncryptionAlgorithm::Aes128Gcm,
        key: key.to_vec(),
        lamport_time,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{cluster, create, leading_writer};

    fn times(cluster: &Cluster, subsystem: &str) -> Vec<u64> {
        let keys = cluster.network_bootstrap_keys.iter().filter(|key| key.subsystem == subsystem);
        keys.map(|key| key.lamport_time).collect()
    }

    #[test]
    fn one_key_of_each_kind_is_replaced() {
        let mut cluster = Cluster { encryption_key_lamport_clock: 100, ..Default::default() };
        let key = || [7; KEY_BYTES];
        fill_up(&mut cluster, key);
        assert_eq!(times(&cluster, SUBSYSTEMS[0]), [101, 102, 103]);
        assert_eq!(times(&cluster, SUBSYSTEMS[1]), [104, 105, 106]);
        let filled = cluster.clone();
        fill_up(&mut cluster, key);
        assert_eq!(cluster, filled);
        rotate(&mut cluster, key);
        assert_eq!(times(&cluster, SUBSYSTEMS[0]), [102, 103, 107]);
        assert_eq!(times(&cluster, SUBSYSTEMS[1]), [105, 106, 108]);
        assert_eq!(cluster.encryption_key_lamport_clock, 108);
    }

    #[test]
    fn other_numbers_of_keys_are_put_right_one_by_one() {
        let key = || [7; KEY_BYTES];
        let mut cluster = Cluster::default();
        for _ in 0..5 {
            add(&mut cluster, SUBSYSTEMS[0], key());
        }
        add(&mut cluster, SUBSYSTEMS[1], key());
        let mut counts = Vec::new();
        for _ in 0..3 {
            rotate(&mut cluster, key);
            counts.push(SUBSYSTEMS.map(|subsystem| times(&cluster, subsystem).len()));
        }
        assert_eq!(counts, [[4, 2], [3, 3], [3, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_rotates_every_twelve_hours() {
        let writer = leading_writer().await;
        create(&writer, vec![cluster().into()]).await;
        let rotation = tokio::spawn(run(writer.clone()));
        let mut seen = writer.shared().watch();
        let has_keys =
            |view: &store::View| view.the_cluster().filter(|it| !it.network_bootstrap_keys.is_empty()).cloned();
        let first = seen.until(has_keys).await.unwrap();
        let begun = tokio::time::Instant::now();
        let newer = |view: &store::View| view.the_cluster().filter(|it| it.meta.version > first.meta.version).cloned();
        seen.until(newer).await.unwrap();
        assert_eq!(begun.elapsed(), ROTATION_INTERVAL);
        rotation.abort();
    }
}
