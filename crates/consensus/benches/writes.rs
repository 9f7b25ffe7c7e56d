//! Durable writes a second through the drivers, with one manager and with three in this process over gRPC on loopback, at
//! 1, 100 and 1000 writers, against bare `fdatasync`s in the same run; and the time without a leader. `SKEP_BENCH_DIR` says where the logs lie.

#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
#[path = "../tests/group/mod.rs"]
mod group;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use consensus::{Beginning, Handle};
use group::Group;
use swarm_proto::swarmkit as p;

const RUN: Duration = Duration::from_secs(4);

fn request() -> p::InternalRaftRequest {
    let task = p::Task { id: "a".repeat(25), service_id: "b".repeat(25), ..Default::default() };
    let action = p::StoreAction { action: 2, target: Some(p::store_action::Target::Task(task)) };
    p::InternalRaftRequest { id: 1, action: vec![action] }
}

fn bare(folder: &Path) -> f64 {
    let path = folder.join("bare");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("file");
    file.write_all_at(&vec![0; 4 << 20], 0).expect("write");
    file.sync_all().expect("sync");
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        file.write_all_at(&[1; 200], count * 200).expect("write");
        file.sync_data().expect("sync");
        count += 1;
    }
    std::fs::remove_file(path).expect("removed");
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The CPU time of this process.
fn cpu() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let micros = |time: nix::sys::time::TimeVal| (time.tv_sec() * 1_000_000 + time.tv_usec()) as u64;
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Each writer waits for its write before the next. Returns the times of all writes, sorted.
async fn write(raft: Arc<Handle>, writers: usize) -> (f64, Vec<Duration>) {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let raft = raft.clone();
            tokio::spawn(async move {
                let request = request();
                let mut times = Vec::new();
                while begun.elapsed() < RUN {
                    let started = Instant::now();
                    raft.propose(&request).await.expect("driver").expect("committed");
                    times.push(started.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("writer"));
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    (rate, times)
}

/// From the end of a leader to the first write that another one acknowledges.
async fn failover(folder: &Path) {
    const ROUNDS: u64 = 11;
    let mut group = Group::of(folder, 3).await;
    let mut times = Vec::new();
    for round in 1..=ROUNDS {
        let leader = group.leader().await;
        group.kill(leader).await;
        let begun = Instant::now();
        group.write(round).await;
        times.push(begun.elapsed().as_millis());
        group.begin(leader, Beginning::Restart).await.expect("starts");
        group.equal().await;
    }
    times.sort_unstable();
    println!("failover of 3 managers: median {} ms, longest {} ms", times[times.len() / 2], times[times.len() - 1]);
    for id in 1..=3 {
        group.kill(id).await;
    }
}

fn main() {
    let parent =
        std::env::var_os("SKEP_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).expect("folder");
    let floor = bare(folder.path());
    println!("bare fdatasync: {floor:.0}/s, {:.2} ms each", 1_000.0 / floor);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        failover(folder.path()).await;
        for managers in [1, 3] {
            let mut group = Group::new(folder.path());
            group.idle = true;
            group.grow(managers).await;
            for writers in [1, 100, 1_000] {
                let leader = group.leader().await;
                let raft = group.managers[&leader].raft.clone();
                let before = cpu();
                let (rate, times) = write(raft.clone(), writers).await;
                let used = (cpu() - before).as_secs_f64() * 1e6 / times.len() as f64;
                let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1_000.0;
                let term = raft.status().borrow().term;
                println!(
                    "{managers} managers, {writers} writers: {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms, \
                     {used:.0} us of CPU each, term {term}",
                    at(0.5),
                    at(0.99)
                );
            }
            for id in 1..=managers {
                group.kill(id).await;
            }
        }
    });
}
