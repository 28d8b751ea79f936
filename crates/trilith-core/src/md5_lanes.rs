//! MD5 (RFC 1321) of several inputs at once.
//!
//! One MD5 is a chain of additions each of which waits for the last, so a processor computes many
//! side by side in little more time than one. Hashing a tree of small files spends most of its time
//! here. Of a single long input there is nothing to gain; the `md5` crate takes those.
//!
//! The loops are written so that the compiler turns lanes into vectors by itself, and compiled once
//! more for processors with wider ones (AVX2), which are asked for at run time. Where there are
//! none, the answers are the same, only later.

#![allow(
    clippy::inline_always,
    reason = "what is not compiled into the dispatched function has no wider vectors"
)]

use std::array;

/// How many inputs are hashed at once.
pub(crate) const LANES: usize = 16;

const BLOCK: usize = 64;

/// Four words of state or sixteen words of message, and of each word all lanes.
type Words<const N: usize> = [[u32; LANES]; N];

const START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Returns the MD5 of each of `inputs`.
pub(crate) fn md5_lanes(inputs: [&[u8]; LANES]) -> [[u8; 16]; LANES] {
    pulp::Arch::new().dispatch(Inputs(inputs))
}

struct Inputs<'a>([&'a [u8]; LANES]);

impl pulp::NullaryFnOnce for Inputs<'_> {
    type Output = [[u8; 16]; LANES];

    #[inline(always)]
    fn call(self) -> Self::Output {
        hash(self.0)
    }
}

#[inline(always)]
fn hash(inputs: [&[u8]; LANES]) -> [[u8; 16]; LANES] {
    let lanes = inputs.map(Lane::new);
    let blocks = lanes.iter().map(|lane| lane.blocks).max().unwrap_or(0);
    let mut state: Words<4> = START.map(|word| [word; LANES]);
    let mut digests = [[0; 16]; LANES];
    for position in 0..blocks {
        let message = transpose(lanes.each_ref().map(|lane| lane.block(position)));
        compress(&mut state, &message);
        for (number, lane) in lanes.iter().enumerate() {
            if lane.blocks == position + 1 {
                let words = array::from_fn(|word| state[word][number]);
                digests[number] = to_bytes(words);
            }
        }
    }
    digests
}

/// One input, cut into blocks.
struct Lane<'a> {
    whole: &'a [[u8; BLOCK]],
    /// What is left behind the whole blocks, the padding and the length: one or two blocks.
    tail: [[u8; BLOCK]; 2],
    blocks: usize,
}

impl<'a> Lane<'a> {
    fn new(input: &'a [u8]) -> Self {
        let (whole, rest) = input.as_chunks();
        let mut tail = [[0; BLOCK]; 2];
        let bytes = tail.as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        bytes[rest.len()] = 0x80;
        let blocks = if rest.len() < BLOCK - 8 { 1 } else { 2 };
        let bits = (input.len() as u64).wrapping_mul(8).to_le_bytes();
        bytes[blocks * BLOCK - 8..blocks * BLOCK].copy_from_slice(&bits);
        Self {
            whole,
            tail,
            blocks: whole.len() + blocks,
        }
    }

    /// Returns a block; behind the end some other, which must not count.
    fn block(&self, position: usize) -> &[u8; BLOCK] {
        match self.whole.get(position) {
            Some(block) => block,
            None => &self.tail[(position - self.whole.len()).min(1)],
        }
    }
}

#[inline(always)]
fn transpose(blocks: [&[u8; BLOCK]; LANES]) -> Words<16> {
    let mut words = [[0; LANES]; 16];
    for (lane, block) in blocks.iter().enumerate() {
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            word[lane] = u32::from_le_bytes(*bytes);
        }
    }
    words
}

fn to_bytes(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    bytes
}

/// One word of two lanes. Two chains side by side keep the processor busy.
#[derive(Clone, Copy)]
struct Pair(u32, u32);

impl Pair {
    #[inline(always)]
    fn of(words: &[u32; LANES], lane: usize) -> Self {
        Self(words[lane], words[lane + LANES / 2])
    }

    #[inline(always)]
    fn map(self, other: Self, f: impl Fn(u32, u32) -> u32) -> Self {
        Self(f(self.0, other.0), f(self.1, other.1))
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.map(other, u32::wrapping_add)
    }

    #[inline(always)]
    fn rotate_left(self, bits: u32) -> Self {
        Self(self.0.rotate_left(bits), self.1.rotate_left(bits))
    }
}

