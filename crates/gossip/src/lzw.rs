//! The compressed layer: a msgpack record `{Algo, Buf}` whose bytes are LZW, least significant bit first, literals of 8
//! bits. What a peer sends is unpacked up to a bound and no further.

use weezl::{BitOrder, LzwStatus, decode, encode};

use crate::message::kind;
use crate::msgpack::{Malformed, Reader, Writer};

const LITERAL_BITS: u8 = 8;
/// The output is taken in steps of this size, so that a small message costs a small buffer.
const STEP: usize = 4096;

/// The layer around `bytes`, its kind first. Streams have it whatever its size; packets take it when it is smaller.
pub(crate) fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    let packed = encode::Encoder::new(BitOrder::Lsb, LITERAL_BITS).encode(bytes).ok()?;
    let mut writer = Writer::new(Vec::with_capacity(packed.len() + 24));
    writer.map(2);
    writer.field("Algo").uint(0);
    writer.field("Buf").raw(&packed);
    let mut layer = writer.into_bytes();
    layer.insert(0, kind::COMPRESS);
    Some(layer)
}

/// What the record after the layer's kind holds, at most `limit` bytes.
pub(crate) fn decompress(record: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
    let (algorithm, packed) = read(&mut Reader::new(record))?;
    if algorithm != 0 {
        return Err(Malformed::Kind);
    }
    unpack(packed, limit)
}

/// Passes over the record.
pub(crate) fn skip(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    read(reader).map(drop)
}

/// The algorithm and the packed bytes. No other field is taken: passing over it could be made arbitrarily slow.
fn read<'a>(reader: &mut Reader<'a>) -> Result<(u64, &'a [u8]), Malformed> {
    let (mut algorithm, mut packed) = (0, &[][..]);
    reader.record(|field, reader| {
        match field {
            b"Algo" => algorithm = reader.uint()?,
            b"Buf" => packed = reader.raw()?,
            _ => return Err(Malformed::Kind),
        }
        Ok(())
    })?;
    Ok((algorithm, packed))
}

fn unpack(mut packed: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
    let mut decoder = decode::Decoder::new(BitOrder::Lsb, LITERAL_BITS);
    let mut unpacked = Vec::new();
    let mut step = [0; STEP];
    loop {
        let result = decoder.decode_bytes(packed, &mut step);
        packed = packed.get(result.consumed_in..).unwrap_or_default();
        unpacked.extend(&step[..result.consumed_out]);
        if unpacked.len() > limit {
            return Err(Malformed::Limit);
        }
        match result.status {
            Ok(LzwStatus::Done) => return Ok(unpacked),
            Ok(LzwStatus::Ok) if result.consumed_in > 0 || result.consumed_out > 0 => {}
            // Go's writer always ends with the end code: without it the message was cut off.
            Ok(LzwStatus::Ok | LzwStatus::NoProgress) => return Err(Malformed::Short),
            Err(_) => return Err(Malformed::Kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_up_to_the_bound() {
        for bytes in [vec![], b"a".to_vec(), vec![7; 100_000], (0..=255).cycle().take(20_000).collect()] {
            let layer = compress(&bytes).expect("packed");
            assert_eq!(layer[0], kind::COMPRESS);
            assert_eq!(decompress(&layer[1..], bytes.len()), Ok(bytes.clone()));
            if !bytes.is_empty() {
                assert_eq!(decompress(&layer[1..], bytes.len() - 1), Err(Malformed::Limit));
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound_and_a_cut_one_is_refused() {
        let layer = compress(&vec![0; 10_000_000]).expect("packed");
        assert!(layer.len() < 20_000, "{}", layer.len());
        assert_eq!(decompress(&layer[1..], 65_536), Err(Malformed::Limit));
        assert_eq!(unpack(&[], 10), Err(Malformed::Short));
        assert_eq!(unpack(&[0, 0], 10), Err(Malformed::Short));
    }
}
