//! The daemon's start, its signals and its end.
//!
//! ```text
//!  options ─► data root locked ─► network, images ─► engine (adopts containers) ─► node (swarm) ─► listeners ─► serving
//!  SIGTERM, SIGINT ─► no new connections ─► node, engine let go ─► end     containers, shims, rules live on
//!  SIGHUP ─► registries of daemon.json read again
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::listen::{Host, Inherited, Listener, bind_tcp, bind_unix};
use api::{About, ApiState, MetricsListener};
use engine::{Engine, Shutdown};
use image::ImageStore;
use net::Net;
use node::{NodeConfig, NodeState, SwarmNode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::data_root::{self, DataRoot};
use crate::executor::TaskExecutor;
use crate::metrics::{Facts, Metrics};
use crate::network::EngineNetwork;
use crate::notify::notify;
use crate::overlay::{Attachments, Exchange};
use crate::pidfile::PidFile;
use crate::settings::{Persona, Settings};
use crate::swarm::Swarm;

/// Runs the daemon; returns its exit code.
pub(crate) fn main(args: Vec<String>, persona: Persona) -> i32 {
    if args.iter().any(|arg| arg == "--version" || arg == "-v") {
        println!("Skep version {}, API of Docker 28.5.2", env!("CARGO_PKG_VERSION"));
        return 0;
    }
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", crate::options::help());
        return 0;
    }
    match start(args, persona) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error:#}");
            1
        }
    }
}

fn start(args: Vec<String>, persona: Persona) -> anyhow::Result<()> {
    let settings = Settings::load(&args, persona)?;
    if settings.given.flag("validate", false) {
        println!("configuration OK");
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("the daemon needs to be started with root privileges");
    }
    let filter = tracing_subscriber::EnvFilter::try_new(filter_of(&settings.log_level))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    for name in settings.given.ignored() {
        tracing::warn!(option = name, "this option is accepted and has no effect");
    }
    let root = data_root::open(&settings.data_root)?;
    let pidfile = PidFile::write(&settings.pidfile)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let served = if settings.given.flag("remove-everything", false) {
        runtime.block_on(remove_everything(settings, root))
    } else {
        runtime.block_on(serve(settings, args, root))
    };
    drop(pidfile);
    served
}

/// Other crates' chatter only when it matters.
fn filter_of(level: &str) -> String {
    format!("{level},h2=warn,hyper=warn,tonic=warn,tower=warn,rustls=warn,netlink_proto=warn,raft=warn")
}

/// What runs.
struct Parts {
    settings: Settings,
    engine: Engine,
    images: ImageStore,
    net: Net,
    node: Arc<SwarmNode>,
    executor: Arc<TaskExecutor>,
}

async fn serve(settings: Settings, args: Vec<String>, root: DataRoot) -> anyhow::Result<()> {
    // Before anything is started, so that no signal is missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Tools that ask a dockerd for its stacks send these; untaken they would end the daemon.
    let asked = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    let metrics = listen_for_metrics(&settings.metrics_addr).await.context("failed to start metrics server")?;
    let parts = open(settings).await?;
    let listeners = listen(&parts.settings).await.context("failed to load listeners")?;
    let stop = CancellationToken::new();
    let reloader = tokio::spawn(reload(parts.images.clone(), parts.settings.clone(), args, parts.engine.clone()));
    let state = api_state(&parts, &root);
    let background = [tokio::spawn(unmap_code()), tokio::spawn(crate::conntrack::watch(parts.net.clone()))];
    let measured = metrics.map(|listener| tokio::spawn(listener.serve(metrics_of(&parts, &root), stop.clone())));
    let serving = tokio::spawn(api::serve(listeners, state, stop.clone().cancelled_owned()));
    notify("READY=1");
    tracing::info!(hosts = ?parts.settings.hosts, "the daemon has come up");
    tokio::select! {
        // Both are level-triggered streams of a signal.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify("STOPPING=1");
    stop.cancel();
    reloader.abort();
    background.iter().for_each(tokio::task::JoinHandle::abort);
    for server in [Some(serving), measured].into_iter().flatten() {
        if let Err(error) = server.await {
            tracing::error!(%error, "a server ended badly");
        }
    }
    parts.node.stop().await;
    let mode = if parts.settings.live_restore { Shutdown::LeaveAll } else { Shutdown::StopAll };
    parts.engine.shutdown(mode).await;
    for host in &parts.settings.hosts {
        if let Host::Unix(path) = host {
            // A socket that is gone already is as good.
            std::fs::remove_file(path).ok();
        }
    }
    tracing::info!("the daemon has ended");
    drop(asked);
    Ok(())
}

/// Gives back the pages of code that the start or a while of work has left mapped.
async fn unmap_code() {
    const AFTER_START: Duration = Duration::from_secs(5);
    const EVERY: Duration = Duration::from_secs(60);
    let mut pause = AFTER_START;
    loop {
        tokio::time::sleep(pause).await;
        pause = EVERY;
        // Reading the list of mappings takes the kernel about a millisecond.
        match tokio::task::spawn_blocking(runtime::code::unmap).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the program's pages stay mapped"),
            Err(_) => return,
        }
    }
}

