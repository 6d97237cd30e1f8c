//! TLS 1.3 records (RFC 8446, 5.2) under the keys of a handshake that rustls has done.
//!
//! ```text
//! header: 23 · 3 · 3 · length of the rest, 2      body: AEAD(plaintext · type 1) · tag 16
//! ```
//! rustls copies every byte four times on its way through; chunks are opened from the buffer that the kernel filled
//! into the buffer that is hashed, and sealed into the buffer that the kernel takes. The bytes on the wire are the
//! same. Keys are not renewed: a connection ends long before the limit of RFC 8446, 5.5.

use super::aead::{Aead, NONCE_SIZE};
use aws_lc_rs::error::Unspecified;
use rustls::{ConnectionTrafficSecrets, Error};
use std::io;

/// Bytes of a record's header.
pub(super) const HEADER_SIZE: usize = 5;

/// Bytes of the stream in one record at most.
pub(super) const PLAIN_SIZE_MAX: usize = 1 << 14;

/// Bytes after the plaintext: its type and the tag.
pub(super) const OVERHEAD_SIZE: usize = 1 + TAG_SIZE;

/// Bytes of a record at most, padding included (RFC 8446, 5.2).
pub(super) const RECORD_SIZE_MAX: usize = HEADER_SIZE + PLAIN_SIZE_MAX + 256;

/// Bytes of the tag of every AEAD in use.
pub(super) const TAG_SIZE: usize = 16;

/// Records under one key (RFC 8446, 5.5, allows 2^24.5 of full size for AES-GCM): 256 GiB of chunks.
const RECORDS_MAX: u64 = 1 << 24;

const TYPE_ALERT: u8 = 21;
const TYPE_DATA: u8 = 23;

/// The alert that ends a stream properly: a warning, `close_notify`.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// One direction's key and the number of its next record.
pub(super) struct Key {
    aead: Aead,
    iv: [u8; NONCE_SIZE],
    sequence: u64,
}

/// What a record turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// So many bytes of the stream.
    Data(usize),
    /// The stream has ended.
    End,
}

impl Key {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (aead, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                (Aead::aes_128_gcm(key.as_ref()), iv)
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Aead::chacha20_poly1305(key.as_ref()), iv)
            }
            _ => return Err(Error::General("a cipher that was not offered".into())),
        };
        let unusable = |Unspecified| Error::General("a key of the wrong size".into());
        let iv = iv.as_ref().try_into();
        Ok(Self {
            aead: aead.map_err(unusable)?,
            iv: iv.map_err(|_| Error::General("a nonce of the wrong size".into()))?,
            sequence,
        })
    }

    /// Seals at most [`PLAIN_SIZE_MAX`] bytes of the stream into the beginning of `out`; the size of the record.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        self.seal_as(TYPE_DATA, plain, out)
    }

    /// Seals the end of the stream into the beginning of `out`; the size of the record.
    pub(super) fn seal_end(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.seal_as(TYPE_ALERT, &CLOSE_NOTIFY, out)
    }

    fn seal_as(&mut self, kind: u8, plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
        let body_size = plain.len() + OVERHEAD_SIZE;
        let [high, low] = u16::try_from(body_size)
            .expect("a record's plaintext")
            .to_be_bytes();
        let header = [TYPE_DATA, 3, 3, high, low];
        let (head, body) = out[..HEADER_SIZE + body_size].split_at_mut(HEADER_SIZE);
        head.copy_from_slice(&header);
        let nonce = self.next_nonce()?;
        self.aead
            .seal(nonce, header, plain, kind, body)
            .map_err(|Unspecified| io::Error::other("a record cannot be sealed"))?;
        Ok(HEADER_SIZE + body_size)
    }

    /// Opens a whole record into `out`, which has room for a byte more than there are of the stream.
    pub(super) fn open_into(&mut self, record: &[u8], out: &mut [u8]) -> io::Result<Opened> {
        let (header, body) = split(record)?;
        let plain = &mut out[..body.len() - TAG_SIZE];
        let nonce = self.next_nonce()?;
        self.aead
            .open_into(nonce, header, body, plain)
            .map_err(|Unspecified| forged())?;
        opened(plain)
    }

    /// Opens a whole record where it lies; what there is of the stream begins after the header.
    pub(super) fn open_in_place(&mut self, record: &mut [u8]) -> io::Result<Opened> {
        let (header, _) = split(record)?;
        let nonce = self.next_nonce()?;
        let plain = self
            .aead
            .open_in_place(nonce, header, &mut record[HEADER_SIZE..])
            .map_err(|Unspecified| forged())?;
        opened(plain)
    }

    fn next_nonce(&mut self) -> io::Result<[u8; NONCE_SIZE]> {
        if self.sequence >= RECORDS_MAX {
            return Err(io::Error::other("as much was sent as one key may protect"));
        }
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_SIZE - 8..]
            .iter_mut()
            .zip(self.sequence.to_be_bytes())
        {
            *byte ^= number;
        }
        self.sequence += 1;
        Ok(nonce)
    }
}

