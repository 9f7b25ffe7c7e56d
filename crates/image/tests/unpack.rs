//! Layers: what an honest one makes, and that a hostile one reaches nothing outside.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use common::archive::{Layer, header};
use common::tree;
use image::UnpackLimits;
use image::unpack::{UnpackError, unpack_layer};
use proptest::prelude::*;

/// Unpacks beside a canary; answers with the tree and the error.
fn unpack(tar: &[u8]) -> (tempfile::TempDir, Result<u64, UnpackError>) {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("canary"), "alive").unwrap();
    std::fs::create_dir(outside.path().join("layer")).unwrap();
    let result = unpack_layer(tar, &outside.path().join("layer"), &[], UnpackLimits::default());
    assert_eq!(std::fs::read(outside.path().join("canary")).unwrap(), b"alive");
    let mode = std::fs::metadata(outside.path().join("canary")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o644);
    let beside: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    (outside, result)
}

fn layer(outside: &tempfile::TempDir, path: &str) -> std::path::PathBuf {
    outside.path().join("layer").join(path)
}

#[test]
fn honest_entries() {
    let tar = Layer::new()
        .dir("./", 0o751)
        .dir("bin/", 0o1777)
        .raw(b"bin/su", b'0', b"", 0o4755, b"su")
        .hardlink("bin/alias", "bin/su")
        .symlink("bin/link", "/bin/su")
        .raw(b"pipe", b'6', b"", 0o600, b"")
        .pax(&[
            ("path", b"long/".repeat(40).as_slice()),
            ("mtime", b"1234567890.5"),
            ("SCHILY.xattr.user.note", b"x\0y"),
            ("uid", b"12"),
            ("gid", b"34"),
        ])
        .dir("short", 0o700)
        .file("implied/deep/file", "data")
        .bytes();
    let (outside, result) = unpack(&tar);
    assert_eq!(result.unwrap(), "su".len() as u64 + "/bin/su".len() as u64 + "data".len() as u64);
    let stat = |path: &str| layer(&outside, path).symlink_metadata().unwrap();
    assert_eq!(stat("").mode() & 0o7777, 0o751);
    assert_eq!(stat("bin").mode() & 0o7777, 0o1777);
    assert_eq!(stat("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(stat("bin/su").ino(), stat("bin/alias").ino());
    assert_eq!(std::fs::read_link(layer(&outside, "bin/link")).unwrap(), Path::new("/bin/su"));
    assert!(stat("pipe").file_type().is_fifo());
    let long = "long/".repeat(40);
    assert_eq!((stat(&long).uid(), stat(&long).gid()), (12, 34));
    assert_eq!((stat(&long).mtime(), stat(&long).mtime_nsec()), (1_234_567_890, 500_000_000));
    assert_eq!(xattr::get(layer(&outside, &long), "user.note").unwrap().unwrap(), b"x\0y");
    assert_eq!(stat("implied/deep").permissions().mode() & 0o7777, 0o755);
    assert_eq!(std::fs::read(layer(&outside, "implied/deep/file")).unwrap(), b"data");
}

#[test]
fn whiteouts_become_overlayfs_terms() {
    let tar = Layer::new()
        .file(".wh.gone", "")
        .file("dir/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "")
        .file("kept", "1")
        .file(".wh.kept", "")
        .file(".wh.again", "")
        .dir("again/", 0o755)
        .file(".wh.implied", "")
        .file("implied/file", "")
        .bytes();
    let (outside, result) = unpack(&tar);
    result.unwrap();
    let gone = layer(&outside, "gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for name in ["dir", "again", "implied"] {
        assert_eq!(xattr::get(layer(&outside, name), "trusted.overlay.opaque").unwrap().unwrap(), b"y", "{name}");
    }
    assert_eq!(std::fs::read(layer(&outside, "kept")).unwrap(), b"1");
    assert!(!layer(&outside, ".wh..wh.plnk").exists());
}

#[test]
fn implied_directories_are_as_below() {
    let root = tempfile::tempdir().unwrap();
    let (below, above) = (root.path().join("below"), root.path().join("above"));
    std::fs::create_dir_all(below.join("secret")).unwrap();
    std::fs::set_permissions(below.join("secret"), PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(below.join("secret"), Some(5), Some(6)).unwrap();
    std::fs::create_dir(&above).unwrap();
    let tar = Layer::new().file("secret/key", "k").bytes();
    unpack_layer(&tar[..], &above, &[below], UnpackLimits::default()).unwrap();
    let stat = above.join("secret").metadata().unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o700, 5, 6));
}

#[test]
fn sparse_files_of_gnu_and_pax() {
    let pax = Layer::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"holes"),
            ("GNU.sparse.realsize", b"100000"),
        ])
        .raw(b"x", b'0', b"", 0o644, &{
            let mut data = b"2\n10\n3\n50000\n2\n".to_vec();
            data.resize(512, 0);
            data.extend(b"abcde");
            data
        })
        .bytes();
    let (outside, result) = unpack(&pax);
    assert_eq!(result.unwrap(), 100_000);
    let content = std::fs::read(layer(&outside, "holes")).unwrap();
    assert_eq!(content.len(), 100_000);
    assert_eq!((&content[10..13], &content[50_000..50_002], content[0]), (&b"abc"[..], &b"de"[..], 0));
}

