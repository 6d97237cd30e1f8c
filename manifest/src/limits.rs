//! How large anything may be. Every decoder, buffer and loop in the workspace is bounded by one of these.

/// Version of both protocols; named in the first message of every connection.
pub const PROTOCOL_VERSION: u16 = 4;

/// Largest body of a frame in bytes: a page of holders, or a bitmap of [`CHUNKS_MAX`] chunks.
pub const FRAME_SIZE_MAX: usize = 1 << 20;

/// Largest body in bytes of a request to an anchor: with its envelope it must fit one packet of a pipe.
pub const REQUEST_SIZE_MAX: usize = 3_840;

/// Largest packet in bytes that a worker writes up a pipe: `PIPE_BUF`, so that a write is atomic.
pub const PACKET_SIZE_MAX: usize = 4_096;

/// Smallest chunk in bytes that a publisher may choose.
pub const CHUNK_SIZE_MIN: u32 = 1 << 10;

/// Largest chunk in bytes that a publisher may choose.
pub const CHUNK_SIZE_MAX: u32 = 16 << 20;

/// Smallest chunk in bytes that is chosen when the publisher says nothing.
pub const CHUNK_SIZE_DEFAULT_MIN: u32 = 16 << 10;

/// Most chunks of one content: a list of 32 MiB, and with the largest chunks a file of 16 TiB.
pub const CHUNKS_MAX: u32 = 1 << 20;

/// Most bytes of a name.
pub const NAME_SIZE_MAX: usize = 255;

/// Most peers named in the answer to a join, and most sources named in the answer to a watch.
pub const PEERS_MAX: usize = 50;

/// Most bytes of bitmaps in the answer to one `Holders`, all its pages together. 1,000 nodes that have a random half
/// of 100,000 chunks could not be told in less than 12.5 MB, and no reader could do anything with that.
pub const HOLDERS_SIZE_MAX: usize = 1_800_000;

/// Most chunks in one ack, and in one `Have`.
pub const CHUNKS_PER_MESSAGE_MAX: usize = 512;

/// Most deliveries in one ack.
pub const DELIVERIES_PER_ACK_MAX: usize = 32;

/// Milliseconds for which a peer collects acks, if the anchor has not said another time.
pub const COLLECT_MS_MIN: u32 = 20;

/// Most milliseconds for which an anchor may have a peer collect acks.
pub const COLLECT_MS_MAX: u32 = 2_000;

/// Most bytes of a bitmap in one announcement; longer bitmaps travel in several.
pub const SEGMENT_SIZE_MAX: usize = 2_048;

/// Heartbeats that a peer may miss; after the last of them it is gone.
pub const HEARTBEATS_MISSED_MAX: u32 = 3;

/// Most drafts that an anchor knows, of all publishers.
pub const DRAFTS_MAX: usize = 1_024;

/// Most drafts that an anchor knows of one publisher.
pub const DRAFTS_PER_PUBLISHER_MAX: usize = 16;
