//! References, manifests, indexes and configurations: what is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_types::{ArchiveEntry, ImageDocument, Index, Manifest, Reference};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = Reference::parse(text)
    {
        assert_eq!(Reference::parse(&reference.to_string()).as_ref(), Ok(&reference));
        assert_eq!(Reference::parse(&reference.familiar()).as_ref(), Ok(&reference));
    }
    let _ = serde_json::from_slice::<Manifest>(bytes);
    let _ = serde_json::from_slice::<Index>(bytes);
    let _ = serde_json::from_slice::<Vec<ArchiveEntry>>(bytes);
    if let Ok(document) = serde_json::from_slice::<ImageDocument>(bytes) {
        let again = serde_json::to_vec(&document).expect("documents can be written");
        assert_eq!(serde_json::from_slice::<ImageDocument>(&again).expect("and read again"), document);
    }
});
