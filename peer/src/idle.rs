//! Connections to sources that nobody uses at this moment, kept for a moment: a handshake costs more than a small file.
//!
//! Only a connection on which everything that was asked has been answered, and which is interested in nothing, is
//! given back: not a byte is on its way, so whoever takes it begins as if it were new.

use crate::tls::Stream;
use anchorage_manifest::Source;
use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, time::sleep};

/// How long a connection is kept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most connections that are kept.
const STREAMS_MAX: usize = 32;

/// The connections.
#[derive(Default)]
pub(crate) struct Idle {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: Vec<Kept>,
    /// Whether somebody looks after those that are kept too long.
    is_swept: bool,
}

struct Kept {
    source: Source,
    since: Instant,
    stream: Stream,
}

impl Idle {
    /// Whether there is a connection to a source.
    pub(crate) fn has(&self, source: Source) -> bool {
        let state = self.state();
        state.streams.iter().any(|kept| kept.source == source)
    }

    /// A connection to a source, if there is one that is still up.
    pub(crate) async fn take(&self, source: Source) -> Option<Stream> {
        loop {
            let mut stream = {
                let mut state = self.state();
                let streams = &mut state.streams;
                let at = streams.iter().rposition(|kept| kept.source == source)?;
                streams.swap_remove(at).stream
            };
            if is_silent(&mut stream).await {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection, for a moment, unless there are many.
    pub(crate) fn give(self: &Arc<Self>, source: Source, stream: Stream) {
        let mut state = self.state();
        if state.streams.len() >= STREAMS_MAX {
            return;
        }
        let since = Instant::now();
        state.streams.push(Kept {
            source,
            since,
            stream,
        });
        if !std::mem::replace(&mut state.is_swept, true) {
            let idle = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    sleep(PATIENCE).await;
                    if idle.upgrade().is_none_or(|idle| idle.sweep()) {
                        return;
                    }
                }
            });
        }
    }

    /// Closes what was kept too long; true if nothing is left to look after.
    fn sweep(&self) -> bool {
        let mut state = self.state();
        state.streams.retain(|kept| kept.since.elapsed() < PATIENCE);
        state.is_swept = !state.streams.is_empty();
        !state.is_swept
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Whether a source says nothing. It has nothing to say; if it does, that is its end, or nonsense. It is asked once and not
/// for a time: the shortest is a millisecond, nearly as much as all else that a small file takes.
async fn is_silent(stream: &mut Stream) -> bool {
    let mut scrap = [0];
    let mut word = pin!(stream.read(&mut scrap));
    poll_fn(|context| Poll::Ready(word.as_mut().poll(context).is_pending())).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dial, framed, identity::Identity, tls};
    use anchorage_manifest::{
        limits::{FRAME_SIZE_MAX, PROTOCOL_VERSION},
        wire::{ALPN_CHUNKS, Answer, Ask},
    };
    use anyhow::{Result, bail};
    use std::task::{Context, Waker};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_is_taken_once_and_only_while_it_is_up() -> Result<()> {
        let (server, client) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let source = Source {
            node: server.id(),
            address: listener.local_addr()?,
        };
        let acceptor =
            tokio_rustls::TlsAcceptor::from(tls::server_config(&server, &[ALPN_CHUNKS])?);
        let serving = async {
            let (stream, _) = listener.accept().await?;
            let mut stream = acceptor.accept(stream).await?;
            let hello: Ask = framed::expect(&mut stream, FRAME_SIZE_MAX).await?;
            let version = PROTOCOL_VERSION;
            assert_eq!(hello, Ask::Hello { version });
            framed::write(&mut stream, &Answer::Welcome { version }).await?;
            anyhow::Ok(stream)
        };
        let (dialled, far) = tokio::join!(dial::dial(&client, source), serving);
        let idle = Arc::new(Idle::default());
        idle.give(source, dialled?);
        assert!(idle.has(source));
        // Without waiting.
        let taken = pin!(idle.take(source)).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(stream)) = taken else {
            bail!("it is up");
        };
        assert!(!idle.has(source) && idle.take(source).await.is_none());
        idle.give(source, stream);
        drop(far?);
        // The end of the connection takes a moment to arrive.
        sleep(Duration::from_millis(100)).await;
        assert!(idle.take(source).await.is_none());
        Ok(())
    }
}
