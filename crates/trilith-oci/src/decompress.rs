//! Layers back to tars: whatever a layer is compressed with, seen from its first bytes.
//!
//! The media type is not asked, for it lies now and then; engines do the same. Buffers
//! stay bounded: 32 KiB for gzip, 128 MiB at the very most for zstd, whose decoder refuses
//! larger windows. Knows nothing of what the bytes mean.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use trilith_core::{Digest, Digester};

use crate::media_type;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

/// How many bytes [`Packing::of`] has to see.
pub(crate) const MAGIC_LEN: usize = 4;

impl Packing {
    /// Returns the media type of a layer compressed so, as OCI names it.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media_type::OCI_LAYER_TAR,
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// Returns the packing of content that starts with `magic`.
    pub(crate) fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Returns a reader of what `inner` holds before compression, and the compression.
pub(crate) fn unpacked<'a, R>(mut inner: R) -> io::Result<(Box<dyn Read + Send + 'a>, Packing)>
where
    R: Read + Send + 'a,
{
    let mut magic = Vec::with_capacity(MAGIC_LEN);
    inner
        .by_ref()
        .take(MAGIC_LEN as u64)
        .read_to_end(&mut magic)?;
    let packing = Packing::of(&magic);
    let whole = BufReader::with_capacity(64 * 1024, Cursor::new(magic).chain(inner));
    let reader: Box<dyn Read + Send + 'a> = match packing {
        Packing::Plain => Box::new(whole),
        Packing::Gzip => Box::new(MultiGzDecoder::new(whole)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
    };
    Ok((reader, packing))
}

/// Hashes and counts what is read through it.
pub(crate) struct Hashed<R> {
    inner: R,
    digester: Digester,
    count: u64,
}

impl<R: Read> Hashed<R> {
    /// Returns a reader of `inner` that computes a digest of the kind `like` is.
    pub(crate) fn new(inner: R, like: &Digest) -> Self {
        Self {
            inner,
            digester: Digester::new(like.algorithm()),
            count: 0,
        }
    }

    /// Reads to the end and returns the digest and length of all that was there.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.digester.finish(), self.count))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digester.update(&buffer[..read]);
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_packing_is_seen_and_undone() {
        let zstd = |content: &[u8]| zstd::encode_all(content, 0).unwrap();
        for (packed, packing, plain) in [
            (b"plain text".to_vec(), Packing::Plain, &b"plain text"[..]),
            (b"".to_vec(), Packing::Plain, b""),
            (b"a".to_vec(), Packing::Plain, b"a"),
            (gzip(b"one"), Packing::Gzip, b"one"),
            (
                [gzip(b"one"), gzip(b"two")].concat(),
                Packing::Gzip,
                b"onetwo",
            ),
            (zstd(b"one"), Packing::Zstd, b"one"),
            (
                [zstd(b"one"), zstd(b"two")].concat(),
                Packing::Zstd,
                b"onetwo",
            ),
        ] {
            let (mut reader, found) = unpacked(packed.as_slice()).unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!((found, read.as_slice()), (packing, plain));
        }
    }

    #[test]
    fn damage_is_an_error() {
        let whole = gzip(&[b'x'; 1000]);
        let cut = &whole[..whole.len() - 1];
        let garbage = [&whole[..], b"garbage"].concat();
        let mut flipped = whole.clone();
        let crc = flipped.len() - 6;
        flipped[crc] ^= 1;
        for packed in [cut, &garbage, &flipped] {
            let (mut reader, _) = unpacked(packed).unwrap();
            assert!(io::copy(&mut reader, &mut io::sink()).is_err());
        }
    }

    #[test]
    fn hashes_what_nobody_read_too() {
        let mut hashed = Hashed::new(&b"abc"[..], &Digest::of(b""));
        hashed.read_exact(&mut [0]).unwrap();
        assert_eq!(hashed.finish().unwrap(), (Digest::of(b"abc"), 3));
    }
}
