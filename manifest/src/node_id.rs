//! Who a node is: its Ed25519 public key, which is also what its TLS handshake proves.

/// The 32 bytes of an Ed25519 public key (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

crate::hex::name_in_hex!(NodeId);

impl NodeId {
    /// The first twelve digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}
