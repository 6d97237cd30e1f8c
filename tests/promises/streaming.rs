//! A big file is offered while it is hashed; who starts to get it meanwhile has it shortly after it is released.
//!
//! A publisher that is stopped in the middle of hashing gives each test the time that it needs.

use anchorage_manifest::{
    Content, ContentId, Draft, Entries, Geometry, Hash, Release, Signature,
    wire::{Answer, Ask, Refusal, Reply, Request},
};
use anchorage_peer::identity::Identity;
use anchorage_tests::{
    Chunks, Control, Fake, Holding, Manner, PATIENCE, Peer, Process, Swarm, proc, random_bytes,
    sha256_of, until,
};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

const NAME: &str = "big.bin";

/// Takes long enough to hash that it can be caught in between; most of it is a hole.
const SIZE: u64 = 1 << 30;

fn big_file(swarm: &Swarm) -> Result<PathBuf> {
    let path = swarm.path(NAME);
    let mut file = File::create(&path)?;
    file.write_all(&random_bytes(32 << 20, 7))?;
    file.set_len(SIZE)?;
    Ok(path)
}

/// How many chunks of drafts a store has.
fn drafted(home: &Path) -> usize {
    let folders = fs::read_dir(home.join("store/drafts"))
        .into_iter()
        .flatten();
    let marks = folders.flatten().map(|folder| {
        let marks = fs::read(folder.path().join("marks")).unwrap_or_default();
        marks.into_iter().filter(|&mark| mark == 1).count()
    });
    marks.sum()
}

/// Publishes and stops the publisher when the anchor has so many chunks of what is not released yet.
fn publish_in_part(swarm: &Swarm, publisher: &Peer, path: &Path, chunks: usize) -> Result<Process> {
    let path = path.to_str().context("a path")?;
    let process = publisher.spawn(&["publish", path, "--json"])?;
    until(PATIENCE, "chunks of a draft at the anchor", || {
        Ok((drafted(&swarm.anchor(1).state()) >= chunks).then_some(()))
    })?;
    process.signal(Signal::SIGSTOP)?;
    ensure!(
        !is_released(swarm)?,
        "it was released before it was stopped"
    );
    Ok(process)
}

fn is_released(swarm: &Swarm) -> Result<bool> {
    let stranger = Identity::from_seed([77; 32]);
    let mut control = Control::dial(swarm.anchor(1).address(), &stranger)?;
    let name = NAME.parse()?;
    Ok(matches!(
        control.ask(Request::Resolve { name })?,
        Reply::Resolved { .. }
    ))
}

/// That a getter fetched nothing of the chunks that were kept; of the last ones it may have asked twice.
fn is_fetched_but_for(done: &serde_json::Value, kept: usize) -> Result<()> {
    let from = done["from"].as_array().context("sources")?.iter();
    let bytes: u64 = from.filter_map(|source| source["bytes"].as_u64()).sum();
    let chunk_size = u64::from(Geometry::default_chunk_size(SIZE));
    let missing = SIZE - kept as u64 * chunk_size;
    ensure!(
        bytes < missing + 40 * chunk_size,
        "{bytes} bytes were fetched, {missing} were missing: {done}"
    );
    Ok(())
}

fn start_to_get(getter: &Peer, chunks: usize) -> Result<Process> {
    let process = getter.spawn(&["get", NAME, "--json"])?;
    until(PATIENCE, "chunks at the getter", || {
        Ok((drafted(&getter.home()) >= chunks).then_some(()))
    })?;
    Ok(process)
}

