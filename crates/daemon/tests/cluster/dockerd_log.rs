//! A log that a real dockerd manager wrote: every entry and snapshot goes decode → model → encode and comes back with
//! the same content, field for field, so that a dockerd may read again what a Skep manager wrote.

use std::fs;
use std::path::Path;

use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Key, Nonce, XSalsa20Poly1305};
use prost::Message;
use swarm_proto::convert::{FromProto, ToProto};
use swarm_proto::raftpb;
use swarm_proto::swarmkit as p;
use swarm_proto::swarmkit::store_action::Target;

use crate::hosts::{Host, Wire};

/// etcd's record types in a WAL file.
const ENTRY: i64 = 2;

/// A record of etcd's WAL: `{1 type, 2 crc, 3 data}`.
#[derive(Clone, PartialEq, Message)]
struct WalRecord {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    crc: u32,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// etcd's snapshot file: `{1 crc, 2 data}`.
#[derive(Clone, PartialEq, Message)]
struct SnapFile {
    #[prost(uint32, tag = "1")]
    crc: u32,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

/// The key of the log, out of the headers of `swarm-node.key`.
fn dek(swarm: &Path) -> XSalsa20Poly1305 {
    let identity = identity::CertificateFiles::new(swarm).load(None).expect("dockerd's files").expect("a certificate");
    XSalsa20Poly1305::new(Key::from_slice(&identity.key.dek.expect("a raft key")))
}

fn open(dek: &XSalsa20Poly1305, record: &[u8]) -> Vec<u8> {
    let record = p::MaybeEncryptedRecord::decode(record).expect("an encrypted record");
    assert_eq!(record.algorithm, 1, "secretbox");
    dek.decrypt(Nonce::from_slice(&record.nonce), record.data.as_slice()).expect("the right key")
}

/// All records of the WAL files, in order. Of a manager that runs, the last one may be written by halves.
fn wal_records(folder: &Path) -> Vec<Result<WalRecord, prost::DecodeError>> {
    let mut files: Vec<_> = fs::read_dir(folder).expect("a WAL").map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wal"));
    files.sort();
    let mut records = Vec::new();
    for file in files {
        let bytes = fs::read(file).expect("a WAL file");
        let mut rest = bytes.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let field = u64::from_le_bytes(*head);
            let length = (field & ((1 << 56) - 1)) as usize;
            if length == 0 {
                break;
            }
            let padding = ((field >> 56) & 7) as usize;
            records.push(WalRecord::decode(&after[..length]));
            rest = &after[length + padding..];
        }
    }
    records
}

/// The content of a message without the order of its fields and map entries: what is a message by itself is sorted, the
/// rest stays. Empty sub-messages go, as SwarmKit's own writer cannot tell them from absent ones.
fn canonical(bytes: &[u8]) -> Vec<u8> {
    match fields(bytes) {
        Some(mut fields) => {
            fields.sort();
            fields.concat()
        }
        None => bytes.to_vec(),
    }
}

fn fields(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (tag, kind) = decode_key(&mut bytes).ok()?;
        let mut field = Vec::new();
        encode_key(tag, kind, &mut field);
        match kind {
            WireType::Varint => encode_varint(decode_varint(&mut bytes).ok()?, &mut field),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let value = canonical(value);
                if value.is_empty() {
                    continue;
                }
                encode_varint(value.len() as u64, &mut field);
                field.extend(value);
            }
            WireType::SixtyFourBit | WireType::ThirtyTwoBit => {
                let length = if kind == WireType::SixtyFourBit { 8 } else { 4 };
                let (value, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                field.extend(value);
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        }
        found.push(field);
    }
    Some(found)
}

fn again<T: ToProto + FromProto<Proto = <T as ToProto>::Proto>>(
    object: <T as ToProto>::Proto,
) -> <T as ToProto>::Proto {
    T::from_proto(object).expect("known values").to_proto()
}

/// The action after it went through the model.
fn through_the_model(action: p::StoreAction) -> p::StoreAction {
    let target = match action.target.expect("an object") {
        Target::Node(it) => Target::Node(again::<model::Node>(it)),
        Target::Service(it) => Target::Service(again::<model::Service>(it)),
        Target::Task(it) => Target::Task(again::<model::Task>(it)),
        Target::Network(it) => Target::Network(again::<model::Network>(it)),
        Target::Cluster(it) => Target::Cluster(again::<model::Cluster>(it)),
        Target::Secret(it) => Target::Secret(again::<model::Secret>(it)),
        Target::Config(it) => Target::Config(again::<model::Config>(it)),
        Target::Resource(it) => Target::Resource(again::<model::Resource>(it)),
        Target::Extension(it) => Target::Extension(again::<model::Extension>(it)),
        Target::Volume(it) => Target::Volume(again::<model::Volume>(it)),
    };
    p::StoreAction { action: action.action, target: Some(target) }
}

/// The snapshot's store after it went through the model.
fn store_through_the_model(store: p::StoreSnapshot) -> p::StoreSnapshot {
    fn all<T: ToProto + FromProto<Proto = <T as ToProto>::Proto>>(
        objects: Vec<<T as ToProto>::Proto>,
    ) -> Vec<<T as ToProto>::Proto> {
        objects.into_iter().map(again::<T>).collect()
    }
    p::StoreSnapshot {
        nodes: all::<model::Node>(store.nodes),
        services: all::<model::Service>(store.services),
        networks: all::<model::Network>(store.networks),
        tasks: all::<model::Task>(store.tasks),
        clusters: all::<model::Cluster>(store.clusters),
        secrets: all::<model::Secret>(store.secrets),
        resources: all::<model::Resource>(store.resources),
        extensions: all::<model::Extension>(store.extensions),
        configs: all::<model::Config>(store.configs),
        volumes: all::<model::Volume>(store.volumes),
    }
}

/// Makes dockerd write objects of every kind with as many fields as its command line can set.
fn fill(host: &Host) {
    host.load_tiny();
    fs::write(host.file("word"), "word").expect("a file");
    let word = host.file("word").display().to_string();
    host.docker("swarm update --snapshot-interval 40 --task-history-limit 2 --cert-expiry 48h");
    host.docker("node update --label-add zone=a --label-add disk=ssd a");
    host.docker(&format!("secret create --label a=b pass {word}"));
    host.docker(&format!("config create --label a=b --template-driver golang conf {word}"));
    host.docker("network create -d overlay --attachable --label a=b --subnet 10.99.0.0/24 --opt encrypted over");
    host.docker(
        "service create --detach --name web --replicas 2 --publish 8081:9005 --publish mode=host,target=1,published=8082 \
         --label a=b --container-label c=d --env E=f --hostname h-{{.Task.Slot}} --user 1 --group 2 --workdir /tmp \
         --limit-memory 64m --limit-cpu 0.5 --limit-pids 100 --reserve-memory 8m --reserve-cpu 0.1 \
         --restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 1m \
         --stop-grace-period 2s --stop-signal TERM --update-parallelism 2 --update-delay 1s \
         --update-failure-action rollback --update-monitor 1s --update-max-failure-ratio 0.5 \
         --update-order start-first --rollback-parallelism 1 --rollback-monitor 1s --rollback-delay 2s \
         --constraint node.role==manager --placement-pref spread=node.labels.zone --network over \
         --mount type=volume,source=v,target=/v,volume-label=x=y,volume-driver=local,volume-opt=o=size \
         --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770 \
         --mount type=bind,source=/tmp,target=/b,readonly,bind-propagation=rslave --secret pass \
         --secret source=pass,target=other,uid=1,gid=2,mode=0400 --config source=conf,target=/conf --host name:1.2.3.4 \
         --dns 9.9.9.9 --dns-search here.test --dns-option ndots:3 --health-cmd true --health-interval 5s \
         --health-retries 4 --health-timeout 3s --health-start-period 1s --cap-add NET_ADMIN --cap-drop CHOWN \
         --ulimit nofile=100:200 --sysctl net.core.somaxconn=100 --init --read-only --log-driver json-file \
         --log-opt max-size=1m --replicas-max-per-node 5 --generic-resource gpu=1 --tty --isolation default \
         --endpoint-mode vip --entrypoint /tiny-service tiny-service serve",
    );
    host.docker("service create --detach --name plain --publish 8083:9005 tiny-service");
    host.until("service ls --filter name=plain --format {{.Replicas}}", |out| out == "1/1");
    host.docker("service create --detach --name everywhere --mode global --endpoint-mode dnsrr tiny-service");
    host.docker(
        "service create --detach --name job --mode replicated-job --replicas 2 --max-concurrent 1 tiny-service exit 0",
    );
    host.docker("service create --detach --name gjob --mode global-job tiny-service exit 0");
    host.docker("service create --detach --name fails --restart-condition none tiny-service exit 3");
    host.docker("service create --detach --name nowhere --constraint node.labels.zone==nowhere tiny-service");
    host.docker("service update --force --detach=false plain");
    host.docker("service update --label-add g=h --env-add G=h --detach=false plain");
    host.docker("service rollback --detach=false plain");
    host.until("service ls --filter name=job --format {{.Replicas}}", |out| out.contains("2/2 completed"));
    host.docker("swarm join-token --rotate -q worker");
    host.docker("swarm ca --rotate --detach=false");
    for number in 0..12 {
        host.docker(&format!("service scale --detach plain={}", 1 + number % 3));
    }
    host.docker("service rm nowhere fails everywhere");
}

/// The keys that a dockerd manager has for gossip and IPsec, as its log tells now.
pub fn network_keys(swarm: &Path) -> Vec<p::EncryptionKey> {
    let dek = dek(swarm);
    let mut keys = Vec::new();
    for record in wal_records(&swarm.join("raft/wal-v3-encrypted")).into_iter().flatten() {
        let Some(entry) = (record.kind == ENTRY).then(|| raftpb::Entry::decode(record.data.as_slice()).ok()).flatten()
        else {
            continue;
        };
        if entry.data.is_empty() || entry.r#type != raftpb::EntryType::EntryNormal as i32 {
            continue;
        }
        let request = p::InternalRaftRequest::decode(open(&dek, &entry.data).as_slice()).expect("a request");
        for action in request.action {
            if let Some(Target::Cluster(cluster)) = action.target {
                keys = cluster.network_bootstrap_keys;
            }
        }
    }
    keys
}

