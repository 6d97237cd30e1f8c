//! What a connection is for: its `ClientHello` (RFC 8446, section 4.1.2) names the plane by ALPN (RFC 7301).
//!
//! The bytes are peeked at and stay in the socket, so that whoever gets it does an ordinary handshake.

use anchorage_manifest::wire::ALPN_CHUNKS;
use rustls::server::Acceptor;
use std::{
    io::{self, ErrorKind},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

/// Most bytes of a `ClientHello`.
const SIZE_MAX: usize = 16 << 10;

/// Bytes that are looked at first; ours has some 300.
const SIZE_FIRST: usize = 1 << 10;

/// First byte of every TLS handshake record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Pause before another look when nothing new has come: what was peeked at keeps the socket readable.
const PAUSE: Duration = Duration::from_millis(5);

/// What strangers who do not speak TLS are told.
const EXPLANATION: &str = "HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Connection: close\r\n\
    \r\n\
    This is an Anchorage anchor; use the command `peer` to talk to it.\n";

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Moving chunks.
    Chunks,
    /// The control protocol; or something unknown, which the handshake will refuse in the words of TLS.
    Control,
    /// Something that is not TLS.
    Foreign,
}

/// Waits for the whole `ClientHello` and says what it wants. Has no deadline.
pub(super) async fn purpose(stream: &TcpStream) -> io::Result<Purpose> {
    let mut buffer = vec![0; SIZE_FIRST];
    let mut seen = 0;
    loop {
        let size = stream.peek(&mut buffer).await?;
        if size == seen {
            // Either nothing new, or the other side will send no more.
            if size == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            sleep(PAUSE).await;
            continue;
        }
        seen = size;
        match judge(&buffer[..size]) {
            Some(purpose) => return Ok(purpose),
            None if size == SIZE_MAX => return Ok(Purpose::Control),
            None if size == buffer.len() => buffer.resize((2 * size).min(SIZE_MAX), 0),
            None => {}
        }
    }
}

/// What these first bytes want; `None` if they do not say yet.
fn judge(bytes: &[u8]) -> Option<Purpose> {
    if bytes.first()? != &HANDSHAKE {
        return Some(Purpose::Foreign);
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        let left = rest.len();
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(Purpose::Control);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let chunks = hello
                    .alpn()
                    .is_some_and(|mut protocols| protocols.any(|name| name == ALPN_CHUNKS));
                return Some(if chunks {
                    Purpose::Chunks
                } else {
                    Purpose::Control
                });
            }
            Ok(None) if rest.is_empty() || rest.len() == left => return None,
            Ok(None) => {}
            Err(_) => return Some(Purpose::Control),
        }
    }
}

/// Tells a stranger in plain text where it is, and hangs up.
pub(super) async fn explain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(EXPLANATION.as_bytes()).await?;
    stream.shutdown().await?;
    // What the stranger still sends is read, a little of it, because closing a socket with unread bytes takes back
    // what was written.
    let mut scrap = vec![0; 1_024];
    for _ in 0..64 {
        if stream.read(&mut scrap).await? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anchorage_manifest::wire::ALPN_CONTROL;
    use anchorage_peer::{identity::Identity, tls};
    use anyhow::Result;

    fn hello(alpn: &[u8]) -> Result<Vec<u8>> {
        let config = tls::client_config(&Identity::from_seed([1; 32]), alpn, None)?;
        let mut connection = rustls::ClientConnection::new(config, tls::server_name())?;
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn the_plane_is_known_once_the_hello_is_whole() -> Result<()> {
        for (alpn, purpose) in [
            (ALPN_CHUNKS, Purpose::Chunks),
            (ALPN_CONTROL, Purpose::Control),
            (&b"h2"[..], Purpose::Control),
        ] {
            let bytes = hello(alpn)?;
            assert_eq!(judge(&bytes), Some(purpose));
            for size in 0..bytes.len() {
                assert_eq!(judge(&bytes[..size]), None, "{size} bytes");
            }
        }
        Ok(())
    }

    #[test]
    fn garbage_is_foreign_or_left_to_the_handshake() {
        assert_eq!(judge(b"GET / HTTP/1.1\r\n"), Some(Purpose::Foreign));
        assert_eq!(judge(&[0; 100]), Some(Purpose::Foreign));
        assert_eq!(judge(&[HANDSHAKE; 100]), Some(Purpose::Control));
    }
}