#[test]
fn a_getter_streams_along_and_ends_with_the_publisher() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let path = big_file(&swarm)?;
    let mut publisher = publish_in_part(&swarm, &swarm.peer("publisher")?, &path, 100)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 90)?;
    ensure!(
        !is_released(&swarm)?,
        "released by a publisher that is stopped"
    );
    ensure!(!getting.has_ended()? && !getter.path(NAME).exists());
    publisher.signal(Signal::SIGCONT)?;
    let published = publisher.event("published", PATIENCE)?;
    let done = getting.wait(PATIENCE)?.exits(0)?.last("done")?;
    assert_eq!(done["sha256"], published["sha256"]);
    is_fetched_but_for(&done, 0)?;
    assert_eq!(sha256_of(&getter.path(NAME))?, sha256_of(&path)?);
    publisher.wait(PATIENCE)?.exits(0)?;
    // Nothing of the draft remains, and the anchor can serve it alone.
    for home in [
        swarm.anchor(1).state(),
        getter.home(),
        swarm.peer("publisher")?.home(),
    ] {
        let left = fs::read_dir(home.join("store/drafts"))?.count();
        assert_eq!(left, 0, "drafts in {}", home.display());
    }
    assert_eq!(getter.holders(NAME)?, [swarm.anchor(1).address()]);
    swarm.peer("late")?.get(NAME, &[])?;
    Ok(())
}

#[test]
fn a_publisher_that_uploads_nothing_is_streamed_from() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let path = big_file(&swarm)?;
    let publisher = swarm.peer("publisher")?;
    let argument = path.to_str().context("a path")?;
    let mut publishing = publisher.spawn(&["publish", argument, "--no-upload", "--json"])?;
    until(PATIENCE, "a draft that somebody offers", || {
        Ok(is_offered(&swarm)?.then_some(()))
    })?;
    publishing.signal(Signal::SIGSTOP)?;
    let getter = swarm.peer("getter")?;
    let mut getting = getter.spawn(&["get", NAME, "--json"])?;
    until(PATIENCE, "a getter that knows the draft", || {
        Ok(getter.path("big.bin.part").exists().then_some(()))
    })?;
    publishing.signal(Signal::SIGCONT)?;
    let published = publishing.event("published", PATIENCE)?;
    let done = getting.wait(PATIENCE)?.exits(0)?.last("done")?;
    assert_eq!(done["sha256"], published["sha256"]);
    is_fetched_but_for(&done, 0)?;
    Ok(())
}

/// Whether a draft of the name is known, and somebody has it.
fn is_offered(swarm: &Swarm) -> Result<bool> {
    let mut control = Control::dial(swarm.anchor(1).address(), &Identity::from_seed([77; 32]))?;
    let name = NAME.parse()?;
    let Reply::Drafted { draft } = control.ask(Request::FindDraft { name })? else {
        return Ok(false);
    };
    let request = Request::Holders {
        content: draft.id(),
        after: None,
    };
    Ok(matches!(control.ask(request)?, Reply::Holding { holders, .. } if !holders.is_empty()))
}

#[test]
fn a_publisher_that_dies_is_said_to_be_gone_and_what_came_is_kept() -> Result<()> {
    let swarm = Swarm::builder().anchors(1).heartbeat_ms(1_000).start()?;
    let path = big_file(&swarm)?;
    let publisher = swarm.peer("publisher")?;
    let mut process = publish_in_part(&swarm, &publisher, &path, 100)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 90)?;
    process.signal(Signal::SIGKILL)?;
    process.wait(PATIENCE)?;
    getting
        .wait(PATIENCE)?
        .exits(4)?
        .says(&["publisher of big.bin is gone", "hint: "])?;
    assert!(!getter.path(NAME).exists());
    // The same file again, hashed anew: the anchor and the getter go on with what they have.
    let kept = drafted(&getter.home());
    publisher.publish(&path, &[])?;
    let done = getter.get(NAME, &[])?;
    is_fetched_but_for(&done, kept)?;
    assert_eq!(sha256_of(&getter.path(NAME))?, sha256_of(&path)?);
    let left = fs::read_dir(publisher.home().join("store/drafts"))?.count();
    assert_eq!(left, 0, "the draft of the process that was killed");
    Ok(())
}

/// A publisher that is stopped, and a getter that was killed with some chunks; how many.
fn kill_a_getter(swarm: &Swarm) -> Result<(Process, Peer, usize)> {
    let path = big_file(swarm)?;
    let publisher = publish_in_part(swarm, &swarm.peer("publisher")?, &path, 100)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 90)?;
    getting.signal(Signal::SIGKILL)?;
    getting.wait(PATIENCE)?;
    let kept = drafted(&getter.home());
    Ok((publisher, getter, kept))
}

