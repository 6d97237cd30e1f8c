//! The pipe up to the manifest process: packets of as many requests as there are, in the order of the desk.

use super::desk::Desk;
use crate::sys::{pipe, readiness};
use std::{io, os::fd::OwnedFd, sync::Arc};
use tokio::io::Interest;

/// Writes what the desk has to forward, for as long as the process lives.
pub(super) async fn run(writer: OwnedFd, desk: Arc<Desk>) -> io::Result<()> {
    pipe::set_nonblocking(&writer)?;
    let writer = readiness::register(writer, Interest::WRITABLE)?;
    let mut packet = Vec::new();
    loop {
        packet.clear();
        desk.forward(&mut packet);
        if packet.is_empty() {
            desk.forwards.notified().await;
            continue;
        }
        loop {
            let mut room = writer.writable().await?;
            if let Ok(sent) = room.try_io(|writer| pipe::send(writer, &packet)) {
                sent?;
                break;
            }
        }
    }
}
