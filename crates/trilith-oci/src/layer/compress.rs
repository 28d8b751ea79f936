//! Compression on all cores, whose bytes depend on the input alone.
//!
//! The input is cut into blocks of a fixed size, each compressed without knowledge of what the
//! others became, and written in order. How many threads there are changes nothing but the time.
//!
//! - gzip: a member for each block, by libdeflate, which takes half of zlib's time for fewer bytes but
//!   knows no stream. Members in a row are one file (RFC 1952, section 2.2), in images since eStargz.
//!   Blocks that look like noise (archives, images, most of what a package registry serves) are stored
//!   as they are: deflate would spend its time on them and save nothing.
//! - zstd: a frame for each block. Every reader of zstd reads frames in a row; `zstd`'s own
//!   threads would write other bytes for another number of them.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};

use crate::error::Error;
use crate::media_type;

/// Input bytes of a member of gzip. Part of the format: another size is another digest.
const GZIP_BLOCK: usize = 256 * 1024;
/// Input bytes of a zstd frame. Part of the format. Twice as much saves 2 % and costs the memory.
const ZSTD_BLOCK: usize = 2 * 1024 * 1024;
/// Bytes at the start of a block that are tried. Part of the format.
const PROBE: usize = 16 * 1024;
/// The most threads for gzip. With more they would wait for the one that reads and hashes, and a
/// layer would take more than 64 MiB of memory.
const GZIP_THREADS: usize = 8;
/// Likewise for zstd, whose blocks and tables are larger. Levels above 12 take more memory.
const ZSTD_THREADS: usize = 4;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// gzip at a level of libdeflate from 1 to 9. What every registry and engine takes.
    Gzip(u32),
    /// zstd at a level from 1 to 19. For OCI images only.
    Zstd(i32),
    /// None.
    None,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip(level) => write!(f, "gzip {level}"),
            Self::Zstd(level) => write!(f, "zstd {level}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Default for Compression {
    /// Packs as closely as zlib does at its level 6.
    fn default() -> Self {
        Self::Gzip(5)
    }
}

impl Compression {
    /// zstd where nobody asks for another level.
    pub const DEFAULT_ZSTD: Self = Self::Zstd(3);

    /// Returns what makes a layer of this type where nobody asks for another level.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Self::default()),
            media_type::OCI_LAYER_ZSTD => Some(Self::DEFAULT_ZSTD),
            media_type::OCI_LAYER_TAR | media_type::DOCKER_LAYER_TAR => Some(Self::None),
            _ => None,
        }
    }

    /// Returns the media type of a layer compressed so, as OCI names it.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip(_) => media_type::OCI_LAYER_GZIP,
            Self::Zstd(_) => media_type::OCI_LAYER_ZSTD,
            Self::None => media_type::OCI_LAYER_TAR,
        }
    }

    /// Checks the level.
    pub(super) fn check(self) -> Result<(), Error> {
        let (name, level, levels) = match self {
            Self::Gzip(level) => ("gzip", i64::from(level), 1..=9),
            Self::Zstd(level) => ("zstd", i64::from(level), 1..=19),
            Self::None => return Ok(()),
        };
        if levels.contains(&level) {
            return Ok(());
        }
        Err(Error::Unsupported {
            object: format!("`{name}` at level {level}"),
            reason: format!("its levels are {} to {}", levels.start(), levels.end()),
            advice: "leave out the level to get the default",
        })
    }

    fn codec(self) -> Option<Codec> {
        match self {
            Self::Gzip(level) => Some(Codec::Gzip(level)),
            Self::Zstd(level) => Some(Codec::Zstd(level)),
            Self::None => None,
        }
    }
}

/// What compresses a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Gzip(u32),
    Zstd(i32),
}

impl Codec {
    fn block_size(self) -> usize {
        match self {
            Self::Gzip(_) => GZIP_BLOCK,
            Self::Zstd(_) => ZSTD_BLOCK,
        }
    }

    fn max_threads(self) -> usize {
        match self {
            Self::Gzip(_) => GZIP_THREADS,
            Self::Zstd(_) => ZSTD_THREADS,
        }
    }
}

