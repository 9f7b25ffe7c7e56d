//! A member of the gossip that is none of the machines' daemons: what they say can be seen there, and it says what is wanted.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;

use gossip::Name;
use gossip_io::{Handle, Running, Settings};
use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::dockerd_log::network_keys;
use crate::hosts::Host;
use crate::support::until;

/// The gossip keys in order, and which of them seals: the second, as dockerd has it.
pub fn gossip_keys(manager: &Host) -> (Vec<Vec<u8>>, usize) {
    let mut keys = until("the swarm's keys", || {
        let mut keys = network_keys(&manager.file("data/swarm"));
        keys.retain(|key| key.subsystem == "networking:gossip");
        (keys.len() >= 2).then_some(keys)
    });
    keys.sort_by_key(|key| key.lamport_time);
    (keys.into_iter().map(|key| key.key).collect(), 1)
}

/// Gossip in a machine's network: sockets belong to the namespace of the thread that makes them.
pub struct Member {
    pub handle: Handle,
    pub runtime: Runtime,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub fn start(host: &Host, keys: Vec<Vec<u8>>, primary: usize) -> Self {
        let init = fs::read_to_string(host.file("init")).expect("an init");
        let namespace = fs::File::open(format!("/proc/{}/ns/net", init.trim())).expect("its network");
        let advertise: IpAddr = host.address.parse().expect("an address");
        let bind = SocketAddr::from(([0, 0, 0, 0], gossip::limits::PORT));
        let settings = Settings { name: gossip_io::random_name(), bind, advertise, packet_bytes: 1400, keys, primary };
        let (started, start) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("its network");
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let running: Running = gossip_io::start(settings).await.expect("gossip");
                started.send(running.handle().clone()).expect("the test waits");
                // Ended by leaving, or by the test's end.
                if ended.await.is_ok() {
                    running.leave().await;
                }
            });
        });
        let handle = start.recv().expect("gossip runs");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { handle, runtime, end: Some(end), thread: Some(thread) }
    }

    pub fn join(&self, host: &Host) {
        let seed = format!("{}:{}", host.address, gossip::limits::PORT).parse().expect("an address");
        self.runtime.block_on(self.handle.join(vec![seed])).expect("asked");
    }

    pub fn peers(&self) -> Vec<SocketAddr> {
        let peers = self.runtime.block_on(self.handle.peers()).expect("peers");
        let mut peers: Vec<_> = peers.into_iter().map(|peer| peer.address).collect();
        peers.sort();
        peers
    }

    pub fn entries(&self, network: &str, table: &str) -> Vec<(Name, gossip::Entry)> {
        self.runtime.block_on(self.handle.entries(network, table)).expect("entries")
    }

    pub fn leave(mut self) {
        self.end.take().expect("it runs").send(()).expect("it runs");
        self.thread.take().expect("it runs").join().expect("no panic");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Without a word the thread drops its runtime and ends.
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
