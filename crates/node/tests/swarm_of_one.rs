//! Manager, dispatcher and agent of one node together, with an executor that only keeps books: what is asked for comes
//! to run, survives a restart, and goes.

mod support;

use std::sync::Arc;

use manager::{Manager, UpdateKind};
use model::{Service, ServiceId, ServiceSpec, TaskState};
use node::{LeaveError, LeaveMode, LeaveRefusal, NodeState, UnlockError};
use support::{Books, LONG, init_request, open, running, service_spec, until_running};

async fn scale(manager: &Manager, service: &ServiceId, spec: ServiceSpec) -> Arc<Service> {
    let current = manager.shared().view().service(service).expect("the service").clone();
    let updated = manager.control().update_service(service, current.meta.version, spec, UpdateKind::Replace);
    updated.await.expect("an update")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_runs_scales_restarts_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    assert_eq!(node.info().state, NodeState::Inactive);
    let node_id = node.init(init_request()).await.unwrap();
    assert_eq!(node.info().state, NodeState::Active);
    assert!(node.init(init_request()).await.is_err(), "a second init is refused");
    let manager = node.manager().unwrap();
    let service = manager.control().create_service(service_spec("dummy", 1)).await.unwrap();
    let first = until_running(&manager, &service.id, 1).await;
    assert_eq!(*books.running.lock().unwrap(), first);
    let task = manager.shared().view().task(first.first().unwrap()).unwrap().clone();
    assert_eq!(task.node_id, Some(node_id));
    assert!(task.networks[0].network.as_ref().unwrap().spec.ingress, "a published port brings the ingress network");
    assert!(books.node.lock().unwrap().as_ref().is_some_and(|node| !node.attachments.is_empty()));

    scale(&manager, &service.id, service_spec("dummy", 5)).await;
    let five = until_running(&manager, &service.id, 5).await;
    assert!(five.is_superset(&first), "scaling up leaves what runs");
    drop(manager);

    // The daemon goes and comes; tasks are neither stopped nor replaced.
    node.stop().await;
    drop(node);
    assert!(books.stopped.lock().unwrap().is_empty());
    let node = open(folder.path(), &books).await;
    let manager = node.manager().unwrap();
    manager.ready().wait_for(|ready| *ready).await.unwrap();
    assert_eq!(until_running(&manager, &service.id, 5).await, five);

    // A forced update replaces every task.
    let mut spec = service_spec("dummy", 5);
    Arc::make_mut(&mut spec.task).force_update = 1;
    spec.update = Some(model::UpdateConfig {
        parallelism: 0,
        monitor: Some(model::Duration::from_millis(1)),
        ..Default::default()
    });
    scale(&manager, &service.id, spec.clone()).await;
    let mut watch = manager.shared().watch();
    let replaced = watch
        .until(|view| Some(running(view, &service.id)).filter(|tasks| tasks.len() == 5 && tasks.is_disjoint(&five)));
    tokio::time::timeout(LONG, replaced).await.expect("replacement").unwrap();

    manager.control().remove_service(&service.id).await.unwrap();
    let mut watch = manager.shared().watch();
    let empty = watch.until(|view| view.tasks().next().is_none().then_some(()));
    tokio::time::timeout(LONG, empty).await.expect("tasks go with their service").unwrap();
    assert!(books.running.lock().unwrap().is_empty());

    drop(manager);
    assert!(matches!(node.leave(LeaveMode::Safe).await, Err(LeaveError::Refused(LeaveRefusal::LastManager))));
    node.leave(LeaveMode::Force).await.unwrap();
    assert_eq!(node.info().state, NodeState::Inactive);
    assert!(!folder.path().join("swarm").exists());
    node.init(init_request()).await.unwrap();
    node.leave(LeaveMode::Force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_fails_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    node.init(init_request()).await.unwrap();
    let manager = node.manager().unwrap();
    let mut spec = service_spec("frail", 1);
    Arc::make_mut(&mut spec.task).restart = Some(model::RestartPolicy {
        condition: model::RestartCondition::Any,
        delay: Some(model::Duration::from_millis(10)),
        ..Default::default()
    });
    let service = manager.control().create_service(spec).await.unwrap();
    let first = until_running(&manager, &service.id, 1).await;
    let id = first.first().unwrap().clone();
    books.ends.lock().unwrap()[&id].send_replace(true);
    let mut watch = manager.shared().watch();
    let replaced = watch
        .until(|view| Some(running(view, &service.id)).filter(|tasks| tasks.len() == 1 && tasks.is_disjoint(&first)));
    tokio::time::timeout(LONG, replaced).await.expect("a replacement").unwrap();
    let failed = manager.shared().view().task(&id).unwrap().clone();
    assert_eq!(failed.status.state, TaskState::Failed);
    assert_eq!(failed.status.err, "task: non-zero exit (1)");
    assert_eq!(failed.desired_state, TaskState::Shutdown);
    drop(manager);
    node.leave(LeaveMode::Force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_starts_with_its_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    let mut request = init_request();
    request.spec.encryption_config.auto_lock_managers = true;
    node.init(request).await.unwrap();
    let view = node.manager().unwrap().shared().view();
    let key = manager::unlock_key(view.the_cluster().unwrap()).expect("an unlock key");
    node.stop().await;
    drop(node);

    let node = open(folder.path(), &books).await;
    assert_eq!(node.info().state, NodeState::Locked);
    assert!(matches!(node.unlock(&[0; 32]).await, Err(UnlockError::WrongKey)));
    assert!(matches!(node.leave(LeaveMode::Safe).await, Err(LeaveError::Refused(LeaveRefusal::Locked))));
    node.unlock(&key).await.unwrap();
    let manager = node.manager().unwrap();
    let mut watch = manager.shared().watch();
    let led = watch.until(|view| view.the_cluster().cloned());
    let cluster = tokio::time::timeout(LONG, led).await.unwrap().unwrap();
    manager.ready().wait_for(|ready| *ready).await.unwrap();

    // Unlocked for good, it starts by itself.
    let mut spec = cluster.spec.clone();
    spec.encryption_config.auto_lock_managers = false;
    let version = manager.shared().view().the_cluster().unwrap().meta.version;
    manager.control().update_cluster(version, spec, manager::KeyRotation::default()).await.unwrap();
    let file = folder.path().join("swarm/certificates/swarm-node.key");
    let opened = async {
        while std::fs::read_to_string(&file).unwrap().contains("ENCRYPTED") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, opened).await.expect("an open key file");
    drop(manager);
    node.stop().await;
    drop(node);
    let node = open(folder.path(), &books).await;
    assert!(matches!(node.info().state, NodeState::Active | NodeState::Pending));
    node.leave(LeaveMode::Force).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locking_a_running_manager_changes_the_key_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    node.init(init_request()).await.unwrap();
    let manager = node.manager().unwrap();
    let service = manager.control().create_service(service_spec("dummy", 1)).await.unwrap();
    let files = identity::CertificateFiles::new(&folder.path().join("swarm"));
    let old = files.load(None).unwrap().unwrap();
    let cluster = manager.shared().view().the_cluster().unwrap().clone();
    let mut spec = cluster.spec.clone();
    spec.encryption_config.auto_lock_managers = true;
    manager.control().update_cluster(cluster.meta.version, spec, manager::KeyRotation::default()).await.unwrap();
    let key = manager::unlock_key(manager.shared().view().the_cluster().unwrap()).expect("an unlock key");
    let changed = async {
        loop {
            // The certificate's key lay open, too: both are replaced.
            if let Ok(Some(new)) = files.load(Some(&key))
                && files.load(None).is_err()
                && new.key.dek != old.key.dek
                && new.key.dek_pending.is_none()
                && new.cert_pem != old.cert_pem
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, changed).await.expect("new keys");
    drop(manager);
    node.stop().await;
    drop(node);

    let node = open(folder.path(), &books).await;
    assert_eq!(node.info().state, NodeState::Locked);
    node.unlock(&key).await.unwrap();
    let view = node.manager().unwrap().shared().view();
    assert!(view.service(&service.id).is_some(), "the log is read with the new key");
    node.leave(LeaveMode::Force).await.unwrap();
}

/// A file that cannot be read before this is dropped.
struct Stuck(std::path::PathBuf);

impl Stuck {
    fn new(path: std::path::PathBuf) -> Self {
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        Self(path)
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        // Whoever waits to read finds a writer, and the end.
        std::fs::OpenOptions::new().read(true).write(true).open(&self.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_takes_long_to_read_holds_nobody_else_up() {
    let folder = tempfile::tempdir().unwrap();
    let books = Arc::new(Books::default());
    let node = open(folder.path(), &books).await;
    let node_id = node.init(init_request()).await.unwrap();
    node.stop().await;
    drop(node);
    let stuck = Stuck::new(folder.path().join("swarm/raft/log/0000000000000000.log"));
    let node = tokio::time::timeout(LONG, open(folder.path(), &books)).await.expect("the engine comes up without it");
    assert!(node.manager().is_none());
    assert_eq!((node.info().node_id, node.info().error), (node_id.to_string(), String::new()), "it is on its way");
    node.stop().await;
    drop(stuck);
}
