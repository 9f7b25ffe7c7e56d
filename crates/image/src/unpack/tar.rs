//! A reader of tar streams (ustar, GNU, pax) that trusts nothing: every length is bounded before memory is taken for it.
//!
//! Called by `apply` for layers and by `load` for archives. A truncated stream is an error, never a short file.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::UnpackLimits;

const BLOCK: usize = 512;
const SPARSE_SEGMENTS_MAX: usize = 65_536;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// Why a stream is no usable tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// A header is damaged.
    #[error("invalid tar header: {0}")]
    Header(&'static str),
    /// A limit is exceeded.
    #[error("tar exceeds the limit of {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The source failed or ended too early.
    #[error("unexpected end or error of the archive")]
    Io(#[from] io::Error),
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A second name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it makes.
    pub kind: EntryKind,
    /// Its path, as it stands in the archive.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of the file as it shall be.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: (u64, u64),
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Offset and length of what is not a hole; `None` if there are no holes.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// The reader. After [`TarReader::next_entry`], `read` gives the entry's data.
pub struct TarReader<R> {
    source: R,
    limits: UnpackLimits,
    remaining: u64,
    padding: u64,
    entries: u64,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse_0_0: Vec<(u64, u64)>,
}

impl<R: Read> TarReader<R> {
    /// Reads `source` within `limits`.
    pub fn new(source: R, limits: UnpackLimits) -> Self {
        Self { source, limits, remaining: 0, padding: 0, entries: 0, global: BTreeMap::new() }
    }

    /// The source, behind the last entry read.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// The next entry, skipping what is left of the one before; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_rest()?;
        let mut extensions = Extensions::default();
        loop {
            let Some(block) = self.read_header()? else { return Ok(None) };
            self.entries += 1;
            if self.entries > self.limits.entries_max {
                return Err(TarError::Limit { what: "entries", limit: self.limits.entries_max });
            }
            let size = number(&block[124..136])?;
            match block[156] {
                b'L' => extensions.long_name = Some(trim_nul(self.read_extension(size)?)),
                b'K' => extensions.long_link = Some(trim_nul(self.read_extension(size)?)),
                b'x' | b'X' => {
                    let bytes = self.read_extension(size)?;
                    parse_pax(&bytes, &mut extensions)?;
                }
                b'g' => {
                    let bytes = self.read_extension(size)?;
                    let mut global = Extensions::default();
                    parse_pax(&bytes, &mut global)?;
                    self.global.append(&mut global.pax);
                    if self.global.len() > SPARSE_SEGMENTS_MAX {
                        return Err(TarError::Header("too many global records"));
                    }
                }
                _ => return self.entry(&block, size, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], size: u64, extensions: Extensions) -> Result<Entry, TarError> {
        let mut pax = self.global.clone();
        pax.extend(extensions.pax);
        let gnu = &block[257..265] == b"ustar  \0";
        let mut path = text(&block[..100]).to_vec();
        if !gnu && &block[257..262] == b"ustar" && block[345] != 0 {
            path = [text(&block[345..500]), b"/", &path].concat();
        }
        let path = pax.remove(&b"path"[..]).or(extensions.long_name).unwrap_or(path);
        let link =
            pax.remove(&b"linkpath"[..]).or(extensions.long_link).unwrap_or_else(|| text(&block[157..257]).to_vec());
        let kind = kind_of(block[156], &path)?;
        let mut stored = match pax.get(&b"size"[..]) {
            Some(value) => decimal(value)?,
            None => size,
        };
        if !matches!(kind, EntryKind::File) {
            stored = 0;
        }
        let mut entry = Entry {
            kind,
            path,
            link,
            mode: (number(&block[100..108])? & 0o7777) as u32,
            uid: pax_number(&pax, b"uid", &block[108..116])?,
            gid: pax_number(&pax, b"gid", &block[116..124])?,
            mtime: match pax.get(&b"mtime"[..]) {
                Some(value) => pax_time(value)?,
                None => (signed_number(&block[136..148])?, 0),
            },
            size: stored,
            device: (0, 0),
            xattrs: BTreeMap::new(),
            sparse: None,
        };
        if matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
            entry.device = (number(&block[329..337])?, number(&block[337..345])?);
        }
        self.remaining = stored;
        self.padding = (BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64;
        self.read_sparse(block, &pax, extensions.sparse_0_0, &mut entry)?;
        for (key, value) in pax {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                entry.xattrs.insert(name.to_vec(), value);
            }
        }
        self.check_names(&entry)?;
        Ok(entry)
    }

    fn check_names(&self, entry: &Entry) -> Result<(), TarError> {
        let limit = self.limits.name_bytes_max;
        for name in [&entry.path, &entry.link] {
            if name.len() > limit {
                return Err(TarError::Limit { what: "bytes in a name", limit: limit as u64 });
            }
            if name.contains(&0) {
                return Err(TarError::Header("a name holds a zero byte"));
            }
        }
        Ok(())
    }

    fn read_sparse(
        &mut self,
        block: &[u8; BLOCK],
        pax: &BTreeMap<Vec<u8>, Vec<u8>>,
        segments_0_0: Vec<(u64, u64)>,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let get = |key: &[u8]| pax.get(key);
        if block[156] == b'S' {
            entry.size = number(&block[483..495])?;
            entry.sparse = Some(self.read_gnu_sparse(block)?);
        } else if get(b"GNU.sparse.major").is_some_and(|value| value == b"1") {
            entry.sparse = Some(self.read_pax_sparse()?);
        } else if let Some(map) = get(b"GNU.sparse.map") {
            let numbers: Vec<u64> = map.split(|byte| *byte == b',').map(decimal).collect::<Result<_, _>>()?;
            entry.sparse = Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
        } else if !segments_0_0.is_empty() {
            entry.sparse = Some(segments_0_0);
        }
        let Some(segments) = &entry.sparse else { return Ok(()) };
        if let Some(name) = get(b"GNU.sparse.name") {
            entry.path = name.clone();
        }
        if let Some(size) = get(b"GNU.sparse.realsize").or_else(|| get(b"GNU.sparse.size")) {
            entry.size = decimal(size)?;
        }
        let mut end = 0;
        let mut total = 0u64;
        for (offset, length) in segments {
            let segment_end = offset.checked_add(*length).ok_or(TarError::Header("sparse map"))?;
            if *offset < end || segment_end > entry.size {
                return Err(TarError::Header("sparse map"));
            }
            end = segment_end;
            total += length;
        }
        if total > self.remaining || segments.len() > SPARSE_SEGMENTS_MAX {
            return Err(TarError::Header("sparse map"));
        }
        Ok(())
    }

    fn read_gnu_sparse(&mut self, block: &[u8; BLOCK]) -> Result<Vec<(u64, u64)>, TarError> {
        let mut segments = Vec::new();
        let mut push = |bytes: &[u8]| -> Result<(), TarError> {
            for pair in bytes.chunks_exact(24) {
                if pair[0] != 0 {
                    segments.push((number(&pair[..12])?, number(&pair[12..])?));
                }
            }
            if segments.len() > SPARSE_SEGMENTS_MAX { Err(TarError::Header("sparse map")) } else { Ok(()) }
        };
        push(&block[386..482])?;
        let mut more = block[482] != 0;
        while more {
            let mut extended = [0; BLOCK];
            self.source.read_exact(&mut extended)?;
            push(&extended[..504])?;
            more = extended[504] != 0;
        }
        Ok(segments)
    }

    /// pax 1.0: the map stands in decimal lines before the data, padded to a block.
    fn read_pax_sparse(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let mut consumed = 0u64;
        let mut next = |reader: &mut Self| -> Result<u64, TarError> {
            let mut digits = Vec::new();
            loop {
                let mut byte = [0];
                reader.read_exact(&mut byte)?;
                consumed += 1;
                match byte[0] {
                    b'\n' => return decimal(&digits),
                    digit if digits.len() < 20 => digits.push(digit),
                    _ => return Err(TarError::Header("sparse map")),
                }
            }
        };
        let count = next(self)?;
        if count > SPARSE_SEGMENTS_MAX as u64 {
            return Err(TarError::Header("sparse map"));
        }
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push((next(self)?, next(self)?));
        }
        let padding = (BLOCK as u64 - consumed % BLOCK as u64) % BLOCK as u64;
        let skipped = io::copy(&mut self.by_ref().take(padding), &mut io::sink())?;
        if skipped < padding {
            return Err(TarError::Header("sparse map"));
        }
        Ok(segments)
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.remaining + self.padding;
        self.remaining = 0;
        self.padding = 0;
        let skipped = io::copy(&mut self.source.by_ref().take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    /// The next header block; `None` at a zero block or at the clean end of the stream.
    fn read_header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let expected = number(&block[148..156])?;
        let as_spaces = |index: usize, byte: u8| if (148..156).contains(&index) { b' ' } else { byte };
        let unsigned: u64 = block.iter().enumerate().map(|(index, byte)| u64::from(as_spaces(index, *byte))).sum();
        let signed: i64 =
            block.iter().enumerate().map(|(index, byte)| i64::from(as_spaces(index, *byte).cast_signed())).sum();
        if expected != unsigned && i64::try_from(expected) != Ok(signed) {
            return Err(TarError::Header("checksum"));
        }
        Ok(Some(block))
    }

    fn read_extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let limit = self.limits.extension_bytes_max as u64;
        if size > limit {
            return Err(TarError::Limit { what: "bytes in an extended header", limit });
        }
        let mut bytes = vec![0; size as usize];
        self.source.read_exact(&mut bytes)?;
        self.remaining = 0;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.skip_rest()?;
        Ok(bytes)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn kind_of(flag: u8, path: &[u8]) -> Result<EntryKind, TarError> {
    Ok(match flag {
        0 if path.ends_with(b"/") => EntryKind::Directory,
        b'0' | 0 | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return Err(TarError::Header("unknown type of entry")),
    })
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(text(&bytes).len());
    bytes
}

/// Octal digits, or base 256 if the first bit is set; negative numbers are refused.
fn number(field: &[u8]) -> Result<u64, TarError> {
    u64::try_from(signed_number(field)?).map_err(|_| TarError::Header("negative number"))
}

fn signed_number(field: &[u8]) -> Result<i64, TarError> {
    let bad = || TarError::Header("number");
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (index, byte) in field.iter().enumerate() {
            let byte = if index == 0 && !negative { byte & 0x7f } else { *byte };
            value = value.checked_mul(256).and_then(|value| value.checked_add(i128::from(byte))).ok_or_else(bad)?;
        }
        return i64::try_from(value).map_err(|_| bad());
    }
    let digits = text(field);
    let digits = digits.trim_ascii();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(bad());
        }
        value = value.checked_mul(8).and_then(|value| value.checked_add(i64::from(digit - b'0'))).ok_or_else(bad)?;
    }
    Ok(value)
}