async fn open(settings: Settings) -> anyhow::Result<Parts> {
    std::fs::create_dir_all(&settings.exec_root).context("the exec root cannot be made")?;
    let net = Net::open(settings.net.clone()).await.context("the network cannot be set up")?;
    for warning in net.warnings() {
        tracing::warn!("{warning}");
    }
    let image_config = image::Config { registry: settings.registry.clone(), ..image::Config::default() };
    let images = ImageStore::open(&settings.data_root, image_config).context("the image store cannot be opened")?;
    let (exchange, attachments) = (Exchange::open(net.clone(), &settings.exec_root), Attachments::new());
    let network = EngineNetwork { net: net.clone(), exchange: exchange.clone(), attachments: attachments.clone() };
    let network = Arc::new(network);
    let engine = Engine::open(settings.engine.clone(), images.clone(), network).await;
    let engine = engine.context("the engine cannot be opened")?;
    let about =
        crate::executor::About { engine_version: About::default().engine_version, labels: settings.labels.clone() };
    let executor = TaskExecutor::new(engine.clone(), images.clone(), net.clone(), exchange, attachments.clone(), about);
    let executor = Arc::new(executor);
    let node = SwarmNode::open(NodeConfig {
        folder: settings.data_root.join("swarm"),
        executor: executor.clone(),
        default_advertise_addr: settings.swarm_default_advertise_addr.clone(),
    });
    let node = Arc::new(node.await);
    attachments.set_node(node.clone());
    if node.info().state == NodeState::Inactive {
        executor.forget().await;
    }
    Ok(Parts { settings, engine, images, net, node, executor })
}

/// The end of an installation: containers, networks, tables and both roots go.
async fn remove_everything(settings: Settings, root: DataRoot) -> anyhow::Result<()> {
    let parts = open(settings).await?;
    parts.node.stop().await;
    let options = engine::ListOptions { all: true, ..engine::ListOptions::default() };
    for container in parts.engine.list(options).await? {
        let options = engine::RemoveOptions { force: true, volumes: true };
        parts.engine.remove(&container.id, options).await.with_context(|| format!("container {}", container.id))?;
    }
    parts.engine.shutdown(Shutdown::StopAll).await;
    parts.net.destroy().await.context("the network cannot be removed")?;
    let Parts { settings, images, .. } = parts;
    drop(images);
    remove_root(&settings.exec_root).context("the exec root cannot be removed")?;
    remove_root(&settings.data_root).context("the data root cannot be removed")?;
    drop(root);
    Ok(())
}

/// Removes a folder with all in it; one that is a mount point stays, empty.
fn remove_root(root: &std::path::Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && std::fs::read_dir(root)?.next().is_none() => {
            Ok(())
        }
        other => other,
    }
}

async fn listen(settings: &Settings) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut inherited = Inherited::from_env();
    let mut seen = BTreeSet::new();
    for host in &settings.hosts {
        if !seen.insert(format!("{host:?}")) {
            continue;
        }
        listeners.push(match host {
            Host::Unix(path) => {
                bind_unix(path, settings.group.as_deref().filter(|group| group_exists(group, settings))).await?
            }
            Host::Tcp(address) => {
                if settings.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
                    tracing::warn!(
                        address,
                        "the API on TCP without client verification gives root access to whoever reaches it"
                    );
                }
                bind_tcp(address, settings.tls.as_ref()).await?
            }
            Host::Fd(which) => {
                listeners.extend(inherited.take(which, settings.tls.as_ref())?);
                continue;
            }
        });
    }
    Ok(listeners)
}

