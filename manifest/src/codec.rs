//! The bytes of messages: a big-endian `u32` length, then a bincode 2 body (standard configuration).
//!
//! bincode is used in this file alone, so that it could be replaced in a day. Decoding is total: any bytes give
//! a message or an error, nothing is allocated that the input does not pay for, and nothing may follow the body.

use crate::limits::FRAME_SIZE_MAX;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes of the length before every body.
pub const PREFIX_SIZE: usize = 4;

/// Bytes that most messages do not exceed: the name of a content and a few chunks. With room for these at once, the
/// encoder, which writes byte by byte, need not grow its buffer six times.
const USUAL_SIZE: usize = 96;

/// Why bytes are not a message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CodecError {
    /// The frame claims more bytes than its direction allows.
    #[error("a frame of {size} bytes is over the limit of {size_max}")]
    TooLong {
        /// What the frame claims.
        size: u64,
        /// What is allowed.
        size_max: usize,
    },
    /// No message has this body; an unknown tag is named in the reason.
    #[error("not a {what}: {why}")]
    Malformed {
        /// The kind of message expected.
        what: &'static str,
        /// The decoder's reason.
        why: String,
    },
    /// The message is followed by bytes that belong to nothing.
    #[error("a {what} with {extra} bytes behind it")]
    Trailing {
        /// The kind of message.
        what: &'static str,
        /// Number of bytes left over.
        extra: usize,
    },
}

/// The body of a message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_SIZE);
    append(&mut bytes, message);
    bytes
}

/// Puts the body of a message behind what is in `bytes`.
pub fn append<T: Serialize>(bytes: &mut Vec<u8>, message: &T) {
    bincode::serde::encode_into_std_write(message, bytes, bincode::config::standard())
        .expect("plain data of known length always encodes");
}

/// A message with its length before it.
pub fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    frame_of(message, &[])
}

/// A message whose last field is encoded already: `head` is all that is before it.
pub fn frame_of<T: Serialize>(head: &T, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_frame_of(&mut bytes, head, rest);
    bytes
}

/// Puts a message with its length before it behind what is in `bytes`.
pub fn append_frame<T: Serialize>(bytes: &mut Vec<u8>, message: &T) {
    append_frame_of(bytes, message, &[]);
}

fn append_frame_of<T: Serialize>(bytes: &mut Vec<u8>, head: &T, rest: &[u8]) {
    bytes.reserve(PREFIX_SIZE + USUAL_SIZE + rest.len());
    let prefix = bytes.len();
    bytes.extend_from_slice(&[0; PREFIX_SIZE]);
    let body = bytes.len();
    append(bytes, head);
    bytes.extend_from_slice(rest);
    let size = u32::try_from(bytes.len() - body).expect("messages are far below 4 GiB");
    bytes[prefix..body].copy_from_slice(&size.to_be_bytes());
}

/// The size of the body that follows `prefix`, if it is within `size_max`.
pub fn body_size(prefix: [u8; PREFIX_SIZE], size_max: usize) -> Result<usize, CodecError> {
    let size = u32::from_be_bytes(prefix);
    match usize::try_from(size) {
        Ok(size) if size <= size_max => Ok(size),
        _ => Err(CodecError::TooLong {
            size: size.into(),
            size_max,
        }),
    }
}

/// The body of the first frame, within `size_max`; none if it is not there whole.
pub fn first_body(bytes: &[u8], size_max: usize) -> Result<Option<&[u8]>, CodecError> {
    let Some((&prefix, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    Ok(rest.get(..body_size(prefix, size_max)?))
}

/// Reads the body of one message, which must be all of `body`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let (message, used) = decode_first(body)?;
    match body.len() - used {
        0 => Ok(message),
        extra => Err(CodecError::Trailing {
            what: name_of::<T>(),
            extra,
        }),
    }
}

/// Reads the bodies of messages that were put one behind the other.
pub fn decode_all<T: DeserializeOwned>(mut bodies: &[u8]) -> Result<Vec<T>, CodecError> {
    let mut messages = Vec::new();
    while !bodies.is_empty() {
        let (message, used) = decode_first(bodies)?;
        // A message without bytes would never end.
        bodies = &bodies[used.max(1)..];
        messages.push(message);
    }
    Ok(messages)
}

/// The first message, and how many bytes it has.
fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    let config = bincode::config::standard().with_limit::<FRAME_SIZE_MAX>();
    bincode::serde::decode_from_slice(bytes, config).map_err(|error| CodecError::Malformed {
        what: name_of::<T>(),
        why: reason(&error),
    })
}

