//! TLS 1.3 with raw public keys (RFC 8446, RFC 7250): no certificates, no authorities; the key is the node id.
//!
//! Both sides always prove their key. A dialler says which key it expects; a listener takes any and is told
//! whose it was.

mod aead;
mod record;
mod stream;

pub use stream::{Reader, Stream, Writer};

use crate::identity::Identity;
use anchorage_manifest::NodeId;
use anyhow::{Context as _, Result};
use rustls::{
    CommonState, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use std::sync::{Arc, LazyLock};

/// DER before the 32 bytes of an Ed25519 public key in a `SubjectPublicKeyInfo` (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// DER before the 32 bytes of an Ed25519 seed in a PKCS #8 `OneAsymmetricKey` (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What a dialler says when the node at the other end is not the one it expects.
pub const WRONG_KEY: &str = "the node there has another key";

/// A listener's side: speaks one of `alpn`, takes any key.
pub fn server_config(identity: &Identity, alpn: &[&[u8]]) -> Result<Arc<rustls::ServerConfig>> {
    let provider = provider();
    let keys = Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified_key(
        &provider, identity,
    )?));
    let verifier = Arc::new(KeyVerifier {
        expected: None,
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(keys);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// A dialler's side: speaks `alpn`, takes the key of `expected` alone; any key if that is `None`.
pub fn client_config(
    identity: &Identity,
    alpn: &[u8],
    expected: Option<NodeId>,
) -> Result<Arc<rustls::ClientConfig>> {
    let provider = provider();
    let keys = Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified_key(
        &provider, identity,
    )?));
    let verifier = Arc::new(KeyVerifier {
        expected,
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(keys);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// The name that TLS wants and nobody looks at: a node is known by its key.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("anchorage").expect("a good DNS name")
}

/// Whose key the other side has proved, once the handshake is done.
pub fn node_of(connection: &CommonState) -> Result<NodeId> {
    let keys = connection
        .peer_certificates()
        .context("the other side has shown no key")?;
    let key = keys.first().context("the other side has shown no key")?;
    node_of_spki(key).context("the other side's key is not an Ed25519 key")
}

/// AES-128-GCM first: the fastest with AES instructions, and as good as any for this.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(provider)
    });
    PROVIDER.clone()
}

/// Reading a key costs as much as a signature: it is done once, not for every dial.
fn certified_key(provider: &CryptoProvider, identity: &Identity) -> Result<Arc<CertifiedKey>> {
    identity.certified(|| {
        let pkcs8 = [&PKCS8_PREFIX[..], &identity.seed()].concat();
        let key = PrivateKeyDer::Pkcs8(pkcs8.into());
        let key = provider
            .key_provider
            .load_private_key(key)
            .context("TLS does not take the node's key")?;
        let spki = [&SPKI_PREFIX[..], &identity.id().0].concat();
        let certificates = vec![CertificateDer::from(spki)];
        Ok(Arc::new(CertifiedKey::new(certificates, key)))
    })
}

fn node_of_spki(spki: &[u8]) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    key.try_into().ok().map(NodeId)
}

/// Takes any Ed25519 key, or one.
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<NodeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn verify_key(&self, spki: &[u8]) -> Result<(), Error> {
        let node = node_of_spki(spki).ok_or_else(|| Error::General("not an Ed25519 key".into()))?;
        match self.expected {
            Some(expected) if expected != node => Err(Error::General(WRONG_KEY.into())),
            _ => Ok(()),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

/// TLS 1.2 is not offered; should it come all the same, it is refused.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.3 is required".into()))
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_key(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_key(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// One handshake in memory; what each side learned of the other.
    async fn handshake(
        server: &Identity,
        client: &Identity,
        expected: Option<NodeId>,
    ) -> Result<(NodeId, NodeId)> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = tokio_rustls::TlsAcceptor::from(server_config(server, &[b"test"])?);
        let connector = tokio_rustls::TlsConnector::from(client_config(client, b"test", expected)?);
        let dial = async {
            let mut stream = connector.connect(server_name(), near).await?;
            stream.write_all(b"x").await?;
            stream.shutdown().await?;
            node_of(stream.get_ref().1)
        };
        let accept = async {
            let mut stream = acceptor.accept(far).await?;
            stream.read_to_end(&mut Vec::new()).await?;
            node_of(stream.get_ref().1)
        };
        let (seen_by_client, seen_by_server) = tokio::join!(dial, accept);
        Ok((seen_by_client?, seen_by_server?))
    }

    #[tokio::test]
    async fn both_sides_learn_the_others_key() -> Result<()> {
        let (server, client) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        for expected in [None, Some(server.id())] {
            let seen = handshake(&server, &client, expected).await?;
            assert_eq!(seen, (server.id(), client.id()));
        }
        Ok(())
    }

    #[tokio::test]
    async fn another_key_than_expected_is_refused() -> Result<()> {
        let (server, client) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let error = handshake(&server, &client, Some(client.id()))
            .await
            .err()
            .context("a wrong key")?;
        assert!(format!("{error:#}").contains(WRONG_KEY), "{error:#}");
        Ok(())
    }
}