/// Compresses what is written to it into `W`. Ends with [`Self::finish`]; dropped before, what
/// is in `W` is no whole stream.
pub(super) enum Encoder<W: Write> {
    Plain(W),
    Blocks(Box<Blocks<W>>),
}

impl<W: Write> Encoder<W> {
    /// Returns an encoder that uses all cores this process may run on.
    pub(super) fn new(compression: Compression, output: W) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::with_threads(compression, output, cores)
    }

    fn with_threads(compression: Compression, output: W, threads: usize) -> Self {
        let Some(codec) = compression.codec() else {
            return Self::Plain(output);
        };
        let threads = threads.min(codec.max_threads());
        Self::Blocks(Box::new(Blocks::new(codec, output, threads)))
    }

    /// Writes what is left and returns the output.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(output) => Ok(output),
            Self::Blocks(blocks) => blocks.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Blocks(blocks) => blocks.take(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks end where the format says, not where a caller flushes.
        Ok(())
    }
}

pub(super) struct Blocks<W> {
    output: W,
    codec: Codec,
    /// Input of the block that is being filled.
    block: Vec<u8>,
    workers: Workers,
}

impl<W: Write> Blocks<W> {
    fn new(codec: Codec, output: W, threads: usize) -> Self {
        Self {
            output,
            codec,
            block: Vec::new(),
            workers: Workers::new(codec, threads),
        }
    }

    /// Takes some of `bytes` into the block, and returns how many.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.codec.block_size();
        // Only now is it known that the full block is not the last one.
        if self.block.len() == size && !bytes.is_empty() {
            let next = Vec::with_capacity(size);
            let full = std::mem::replace(&mut self.block, next);
            self.workers.start();
            self.submit(full)?;
        }
        let taken = bytes.len().min(size - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn finish(mut self) -> io::Result<W> {
        let last = std::mem::take(&mut self.block);
        self.submit(last)?;
        while let Some(done) = self.workers.receive() {
            self.output.write_all(&done?)?;
        }
        Ok(self.output)
    }

    /// Compresses a block here, or has a thread do so, once one of them has time.
    fn submit(&mut self, block: Vec<u8>) -> io::Result<()> {
        if self.workers.lanes.is_empty() {
            return self.output.write_all(&run(self.codec, &block)?);
        }
        if self.workers.is_full()
            && let Some(done) = self.workers.receive()
        {
            self.output.write_all(&done?)?;
        }
        self.workers.send(block)
    }
}

/// Compresses a block, with a state made for it alone.
///
/// A state that was used may shine through, as zstd salts its hashes anew (levels 5 to 12). The bytes
/// would depend on which blocks the thread saw before.
fn run(codec: Codec, block: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::Gzip(_) if is_noise(block)? => gzip(0, block),
        Codec::Gzip(level) => gzip(level, block),
        Codec::Zstd(level) => zstd::bulk::Compressor::new(level)?.compress(block),
    }
}

/// Returns whether deflate can be expected to save less than two parts of a hundred.
///
/// Bytes that are evenly spread leave Huffman's code nothing to gain; a try at the start of the
/// block tells whether they repeat. In whole numbers, as the answer is part of the format.
fn is_noise(input: &[u8]) -> io::Result<bool> {
    if input.len() < PROBE {
        return Ok(false);
    }
    let mut counts = [0_u64; 256];
    for &byte in input {
        counts[usize::from(byte)] += 1;
    }
    // Of noise, the squares add up to the length's square by 256, and the length.
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let length = input.len() as u64;
    if squares * 256 > length * length / 20 * 21 + 256 * length {
        return Ok(false);
    }
    Ok(gzip(1, &input[..PROBE])?.len() > PROBE / 100 * 98)
}

/// Returns `input` as a member of gzip, without a name or a time.
fn gzip(level: u32, input: &[u8]) -> io::Result<Vec<u8>> {
    let known = i32::try_from(level).ok().map(CompressionLvl::new);
    let Some(Ok(level)) = known else {
        return Err(io::Error::other(format!("gzip has no level {level}")));
    };
    let mut compressor = Compressor::new(level);
    let mut output = vec![0; compressor.gzip_compress_bound(input.len())];
    let length = compressor.gzip_compress(input, &mut output);
    output.truncate(length.map_err(io::Error::other)?);
    Ok(output)
}

