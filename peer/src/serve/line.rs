//! What the kernel knows of a connection's way to the other side, by which chunks keep their slots.
//!
//! A chunk that is written is not sent: a socket takes a whole chunk at once and sends it as fast as the line allows.
//! Were its slot free by then, dozens of chunks would share the line and none would arrive soon, and this node's own
//! requests would wait behind them all.

use crate::tls::Writer;
use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

sockopt_impl!(
    /// What tcp(7) tells of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    Info
);

/// What will have left so soon has left: timers are no finer.
const SOON: Duration = Duration::from_millis(2);

/// Longest time between two looks at a line.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a chunk may be on its way before it is the other side that is slow.
const PATIENCE: Duration = Duration::from_millis(250);

/// The beginning of the kernel's `struct tcp_info`, as it is since Linux 4.9.
#[derive(Clone, Copy)]
#[repr(C)]
#[expect(
    unreachable_pub,
    reason = "as public as the option that `sockopt_impl` makes"
)]
pub struct Info {
    _states: [u8; 8],
    _timeouts: [u32; 2],
    mss: u32,
    _rcv_mss: u32,
    /// Segments.
    unacked: u32,
    _counts: [u32; 4],
    _times: [u32; 4],
    _path: [u32; 10],
    _total_retrans: u32,
    _pacing_and_bytes: [u64; 4],
    _segments: [u32; 2],
    notsent_bytes: u32,
    /// Microseconds.
    min_rtt: u32,
    _data_segments: [u32; 2],
    /// Bytes a second.
    delivery_rate: u64,
}

impl Info {
    fn of(socket: &TcpStream) -> Option<Self> {
        getsockopt(socket, TcpInfo).ok()
    }

    /// How long until all but the last `later` bytes that were written have left this side; they arrive, and are
    /// acknowledged, a round trip later.
    fn until_left(&self, later: u64) -> Duration {
        let unacked = u64::from(self.unacked) * u64::from(self.mss);
        let bytes = (unacked + u64::from(self.notsent_bytes)).saturating_sub(later);
        let rate = self.delivery_rate.max(1) as f64;
        Duration::from_secs_f64(bytes as f64 / rate)
            .saturating_sub(Duration::from_micros(self.min_rtt.into()))
    }
}

/// Chunks that are written and have not left yet, each with what is given back when it has.
pub(super) struct Leaving<G> {
    chunks: VecDeque<Chunk<G>>,
    look_at: Instant,
}

struct Chunk<G> {
    _grant: Arc<G>,
    /// What had been written when its last byte was.
    end: u64,
    written_at: Instant,
}

impl<G> Leaving<G> {
    pub(super) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            look_at: Instant::now(),
        }
    }

    /// A chunk is written whole.
    pub(super) fn push(&mut self, grant: Arc<G>, writer: &Writer) {
        self.chunks.push_back(Chunk {
            _grant: grant,
            end: writer.written(),
            written_at: Instant::now(),
        });
        self.look(writer);
    }

    /// Waits until it is time to look again; for ever while nothing is leaving.
    pub(super) async fn due(&self) {
        if self.chunks.is_empty() {
            std::future::pending::<()>().await;
        }
        sleep_until(self.look_at).await;
    }

    /// Lets go of what has left.
    pub(super) fn look(&mut self, writer: &Writer) {
        let (now, info) = (Instant::now(), Info::of(writer.socket()));
        while let Some(chunk) = self.chunks.front() {
            let later = writer.written() - chunk.end;
            let left = info.map_or(Duration::ZERO, |info| info.until_left(later));
            if left > SOON && now.duration_since(chunk.written_at) < PATIENCE {
                self.look_at = now + left.min(LOOK_EVERY);
                return;
            }
            self.chunks.pop_front();
        }
    }
}
