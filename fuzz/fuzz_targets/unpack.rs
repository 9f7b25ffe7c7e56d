//! Unpacks whatever comes as a layer (as root, in a directory beside a canary) and sees that the canary stays alone.

#![no_main]

use std::os::unix::fs::MetadataExt;

use image::UnpackLimits;
use image::unpack::unpack_layer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let outside = tempfile::tempdir().expect("a temporary directory can be made");
    let (canary, layer) = (outside.path().join("canary"), outside.path().join("layer"));
    std::fs::write(&canary, "alive").expect("the canary can be written");
    std::fs::create_dir(&layer).expect("the layer can be made");
    let before = std::fs::metadata(&canary).expect("the canary is there");
    let limits = UnpackLimits { entries_max: 1_000, bytes_max: 1 << 20, ..UnpackLimits::default() };
    let _ = unpack_layer(bytes, &layer, &[], limits);
    let after = std::fs::symlink_metadata(&canary).expect("the canary is still there");
    assert_eq!(std::fs::read(&canary).expect("the canary can be read"), b"alive");
    assert_eq!((before.ino(), before.mode(), before.uid(), before.nlink()), (after.ino(), after.mode(), after.uid(), after.nlink()));
    let beside = std::fs::read_dir(outside.path()).expect("the directory can be listed").count();
    assert_eq!(beside, 2);
});
