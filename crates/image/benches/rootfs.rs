//! A container's root file system, made and removed, against the bare overlay mounts below it: the floor. As root:
//! `cargo bench -p image --bench rootfs`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

use common::archive::{docker_archive, two_layers};
use common::store;
use image::ProgressSender;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const CONTAINERS: u32 = 50;
const ROUNDS: usize = 7;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut rounds: Vec<[Duration; 4]> = (0..ROUNDS).map(|_| runtime.block_on(round())).collect();
    let mut median = |column: usize| {
        rounds.sort_by_key(|round| round[column]);
        rounds[ROUNDS / 2][column]
    };
    for (what, own, floor) in [("prepare and mount", 0, 2), ("unmount and remove", 1, 3)] {
        let (own, floor) = (median(own), median(floor));
        println!("{what}: {own:?}, bare overlay {floor:?}, ratio {:.2}", own.as_secs_f64() / floor.as_secs_f64());
    }
}

/// Made and removed by the store, made and removed bare; each per container.
async fn round() -> [Duration; 4] {
    let here = store();
    let archive = docker_archive(&two_layers(), &["x"]).0;
    here.store.load(Cursor::new(archive), ProgressSender::none()).await.expect("an image");
    let image = here.store.resolve("x").expect("the image");
    let started = Instant::now();
    for index in 0..CONTAINERS {
        let id = format!("c{index}");
        here.store.prepare_rootfs(&id, &image).await.expect("a root");
        here.store.mount(&id).await.expect("a mount");
    }
    let made = started.elapsed() / CONTAINERS;
    let started = Instant::now();
    for index in 0..CONTAINERS {
        here.store.remove_rootfs(&format!("c{index}")).await.expect("removed");
    }
    let removed = started.elapsed() / CONTAINERS;
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("lower")).expect("a layer");
    let started = Instant::now();
    (0..CONTAINERS).for_each(|index| bare_mount(folder.path(), index));
    let bare_made = started.elapsed() / CONTAINERS;
    let started = Instant::now();
    (0..CONTAINERS).for_each(|index| bare_remove(folder.path(), index));
    [made, removed, bare_made, started.elapsed() / CONTAINERS]
}

fn bare_mount(folder: &Path, index: u32) {
    let own = folder.join(index.to_string());
    for part in ["upper", "work", "merged"] {
        fs::create_dir_all(own.join(part)).expect("a folder");
    }
    let (lower, shown) = (folder.join("lower"), own.display());
    let data = format!("lowerdir={},upperdir={shown}/upper,workdir={shown}/work", lower.display());
    mount(Some("overlay"), &own.join("merged"), Some("overlay"), MsFlags::empty(), Some(data.as_str())).expect("mount");
}

fn bare_remove(folder: &Path, index: u32) {
    let own = folder.join(index.to_string());
    umount2(&own.join("merged"), MntFlags::MNT_DETACH).expect("umount");
    fs::remove_dir_all(own).expect("removed");
}