/// Size of the record that `bytes` begin with, header included; none before the header is there.
pub(super) fn size(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else {
        return Ok(None);
    };
    let size = HEADER_SIZE + usize::from(u16::from_be_bytes([header[3], header[4]]));
    let sizes = HEADER_SIZE + OVERHEAD_SIZE..=RECORD_SIZE_MAX;
    if header[0] == TYPE_DATA && sizes.contains(&size) {
        Ok(Some(size))
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "what came is not a TLS 1.3 record",
        ))
    }
}

fn split(record: &[u8]) -> io::Result<([u8; HEADER_SIZE], &[u8])> {
    match record.split_first_chunk() {
        Some((header, body)) if body.len() >= OVERHEAD_SIZE => Ok((*header, body)),
        _ => Err(forged()),
    }
}

/// What a record is, by its plaintext: bytes, their type, and zeros that only hide their number.
fn opened(plain: &[u8]) -> io::Result<Opened> {
    let end = plain.iter().rposition(|&byte| byte != 0);
    let error = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    match end.map(|end| (plain[end], &plain[..end])) {
        Some((TYPE_DATA, data)) => Ok(Opened::Data(data.len())),
        Some((TYPE_ALERT, alert)) if alert == CLOSE_NOTIFY => Ok(Opened::End),
        Some((TYPE_ALERT, _)) => error("the other side broke the connection off"),
        _ => error("the other side wants another handshake"),
    }
}

fn forged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a record was damaged on its way",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn key() -> Key {
        let secrets = ConnectionTrafficSecrets::Chacha20Poly1305 {
            key: AeadKey::from([7; 32]),
            iv: Iv::from([9; 12]),
        };
        Key::new((0, secrets)).expect("a key")
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_order_and_nothing_else_does(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
            flip in any::<proptest::sample::Index>(),
        ) {
            let (mut sealer, mut opener, mut other) = (key(), key(), key());
            let mut record = vec![0; RECORD_SIZE_MAX];
            for piece in &pieces {
                let count = sealer.seal(piece, &mut record)?;
                prop_assert_eq!(size(&record)?, Some(count));
                let mut plain = vec![0; piece.len() + 1];
                prop_assert_eq!(opener.open_into(&record[..count], &mut plain)?, Opened::Data(piece.len()));
                prop_assert_eq!(&plain[..piece.len()], &piece[..]);
                let mut damaged = record[..count].to_vec();
                prop_assert_eq!(other.open_in_place(&mut damaged)?, Opened::Data(piece.len()));
                prop_assert_eq!(&damaged[HEADER_SIZE..][..piece.len()], &piece[..]);
                // A record a second time is not the next one.
                prop_assert!(key().open_in_place(&mut damaged).is_err());
            }
            let count = sealer.seal(&pieces[0], &mut record)?;
            record[flip.index(count)] ^= 1;
            prop_assert!(opener.open_in_place(&mut record[..count]).is_err());
        }

        #[test]
        fn nonsense_is_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(count)) = size(&bytes) {
                prop_assert!((HEADER_SIZE + OVERHEAD_SIZE..=RECORD_SIZE_MAX).contains(&count));
            }
            prop_assert!(key().open_into(&bytes, &mut [0; 64]).is_err());
            prop_assert!(key().open_in_place(&mut bytes).is_err());
        }
    }

    #[test]
    fn the_end_is_told_from_data_and_padding_is_no_data() -> io::Result<()> {
        let (mut sealer, mut opener) = (key(), key());
        let mut record = vec![0; RECORD_SIZE_MAX];
        let count = sealer.seal_as(0, &[1, 2, TYPE_DATA, 0, 0], &mut record)?;
        assert_eq!(opener.open_in_place(&mut record[..count])?, Opened::Data(2));
        let count = sealer.seal_end(&mut record)?;
        assert_eq!(opener.open_in_place(&mut record[..count])?, Opened::End);
        let count = sealer.seal_as(22, b"KeyUpdate", &mut record)?;
        assert!(opener.open_in_place(&mut record[..count]).is_err());
        Ok(())
    }

    #[test]
    fn a_key_does_not_protect_more_than_it_may() {
        let mut key = key();
        key.sequence = RECORDS_MAX - 1;
        let mut record = vec![0; RECORD_SIZE_MAX];
        assert!(key.seal(b"last", &mut record).is_ok());
        assert!(key.seal(b"one too many", &mut record).is_err());
    }
}
