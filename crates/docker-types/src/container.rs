//! Containers: what creates them, what inspect and the list show of them.
//!
//! Fields that Go writes as `null` when they are nil are options; those with `omitempty` are left out when empty.
//! `CreateRequest` and `UpdateRequest` repeat the fields of what Go embeds in them, as requests cannot flatten.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::container_spec::{HealthConfig, Mount, Ulimit};
use crate::image::GraphDriver;
use crate::json::{Empty, is_zero};
use crate::system::Descriptor;
use crate::time::Time;

/// Go's `strslice.StrSlice`: a list, or one word alone.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![word.to_owned()]))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = items.next_element()? {
                words.push(word);
            }
            Ok(Some(words))
        }
    }
    deserializer.deserialize_any(Words)
}

/// `80/tcp` → where it is open on the host; `null` for one that is only exposed.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// A struct with the fields of Go's `container.Config` and others behind them.
macro_rules! with_config {
    ($(#[$meta:meta])* pub struct $name:ident { $($extra:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        pub struct $name {
            pub hostname: String,
            pub domainname: String,
            pub user: String,
            pub attach_stdin: bool,
            pub attach_stdout: bool,
            pub attach_stderr: bool,
            #[serde(skip_serializing_if = "is_zero")]
            pub exposed_ports: BTreeMap<String, Empty>,
            pub tty: bool,
            pub open_stdin: bool,
            pub stdin_once: bool,
            pub env: Option<Vec<String>>,
            #[serde(deserialize_with = "words")]
            pub cmd: Option<Vec<String>>,
            #[serde(skip_serializing_if = "is_zero")]
            pub healthcheck: Option<HealthConfig>,
            #[serde(skip_serializing_if = "is_zero")]
            pub args_escaped: bool,
            pub image: String,
            pub volumes: Option<BTreeMap<String, Empty>>,
            pub working_dir: String,
            #[serde(deserialize_with = "words")]
            pub entrypoint: Option<Vec<String>>,
            #[serde(skip_serializing_if = "is_zero")]
            pub network_disabled: bool,
            #[serde(skip_serializing_if = "is_zero")]
            pub mac_address: String,
            pub on_build: Option<Vec<String>>,
            pub labels: Option<BTreeMap<String, String>>,
            #[serde(skip_serializing_if = "is_zero")]
            pub stop_signal: String,
            /// Seconds.
            #[serde(skip_serializing_if = "is_zero")]
            pub stop_timeout: Option<i64>,
            #[serde(skip_serializing_if = "is_zero", deserialize_with = "words")]
            pub shell: Option<Vec<String>>,
            $($extra)*
        }
    };
}

with_config! {
    /// What a container runs.
    pub struct ContainerConfig {}
}

with_config! {
    /// `POST /containers/create`.
    pub struct CreateRequest {
        pub host_config: Option<HostConfig>,
        pub networking_config: Option<NetworkingConfig>,
    }
}

