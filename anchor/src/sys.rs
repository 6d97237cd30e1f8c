//! Where the anchor touches the kernel by hand: descriptors, fork and exec, sockets across processes.
//!
//! All `unsafe` of the workspace is below this module. Every worker is started with these descriptors and no
//! others; who holds which end is the anchor's map of trust:
//!
//! ```text
//!  fd   connection              manifest                      transfer k
//!  0 1  /dev/null               /dev/null                     /dev/null
//!  2    the supervisor's        the supervisor's              the supervisor's
//!  3    status, up              status, up                    status, up
//!  4    listener, TCP           requests of connection        mailbox, sockets come out
//!  5    requests, up            requests of transfer 0        requests, up
//!  6 …  hand-off to transfer 0  requests of transfer 1 …
//! ```
//! Pipes are in packet mode, hand-offs are `SOCK_SEQPACKET` pairs. The supervisor keeps both ends of everything
//! from 4 on, so that what is queued there outlives a worker; of a status pipe it keeps the reading end alone, so
//! that a worker's end closes with it.
#![expect(
    unsafe_code,
    reason = "descriptors by number, a closure between fork and exec, SCM_RIGHTS, an event loop by hand"
)]

pub(crate) mod descriptors;
pub(crate) mod handoff;
pub(crate) mod pipe;
pub(crate) mod readiness;
pub(crate) mod spawn;