/// Threads that compress, each the blocks whose number is its own modulo their count.
///
/// So the oldest block under way is always the next of a known thread, and what is done is taken
/// up in order without a queue for reordering.
struct Workers {
    codec: Codec,
    threads: usize,
    lanes: Vec<Lane>,
    sent: usize,
    received: usize,
}

struct Lane {
    blocks: SyncSender<Vec<u8>>,
    done: Receiver<io::Result<Vec<u8>>>,
}

impl Workers {
    /// Blocks under way for each thread: one it works on, one that waits for it.
    const DEPTH: usize = 2;

    /// Returns threads that are not started yet.
    fn new(codec: Codec, threads: usize) -> Self {
        Self {
            codec,
            threads,
            lanes: Vec::new(),
            sent: 0,
            received: 0,
        }
    }

    /// Starts the threads, unless they run or would not help. Where the system has none left,
    /// there are fewer; the bytes are the same.
    fn start(&mut self) {
        if self.lanes.is_empty() && self.threads > 1 {
            self.lanes = (0..self.threads)
                .map_while(|_| start_lane(self.codec).ok())
                .collect();
        }
    }

    fn is_full(&self) -> bool {
        self.sent - self.received >= Self::DEPTH * self.lanes.len()
    }

    fn send(&mut self, block: Vec<u8>) -> io::Result<()> {
        let lane = &self.lanes[self.sent % self.lanes.len()];
        lane.blocks.send(block).map_err(|_| thread_ended())?;
        self.sent += 1;
        Ok(())
    }

    /// Returns the oldest block under way once it is done, `None` where there is none.
    fn receive(&mut self) -> Option<io::Result<Vec<u8>>> {
        if self.received == self.sent {
            return None;
        }
        let lane = &self.lanes[self.received % self.lanes.len()];
        self.received += 1;
        Some(lane.done.recv().unwrap_or_else(|_| Err(thread_ended())))
    }
}

fn start_lane(codec: Codec) -> io::Result<Lane> {
    let (blocks, inbox) = sync_channel::<Vec<u8>>(Workers::DEPTH);
    let (outbox, done) = sync_channel(Workers::DEPTH);
    // Ends by itself when either channel does, so nothing waits for it.
    thread::Builder::new()
        .name("compress".to_owned())
        .spawn(move || {
            while let Ok(block) = inbox.recv() {
                if outbox.send(run(codec, &block)).is_err() {
                    break;
                }
            }
        })?;
    Ok(Lane { blocks, done })
}