#[test]
fn what_dockerd_wrote_into_its_log_survives_the_model() {
    let mut wire = Wire::bare(1);
    wire.hosts[0].run_dockerd();
    wire.init();
    fill(&wire.hosts[0]);
    wire.hosts[0].terminate();
    let swarm = wire.hosts[0].file("data/swarm");
    let dek = dek(&swarm);
    let (mut actions, mut kinds) = (0, std::collections::BTreeSet::new());
    for record in wal_records(&swarm.join("raft/wal-v3-encrypted")) {
        let record = record.expect("a record");
        if record.kind != ENTRY {
            continue;
        }
        let entry = raftpb::Entry::decode(record.data.as_slice()).expect("an entry");
        if entry.data.is_empty() {
            continue;
        }
        let data = open(&dek, &entry.data);
        if entry.r#type == raftpb::EntryType::EntryConfChange as i32 {
            // Written as it was read, but for the zeros that proto2 writes; only the member in it is SwarmKit's.
            let change = raftpb::ConfChange::decode(data.as_slice()).expect("a change of the membership");
            let member = p::RaftMember::decode(change.context.as_slice()).expect("a member");
            assert_eq!(canonical(&member.encode_to_vec()), canonical(&change.context), "{member:?}");
            continue;
        }
        let request = p::InternalRaftRequest::decode(data.as_slice()).expect("a request");
        for action in &request.action {
            kinds.insert(action.target.as_ref().map(std::mem::discriminant).map(|it| format!("{it:?}")));
        }
        actions += request.action.len();
        let model = request.action.iter().cloned().map(through_the_model).collect();
        let written = p::InternalRaftRequest { id: request.id, action: model };
        assert_eq!(canonical(&written.encode_to_vec()), canonical(&data), "entry {}: {request:#?}", entry.index);
    }
    assert!(actions > 100 && kinds.len() >= 7, "{actions} actions of {} kinds", kinds.len());
    let mut snapshots = 0;
    for file in fs::read_dir(swarm.join("raft/snap-v3-encrypted")).expect("snapshots") {
        let bytes = fs::read(file.expect("a file").path()).expect("a snapshot");
        let file = SnapFile::decode(bytes.as_slice()).expect("a snapshot file");
        let snapshot = raftpb::Snapshot::decode(file.data.as_slice()).expect("a snapshot");
        let data = open(&dek, &snapshot.data);
        let state = p::Snapshot::decode(data.as_slice()).expect("a state");
        let store = state.store.clone().map(store_through_the_model);
        let written = p::Snapshot { store, ..state };
        assert_eq!(canonical(&written.encode_to_vec()), canonical(&data));
        snapshots += 1;
    }
    assert!(snapshots > 0, "no snapshot was made");
}
