//! What the store promises of drafts, one test each.

use super::{
    tests::{CHUNK, read, sample},
    *,
};
use crate::identity::Identity;
use anchorage_manifest::{EntriesError, Hash, Signature};

fn author() -> Identity {
    Identity::from_seed([7; 32])
}

fn draft(content: &Content, nonce: u8) -> Draft {
    Draft {
        name: "file".parse().expect("a good name"),
        geometry: content.geometry(),
        publisher: author().id(),
        nonce: [nonce; 32],
    }
}

/// Entries of a content as their publisher brings them.
fn signed(content: &Content, draft: &Draft, count: usize) -> (Vec<Hash>, Signature) {
    let hashes = content.states()[..count].to_vec();
    let signature = author().sign_bytes(&anchorage_manifest::Entries::new(draft).to_sign(&hashes));
    (hashes, signature)
}

fn extend(slot: &Slot, content: &Content, draft: &Draft, count: usize) -> Result<()> {
    let (hashes, signature) = signed(content, draft, count);
    slot.extend(0, &hashes, signature)
}

fn chunk(bytes: &[u8], index: usize) -> &[u8] {
    bytes.chunks(CHUNK).nth(index).unwrap_or_default()
}

#[test]
fn a_chunk_is_stored_once_its_entry_is_known_and_kept_through_the_seal() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bytes, content) = sample(5);
    let draft = draft(&content, 1);
    let store = Store::open(directory.path())?;
    let slot = store.draft(&draft, &Place::inside())?;
    assert!(!slot.store(0, chunk(&bytes, 0))?, "nobody has signed it");
    extend(&slot, &content, &draft, 3)?;
    assert!(slot.store(2, chunk(&bytes, 2))?);
    assert!(!slot.store(1, chunk(&bytes, 0))?);
    assert!(!slot.store(3, chunk(&bytes, 3))?);
    assert_eq!(read(&slot, 2)?, chunk(&bytes, 2));
    // A process that is killed leaves just this.
    drop((store, slot));
    let store = Store::open(directory.path())?;
    let slot = store.slot(draft.id()).context("the draft")?;
    assert_eq!(slot.have().iter().collect::<Vec<_>>(), [2]);
    assert_eq!(slot.entries_since(0), Some(signed(&content, &draft, 3)));
    let whole = store.adopt(&content)?.context("it begins with the draft")?;
    assert_eq!(whole.id(), content.id());
    assert_eq!(read(&whole, 2)?, chunk(&bytes, 2));
    assert!(store.drafts().is_empty(), "nothing of the draft remains");
    // Both names are one: what is stored by one is there by the other.
    assert!(slot.store(1, chunk(&bytes, 1))? && whole.has(1));
    assert!(whole.store(4, chunk(&bytes, 4))?);
    let told: Vec<u32> = store
        .slot(draft.id())
        .context("in use")?
        .have()
        .iter()
        .collect();
    assert_eq!(told, [1, 2], "what its publisher did not sign is not told");
    drop(slot);
    assert!(store.slot(draft.id()).is_none(), "nobody uses the name");
    let again = Store::open(directory.path())?;
    let whole = again.slot(content.id()).context("the content")?;
    assert_eq!(whole.have().iter().collect::<Vec<_>>(), [1, 2, 4]);
    Ok(())
}

#[test]
fn a_draft_that_is_sealed_takes_no_more_from_its_publisher() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bytes, content) = sample(5);
    let draft = draft(&content, 1);
    // Both chunks that are brought at once follow the same two, but one of them is not the content's.
    let mut lie = bytes.clone();
    lie[2 * CHUNK] ^= 1;
    let other = Content::of(&lie, u32::try_from(CHUNK)?)?;
    let (one, two) = (
        Store::open(directory.path())?,
        Store::open(directory.path())?,
    );
    let here = one.draft(&draft, &Place::inside())?;
    extend(&here, &content, &draft, 2)?;
    two.refresh(draft.id());
    let there = two.slot(draft.id()).context("refreshed")?;
    let whole = one.seal(&here, &content)?.context("it begins with it")?;
    for slot in [&here, &there] {
        extend(slot, &other, &draft, 3)?;
        assert!(!slot.store(2, chunk(&lie, 2))?, "it is not the content's");
    }
    assert!(whole.have().is_empty());
    assert!(whole.store(2, chunk(&bytes, 2))?);
    // One that was first spoils nothing but its draft.
    let draft = Draft {
        nonce: [2; 32],
        ..draft
    };
    let here = one.draft(&draft, &Place::inside())?;
    extend(&here, &content, &draft, 2)?;
    two.refresh(draft.id());
    let there = two.slot(draft.id()).context("refreshed")?;
    extend(&there, &other, &draft, 3)?;
    assert!(one.seal(&here, &content)?.is_none());
    extend(&here, &other, &draft, 5)?;
    assert!(one.seal(&here, &other)?.is_some());
    Ok(())
}