fn thread_ended() -> io::Error {
    io::Error::other("a compression thread ended early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use trilith_core::Digest;

    const ALL: [Compression; 7] = [
        Compression::Gzip(1),
        Compression::Gzip(5),
        Compression::Gzip(9),
        Compression::Zstd(1),
        Compression::Zstd(3),
        Compression::Zstd(6),
        Compression::None,
    ];

    /// Text-like bytes, the same on every machine.
    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut bytes = Vec::with_capacity(len + 16);
        while bytes.len() < len {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = (state >> 20) % 500;
            bytes.extend_from_slice(format!("{word:x}-{} ", word * word).as_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn encode(compression: Compression, input: &[u8], threads: usize, step: usize) -> Vec<u8> {
        let mut encoder = Encoder::with_threads(compression, Vec::new(), threads);
        for piece in input.chunks(step.max(1)) {
            encoder.write_all(piece).unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        match compression {
            Compression::Gzip(_) => {
                let mut members = flate2::bufread::MultiGzDecoder::new(bytes);
                io::copy(&mut members, &mut decoded).unwrap();
            }
            Compression::Zstd(_) => decoded = zstd::stream::decode_all(bytes).unwrap(),
            Compression::None => decoded.extend_from_slice(bytes),
        }
        decoded
    }

    #[test]
    fn threads_and_write_sizes_change_no_byte() {
        let input = sample(2 * ZSTD_BLOCK + 3 * GZIP_BLOCK + 17);
        for compression in ALL {
            let alone = encode(compression, &input, 1, input.len());
            assert!(decode(compression, &alone) == input, "{compression:?}");
            for (threads, step) in [(2, 1000), (3, 1 << 20), (7, 4096)] {
                let parallel = encode(compression, &input, threads, step);
                assert!(parallel == alone, "{compression:?} on {threads} threads");
            }
        }
    }

    #[test]
    fn block_borders() {
        for compression in ALL {
            let size = compression.codec().map_or(GZIP_BLOCK, Codec::block_size);
            for len in [0, 1, size - 1, size, size + 1, 2 * size, 2 * size + 1] {
                let input = sample(len);
                let encoded = encode(compression, &input, 2, 65_536);
                assert!(
                    decode(compression, &encoded) == input,
                    "{compression:?} {len}"
                );
            }
        }
    }

    /// Bytes that do not compress, the same on every machine.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let bytes = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        });
        bytes.take(len).collect()
    }

    #[test]
    fn noise_is_stored_between_what_is_not() {
        let ramp: Vec<u8> = (0..=255).cycle().take(GZIP_BLOCK).collect();
        assert!(is_noise(&noise(GZIP_BLOCK)).unwrap());
        for input in [&ramp[..], &sample(GZIP_BLOCK), &noise(PROBE - 1), &[]] {
            assert!(!is_noise(input).unwrap());
        }
        let mut input = Vec::new();
        for piece in [
            &noise(GZIP_BLOCK)[..],
            &sample(GZIP_BLOCK),
            &noise(3 * GZIP_BLOCK),
            &ramp,
            &noise(GZIP_BLOCK + 77_777),
        ] {
            input.extend_from_slice(piece);
        }
        let encoded = encode(Compression::Gzip(5), &input, 2, 65_536);
        assert!(decode(Compression::Gzip(5), &encoded) == input);
        let stored = 5 * GZIP_BLOCK + 77_777;
        let room = stored..stored + GZIP_BLOCK / 3;
        assert!(room.contains(&encoded.len()), "{}", encoded.len());
        for cut in [noise(GZIP_BLOCK), noise(GZIP_BLOCK - 1), noise(1)] {
            let encoded = encode(Compression::Gzip(5), &cut, 1, 65_536);
            assert!(decode(Compression::Gzip(5), &encoded) == cut);
        }
    }

    /// Pins the versions of libdeflate and zstd: other bytes here are other digests everywhere.
    #[test]
    fn golden() {
        let input = sample(2_500_000);
        let stored = encode(Compression::Gzip(5), &noise(300_000), 2, 65_536);
        assert_eq!(&Digest::of(&stored).hex()[..16], "63ad49b94719c41e");
        let expected = [
            (Compression::Gzip(1), "d5cb641eb2bf05d2"),
            (Compression::Gzip(5), "0cd782fb1da14ca2"),
            (Compression::Gzip(9), "511339e7de74a46c"),
            (Compression::Zstd(1), "3323f5721236c0bf"),
            (Compression::Zstd(3), "35188739694f2972"),
            (Compression::Zstd(6), "e4772d17d9d13cf0"),
            (Compression::Zstd(19), "c8f9b627007a221f"),
        ];
        let digests = expected.map(|(compression, _)| {
            let digest = Digest::of(&encode(compression, &input, 2, 65_536));
            (compression, digest.hex()[..16].to_owned())
        });
        assert_eq!(
            digests,
            expected.map(|(compression, hex)| (compression, hex.to_owned()))
        );
    }

    #[test]
    fn a_failing_output_is_an_error_and_no_hang() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self
                    .0
                    .checked_sub(bytes.len())
                    .ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut encoder = Encoder::with_threads(Compression::Gzip(1), Full(100_000), 2);
        let error = encoder.write_all(&sample(8 << 20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn levels() {
        for (compression, right) in [
            (Compression::Gzip(0), false),
            (Compression::Gzip(9), true),
            (Compression::Gzip(10), false),
            (Compression::Zstd(0), false),
            (Compression::Zstd(19), true),
            (Compression::Zstd(20), false),
        ] {
            assert_eq!(compression.check().is_ok(), right, "{compression:?}");
        }
    }
}
