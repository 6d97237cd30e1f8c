//! Ports for configs that must name them before anybody listens.

use std::{
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range that the system picks from by itself, so that no outgoing connection takes one meanwhile.
const FIRST: u16 = 12_000;
const COUNT: u16 = 16_000;

/// A port of loopback where nobody listens, and that this process gives out once.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let offset = (u32::from(start) + u32::from(step)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("below COUNT");
        // Not by binding it: a process that is forked at this moment would keep it bound until its exec.
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return port;
        }
    }
    panic!("no port of loopback is free");
}

/// An address of loopback where nobody listens.
pub fn unused_address() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}
