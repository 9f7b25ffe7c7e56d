//! The program's own pages in memory.
//!
//! A start runs through most of the program once, and the kernel maps 64 KiB around each place that is touched; an idle
//! daemon then counts 20 MiB of code as its own of which it uses a fraction. Unmapped, the pages stay in the kernel's cache
//! for as long as there is room, without a process that holds on to them, and come back with a minor fault when needed.
//!
//! Invariant: only mappings of the program's file are touched that cannot be written and hold nothing but the file's
//! contents. Caller: the daemon, from time to time.

use std::fs;
use std::io;
use std::ops::Range;

/// Unmaps the pages of the running program; returns the size of the mappings in bytes.
pub fn unmap() -> io::Result<usize> {
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let mut size = 0;
    for range in unwritten(&smaps, unmap as *const () as usize) {
        size += range.len();
        // SAFETY: the mapping is one of a file, private, not writable and without a page of its own, so each page is read
        // from the file again; nobody unmaps or changes the program's mappings while it runs.
        let done = unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(size)
}

/// A mapping as `/proc/<pid>/smaps` tells it.
struct Mapping<'a> {
    range: Range<usize>,
    access: &'a str,
    /// Device and inode.
    file: (&'a str, &'a str),
    /// Bytes that are no longer the file's, or never were, in KiB.
    anonymous_kib: Option<u64>,
}

/// The mappings of the file that `code` is in which hold only what the file holds.
fn unwritten(smaps: &str, code: usize) -> Vec<Range<usize>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = head(line) {
            mappings.push(mapping);
        } else if let (Some(mapping), Some(value)) = (mappings.last_mut(), line.strip_prefix("Anonymous:")) {
            mapping.anonymous_kib = value.trim().strip_suffix(" kB").and_then(|number| number.parse().ok());
        }
    }
    let own = mappings.iter().find(|mapping| mapping.range.contains(&code)).map(|mapping| mapping.file);
    mappings
        .into_iter()
        .filter(|mapping| Some(mapping.file) == own && mapping.file.1 != "0")
        .filter(|mapping| matches!(mapping.access, "r-xp" | "r--p") && mapping.anonymous_kib == Some(0))
        .map(|mapping| mapping.range)
        .collect()
}

/// `00a7b000-02498000 r-xp 0087a000 fe:00 10149982   /usr/bin/skep`; None for a line of details.
fn head(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    let (access, _offset) = (words.next()?, words.next()?);
    Some(Mapping { range, access, file: (words.next()?, words.next()?), anonymous_kib: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00200000-00a7b000 r--p 00000000 fe:00 42                           /usr/bin/skep
Rss:                2048 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
00a7b000-02498000 r-xp 0087a000 fe:00 42                           /usr/bin/skep
Anonymous:             0 kB
02498000-024a2000 r--p 02297000 fe:00 42                           /usr/bin/skep
Anonymous:            16 kB
024a2000-024ab000 rw-p 022a1000 fe:00 42                           /usr/bin/skep
Anonymous:             0 kB
7fad00000000-7fad00001000 r-xp 00000000 fe:00 43                   /usr/lib/other (deleted)
Anonymous:             0 kB
7fad00001000-7fad00002000 r--p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_what_the_file_holds_is_chosen() {
        assert_eq!(unwritten(SMAPS, 0xb0_0000), [0x20_0000..0xa7_b000_usize, 0xa7_b000..0x249_8000]);
        // in no mapping, in one without a file, and with a kernel that does not tell
        assert!(unwritten(SMAPS, 1).is_empty());
        assert!(unwritten(SMAPS, 0x7fad_0000_1000).is_empty());
        assert!(unwritten(&SMAPS.replace("Anonymous", "Other"), 0xb0_0000).is_empty());
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        assert!(unmap().unwrap() > 1 << 20);
        assert_eq!(format!("{:?}", vec![1, 2, 3]), "[1, 2, 3]");
    }
}
