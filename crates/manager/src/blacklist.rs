//! Removed nodes: their certificates are refused for as long as they are valid. Pure.

use model::{BlacklistedCertificate, Cluster, Node, Timestamp};

/// How long an entry stays behind its certificate's end, for managers whose clocks are slow; SwarmKit's.
const GRACE_SECS: i64 = 7 * 24 * 3600;

/// Refuses a node's certificate from now on. One whose end is not known is refused for ever.
pub(crate) fn refuse(cluster: &mut Cluster, node: &Node) {
    let expiry = identity::certificate_expiry(&node.certificate.certificate);
    cluster.blacklisted_certificates.insert(node.id.to_string(), BlacklistedCertificate { expiry });
}

/// Forgets the entries of certificates that nobody takes any more.
pub(crate) fn forget_expired(cluster: &mut Cluster, now: Timestamp) {
    let is_over = |entry: &BlacklistedCertificate| {
        entry.expiry.is_some_and(|expiry| expiry.seconds.saturating_add(GRACE_SECS) < now.seconds)
    };
    cluster.blacklisted_certificates.retain(|_, entry| !is_over(entry));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_a_week_longer_than_its_certificate() {
        let mut cluster = Cluster::default();
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let mut put = |id: &str, expiry| {
            cluster.blacklisted_certificates.insert(id.to_owned(), BlacklistedCertificate { expiry });
        };
        put("over", Some(at(1_000)));
        put("for ever", None);
        refuse(&mut cluster, &Node { id: "unknown".into(), ..Node::default() });
        forget_expired(&mut cluster, at(1_000 + GRACE_SECS));
        assert_eq!(cluster.blacklisted_certificates.len(), 3);
        forget_expired(&mut cluster, at(1_001 + GRACE_SECS));
        let left: Vec<_> = cluster.blacklisted_certificates.keys().cloned().collect();
        assert_eq!(left, ["for ever", "unknown"]);
    }
}