fn decimal(bytes: impl AsRef<[u8]>) -> Result<u64, TarError> {
    std::str::from_utf8(bytes.as_ref())
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(TarError::Header("decimal number"))
}

fn pax_number(pax: &BTreeMap<Vec<u8>, Vec<u8>>, key: &[u8], field: &[u8]) -> Result<u64, TarError> {
    match pax.get(key) {
        Some(value) => decimal(value),
        None => number(field),
    }
}

fn pax_time(value: &[u8]) -> Result<(i64, u32), TarError> {
    let bad = || TarError::Header("time");
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| bad())?;
    let mut nanos = 0u32;
    for index in 0..9 {
        let digit = fraction.as_bytes().get(index).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(bad());
        }
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    if text.starts_with('-') && nanos > 0 {
        return Ok((seconds.checked_sub(1).ok_or_else(bad)?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

/// Records of the form `<length> <key>=<value>\n`, where the length counts the whole record.
fn parse_pax(mut bytes: &[u8], extensions: &mut Extensions) -> Result<(), TarError> {
    let bad = || TarError::Header("pax record");
    let mut offset_0_0 = None;
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| bad())?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &bytes[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"GNU.sparse.offset" => offset_0_0 = Some(decimal(value)?),
            b"GNU.sparse.numbytes" => {
                let offset = offset_0_0.take().ok_or_else(bad)?;
                extensions.sparse_0_0.push((offset, decimal(value)?));
            }
            _ if value.is_empty() && !key.starts_with(XATTR_PREFIX) => {
                extensions.pax.remove(key);
            }
            _ => {
                extensions.pax.insert(key.to_vec(), value.to_vec());
            }
        }
        bytes = &bytes[length..];
    }
    Ok(())
}
