//! What an anchor says of itself on stdout: that it serves, and to `anchor status` what its processes have done.

use anchorage_manifest::NodeId;
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr};

/// What `anchor serve` prints once every worker does its task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Serving {
    /// Always `serving`.
    pub(crate) event: &'static str,
    /// The anchor's number.
    pub(crate) id: u32,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Its key, which is its node id.
    pub(crate) key: NodeId,
}

/// The state of an anchor, as its supervisor knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The anchor's number.
    pub(crate) id: u32,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Its key, which is its node id.
    pub(crate) key: NodeId,
    /// Its processes, the supervisor first.
    pub(crate) processes: Vec<Process>,
    /// Live peers.
    pub(crate) peers: u64,
    /// Releases known.
    pub(crate) releases: u64,
    /// Bytes of chunk connections received.
    pub(crate) bytes_in: u64,
    /// Bytes of chunk connections sent.
    pub(crate) bytes_out: u64,
    /// Chunks that peers got from an anchor.
    pub(crate) acks_from_anchors: u64,
    /// Chunks that peers got from a peer.
    pub(crate) acks_from_peers: u64,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// What it is for.
    pub(crate) task: String,
    /// Its pid; none while it waits to be started again.
    pub(crate) pid: Option<u32>,
    /// How often it was started again.
    pub(crate) restarts: u64,
    /// Seconds since it was started.
    pub(crate) uptime_s: f64,
}

impl fmt::Display for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "anchor {} serving on {} key {}",
            self.id, self.address, self.key
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "anchor {} on {} key {}", self.id, self.address, self.key)?;
        writeln!(f)?;
        writeln!(
            f,
            "{:<12} {:>8} {:>9} {:>10}",
            "task", "pid", "restarts", "uptime"
        )?;
        for process in &self.processes {
            let pid = process
                .pid
                .map_or_else(|| "-".into(), |pid| pid.to_string());
            writeln!(
                f,
                "{:<12} {:>8} {:>9} {:>8.1} s",
                process.task, pid, process.restarts, process.uptime_s
            )?;
        }
        writeln!(f)?;
        writeln!(f, "peers {} · releases {}", self.peers, self.releases)?;
        writeln!(f, "bytes in {} · out {}", self.bytes_in, self.bytes_out)?;
        write!(
            f,
            "chunks that peers got from anchors {} · from peers {}",
            self.acks_from_anchors, self.acks_from_peers
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let process = |task: &str, pid| Process {
            task: task.into(),
            pid,
            restarts: 0,
            uptime_s: 12.34,
        };
        let report = Report {
            id: 1,
            address: ([127, 0, 0, 1], 7001).into(),
            key: NodeId([0xab; 32]),
            processes: vec![process("supervisor", Some(7)), process("transfer", None)],
            peers: 3,
            releases: 1,
            bytes_in: 5,
            bytes_out: 6,
            acks_from_anchors: 7,
            acks_from_peers: 8,
        };
        let key = "ab".repeat(32);
        let text = format!(
            "anchor 1 on 127.0.0.1:7001 key {key}\n\
             \n\
             task              pid  restarts     uptime\n\
             supervisor          7         0     12.3 s\n\
             transfer            -         0     12.3 s\n\
             \n\
             peers 3 · releases 1\n\
             bytes in 5 · out 6\n\
             chunks that peers got from anchors 7 · from peers 8"
        );
        assert_eq!(report.to_string(), text);
    }
}