/// What a kind of message is called in errors.
fn name_of<T>() -> &'static str {
    let name = std::any::type_name::<T>().rsplit("::").next();
    name.unwrap_or("message")
}

/// bincode's error in words; an unknown tag reads "unknown tag 99".
fn reason(error: &bincode::error::DecodeError) -> String {
    let text = match error {
        bincode::error::DecodeError::OtherString(text) => text.clone(),
        bincode::error::DecodeError::UnexpectedEnd { additional } => {
            format!("{additional} or more bytes are missing")
        }
        other => other.to_string(),
    };
    match text
        .strip_prefix("invalid value: integer `")
        .and_then(|rest| rest.split_once('`'))
    {
        Some((tag, rest)) if rest.contains("variant index") => format!("unknown tag {tag}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Answer, Ask, Request, ToAnchor, ToPeer};
    use proptest::prelude::*;

    #[test]
    fn an_unknown_tag_is_named() {
        let error = decode::<Ask>(&[99]).expect_err("no such tag");
        assert_eq!(error.to_string(), "not a Ask: unknown tag 99");
    }

    #[test]
    fn a_claim_of_four_gigabytes_is_refused_before_anything_is_allocated() {
        let error = body_size([0xff; 4], FRAME_SIZE_MAX).expect_err("too long");
        assert_eq!(
            error,
            CodecError::TooLong {
                size: u32::MAX.into(),
                size_max: FRAME_SIZE_MAX
            }
        );
        // A vector of deliveries that claims 2^32 - 1 entries and brings none.
        let ack = encode(&Request::Ack {
            content: id(),
            deliveries: vec![],
        });
        let mut lie = ack[..ack.len() - 1].to_vec();
        lie.extend_from_slice(&[252, 0xff, 0xff, 0xff, 0xff]);
        assert!(decode::<Request>(&lie).is_err());
    }

    #[test]
    fn nothing_may_follow() {
        let mut body = encode(&Request::Heartbeat);
        body.push(0);
        assert_eq!(
            decode::<Request>(&body),
            Err(CodecError::Trailing {
                what: "Request",
                extra: 1
            })
        );
    }

    #[test]
    fn frames_are_put_one_behind_the_other() -> Result<(), CodecError> {
        let messages: Vec<_> = (0..3)
            .map(|index| Ask::Get {
                content: id(),
                index,
            })
            .collect();
        let mut bytes = Vec::new();
        messages
            .iter()
            .for_each(|message| append_frame(&mut bytes, message));
        assert_eq!(
            bytes,
            messages.iter().map(frame).collect::<Vec<_>>().concat()
        );
        let cut = &bytes[..frame(&messages[0]).len() - 1];
        assert_eq!(first_body(cut, FRAME_SIZE_MAX)?, None);
        let mut rest = &bytes[..];
        for message in messages {
            let body = first_body(rest, FRAME_SIZE_MAX)?.expect("a frame");
            assert_eq!(decode::<Ask>(body)?, message);
            rest = &rest[PREFIX_SIZE + body.len()..];
        }
        assert!(rest.is_empty());
        Ok(())
    }

    fn id() -> crate::ContentId {
        crate::ContentId(crate::Hash::of(b"content"))
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Ask>(&bytes);
            let _ = decode::<Answer>(&bytes);
            let _ = decode::<ToAnchor>(&bytes);
            let _ = decode::<ToPeer>(&bytes);
        }

        #[test]
        fn any_change_of_a_message_is_decoded_or_refused(position in 0usize..400, value: u8) {
            for (_, body) in crate::wire::examples::all() {
                let mut body = body;
                if let Some(byte) = body.get_mut(position) {
                    *byte = value;
                }
                let _ = decode::<ToAnchor>(&body);
                let _ = decode::<ToPeer>(&body);
                let _ = decode::<Ask>(&body);
                let _ = decode::<Answer>(&body);
            }
        }
    }
}