#[test]
fn a_getter_killed_before_the_seal_goes_on_behind_it() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (mut publisher, getter, kept) = kill_a_getter(&swarm)?;
    publisher.signal(Signal::SIGCONT)?;
    publisher.event("published", PATIENCE)?;
    let done = getter.get(NAME, &[])?;
    is_fetched_but_for(&done, kept)?;
    assert_eq!(
        sha256_of(&getter.path(NAME))?,
        sha256_of(&swarm.path(NAME))?
    );
    Ok(())
}

#[test]
fn a_getter_killed_and_run_again_streams_on() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (mut publisher, getter, kept) = kill_a_getter(&swarm)?;
    let mut again = getter.spawn(&["get", NAME, "--json"])?;
    publisher.signal(Signal::SIGCONT)?;
    publisher.event("published", PATIENCE)?;
    let done = again.wait(PATIENCE)?.exits(0)?.last("done")?;
    is_fetched_but_for(&done, kept)?;
    Ok(())
}

#[test]
fn transfer_processes_that_are_killed_cost_nothing_that_was_stored() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let path = big_file(&swarm)?;
    let mut publisher = publish_in_part(&swarm, &swarm.peer("publisher")?, &path, 100)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 5)?;
    let before = drafted(&swarm.anchor(1).state());
    for child in swarm.anchor(1).children() {
        if proc::args(child.pid).is_ok_and(|args| args.starts_with("anchor: transfer")) {
            proc::signal(child.pid, Signal::SIGKILL)?;
        }
    }
    ensure!(drafted(&swarm.anchor(1).state()) >= before);
    publisher.signal(Signal::SIGCONT)?;
    let published = publisher.event("published", PATIENCE)?;
    let done = getting.wait(PATIENCE)?.exits(0)?.last("done")?;
    assert_eq!(done["sha256"], published["sha256"]);
    publisher.wait(PATIENCE)?.exits(0)?;
    assert_eq!(getter.holders(NAME)?, [swarm.anchor(1).address()]);
    Ok(())
}

#[test]
fn a_manifest_process_that_is_killed_learns_the_draft_again() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let path = big_file(&swarm)?;
    let mut publisher = publish_in_part(&swarm, &swarm.peer("publisher")?, &path, 100)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 5)?;
    swarm.anchor(1).replace_worker("manifest", PATIENCE)?;
    publisher.signal(Signal::SIGCONT)?;
    let published = publisher.event("published", PATIENCE)?;
    let done = getting.wait(PATIENCE)?.exits(0)?.last("done")?;
    assert_eq!(done["sha256"], published["sha256"]);
    Ok(())
}

#[test]
fn a_small_file_makes_no_draft() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("small.bin", 1 << 20)?;
    let publisher = swarm.peer("publisher")?;
    publisher.publish(&path, &[])?;
    assert!(!publisher.home().join("store/drafts").exists());
    assert!(!swarm.anchor(1).state().join("store/drafts").exists());
    Ok(())
}

#[test]
fn a_source_whose_entries_nobody_signed_is_not_asked_again() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let path = big_file(&swarm)?;
    let mut publisher = publish_in_part(&swarm, &swarm.peer("publisher")?, &path, 100)?;
    let mut control = Control::dial(swarm.anchor(1).address(), &Identity::from_seed([77; 32]))?;
    let name = NAME.parse()?;
    let Reply::Drafted { draft } = control.ask(Request::FindDraft { name })? else {
        bail!("the draft is not known");
    };
    let liar = Identity::from_seed([66; 32]);
    let holding = Holding::random("other.bin", 4_096, 4_096, &liar)?;
    let mut liar = Fake::start(liar, holding, Manner::WrongEntries)?;
    liar.announce_draft(swarm.anchor(1).address(), &draft)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 90)?;
    until(PATIENCE, "a meeting with the liar", || {
        Ok((!liar.log().hellos.is_empty()).then_some(()))
    })?;
    publisher.signal(Signal::SIGCONT)?;
    publisher.event("published", PATIENCE)?;
    let address = liar.address().to_string();
    let finished = getting.wait(PATIENCE)?.exits(0)?;
    let warned = finished.events()?.into_iter().any(|event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["event"] == "warning" && message.contains(&address)
    });
    ensure!(warned, "the liar is not named: {finished}");
    assert_eq!(sha256_of(&getter.path(NAME))?, sha256_of(&path)?);
    Ok(())
}

