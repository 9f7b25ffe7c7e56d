//! Encrypted networks as users see them where the kernel has no ESP. What they do where it has is tested by `cargo xtask vm`.

use crate::attachments::refusal;
use crate::hosts::{Host, Wire};

/// Whether the kernel has ESP with the algorithm that is needed: a state of it can be made.
fn has_esp(host: &Host) -> bool {
    let state = "xfrm state add src 127.0.0.1 dst 127.0.0.2 proto esp spi 0x999 \
                 aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1001020304 64";
    host.inside("ip").args(state.split_whitespace()).output().expect("ip").status.success()
}

#[test]
fn a_network_that_cannot_be_encrypted_is_said_in_the_tasks_state() {
    let wire = Wire::start(1);
    wire.init();
    let a = &wire.hosts[0];
    a.load_tiny();
    a.docker("network create -d overlay --attachable --opt encrypted secret");
    a.docker("service create -d --name web --network secret --restart-condition none tiny-service");
    if has_esp(a) {
        return a.until_replicas("web", "1/1");
    }
    let shown =
        a.until("service ps --no-trunc --format {{.CurrentState}}|{{.Error}} web", |out| out.contains("Rejected"));
    let reason =
        "network secret is to be encrypted, which this machine cannot do: its kernel has no ESP with AES-GCM (";
    assert!(shown.contains(reason) && shown.contains("; nothing of it is sent"), "{shown}");
    // a plain container hears the same
    let refused = refusal(a, "run --rm --network secret tiny-service exit 0");
    assert!(refused.contains(reason), "{refused}");
    // and networks in the clear are as they were
    a.docker("network create -d overlay open");
    a.docker("service create -d --name other --network open tiny-service");
    a.until_replicas("other", "1/1");
}
