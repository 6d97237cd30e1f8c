//! A TLS stream after its handshake, in two halves that do not wait for each other.
//!
//! The reader opens records straight into the caller's buffer, and asks the kernel to wake it for many packets at a
//! time while it knows that they come (`SO_RCVLOWAT`); the writer seals into one buffer and gives it to the kernel
//! in large pieces. Nodes on fast lines, and many nodes on one machine, would else spend their time waking up.

use super::record::{self, HEADER_SIZE, Key, OVERHEAD_SIZE, Opened, PLAIN_SIZE_MAX};
use crate::buffers::{Buffer, Buffers};
use anyhow::{Result, ensure};
use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
use rustls::Connection;
use std::{
    io::{self, ErrorKind},
    mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

sockopt_impl!(
    /// Receive low-water mark, in bytes (socket(7)).
    RcvLowat,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize
);

/// Bytes that are received at a time: at most two packets as they are sent here, since what is received
/// is to lie in a small second cache still when it is opened.
const RECEIVE_SIZE: usize = 2 * RECORDS_SENT_MAX * SEALED_SIZE_MAX;

/// Bytes that the kernel is given at a time, at most: what it can send as one packet, to be cut by the network card
/// (44 segments on Ethernet). Of what is more, the rest would be a packet of its own, for which pacing sets a timer.
const SEND_SIZE_MAX: usize = 44 * 1448;

/// Records of full size among these.
const RECORDS_SENT_MAX: usize = SEND_SIZE_MAX / SEALED_SIZE_MAX;

/// Bytes of a record of full size.
const SEALED_SIZE_MAX: usize = HEADER_SIZE + PLAIN_SIZE_MAX + OVERHEAD_SIZE;

/// Bytes up to which a sender's buffer is made anew for every message.
const SMALL_SIZE: usize = 2 << 10;

/// Least and most bytes that a wake-up waits for.
const WAKE_SIZE: Range<usize> = 2 << 10..64 << 10;

/// Time between two wake-ups that is neither too short nor too long.
const WAKE_EVERY: Range<Duration> = Duration::from_millis(5)..Duration::from_millis(20);

/// A TLS stream after its handshake.
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

/// The half that receives.
pub struct Reader {
    socket: OwnedReadHalf,
    key: Key,
    buffer: Buffer,
    /// What of the buffer came and is not opened yet.
    cipher: Range<usize>,
    /// What of the buffer is opened and not taken yet.
    plain: Range<usize>,
    is_ended: bool,
    /// Bytes of the stream that surely still come.
    expected: usize,
    wakes: Wakes,
}

/// How many bytes a wake-up waits for.
struct Wakes {
    /// What the kernel was told last.
    low_water: usize,
    /// What is right at the rate at which bytes come.
    size: usize,
    slept_at: Instant,
}

/// The half that sends. What is small waits for more until it is flushed.
pub struct Writer {
    socket: OwnedWriteHalf,
    key: Key,
    buffer: Buffer,
    /// What of the buffer is sealed and not sent yet.
    sealed: Range<usize>,
    written: u64,
    is_ended: bool,
}

/// Large buffers of senders that have nothing to send.
static SPARE: Buffers = Buffers::new();

/// Buffers of readers for whom nothing has come: the next one to receive takes what is still in the processor's cache.
static SPARE_OF_READERS: Buffers = Buffers::new();

impl Stream {
    /// Takes a stream over from rustls at a moment when nothing is on its way: each side waits for the other's next
    /// word, or is about to say its own.
    pub fn take_over(socket: TcpStream, connection: impl Into<Connection>) -> Result<Self> {
        let mut connection = connection.into();
        let state = connection.process_new_packets()?;
        ensure!(
            state.plaintext_bytes_to_read() == 0 && !connection.wants_write(),
            "the other side spoke out of turn"
        );
        let keys = connection.dangerous_extract_secrets()?;
        let (receiving, sending) = socket.into_split();
        Ok(Self {
            reader: Reader {
                socket: receiving,
                key: Key::new(keys.rx)?,
                buffer: Buffer::default(),
                cipher: 0..0,
                plain: 0..0,
                is_ended: false,
                expected: 0,
                wakes: Wakes {
                    low_water: 1,
                    size: 4 * WAKE_SIZE.start,
                    slept_at: Instant::now(),
                },
            },
            writer: Writer {
                socket: sending,
                key: Key::new(keys.tx)?,
                buffer: Buffer::default(),
                sealed: 0..0,
                written: 0,
                is_ended: false,
            },
        })
    }

    /// The two halves.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

impl Reader {
    /// Says that so many more bytes surely come, whatever they are: there is no need to be woken for every few.
    pub fn expect(&mut self, count: usize) {
        self.expected = count;
    }

    /// Opens the next record, into `out` if it fits there; false if it is not there whole.
    fn open(&mut self, out: &mut ReadBuf<'_>) -> io::Result<bool> {
        let Some(size) = record::size(&self.buffer[self.cipher.clone()])? else {
            return Ok(false);
        };
        let record = self.cipher.start..self.cipher.start + size;
        if record.end > self.cipher.end {
            return Ok(false);
        }
        self.cipher.start = record.end;
        let plain_size_max = size - HEADER_SIZE - OVERHEAD_SIZE;
        let start = record.start + HEADER_SIZE;
        let opened = if plain_size_max < out.remaining() {
            // One byte more: that of the record's type.
            let room = out.initialize_unfilled_to(plain_size_max + 1);
            let opened = self.key.open_into(&self.buffer[record], room)?;
            if let Opened::Data(size) = opened {
                out.advance(size);
                self.expected = self.expected.saturating_sub(size);
            }
            opened
        } else {
            let opened = self.key.open_in_place(&mut self.buffer[record])?;
            if let Opened::Data(size) = opened {
                self.plain = start..start + size;
            }
            opened
        };
        self.is_ended = opened == Opened::End;
        Ok(true)
    }

    /// Hands out what is opened.
    fn take(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.plain.len().min(out.remaining());
        out.put_slice(&self.buffer[self.plain.start..][..count]);
        Pin::new(self).consume(count);
    }

    /// Receives more; nothing is opened and not taken.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.copy_within(self.cipher.clone(), 0);
        self.cipher = 0..self.cipher.len();
        if self.buffer.is_empty() {
            self.buffer = SPARE_OF_READERS.take(RECEIVE_SIZE);
        }
        let mut room = ReadBuf::new(&mut self.buffer[self.cipher.end..]);
        let received = Pin::new(&mut self.socket).poll_read(context, &mut room);
        let count = room.filled().len();
        if received.is_pending() {
            if self.cipher.is_empty() {
                SPARE_OF_READERS.give_back(mem::take(&mut self.buffer));
            }
            // What lies here sealed has at most as many bytes of the stream.
            let coming = self.expected.saturating_sub(self.cipher.len());
            self.wakes.sleep(&self.socket, coming);
        }
        ready!(received)?;
        if count == 0 {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        self.cipher.end += count;
        Poll::Ready(Ok(()))
    }
}

impl Wakes {
    /// Before it sleeps, the reader says when to wake it. `coming` bytes surely come.
    fn sleep(&mut self, socket: &OwnedReadHalf, coming: usize) {
        if coming > 0 {
            let now = Instant::now();
            let slept = now.duration_since(self.slept_at);
            self.slept_at = now;
            if slept < WAKE_EVERY.start {
                self.size = (2 * self.size).min(WAKE_SIZE.end);
            } else if slept > WAKE_EVERY.end {
                self.size = (self.size / 2).max(WAKE_SIZE.start);
            }
        }
        let wanted = self.size.min(coming).max(1);
        if wanted < self.low_water || wanted >= 2 * self.low_water {
            self.low_water = wanted;
            // A kernel that does not know it wakes the reader more often, nothing else.
            let _ = setsockopt(socket.as_ref(), RcvLowat, &wanted);
        }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        while out.remaining() > 0 && !self.is_ended {
            if !self.plain.is_empty() {
                self.take(out);
            } else if !self.open(out)? {
                if out.filled().len() > before {
                    break;
                }
                ready!(self.poll_receive(context))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Reader {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.plain.is_empty() {
            if this.is_ended {
                return Poll::Ready(Ok(&[]));
            }
            // Where there is no other room, it is opened where it lies.
            if !this.open(&mut ReadBuf::new(&mut []))? {
                ready!(this.poll_receive(context))?;
            }
        }
        Poll::Ready(Ok(&this.buffer[this.plain.clone()]))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.plain.start += count;
        self.expected = self.expected.saturating_sub(count);
    }
}

impl Writer {
    /// The socket, to be asked how its line is.
    pub fn socket(&self) -> &TcpStream {
        self.socket.as_ref()
    }

    /// Bytes that were sealed so far, all of which are for the kernel.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether a record of full size would be too much for one packet.
    fn is_full(&self) -> bool {
        self.sealed.end + SEALED_SIZE_MAX > SEND_SIZE_MAX
    }

    /// Seals a record of at most `size` bytes.
    fn seal(
        &mut self,
        size: usize,
        seal: impl FnOnce(&mut Key, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let needed = self.sealed.end + HEADER_SIZE + size + OVERHEAD_SIZE;
        if self.buffer.len() < needed {
            self.grow(needed);
        }
        let size = seal(&mut self.key, &mut self.buffer[self.sealed.end..])?;
        self.sealed.end += size;
        self.written += size as u64;
        Ok(())
    }

    /// Makes the buffer larger: what is flushed is often small, and then the buffer is, too; what is more takes a large
    /// one that was used before, since clearing one costs more than sealing.
    fn grow(&mut self, needed: usize) {
        if needed <= SMALL_SIZE {
            self.buffer.resize(needed);
            return;
        }
        let mut large = SPARE.take(SEND_SIZE_MAX);
        large[..self.sealed.end].copy_from_slice(&self.buffer[..self.sealed.end]);
        self.buffer = large;
    }

    /// Sends what is sealed.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.is_empty() {
            let bytes = &self.buffer[self.sealed.clone()];
            let count = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
            if count == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.sealed.start += count;
        }
        self.sealed = 0..0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_full() {
            ready!(self.poll_send(context))?;
        }
        let mut count = 0;
        for piece in bytes.chunks(PLAIN_SIZE_MAX) {
            if self.is_full() {
                break;
            }
            self.seal(piece.len(), |key, out| key.seal(piece, out))?;
            count += piece.len();
        }
        if self.is_full()
            && let Poll::Ready(Err(error)) = self.poll_send(context)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        // Whoever flushes has nothing more to say for now; thousands of connections do not keep a buffer each.
        let buffer = mem::take(&mut self.buffer);
        if buffer.len() == SEND_SIZE_MAX {
            SPARE.give_back(buffer);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_ended {
            if self.is_full() {
                ready!(self.poll_send(context))?;
            }
            self.seal(2, Key::seal_end)?;
            self.is_ended = true;
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, out)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{client_config, server_config, server_name};
    use super::*;
    use crate::identity::Identity;
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

    /// A connection whose handshake is done and that nobody has taken over yet.
    async fn connection() -> Result<(client::TlsStream<TcpStream>, server::TlsStream<TcpStream>)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (near, far) = tokio::join!(
            TcpStream::connect(listener.local_addr()?),
            listener.accept()
        );
        let config = server_config(&Identity::from_seed([1; 32]), &[b"test"])?;
        let accept = TlsAcceptor::from(config).accept(far?.0);
        let config = client_config(&Identity::from_seed([2; 32]), b"test", None)?;
        let connect = TlsConnector::from(config).connect(server_name(), near?);
        let (client, server) = tokio::join!(connect, accept);
        Ok((client?, server?))
    }

    fn taken_over(stream: client::TlsStream<TcpStream>) -> Result<Stream> {
        let (socket, connection) = stream.into_inner();
        Stream::take_over(socket, connection)
    }

    /// rustls at the other end is the oracle.
    #[tokio::test]
    async fn rustls_reads_what_is_written_and_the_other_way_round() -> Result<()> {
        let (client, mut server) = connection().await?;
        let mut client = taken_over(client)?;
        let bytes: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
        for size in [1, 100, PLAIN_SIZE_MAX, PLAIN_SIZE_MAX + 1, bytes.len()] {
            let bytes = &bytes[..size];
            let mut echo = vec![0; size];
            let mut reply = vec![0; size];
            let there = async {
                client.write_all(bytes).await?;
                client.flush().await?;
                client.reader.expect(size);
                client.read_exact(&mut reply).await
            };
            let back = async {
                server.read_exact(&mut echo).await?;
                server.write_all(&echo).await?;
                server.flush().await
            };
            let (read, written) = tokio::join!(there, back);
            read?;
            written?;
            assert!(reply == bytes, "{size} bytes there and back");
        }
        client.shutdown().await?;
        assert_eq!(server.read(&mut [0; 1]).await?, 0, "a proper end");
        server.shutdown().await?;
        assert_eq!(client.read(&mut [0; 1]).await?, 0, "a proper end");
        Ok(())
    }

    #[tokio::test]
    async fn what_is_taken_where_it_lies_and_what_is_copied_follow_each_other() -> Result<()> {
        let (client, mut server) = connection().await?;
        let mut reader = taken_over(client)?.split().0;
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let write = async {
            server.write_all(&bytes).await?;
            server.flush().await?;
            server.shutdown().await
        };
        let read = async {
            let mut received = Vec::new();
            let mut copied = [0; 777];
            loop {
                let there = reader.fill_buf().await?;
                if there.is_empty() {
                    return io::Result::Ok(received);
                }
                let count = there.len().min(100);
                received.extend_from_slice(&there[..count]);
                reader.consume(count);
                let count = reader.read(&mut copied).await?;
                received.extend_from_slice(&copied[..count]);
            }
        };
        let (written, received) = tokio::join!(write, read);
        written?;
        assert!(received? == bytes);
        assert!(reader.fill_buf().await?.is_empty(), "still the end");
        Ok(())
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_no_proper_end() -> Result<()> {
        let (client, server) = connection().await?;
        let mut client = taken_over(client)?;
        client.reader.expect(1 << 20);
        drop(server.into_inner());
        let error = client.read(&mut [0; 1]).await.err();
        assert_eq!(
            error.map(|error| error.kind()),
            Some(ErrorKind::UnexpectedEof)
        );
        Ok(())
    }

    #[tokio::test]
    async fn bytes_that_are_no_record_end_it() -> Result<()> {
        let (client, server) = connection().await?;
        let mut client = taken_over(client)?;
        server
            .into_inner()
            .0
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await?;
        let error = client.read(&mut [0; 1]).await.err();
        assert_eq!(
            error.map(|error| error.kind()),
            Some(ErrorKind::InvalidData)
        );
        Ok(())
    }

    #[tokio::test]
    async fn who_speaks_out_of_turn_is_not_taken_over() -> Result<()> {
        let (client, mut server) = connection().await?;
        let mut client = client;
        server.write_all(b"too early").await?;
        client.get_ref().0.readable().await?;
        // As much as rustls happens to have read with something else.
        assert_eq!(client.read(&mut [0; 3]).await?, 3);
        assert!(taken_over(client).is_err());
        Ok(())
    }
}
