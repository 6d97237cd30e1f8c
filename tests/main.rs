//! What Anchorage promises, one module a promise: the table of contents of the end-to-end tests.
//!
//! All of them run the real programs on loopback; `cargo build --workspace --bins` comes first.

mod promises {
    /// Publish, get, ack, serve: every peer that has a chunk is in the manifest.
    mod main_job;

    /// An anchor is a tree of processes; the death of one is no one else's trouble.
    mod process_tree;

    /// What an anchor has answered survives the death of all of its processes.
    mod durability;

    /// A small file costs one connection and one round trip to a source.
    mod small;

    /// A big file is offered while it is hashed, and those who get it meanwhile end with its publisher.
    mod streaming;

    /// A download that was killed continues, and gets nothing twice.
    mod resume;

    /// A source that lies, stalls, breaks off or talks nonsense costs a re-request, and no more.
    mod liars;

    /// A source that stops, and closes nothing, is noticed and replaced within a second.
    mod stalls;

    /// The manifest is what its publisher signed, or nothing.
    mod forgeries;

    /// Bytes that no node would send harm nobody but their sender.
    mod strangers;

    /// Names and files at the edges of what is allowed.
    mod edges;

    /// Output paths where nothing can or may be written.
    mod outputs;

    /// A full disk is said, and survived.
    mod full_disk;

    /// Who is gone is in no manifest; who is alive is found.
    mod liveness;

    /// Keys are pinned; another key is refused.
    mod identity;

    /// Commands on a home whose node runs work through it; two nodes never fight over one home.
    mod one_home;

    /// The command line that scripts rely on.
    mod cli;

    /// Progress for people, and silence for scripts.
    mod progress;

    /// Everything at once, while processes die at random.
    mod chaos;
}