/// A publisher made by hand, with a draft of three chunks that the anchor knows.
struct Author {
    identity: Identity,
    control: Control,
    chunks: Chunks,
    draft: Draft,
    entries: Entries,
    bytes: Vec<u8>,
    hashes: Vec<Hash>,
}

impl Author {
    fn start(swarm: &Swarm) -> Result<Self> {
        let identity = Identity::from_seed([5; 32]);
        let anchor = swarm.anchor(1).address();
        let mut control = Control::dial(anchor, &identity)?;
        control.join(1)?;
        let bytes = random_bytes(3 * 4_096, 9);
        let draft = Draft {
            name: NAME.parse()?,
            geometry: Geometry::new(bytes.len() as u64, 4_096)?,
            publisher: identity.id(),
            nonce: [1; 32],
        };
        control.ask_done(Request::Draft {
            draft: draft.clone(),
        })?;
        let mut author = Self {
            control,
            chunks: Chunks::dial(anchor, &identity)?,
            entries: Entries::new(&draft),
            hashes: anchorage_manifest::link::states(&bytes, draft.geometry),
            identity,
            draft,
            bytes,
        };
        author.offer()?;
        Ok(author)
    }

    fn offer(&mut self) -> Result<()> {
        let content = self.draft.id();
        match self.chunks.ask(&Ask::Offer { content })? {
            Answer::Offered { have: None, .. } => {
                let draft = self.draft.clone();
                let stored = self.chunks.ask(&Ask::PutDraft { draft })?;
                ensure!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
            }
            Answer::Offered { .. } => {}
            other => bail!("the offer was answered by {other:?}"),
        }
        Ok(())
    }

    /// Signs entries and brings them, as they are or as `wrong` makes them.
    fn put_entries(
        &mut self,
        range: std::ops::Range<usize>,
        wrong: impl Fn(&mut u32, &mut Vec<Hash>, &mut Signature),
    ) -> Result<()> {
        let mut first = u32::try_from(range.start)?;
        let mut hashes = self.hashes[range].to_vec();
        let mut signature = self.identity.sign_bytes(&self.entries.to_sign(&hashes));
        let mut signed = self.entries.clone();
        signed.extend(first, &hashes, signature)?;
        wrong(&mut first, &mut hashes, &mut signature);
        let count = u32::try_from(hashes.len())?;
        let wire = self.chunks.wire();
        wire.send(&Ask::PutEntries {
            content: self.draft.id(),
            first,
            count,
            signature,
        })?;
        let raw: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        self.entries = signed;
        wire.send_raw(&raw)
    }

    fn put(&mut self, index: u32) -> Result<Answer> {
        let bytes = self.bytes[index as usize * 4_096..][..4_096].to_vec();
        let wire = self.chunks.wire();
        wire.send(&Ask::Put {
            content: self.draft.id(),
            index,
            size: 4_096,
        })?;
        wire.send_raw(&bytes)?;
        self.chunks.answer()
    }
}

/// Makes a lie of entries.
type Wrong = fn(&mut u32, &mut Vec<Hash>, &mut Signature);

fn right(_: &mut u32, _: &mut Vec<Hash>, _: &mut Signature) {}

