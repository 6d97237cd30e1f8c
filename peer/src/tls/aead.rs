//! The ciphers of records, AES-128-GCM from whichever library is the quicker one on this processor.
//!
//! AWS-LC, which makes the handshakes, has AES-GCM for vectors of 512 bits (AVX-512), and for one block at a time. Most
//! processors of today lie between: they have AES and carry-less multiplication for vectors of 256 bits, but no AVX-512
//! (AMD's Zen 3, Intel's desktop processors since 2021). ring has code for these, and seals and opens about twice as
//! much there: records of 16 KiB at 5.5 GB/s instead of 3.1 on an EPYC of the third generation, its copies included.

use super::record::{HEADER_SIZE, TAG_SIZE};
use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    error::Unspecified,
};

/// Bytes of a nonce of every AEAD in use.
pub(super) const NONCE_SIZE: usize = 12;

/// The additional data of a record: its header (RFC 8446, 5.2).
pub(super) type Header = [u8; HEADER_SIZE];

/// A cipher with its key. No nonce may be used twice to seal.
pub(super) enum Aead {
    AwsLc(LessSafeKey),
    #[cfg(target_arch = "x86_64")]
    /// A key of ring's has its tables within it, AWS-LC's behind a pointer.
    Ring(Box<ring::aead::LessSafeKey>),
}

impl Aead {
    /// AES-128-GCM (NIST SP 800-38D).
    pub(super) fn aes_128_gcm(key: &[u8]) -> Result<Self, Unspecified> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && !is_x86_feature_detected!("avx512vl")
        {
            return Self::ring_aes_128_gcm(key);
        }
        Self::aws_lc_aes_128_gcm(key)
    }

    /// ChaCha20-Poly1305 (RFC 8439), for processors without AES instructions.
    pub(super) fn chacha20_poly1305(key: &[u8]) -> Result<Self, Unspecified> {
        UnboundKey::new(&CHACHA20_POLY1305, key).map(|key| Self::AwsLc(LessSafeKey::new(key)))
    }

    fn aws_lc_aes_128_gcm(key: &[u8]) -> Result<Self, Unspecified> {
        UnboundKey::new(&AES_128_GCM, key).map(|key| Self::AwsLc(LessSafeKey::new(key)))
    }

    #[cfg(target_arch = "x86_64")]
    fn ring_aes_128_gcm(key: &[u8]) -> Result<Self, Unspecified> {
        ring::aead::UnboundKey::new(&ring::aead::AES_128_GCM, key)
            .map(|key| Self::Ring(Box::new(ring::aead::LessSafeKey::new(key))))
            .map_err(|ring::error::Unspecified| Unspecified)
    }

    /// Seals `plain` and the byte after it into `out`, which is as large as both and the tag.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_SIZE],
        header: Header,
        plain: &[u8],
        last: u8,
        out: &mut [u8],
    ) -> Result<(), Unspecified> {
        match self {
            Self::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let (cipher, end) = out.split_at_mut(plain.len());
                let aad = Aad::from(header);
                key.seal_out_of_place_scatter(nonce, aad, plain, cipher, &[last], end)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => {
                let (text, tag_out) = out.split_at_mut(plain.len() + 1);
                copy(&mut text[..plain.len()], plain);
                text[plain.len()] = last;
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                let aad = ring::aead::Aad::from(header);
                let tag = key
                    .seal_in_place_separate_tag(nonce, aad, text)
                    .map_err(|ring::error::Unspecified| Unspecified)?;
                tag_out.copy_from_slice(tag.as_ref());
                Ok(())
            }
        }
    }

    /// Opens what `sealed` has before its tag into `out`, which is as large; where that fails `out` means nothing.
    pub(super) fn open_into(
        &self,
        nonce: [u8; NONCE_SIZE],
        header: Header,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), Unspecified> {
        let (cipher, tag) = sealed.split_last_chunk::<TAG_SIZE>().ok_or(Unspecified)?;
        match self {
            Self::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_separate_gather(nonce, Aad::from(header), cipher, tag, out)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => {
                copy(out, cipher);
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                let aad = ring::aead::Aad::from(header);
                key.open_in_place_separate_tag(nonce, aad, (*tag).into(), out, 0..)
                    .map(|_| ())
                    .map_err(|ring::error::Unspecified| Unspecified)
            }
        }
    }

    /// Opens `sealed` where it lies; what was before its tag.
    pub(super) fn open_in_place<'a>(
        &self,
        nonce: [u8; NONCE_SIZE],
        header: Header,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unspecified> {
        match self {
            Self::AwsLc(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(header), sealed)
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::aead::Aad::from(header), sealed)
                    .map_err(|ring::error::Unspecified| Unspecified)
            }
        }
    }
}

/// Copies as many bytes, by vectors. What is larger than these pieces, glibc copies with `rep movsb`, at a third of the rate
/// on AMD's Zen 3 where source and destination lie a few bytes apart modulo a page, as those of a record do.
#[cfg(target_arch = "x86_64")]
fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.chunks_mut(2 << 10).zip(from.chunks(2 << 10)) {
        to.copy_from_slice(from);
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_libraries_seal_the_same_and_open_what_the_other_sealed(
            key: [u8; 16],
            nonce: [u8; NONCE_SIZE],
            header: Header,
            plain in proptest::collection::vec(any::<u8>(), 0..40_000),
            last: u8,
            flip in any::<proptest::sample::Index>(),
        ) {
            let both = [Aead::aws_lc_aes_128_gcm(&key), Aead::ring_aes_128_gcm(&key)];
            let [Ok(aws_lc), Ok(ring)] = both else {
                return Err(TestCaseError::fail("a key"));
            };
            let mut text = plain.clone();
            text.push(last);
            let mut sealed = vec![0; text.len() + TAG_SIZE];
            let mut same = sealed.clone();
            prop_assert!(aws_lc.seal(nonce, header, &plain, last, &mut sealed).is_ok());
            prop_assert!(ring.seal(nonce, header, &plain, last, &mut same).is_ok());
            prop_assert_eq!(&sealed, &same);
            let mut damaged = sealed.clone();
            damaged[flip.index(sealed.len())] ^= 1;
            for aead in [aws_lc, ring] {
                let mut out = vec![0; text.len()];
                prop_assert!(aead.open_into(nonce, header, &sealed, &mut out).is_ok());
                prop_assert_eq!(&out, &text);
                let mut there = sealed.clone();
                let opened = aead.open_in_place(nonce, header, &mut there);
                prop_assert_eq!(opened.as_deref(), Ok(&text[..]));
                prop_assert!(aead.open_into(nonce, header, &damaged, &mut out).is_err());
                prop_assert!(aead.open_in_place(nonce, header, &mut damaged.clone()).is_err());
            }
        }
    }
}
