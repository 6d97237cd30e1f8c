//! The yardstick of `tests/bench/single`: TLS 1.3 AES-128-GCM, SHA-256 of every chunk and pwrite, and nothing else.
//!
//! ```text
//! yardstick send ──── TLS ────► yardstick receive     one thread a connection on either side, 1 MiB at a time
//!   the file, or one random        SHA-256 of every chunk, pwrite
//!   block again and again
//! ```
//! No protocol, no list of hashes to compare with, no hash of the whole file, no bookkeeping: what is left is what a
//! correct program cannot do without. rustls 0.23 with aws-lc-rs and sha2, as in Anchorage.
//!
//! `yardstick relay` and `yardstick mesh` are the same for swarms, see [`relay`] and [`mesh`].

#[path = "yardstick_link.rs"]
mod link;
#[path = "yardstick_mesh.rs"]
mod mesh;
#[path = "yardstick_relay.rs"]
mod relay;

use anchorage_manifest::limits::CHUNK_SIZE_MAX;
use anchorage_peer::{identity::Identity, tls};
use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    thread,
};

/// Bytes that are read, sent and written at a time.
const BLOCK_SIZE: usize = 1 << 20;

/// What both sides agree on when they shake hands.
const ALPN: &[u8] = b"anchorage-yardstick";

#[derive(Parser)]
#[command(
    about = "What this machine can do: TLS 1.3 AES-128-GCM, SHA-256 of chunks, pwrite; nothing else"
)]
struct Arguments {
    #[command(subcommand)]
    side: Side,
}

#[derive(Subcommand)]
enum Side {
    /// Waits for connections and sends each its part; ends when killed
    Send {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Sends this file instead of one random block again and again
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Receives over several connections and prints what the hashes of the chunks add up to
    Receive {
        /// Where the sender listens
        #[arg(long)]
        from: SocketAddr,
        /// Bytes in all
        #[arg(long)]
        size: u64,
        /// Connections, each with a thread and a contiguous part
        #[arg(long, default_value_t = 2)]
        connections: u64,
        /// Bytes of a chunk
        #[arg(long, default_value_t = 512 << 10)]
        chunk_size: usize,
        /// The file to write
        #[arg(long, short)]
        output: PathBuf,
    },
    /// A node of a relay chain: receives, hashes, writes and passes on; the first without `--from`, the last without
    /// `--listen`
    Relay(relay::Relay),
    /// A node of a mesh: receives, hashes, writes and passes on to all others what comes from the origin; the origin
    /// without `--origin`
    Mesh(mesh::Mesh),
}

/// First byte and end of a connection's part; 16 bytes on the wire.
#[derive(Clone, Copy)]
struct Part {
    start: u64,
    end: u64,
}

impl Part {
    fn of(index: u64, parts: u64, size: u64) -> Self {
        let block = BLOCK_SIZE as u64;
        let blocks = size.div_ceil(block);
        let bound = |index: u64| (blocks * index / parts * block).min(size);
        Self {
            start: bound(index),
            end: bound(index + 1),
        }
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.start.to_be_bytes());
        bytes[8..].copy_from_slice(&self.end.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self {
            start: u64::try_from(number >> 64).expect("half of the bits"),
            end: u64::try_from(number & u128::from(u64::MAX)).expect("half of the bits"),
        }
    }

    /// Offset and size of every block.
    fn blocks(self) -> impl Iterator<Item = (u64, usize)> {
        let offsets = (self.start..self.end).step_by(BLOCK_SIZE);
        offsets.map(move |offset| {
            let size = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
            (offset, size.min(BLOCK_SIZE))
        })
    }
}

fn main() -> Result<()> {
    match Arguments::parse().side {
        Side::Send { listen, file } => send(listen, file),
        Side::Relay(relay) => relay.run(),
        Side::Mesh(mesh) => mesh.run(),
        Side::Receive {
            from,
            size,
            connections,
            chunk_size,
            output,
        } => {
            ensure!(
                (1..=CHUNK_SIZE_MAX as usize).contains(&chunk_size),
                "chunks of {chunk_size} bytes"
            );
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&output)
                .with_context(|| format!("cannot write {}", output.display()))?;
            let sum = thread::scope(|scope| {
                let threads: Vec<_> = (0..connections)
                    .map(|index| {
                        let part = Part::of(index, connections, size);
                        let file = &file;
                        scope.spawn(move || receive(from, part, chunk_size, file))
                    })
                    .collect();
                threads.into_iter().try_fold(0u64, |sum, thread| {
                    let part = thread.join().ok().context("a thread panicked")??;
                    anyhow::Ok(sum.wrapping_add(part))
                })
            })?;
            writeln!(std::io::stdout(), "{sum:016x}")?;
            Ok(())
        }
    }
}

/// Serves until the process is killed.
fn send(listen: SocketAddr, file: Option<PathBuf>) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let file = file.map(File::open).transpose().context("cannot read")?;
    let config = tls::server_config(&Identity::generate()?, &[ALPN])?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    thread::scope(|scope| {
        for socket in listener.incoming() {
            let (config, file) = (config.clone(), file.as_ref());
            scope.spawn(move || {
                let connection = ServerConnection::new(config)?;
                // A receiver that goes away in the middle has its reasons.
                drop(send_part(connection, socket?, file));
                anyhow::Ok(())
            });
        }
    });
    Ok(())
}

fn send_part(connection: ServerConnection, socket: TcpStream, file: Option<&File>) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut part = [0; 16];
    stream.read_exact(&mut part)?;
    let mut block = vec![0; BLOCK_SIZE];
    aws_lc_rs::rand::fill(&mut block)
        .ok()
        .context("the system gives no random numbers")?;
    for (offset, size) in Part::from_bytes(part).blocks() {
        if let Some(file) = file {
            file.read_exact_at(&mut block[..size], offset)?;
        }
        stream.write_all(&block[..size])?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

/// One connection; the sum of the first words of its chunks' hashes, so that none is optimised away.
fn receive(from: SocketAddr, part: Part, chunk_size: usize, file: &File) -> Result<u64> {
    let config = tls::client_config(&Identity::generate()?, ALPN, None)?;
    let connection = ClientConnection::new(config, tls::server_name())?;
    let socket = TcpStream::connect(from).with_context(|| format!("cannot dial {from}"))?;
    socket.set_nodelay(true)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(&part.to_bytes())?;
    stream.flush()?;
    let mut block = vec![0; BLOCK_SIZE];
    let mut sum = 0u64;
    for (offset, size) in part.blocks() {
        stream.read_exact(&mut block[..size])?;
        for chunk in block[..size].chunks(chunk_size) {
            let hash = Sha256::digest(chunk);
            let first = hash.first_chunk().context("a hash has 32 bytes")?;
            sum = sum.wrapping_add(u64::from_be_bytes(*first));
        }
        file.write_all_at(&block[..size], offset)?;
    }
    Ok(sum)
}
