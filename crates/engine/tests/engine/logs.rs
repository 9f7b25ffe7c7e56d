//! Logs: rotation, following, options.

use engine::{ErrorKind, LogStream, LogsOptions};

use crate::support::{World, patiently, shell, with_host};

fn all() -> LogsOptions {
    LogsOptions { stdout: true, stderr: true, ..LogsOptions::default() }
}

async fn next(stream: &mut LogStream) -> Option<String> {
    patiently(stream.frames.recv()).await.map(|frame| String::from_utf8(frame.bytes.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_logs_are_one_and_tails_are_cut() {
    let world = World::new().await;
    let wanted = with_host(shell("seq 1 2000"), |host| {
        host.log_config.kind = "json-file".into();
        let options = [("max-size", "20k"), ("max-file", "100"), ("compress", "true")];
        host.log_config.config = Some(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    });
    let id = world.create("web", wanted).await;
    world.engine.start(&id).await.unwrap();
    assert_eq!(world.wait(&id).await.status_code, 0);
    let expected: String = (1..=2000).map(|number| format!("{number}\n")).collect();
    assert_eq!(world.log(&id).await, expected);
    let files = std::fs::read_dir(world.container_directory(&id)).unwrap().flatten();
    let rotated = files.filter(|entry| entry.file_name().to_string_lossy().contains("json.log.")).count();
    // the shim rotates between the pieces that it reads
    assert!(rotated > 0, "{rotated} rotated files");
    let mut stream = world.engine.logs(&id, LogsOptions { tail: Some(1500), ..all() }).await.unwrap();
    assert_eq!(next(&mut stream).await.as_deref(), Some("501\n"));
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn following_sees_every_line_across_rotations_until_the_end() {
    let world = World::new().await;
    let wanted = with_host(shell("while ! test -e /go; do sleep 0.01; done; seq 1 3000"), |host| {
        host.log_config.kind = "json-file".into();
        let options = [("max-size", "100k"), ("max-file", "10")];
        host.log_config.config = Some(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    });
    let id = world.create("web", wanted).await;
    world.engine.start(&id).await.unwrap();
    let mut stream = world.engine.logs(&id, LogsOptions { follow: true, timestamps: true, ..all() }).await.unwrap();
    let merged = world.inspect(&id).await.graph_driver.data.unwrap()["MergedDir"].clone();
    std::fs::write(std::path::Path::new(&merged).join("go"), "").unwrap();
    for number in 1..=3000 {
        let line = next(&mut stream).await.unwrap();
        let (time, text) = line.split_once(' ').unwrap();
        assert_eq!((time.len(), text), (30, format!("{number}\n").as_str()));
    }
    assert_eq!(next(&mut stream).await, None, "the log ends with its container");
    world.remove(&id).await;
    world.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused() {
    let world = World::new().await;
    let id = world.create("web", with_host(shell("true"), |host| host.log_config.kind = "none".into())).await;
    let error = world.engine.logs(&id, all()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotImplemented, "configured logging driver does not support reading")
    );
    world.remove(&id).await;
    let id = world.create("web", shell("true")).await;
    let error = world.engine.logs(&id, LogsOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "You must choose at least one stream");
    assert_eq!(world.log(&id).await, "", "a container that never ran has said nothing");
    world.remove(&id).await;
    world.assert_clean();
}