#[test]
fn entries_that_lie_are_refused_by_the_anchor() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let before = swarm.anchor(1).health()?;
    let lies: [(Wrong, Refusal); 5] = [
        (
            |_, hashes, _| hashes[1] = Hash::of(b"another"),
            Refusal::BadSignature,
        ),
        (
            |_, _, signature| *signature = Signature::from_bytes(&[9; 64]),
            Refusal::BadSignature,
        ),
        (|first, _, _| *first = 0, Refusal::Mismatch),
        (
            |first, _, _| *first = 2,
            Refusal::Malformed("past the end".to_owned()),
        ),
        (
            |first, hashes, _| {
                hashes.truncate(1);
                *first = 2;
            },
            Refusal::Malformed("a gap".to_owned()),
        ),
    ];
    for (wrong, expected) in lies {
        let mut author = Author::start(&swarm)?;
        author.put_entries(0..1, right)?;
        let stored = author.put(0)?;
        ensure!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
        let refused = author.put(1)?;
        let refusal = Refusal::Mismatch;
        assert_eq!(refused, Answer::Refused { refusal }, "without its entry");
        author.put_entries(1..3, wrong)?;
        let Answer::Refused { refusal } = author.chunks.answer()? else {
            bail!("a lie was taken");
        };
        match (&refusal, &expected) {
            (Refusal::Malformed(_), Refusal::Malformed(_)) => {}
            _ => assert_eq!(refusal, expected),
        }
        author.chunks.wire().is_hung_up_on()?;
    }
    // What was true is kept, and a draft that is told the truth goes on.
    let mut author = Author::start(&swarm)?;
    author.entries.extend(
        0,
        &author.hashes[..1],
        author
            .identity
            .sign_bytes(&author.entries.to_sign(&author.hashes[..1])),
    )?;
    author.put_entries(1..3, right)?;
    for index in [1, 2] {
        let stored = author.put(index)?;
        ensure!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    }
    assert_eq!(drafted(&swarm.anchor(1).state()), 3);
    drop(author);
    swarm.anchor(1).is_unharmed(&before, 4)
}

#[test]
fn a_release_that_is_not_what_was_offered_is_refused() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let mut author = Author::start(&swarm)?;
    author.put_entries(0..2, right)?;
    author.put(0)?;
    let getter = swarm.peer("getter")?;
    let mut getting = start_to_get(&getter, 1)?;
    let mut hashes = author.hashes.clone();
    hashes[0] = Hash::of(b"another");
    let content = Content::new(author.draft.geometry, hashes)?;
    let release = author.identity.sign(Release {
        name: author.draft.name.clone(),
        version: 1,
        content: content.id(),
        geometry: author.draft.geometry,
        publisher: author.identity.id(),
    });
    let published = author.control.ask(Request::Publish { release })?;
    ensure!(
        matches!(published, Reply::Published { .. }),
        "{published:?}"
    );
    put_list(&mut author.chunks, &content)?;
    getting
        .wait(PATIENCE)?
        .exits(3)?
        .says(&["was released as something else"])?;
    assert!(!getter.path(NAME).exists() && !getter.path("big.bin.part").exists());
    Ok(())
}

fn put_list(chunks: &mut Chunks, content: &Content) -> Result<()> {
    let id: ContentId = content.id();
    let offered = chunks.ask(&Ask::Offer { content: id })?;
    ensure!(
        matches!(offered, Answer::Offered { have: None, .. }),
        "another list is not the draft's: {offered:?}"
    );
    let list = content.encode();
    let size = u32::try_from(list.len())?;
    chunks.wire().send(&Ask::PutList { content: id, size })?;
    chunks.wire().send_raw(&list)?;
    let stored = chunks.answer()?;
    ensure!(matches!(stored, Answer::Stored { .. }), "{stored:?}");
    Ok(())
}

#[test]
fn a_draft_of_another_publisher_is_refused() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let mut author = Author::start(&swarm)?;
    let mut other = Control::dial(swarm.anchor(1).address(), &Identity::from_seed([6; 32]))?;
    let draft = author.draft.clone();
    let register = Request::Draft { draft };
    let refusal = Refusal::NotJoined;
    assert_eq!(other.ask(register.clone())?, Reply::Refused { refusal });
    other.join(1)?;
    let Reply::Refused { refusal } = other.ask(register)? else {
        bail!("somebody else's draft was taken");
    };
    ensure!(matches!(refusal, Refusal::Malformed(_)), "{refusal:?}");
    author.control.ask_done(Request::Leave)?;
    let name = NAME.parse()?;
    let refusal = Refusal::UnknownName;
    assert_eq!(
        other.ask(Request::FindDraft { name })?,
        Reply::Refused { refusal },
        "it goes with its publisher"
    );
    Ok(())
}
