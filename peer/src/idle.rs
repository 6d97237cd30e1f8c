//! Connections to sources that nobody uses at this moment, kept for a moment: a handshake costs more than a small file.
//!
//! Only a connection on which everything that was asked has been answered, and which is interested in nothing, is
//! given back: not a byte is on its way, so whoever takes it begins as if it were new.

use crate::tls::Stream;
use anchorage_manifest::Source;
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt as _,
    time::{sleep, timeout},
};

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
            // The other side has nothing to say; if it has, that is its end, or nonsense.
            let mut scrap = [0];
            if timeout(Duration::ZERO, stream.read(&mut scrap))
                .await
                .is_err()
            {
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
