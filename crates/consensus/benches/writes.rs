//! Durable writes a second through the driver, at 1, 100 and 1000 writers, against bare `fdatasync`s in the same run.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use consensus::{Config, Dek, StateMachine, found, start};
use swarm_proto::swarmkit as p;

struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: u64, _: p::InternalRaftRequest) {}
    fn snapshot(&self) -> Box<dyn FnOnce() -> p::StoreSnapshot + Send> {
        Box::new(p::StoreSnapshot::default)
    }
    fn restore(&mut self, _: p::StoreSnapshot) -> Result<(), String> {
        Ok(())
    }
}

fn request() -> p::InternalRaftRequest {
    let task = p::Task { id: "a".repeat(25), service_id: "b".repeat(25), ..Default::default() };
    let action = p::StoreAction { action: 2, target: Some(p::store_action::Target::Task(task)) };
    p::InternalRaftRequest { id: 1, action: vec![action] }
}

fn bare(folder: &Path) -> f64 {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(folder.join("bare")).expect("file");
    file.write_all_at(&vec![0; 4 << 20], 0).expect("write");
    file.sync_all().expect("sync");
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all_at(&[1; 200], count * 200).expect("write");
        file.sync_data().expect("sync");
        count += 1;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

fn main() {
    let folder = tempfile::tempdir().expect("folder");
    let floor = bare(folder.path());
    println!("bare fdatasync: {floor:.0}/s");
    let config = Config {
        folder: folder.path().to_owned(),
        member: p::RaftMember { raft_id: 1, node_id: "n".into(), addr: "127.0.0.1:1".into(), status: None },
        dek: Dek::new(&[1; 32]),
        seed: 1,
        tick: Duration::from_millis(100),
        election_ticks: 10,
        heartbeat_ticks: 1,
        snapshot_interval: 10_000,
        keep_entries: 500,
    };
    found(&config).expect("found");
    let handle = start(config, Box::new(Nothing)).expect("start");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        handle.status().wait_for(|status| status.leading).await.expect("leads");
        for writers in [1, 100, 1000] {
            let begun = Instant::now();
            let mut count = 0u64;
            while begun.elapsed() < Duration::from_secs(2) {
                let round: Vec<_> = (0..writers).map(|_| handle.propose(&request())).collect();
                for proposed in round {
                    proposed.await.expect("driver").expect("committed");
                    count += 1;
                }
            }
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            println!("{writers} writers: {rate:.0}/s, {:.2} of bare fdatasync", rate / floor);
        }
    });
}