#[test]
fn a_draft_that_another_process_removed_is_open_no_more() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let draft = draft(&sample(2).1, 1);
    let one = Store::open(directory.path())?;
    one.draft(&draft, &Place::inside())?;
    let (other, idle) = (Store::open(directory.path())?, Duration::from_secs(3_600));
    other.sweep(idle);
    assert!(other.slot(draft.id()).is_some());
    one.remove(draft.id())?;
    other.sweep(idle);
    assert!(other.slot(draft.id()).is_none());
    Ok(())
}

#[test]
fn a_draft_that_a_content_does_not_begin_with_is_not_adopted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bytes, content) = sample(5);
    let mut hashes = content.states().to_vec();
    hashes[0] = Hash::of(b"another");
    let other = Content::new(content.geometry(), hashes)?;
    let store = Store::open(directory.path())?;
    let one = draft(&content, 1);
    let slot = store.draft(&one, &Place::inside())?;
    extend(&slot, &content, &one, 2)?;
    slot.store(0, chunk(&bytes, 0))?;
    assert!(store.adopt(&other)?.is_none());
    assert!(store.seal(&slot, &other)?.is_none());
    // Of several that fit, the one that has most is taken.
    let two = draft(&content, 2);
    let slot = store.draft(&two, &Place::inside())?;
    extend(&slot, &content, &two, 5)?;
    for index in 0..3 {
        slot.store(index, chunk(&bytes, index as usize))?;
    }
    let whole = store.adopt(&content)?.context("two of them fit")?;
    assert_eq!(whole.have().count(), 3);
    assert_eq!(store.drafts(), [one.id()]);
    store.sweep(Duration::from_secs(3_600));
    assert_eq!(store.drafts(), [one.id()], "not idle yet");
    store.sweep(Duration::ZERO);
    assert!(store.drafts().is_empty() && store.slot(one.id()).is_none());
    assert_eq!(read(&whole, 1)?, chunk(&bytes, 1));
    Ok(())
}

#[test]
fn two_processes_share_a_draft_and_what_it_becomes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bytes, content) = sample(4);
    let draft = draft(&content, 1);
    let (one, two) = (
        Store::open(directory.path())?,
        Store::open(directory.path())?,
    );
    let here = one.draft(&draft, &Place::inside())?;
    let there = two.draft(&draft, &Place::inside())?;
    extend(&here, &content, &draft, 2)?;
    here.store(1, chunk(&bytes, 1))?;
    two.refresh(draft.id());
    assert!(there.has(1));
    // A process that is behind does not take back what another has written.
    extend(&there, &content, &draft, 4)?;
    extend(&here, &content, &draft, 3)?;
    there.store(3, chunk(&bytes, 3))?;
    one.refresh(draft.id());
    assert_eq!(here.have().iter().collect::<Vec<_>>(), [1, 3]);
    // One of them learns the list; the other goes on by the draft's name until it hears of it.
    let sealed = one.adopt(&content)?.context("it begins with the draft")?;
    assert!(there.store(0, chunk(&bytes, 0))?);
    assert!(two.refresh(content.id()), "a draft became it");
    assert!(!two.refresh(content.id()), "and is told once");
    let same = two.slot(content.id()).context("the same folder")?;
    assert_eq!(same.have().count(), 3);
    assert!(same.store(2, chunk(&bytes, 2))? && there.has(2));
    one.refresh(content.id());
    assert!(sealed.have().is_full());
    // Or it learns the list as well.
    assert_eq!(
        two.seal(&there, &content)?.map(|slot| slot.id()),
        Some(content.id())
    );
    Ok(())
}

#[test]
fn entries_that_are_spoiled_on_disk_are_none() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (bytes, content) = sample(4);
    let draft = draft(&content, 1);
    let store = Store::open(directory.path())?;
    let slot = store.draft(&draft, &Place::inside())?;
    extend(&slot, &content, &draft, 3)?;
    slot.store(1, chunk(&bytes, 1))?;
    let path = store.draft_folder(draft.id()).join("entries");
    let good = fs::read(&path)?;
    for size in [0, 3, 67, 68, good.len() - 1] {
        fs::write(&path, &good[..size])?;
        let slot = Store::open(directory.path())?.slot(draft.id());
        let slot = slot.context("still a draft")?;
        assert_eq!(slot.entries_since(0), None, "{size} bytes");
        assert!(slot.have().is_empty());
        // They come again, and what was stored is still there.
        extend(&slot, &content, &draft, 3)?;
        slot.reload();
        assert_eq!(slot.have().iter().collect::<Vec<_>>(), [1]);
    }
    Ok(())
}

#[test]
fn a_lie_is_told_from_a_disk_that_fails() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (_, content) = sample(4);
    let draft = draft(&content, 1);
    let slot = Store::open(directory.path())?.draft(&draft, &Place::inside())?;
    let (hashes, _) = signed(&content, &draft, 2);
    let lie = slot.extend(0, &hashes, Signature::from_bytes(&[9; 64]));
    let error = lie.err().context("nobody signed that")?;
    assert_eq!(error.downcast_ref(), Some(&EntriesError::BadSignature(2)));
    assert_eq!(slot.entries_since(0), None);
    Ok(())
}
