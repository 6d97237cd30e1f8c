//! Two SHA-256 compressions interleaved with the SHA instructions of x86 (Intel SHA Extensions, 2013).
//!
//! `sha256rnds2` takes four cycles and can begin every other one: two streams fill each other's pauses, three do
//! not fit into the sixteen registers. Where both states are fed the same blocks, as when a chunk comes next in its file,
//! their message schedules are one and are made once. The arrangement of the state, ABEF and CDGH, is the instructions' own.

use std::arch::x86_64::{
    __m128i, _MM_HINT_T0, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_prefetch,
    _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

/// Bytes between what is hashed and what is fetched for later.
const PREFETCH_DISTANCE: usize = 1 << 10;

/// Round constants (FIPS 180-4, 4.2.2).
const K: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Feeds each state its blocks, as many as both have, or both the same ones, if there is one stream only; false, and
/// nothing done, where the processor cannot.
#[must_use]
pub(super) fn compress<const STREAMS: usize>(
    states: [&mut [u32; 8]; 2],
    blocks: [&[[u8; 64]]; STREAMS],
) -> bool {
    let is_able = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("sse4.1")
        && is_x86_feature_detected!("ssse3");
    if is_able {
        // SAFETY: what the function may only be called with was just found to be there.
        #[expect(unsafe_code, reason = "a promise about the processor, checked above")]
        unsafe {
            interleaved(states, blocks);
        }
    }
    is_able
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
#[expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]
fn interleaved<const STREAMS: usize>(states: [&mut [u32; 8]; 2], blocks: [&[[u8; 64]]; STREAMS]) {
    let mut abef = [_mm_setzero_si128(); 2];
    let mut cdgh = abef;
    for lane in 0..2 {
        let [a, b, c, d, e, f, g, h] = states[lane].map(u32::cast_signed);
        abef[lane] = _mm_set_epi32(a, b, e, f);
        cdgh[lane] = _mm_set_epi32(c, d, g, h);
    }
    let [one, other] = [blocks[0], blocks[STREAMS - 1]];
    for (one, other) in one.iter().zip(other) {
        let before = (abef, cdgh);
        let mut schedules = [[_mm_setzero_si128(); 4]; STREAMS];
        for (words, block) in schedules.iter_mut().zip([one, other]) {
            prefetch(block);
            *words = load(block);
        }
        for (round, constants) in K.iter().enumerate() {
            let [k0, k1, k2, k3] = constants.map(u32::cast_signed);
            let mut inputs = [_mm_set_epi32(k3, k2, k1, k0); STREAMS];
            for (words, input) in schedules.iter_mut().zip(&mut inputs) {
                if round >= 4 {
                    let [w0, w1, w2, w3] = *words;
                    let sum =
                        _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4));
                    *words = [w1, w2, w3, _mm_sha256msg2_epu32(sum, w3)];
                }
                *input = _mm_add_epi32(words[round.min(3)], *input);
            }
            for lane in 0..2 {
                let input = inputs[lane % STREAMS];
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], input);
            }
            let halves = inputs.map(|input| _mm_shuffle_epi32(input, 0b00_00_11_10));
            for lane in 0..2 {
                let input = halves[lane % STREAMS];
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], input);
            }
        }
        for lane in 0..2 {
            abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
        }
    }
    for (lane, state) in states.into_iter().enumerate() {
        let (abef, cdgh) = (abef[lane], cdgh[lane]);
        *state = [
            _mm_extract_epi32(abef, 3),
            _mm_extract_epi32(abef, 2),
            _mm_extract_epi32(cdgh, 3),
            _mm_extract_epi32(cdgh, 2),
            _mm_extract_epi32(abef, 1),
            _mm_extract_epi32(abef, 0),
            _mm_extract_epi32(cdgh, 1),
            _mm_extract_epi32(cdgh, 0),
        ]
        .map(i32::cast_unsigned);
    }
}

/// Fetches what comes a little later: chunks often come from another core's cache.
#[target_feature(enable = "sse")]
fn prefetch(block: &[u8; 64]) {
    let later = block.as_ptr().wrapping_add(PREFETCH_DISTANCE);
    _mm_prefetch::<_MM_HINT_T0>(later.cast());
}

/// Sixteen big-endian words. Compiles to four loads.
#[target_feature(enable = "sse4.1,ssse3")]
fn load(block: &[u8; 64]) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (quarters, _) = block.as_chunks::<16>();
    let mut words = [swap; 4];
    for (words, quarter) in words.iter_mut().zip(quarters) {
        let (halves, _) = quarter.as_chunks::<8>();
        let [low, high] = [halves[0], halves[1]];
        let bytes = _mm_set_epi64x(i64::from_le_bytes(high), i64::from_le_bytes(low));
        *words = _mm_shuffle_epi8(bytes, swap);
    }
    words
}