/// Before anything is started, so that a bad address ends the start at once.
async fn listen_for_metrics(address: &str) -> anyhow::Result<Option<MetricsListener>> {
    if address.is_empty() {
        return Ok(None);
    }
    let listener = MetricsListener::bind(address).await?;
    tracing::info!("metrics API listening on {}", listener.address()?);
    Ok(Some(listener))
}

fn metrics_of(parts: &Parts, root: &DataRoot) -> Arc<Metrics> {
    let facts = Facts::read(&About::default(), &root.id);
    let Parts { engine, net, node, executor, .. } = parts;
    Arc::new(Metrics::new(engine.clone(), net.clone(), node.clone(), executor.gossip(), facts))
}

/// dockerd's default group may be missing; one that was asked for must be there.
fn group_exists(group: &str, settings: &Settings) -> bool {
    settings.given.text("group").is_some() || api::listen::group_id(group).is_some()
}

fn api_state(parts: &Parts, root: &DataRoot) -> ApiState {
    let settings = &parts.settings;
    let about = About { experimental: settings.given.flag("experimental", false), ..About::default() };
    ApiState {
        engine: Arc::new(parts.engine.clone()),
        images: parts.images.clone(),
        networks: Arc::new(parts.executor.shown_networks()),
        doctor: Arc::new(parts.executor.doctor(parts.node.clone(), net::own_names(&settings.net))),
        swarm: Arc::new(Swarm::new(parts.node.clone(), parts.executor.clone())),
        settings: shown_settings(settings, root, parts.net.warnings()),
        about,
    }
}

fn shown_settings(settings: &Settings, root: &DataRoot, warnings: Vec<String>) -> api::Settings {
    let runtime = |path: &std::path::Path| docker_types::system::Runtime {
        path: path.display().to_string(),
        ..docker_types::system::Runtime::default()
    };
    let added = settings.engine.runtimes.iter().map(|(name, spec)| (name.clone(), runtime(&spec.path)));
    let built_in = (engine::BUILT_IN_RUNTIME.to_owned(), runtime(std::path::Path::new("skep")));
    let pool = |pool: &net::AddressPool| docker_types::system::AddressPool {
        base: pool.base.to_string(),
        size: i64::from(pool.size),
    };
    let pools = if settings.given.list("default-address-pool").is_empty() {
        Vec::new()
    } else {
        settings.net.default_address_pools.iter().map(pool).collect()
    };
    api::Settings {
        id: root.id.clone(),
        data_root: settings.data_root.clone(),
        debug: settings.given.flag("debug", false),
        labels: settings.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        log_driver: settings.engine.log_driver.clone(),
        live_restore: settings.live_restore,
        default_runtime: settings.engine.default_runtime.clone(),
        runtimes: added.chain([built_in]).collect(),
        default_address_pools: pools,
        generic_resources: None,
        registry_mirrors: settings.registry.mirrors.clone(),
        insecure_registries: settings.registry.insecure_registries.clone(),
        warnings,
    }
}

/// Takes new registry settings at each SIGHUP.
async fn reload(images: ImageStore, settings: Settings, args: Vec<String>, engine: Engine) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return tracing::error!(%error, "SIGHUP cannot be caught"),
    };
    while hangup.recv().await.is_some() {
        notify("RELOADING=1");
        match settings.reloaded_registry(&args) {
            Ok(registry) => {
                images.reconfigure(registry);
                engine.publish(reload_event());
                tracing::info!("the configuration was read again");
            }
            Err(error) => tracing::error!(%error, "the configuration was not taken, the old one holds"),
        }
        notify("READY=1");
    }
}

fn reload_event() -> docker_types::event::EventMessage {
    docker_types::event::EventMessage {
        kind: "daemon".to_owned(),
        action: "reload".to_owned(),
        ..docker_types::event::EventMessage::default()
    }
}