impl CreateRequest {
    /// The part that says what the container runs.
    pub fn config(&self) -> ContainerConfig {
        ContainerConfig {
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            user: self.user.clone(),
            attach_stdin: self.attach_stdin,
            attach_stdout: self.attach_stdout,
            attach_stderr: self.attach_stderr,
            exposed_ports: self.exposed_ports.clone(),
            tty: self.tty,
            open_stdin: self.open_stdin,
            stdin_once: self.stdin_once,
            env: self.env.clone(),
            cmd: self.cmd.clone(),
            healthcheck: self.healthcheck.clone(),
            args_escaped: self.args_escaped,
            image: self.image.clone(),
            volumes: self.volumes.clone(),
            working_dir: self.working_dir.clone(),
            entrypoint: self.entrypoint.clone(),
            network_disabled: self.network_disabled,
            mac_address: self.mac_address.clone(),
            on_build: self.on_build.clone(),
            labels: self.labels.clone(),
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            shell: self.shell.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    pub id: String,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub kind: String,
    pub config: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    pub name: String,
    pub maximum_retry_count: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    pub path_on_host: String,
    pub path_in_container: String,
    pub cgroup_permissions: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceRequest {
    pub driver: String,
    pub count: i64,
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<Vec<String>>,
    pub capabilities: Option<Vec<Vec<String>>>,
    pub options: Option<BTreeMap<String, String>>,
}

/// A struct with the fields of Go's `container.Resources` between others.
macro_rules! with_resources {
    ($(#[$meta:meta])* pub struct $name:ident { $($before:tt)* } { $($after:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        pub struct $name {
            $($before)*
            pub cpu_shares: i64,
            /// Bytes.
            pub memory: i64,
            pub nano_cpus: i64,
            pub cgroup_parent: String,
            pub blkio_weight: u16,
            pub blkio_weight_device: Option<Vec<WeightDevice>>,
            pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
            pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
            #[serde(rename = "BlkioDeviceReadIOps")]
            pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
            #[serde(rename = "BlkioDeviceWriteIOps")]
            pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
            /// Microseconds.
            pub cpu_period: i64,
            /// Microseconds.
            pub cpu_quota: i64,
            pub cpu_realtime_period: i64,
            pub cpu_realtime_runtime: i64,
            pub cpuset_cpus: String,
            pub cpuset_mems: String,
            pub devices: Option<Vec<DeviceMapping>>,
            pub device_cgroup_rules: Option<Vec<String>>,
            pub device_requests: Option<Vec<DeviceRequest>>,
            #[serde(skip_serializing_if = "is_zero")]
            pub kernel_memory: i64,
            #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "is_zero")]
            pub kernel_memory_tcp: i64,
            /// Bytes.
            pub memory_reservation: i64,
            /// Bytes of memory and swap together; -1 for no limit.
            pub memory_swap: i64,
            pub memory_swappiness: Option<i64>,
            pub oom_kill_disable: Option<bool>,
            pub pids_limit: Option<i64>,
            pub ulimits: Option<Vec<Ulimit>>,
            pub cpu_count: i64,
            pub cpu_percent: i64,
            #[serde(rename = "IOMaximumIOps")]
            pub io_maximum_iops: u64,
            #[serde(rename = "IOMaximumBandwidth")]
            pub io_maximum_bandwidth: u64,
            $($after)*
        }
    };
}

with_resources! {
    /// How a container meets its host.
    pub struct HostConfig {
        pub binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        pub log_config: LogConfig,
        pub network_mode: String,
        pub port_bindings: Option<PortMap>,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub volume_driver: String,
        pub volumes_from: Option<Vec<String>>,
        /// Height and width.
        pub console_size: [u32; 2],
        #[serde(skip_serializing_if = "is_zero")]
        pub annotations: BTreeMap<String, String>,
        #[serde(deserialize_with = "words")]
        pub cap_add: Option<Vec<String>>,
        #[serde(deserialize_with = "words")]
        pub cap_drop: Option<Vec<String>>,
        pub cgroupns_mode: String,
        pub dns: Option<Vec<String>>,
        pub dns_options: Option<Vec<String>>,
        pub dns_search: Option<Vec<String>>,
        pub extra_hosts: Option<Vec<String>>,
        pub group_add: Option<Vec<String>>,
        pub ipc_mode: String,
        pub cgroup: String,
        pub links: Option<Vec<String>>,
        pub oom_score_adj: i64,
        pub pid_mode: String,
        pub privileged: bool,
        pub publish_all_ports: bool,
        pub readonly_rootfs: bool,
        pub security_opt: Option<Vec<String>>,
        #[serde(skip_serializing_if = "is_zero")]
        pub storage_opt: BTreeMap<String, String>,
        /// Target → options.
        #[serde(skip_serializing_if = "is_zero")]
        pub tmpfs: BTreeMap<String, String>,
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        pub userns_mode: String,
        /// Bytes.
        pub shm_size: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub sysctls: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "is_zero")]
        pub runtime: String,
        pub isolation: String,
    } {
        #[serde(skip_serializing_if = "is_zero")]
        pub mounts: Vec<Mount>,
        pub masked_paths: Option<Vec<String>>,
        pub readonly_paths: Option<Vec<String>>,
        #[serde(skip_serializing_if = "is_zero")]
        pub init: Option<bool>,
    }
}

with_resources! {
    /// `POST /containers/{id}/update`.
    pub struct UpdateRequest {} {
        pub restart_policy: RestartPolicy,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateResponse {
    pub warnings: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkingConfig {
    pub endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
}

/// A container's place on a network, asked for and as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpamConfig>,
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    pub mac_address: String,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i64,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpamConfig {
    #[serde(rename = "IPv4Address", skip_serializing_if = "is_zero")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "is_zero")]
    pub ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "is_zero")]
    pub link_local_ips: Vec<String>,
}

/// `GET /containers/{id}/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Inspect {
    pub id: String,
    pub created: Time,
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: i64,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_rw: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_root_fs: Option<i64>,
    pub mounts: Vec<MountPoint>,
    pub config: ContainerConfig,
    pub network_settings: NetworkSettings,
    #[serde(skip_serializing_if = "is_zero")]
    pub image_manifest_descriptor: Option<Descriptor>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct State {
    pub status: String,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: i64,
    pub exit_code: i64,
    pub error: String,
    pub started_at: Time,
    pub finished_at: Time,
    #[serde(skip_serializing_if = "is_zero")]
    pub health: Option<Health>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Health {
    pub status: String,
    pub failing_streak: i64,
    pub log: Option<Vec<HealthLog>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthLog {
    pub start: Time,
    pub end: Time,
    pub exit_code: i64,
    pub output: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountPoint {
    #[serde(rename = "Type", skip_serializing_if = "is_zero")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Address {
    pub addr: String,
    pub prefix_len: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NetworkSettings {
    pub bridge: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub sandbox_key: String,
    pub ports: Option<PortMap>,
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: i64,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Address>>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Address>>,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    pub mac_address: String,
    pub networks: Option<BTreeMap<String, EndpointSettings>>,
}

/// One of `GET /containers/json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Summary {
    pub id: String,
    pub names: Vec<String>,
    pub image: String,
    #[serde(rename = "ImageID")]
    pub image_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub image_manifest_descriptor: Option<Descriptor>,
    pub command: String,
    /// Seconds since 1970.
    pub created: i64,
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_rw: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size_root_fs: i64,
    pub labels: BTreeMap<String, String>,
    pub state: String,
    pub status: String,
    pub host_config: SummaryHostConfig,
    pub network_settings: Option<SummaryNetworkSettings>,
    pub mounts: Vec<MountPoint>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryHostConfig {
    #[serde(skip_serializing_if = "is_zero")]
    pub network_mode: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SummaryNetworkSettings {
    pub networks: Option<BTreeMap<String, EndpointSettings>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    #[serde(rename = "IP", skip_serializing_if = "is_zero")]
    pub ip: String,
    pub private_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub public_port: u16,
    #[serde(rename = "Type")]
    pub kind: String,
}

/// `POST /containers/{id}/wait`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitResponse {
    #[serde(skip_serializing_if = "is_zero")]
    pub error: Option<WaitError>,
    pub status_code: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WaitError {
    #[serde(skip_serializing_if = "is_zero")]
    pub message: String,
}

/// `GET /containers/{id}/top`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TopResponse {
    pub processes: Vec<Vec<String>>,
    pub titles: Vec<String>,
}

/// `POST /containers/prune`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainersPruneResponse {
    pub containers_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}
