//! Reads whatever comes as a tar stream: no panic, no unbounded memory, and names within their limits.

#![no_main]

use std::io::Read;

use image::UnpackLimits;
use image::unpack::TarReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = UnpackLimits { name_bytes_max: 512, ..UnpackLimits::default() };
    let mut tar = TarReader::new(bytes, limits);
    while let Ok(Some(entry)) = tar.next_entry() {
        assert!(entry.path.len() <= 512 && entry.link.len() <= 512);
        let mut data = Vec::new();
        let _ = tar.by_ref().take(1 << 16).read_to_end(&mut data);
    }
});