/// Takes one block of every lane into the state.
#[inline(always)]
fn compress(state: &mut Words<4>, message: &Words<16>) {
    for lane in 0..LANES / 2 {
        let start = [0, 1, 2, 3].map(|word| Pair::of(&state[word], lane));
        let mut words = start;
        // Each step names its word of the message, its rotation and its sine. They are written
        // out because a loop inside this one would keep the compiler from making vectors.
        macro_rules! round {
            ($mix:expr, $($word:literal $bits:literal $sine:literal),*) => {
                $(words = step(words, $mix, Pair::of(&message[$word], lane), $bits, $sine);)*
            };
        }
        round!(
            |b, c, d| d ^ (b & (c ^ d)),
            0 7 0xd76a_a478, 1 12 0xe8c7_b756,
            2 17 0x2420_70db, 3 22 0xc1bd_ceee,
            4 7 0xf57c_0faf, 5 12 0x4787_c62a,
            6 17 0xa830_4613, 7 22 0xfd46_9501,
            8 7 0x6980_98d8, 9 12 0x8b44_f7af,
            10 17 0xffff_5bb1, 11 22 0x895c_d7be,
            12 7 0x6b90_1122, 13 12 0xfd98_7193,
            14 17 0xa679_438e, 15 22 0x49b4_0821
        );
        round!(
            |b, c, d| c ^ (d & (b ^ c)),
            1 5 0xf61e_2562, 6 9 0xc040_b340,
            11 14 0x265e_5a51, 0 20 0xe9b6_c7aa,
            5 5 0xd62f_105d, 10 9 0x0244_1453,
            15 14 0xd8a1_e681, 4 20 0xe7d3_fbc8,
            9 5 0x21e1_cde6, 14 9 0xc337_07d6,
            3 14 0xf4d5_0d87, 8 20 0x455a_14ed,
            13 5 0xa9e3_e905, 2 9 0xfcef_a3f8,
            7 14 0x676f_02d9, 12 20 0x8d2a_4c8a
        );
        round!(
            |b, c, d| b ^ c ^ d,
            5 4 0xfffa_3942, 8 11 0x8771_f681,
            11 16 0x6d9d_6122, 14 23 0xfde5_380c,
            1 4 0xa4be_ea44, 4 11 0x4bde_cfa9,
            7 16 0xf6bb_4b60, 10 23 0xbebf_bc70,
            13 4 0x289b_7ec6, 0 11 0xeaa1_27fa,
            3 16 0xd4ef_3085, 6 23 0x0488_1d05,
            9 4 0xd9d4_d039, 12 11 0xe6db_99e5,
            15 16 0x1fa2_7cf8, 2 23 0xc4ac_5665
        );
        round!(
            |b, c, d| c ^ (b | !d),
            0 6 0xf429_2244, 7 10 0x432a_ff97,
            14 15 0xab94_23a7, 5 21 0xfc93_a039,
            12 6 0x655b_59c3, 3 10 0x8f0c_cc92,
            10 15 0xffef_f47d, 1 21 0x8584_5dd1,
            8 6 0x6fa8_7e4f, 15 10 0xfe2c_e6e0,
            6 15 0xa301_4314, 13 21 0x4e08_11a1,
            4 6 0xf753_7e82, 11 10 0xbd3a_f235,
            2 15 0x2ad7_d2bb, 9 21 0xeb86_d391
        );
        for word in 0..4 {
            let Pair(first, second) = words[word].plus(start[word]);
            state[word][lane] = first;
            state[word][lane + LANES / 2] = second;
        }
    }
}

#[inline(always)]
fn step(
    [a, b, c, d]: [Pair; 4],
    mix: impl Fn(u32, u32, u32) -> u32,
    word: Pair,
    bits: u32,
    sine: u32,
) -> [Pair; 4] {
    let mixed = Pair(mix(b.0, c.0, d.0), mix(b.1, c.1, d.1));
    let sum = a.plus(mixed).plus(word.plus(Pair(sine, sine)));
    [d, sum.rotate_left(bits).plus(b), b, c]
}

#[cfg(test)]
mod tests {
    use md5::{Digest as _, Md5};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_of_the_rfc() {
        let inputs = ["", "a", "abc", "message digest"];
        let inputs = array::from_fn(|lane| inputs[lane % 4].as_bytes());
        let hex = md5_lanes(inputs).map(|digest| crate::hex(&digest));
        assert_eq!(hex[0], "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex[1], "0cc175b9c0f1b6a831c399e269772661");
        assert_eq!(hex[2], "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex[3], "f96b697d7cb7938d525a2f31aaf161d0");
    }

    #[test]
    fn every_length_around_a_block_end() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in (0..=200).step_by(LANES) {
            let inputs = array::from_fn(|lane| &bytes[..length + lane]);
            let expected: [[u8; 16]; LANES] = inputs.map(|input| Md5::digest(input).into());
            assert_eq!(md5_lanes(inputs), expected, "{length}");
        }
    }

    proptest! {
        #[test]
        fn lanes_do_not_meet(
            inputs in proptest::array::uniform16(proptest::collection::vec(any::<u8>(), 0..300)),
        ) {
            let inputs = inputs.each_ref().map(Vec::as_slice);
            let expected: [[u8; 16]; LANES] = inputs.map(|input| Md5::digest(input).into());
            prop_assert_eq!(md5_lanes(inputs), expected);
        }
    }
}