#[test]
fn nothing_leads_out() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("dot dot", Layer::new().file("../canary", "dead").bytes()),
        ("deep dot dot", Layer::new().file("a/../../canary", "dead").bytes()),
        ("link to parent", Layer::new().symlink("out", "..").file("out/canary", "dead").bytes()),
        ("link chain", Layer::new().symlink("a", "b").symlink("b", "../..").file("a/canary", "dead").bytes()),
        ("hard link out", Layer::new().hardlink("c", "../canary").file("c", "dead").bytes()),
        ("hard link through link", Layer::new().symlink("o", "..").hardlink("c", "o/canary").bytes()),
        ("whiteout out", Layer::new().file("../.wh.canary", "").bytes()),
        ("whiteout of parent", Layer::new().file(".wh...", "").bytes()),
        ("whiteout through link", Layer::new().symlink("o", "..").file("o/.wh.canary", "").bytes()),
        ("opaque through link", Layer::new().symlink("o", "..").file("o/.wh..wh..opq", "").bytes()),
        ("mode through link", Layer::new().symlink("o", "../canary").dir("o/", 0o777).bytes()),
        ("long name", Layer::new().raw(b"l", b'L', b"", 0, b"x/../../../canary\0").file("x", "dead").bytes()),
        ("pax name", Layer::new().pax(&[("path", b"../canary")]).file("x", "dead").bytes()),
        ("root as file", Layer::new().file("./", "dead").bytes()),
        (
            "overlay attribute",
            Layer::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/x")]).dir("d", 0o755).bytes(),
        ),
    ];
    for (name, tar) in cases {
        let (outside, result) = unpack(&tar);
        println!("{name}: {result:?} {:?}", tree(outside.path()));
    }
}

#[test]
fn absolute_names_and_links_stay_inside() {
    let tar = Layer::new()
        .file("/etc/shadow", "mine")
        .symlink("abs", "/inside")
        .dir("inside/", 0o755)
        .file("abs/file", "in")
        .bytes();
    let (outside, result) = unpack(&tar);
    result.unwrap();
    assert_eq!(std::fs::read(layer(&outside, "etc/shadow")).unwrap(), b"mine");
    assert_eq!(std::fs::read(layer(&outside, "inside/file")).unwrap(), b"in");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tar = Layer::new()
        .dir("d/", 0o755)
        .file("d/f", "x")
        .symlink("d", "/")
        .file("f", "1")
        .file("f", "2")
        .symlink("s", "f")
        .file("s", "3")
        .bytes();
    let (outside, result) = unpack(&tar);
    result.unwrap();
    assert!(layer(&outside, "d").symlink_metadata().unwrap().is_symlink());
    assert_eq!(std::fs::read(layer(&outside, "f")).unwrap(), b"2");
    assert_eq!(std::fs::read(layer(&outside, "s")).unwrap(), b"3");
}

#[test]
fn limits_and_damage() {
    let small = UnpackLimits { entries_max: 2, bytes_max: 10, name_bytes_max: 20, extension_bytes_max: 100 };
    let huge = |kind: u8| {
        let mut tar = header(b"x", kind, b"", 0o644, 1 << 33).to_vec();
        tar.extend([b'a'; 512]);
        tar
    };
    let cases = [
        ("entries", Layer::new().file("a", "").file("b", "").file("c", "").bytes()),
        ("bytes", Layer::new().file("a", "123456").file("b", "123456").bytes()),
        ("name", Layer::new().file("abcdefghijabcdefghijk", "").bytes()),
        ("extension", Layer::new().pax(&[("comment", &[b'c'; 101])]).file("a", "").bytes()),
        ("huge extension", huge(b'L')),
        ("huge file", huge(b'0')),
        ("cut header", Layer::new().file("a", "").unfinished()[..100].to_vec()),
        ("cut data", Layer::new().file("a", "12345").unfinished()[..514].to_vec()),
        ("cut padding", Layer::new().file("a", "12345").unfinished()[..520].to_vec()),
        ("checksum", {
            let mut tar = Layer::new().file("a", "").bytes();
            tar[0] = b'b';
            tar
        }),
        ("kind", Layer::new().raw(b"a", b'Z', b"", 0, b"").bytes()),
        ("pax", Layer::new().raw(b"p", b'x', b"", 0, b"9999 a=b\n").file("a", "").bytes()),
    ];
    for (name, tar) in cases {
        let root = tempfile::tempdir().unwrap();
        assert!(unpack_layer(&tar[..], root.path(), &[], small).is_err(), "{name}");
    }
    let root = tempfile::tempdir().unwrap();
    let edge = Layer::new().file("abcdefghijabcdefghij", "12345").file("b", "12345").bytes();
    assert_eq!(unpack_layer(&edge[..], root.path(), &[], small).unwrap(), 10);
}

fn hostile_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(".."),
        Just("."),
        Just("a"),
        Just("b"),
        Just("canary"),
        Just(".wh.a"),
        Just(".wh..wh..opq"),
        Just("")
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever mixture of names, links and whiteouts comes: the canary beside the layer stays as it is.
    #[test]
    fn no_archive_reaches_outside(
        entries in prop::collection::vec((hostile_name(), hostile_name(), 0usize..6), 1..12)
    ) {
        let mut tar = Layer::new();
        for (name, link, kind) in &entries {
            let link = if *kind == 2 { format!("../{link}") } else { link.clone() };
            tar = match kind {
                0 => tar.file(name, "dead"),
                1 | 2 => tar.symlink(name, &link),
                3 => tar.hardlink(name, &link),
                _ => tar.dir(name, 0o777),
            };
        }
        let (_outside, _result) = unpack(&tar.bytes());
    }

    /// Noise in a header neither panics nor takes memory.
    #[test]
    fn no_noise_panics(position in 0usize..1536, value: u8, extra in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut tar = Layer::new().pax(&[("path", b"abc"), ("size", b"3")]).file("x", "abc").bytes();
        tar[position] = value;
        tar.extend(extra);
        let (_outside, _result) = unpack(&tar);
    }
}
