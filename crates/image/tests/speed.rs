//! How long a container's root filesystem takes, by the numbers the design asks for.

mod common;

use std::io::Cursor;
use std::time::Instant;

use common::archive::{docker_archive, two_layers};
use common::store;
use image::ProgressSender;

/// A container has 40 ms from its creation until it runs; its root filesystem may take a small part of that. The
/// bound is ten times what is measured.
#[tokio::test]
async fn root_filesystems_are_quick() {
    const CONTAINERS: usize = 50;
    let here = store();
    let archive = docker_archive(&two_layers(), &["x"]).0;
    here.store.load(Cursor::new(archive), ProgressSender::none()).await.unwrap();
    let image = here.store.resolve("x").unwrap();
    let started = Instant::now();
    for index in 0..CONTAINERS {
        let id = format!("c{index}");
        here.store.prepare_rootfs(&id, &image).await.unwrap();
        here.store.mount(&id).await.unwrap();
    }
    let made = started.elapsed() / CONTAINERS as u32;
    let started = Instant::now();
    for index in 0..CONTAINERS {
        here.store.remove_rootfs(&format!("c{index}")).await.unwrap();
    }
    let removed = started.elapsed() / CONTAINERS as u32;
    println!("prepare and mount {made:?}, unmount and remove {removed:?}");
    assert!(made.as_millis() < 20 && removed.as_millis() < 20, "{made:?} {removed:?}");
}
