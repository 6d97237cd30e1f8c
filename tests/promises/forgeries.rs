//! The manifest is what its publisher signed, or nothing.

use anchorage_manifest::{
    Content, Geometry, Hash, Release, Signature, SignedRelease, codec, link,
    wire::{Answer, Ask, Refusal, Reply, Request},
};
use anchorage_peer::identity::Identity;
use anchorage_tests::{Chunks, Control, Fake, Finished, Holding, Log, Manner, Swarm, random_bytes};
use anyhow::{Result, bail};

const CHUNK_SIZE: u32 = 4_096;

/// What a peer says to a file whose only anchor and source gives `holding`.
fn get_from_a_false_anchor(holding: Holding) -> Result<Finished> {
    let swarm = Swarm::builder().anchors(1).lay_out()?;
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(swarm.config())?)?;
    let address = config["anchors"][0]["address"].as_str().unwrap_or_default();
    let identity = Identity::from_seed([9; 32]);
    let _anchor = Fake::start_at(address.parse()?, identity, holding, Manner::Honest)?;
    let getter = swarm.peer("getter")?;
    let finished = getter.run(&["get", "forged.bin", "--json", "--timeout", "3"])?;
    assert!(!getter.path("forged.bin").exists(), "{finished}");
    finished.fails_clearly()
}

fn publisher() -> Identity {
    Identity::from_seed([1; 32])
}

fn honest() -> Result<Holding> {
    Holding::random(
        "forged.bin",
        10 * CHUNK_SIZE as usize,
        CHUNK_SIZE,
        &publisher(),
    )
}

/// The same release with the signature of another: its last 64 bytes on the wire.
fn badly_signed(release: &SignedRelease) -> SignedRelease {
    let release = release.unverified();
    let other = publisher().sign(Release {
        version: 99,
        ..release.clone()
    });
    let bytes = codec::encode(&other);
    let signature: &[u8; 64] = bytes.last_chunk().expect("a signature");
    SignedRelease::new(release.clone(), Signature::from_bytes(signature))
}

#[test]
fn the_false_anchor_is_believed_when_it_is_true() -> Result<()> {
    let log = get_from_a_true_anchor(Manner::Honest)?;
    assert_eq!(
        log.hellos.len(),
        1,
        "the list and the first chunks came over one connection"
    );
    Ok(())
}

#[test]
fn the_name_is_asked_for_before_the_anchor_has_said_a_word() -> Result<()> {
    get_from_a_true_anchor(Manner::AskedFirst)?;
    Ok(())
}

/// What an anchor was asked that has the file and says the truth about it.
fn get_from_a_true_anchor(manner: Manner) -> Result<Log> {
    let swarm = Swarm::builder().anchors(1).lay_out()?;
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(swarm.config())?)?;
    let address = config["anchors"][0]["address"].as_str().unwrap_or_default();
    let identity = Identity::from_seed([9; 32]);
    // Too large to come together with its list.
    let holding = Holding::random("forged.bin", 200_000, CHUNK_SIZE, &publisher())?;
    let anchor = Fake::start_at(address.parse()?, identity, holding, manner)?;
    swarm.peer("getter")?.get("forged.bin", &[])?;
    Ok(anchor.log())
}

#[test]
fn a_signature_that_does_not_fit_is_refused_by_the_peer() -> Result<()> {
    let mut holding = honest()?;
    holding.release = badly_signed(&holding.release);
    get_from_a_false_anchor(holding)?
        .exits(3)?
        .says(&["signature"])?;
    Ok(())
}

#[test]
fn a_release_of_another_name_is_refused_by_the_peer() -> Result<()> {
    let holding = Holding::random("other.bin", 40_000, CHUNK_SIZE, &publisher())?;
    get_from_a_false_anchor(holding)?.exits(3)?;
    Ok(())
}

#[test]
fn a_size_that_disagrees_with_the_list_is_refused_by_the_peer() -> Result<()> {
    let good = honest()?;
    let size = good.bytes.len() as u64;
    let other = Geometry::new(size - 1, CHUNK_SIZE)?;
    let holding = Holding::new("forged.bin", other, good.list, good.bytes, &publisher())?;
    get_from_a_false_anchor(holding)?.exits(3)?;
    Ok(())
}

#[test]
fn a_chunk_count_that_disagrees_is_refused_by_the_peer() -> Result<()> {
    let good = honest()?;
    let geometry = good.release.unverified().geometry;
    let mut list = good.list;
    list.truncate(list.len() - 32);
    let holding = Holding::new("forged.bin", geometry, list, good.bytes, &publisher())?;
    get_from_a_false_anchor(holding)?.exits(3)?;
    Ok(())
}

#[test]
fn a_list_of_another_hash_is_refused_by_the_peer() -> Result<()> {
    let mut holding = honest()?;
    if let Some(byte) = holding.list.last_mut() {
        *byte ^= 1;
    }
    // Nobody else has the list: it is missing, not wrong, once the liar is shunned.
    get_from_a_false_anchor(holding)?.exits_one_of(&[3, 4])?;
    Ok(())
}

#[test]
fn a_file_of_another_hash_never_gets_its_name() -> Result<()> {
    let bytes = random_bytes(40_000, 5);
    let geometry = Geometry::new(40_000, CHUNK_SIZE)?;
    let honest = link::states(&bytes, geometry);
    for index in [0, honest.len() - 1] {
        let mut states = honest.clone();
        states[index] = Hash::of(b"another file");
        let list = Content::new(geometry, states)?.encode();
        let holding = Holding::new("forged.bin", geometry, list, bytes.clone(), &publisher())?;
        let finished = get_from_a_false_anchor(holding)?.exits(3)?;
        finished.says(&["does not match its hash", "contradicts itself"])?;
    }
    Ok(())
}

#[test]
fn an_anchor_registers_only_what_its_publisher_signed() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let mut control = Control::dial(swarm.anchor(1).address(), &publisher())?;
    let release = badly_signed(&honest()?.release);
    match control.ask(Request::Publish { release })? {
        Reply::Refused {
            refusal: Refusal::BadSignature,
        } => {}
        other => bail!("it was answered by {other:?}"),
    }
    assert_eq!(swarm.anchor(1).count("releases")?, 0);
    Ok(())
}

#[test]
fn an_older_version_does_not_replace_a_newer_one() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let mut control = Control::dial(swarm.anchor(1).address(), &publisher())?;
    let good = honest()?.release;
    let release = publisher().sign(Release {
        version: 2,
        ..good.unverified().clone()
    });
    match control.ask(Request::Publish { release })? {
        Reply::Published { .. } => {}
        other => bail!("version 2 was answered by {other:?}"),
    }
    match control.ask(Request::Publish { release: good })? {
        Reply::Refused {
            refusal: Refusal::Conflict { version: 2 },
        } => Ok(()),
        other => bail!("version 1 was answered by {other:?}"),
    }
}

#[test]
fn an_anchor_stores_no_chunk_and_no_list_that_does_not_match() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let anchor = swarm.anchor(1);
    let holding = honest()?;
    holding.register(anchor.address(), &publisher())?;
    let content = holding.release.unverified().content;
    let before = anchor.health()?;

    let mut list = holding.list.clone();
    list[60] ^= 1;
    let refused = put(
        anchor.address(),
        &Ask::PutList {
            content,
            size: size(&list)?,
        },
        &list,
    )?;
    assert!(refused, "a wrong list was stored");
    let mut chunk = holding.bytes[..CHUNK_SIZE as usize].to_vec();
    chunk[0] ^= 1;
    let index = 0;

    let mut chunks = Chunks::dial(anchor.address(), &publisher())?;
    let offered = chunks.ask(&Ask::Offer { content })?;
    let have = None;
    assert_eq!(offered, Answer::Offered { content, have });
    let ask = Ask::PutList {
        content,
        size: size(&holding.list)?,
    };
    chunks.wire().send(&ask)?;
    chunks.wire().send_raw(&holding.list)?;
    assert_eq!(
        chunks.answer()?,
        Answer::Stored {
            content,
            index: None
        }
    );
    let refused = put(
        anchor.address(),
        &Ask::Put {
            content,
            index,
            size: size(&chunk)?,
        },
        &chunk,
    )?;
    assert!(refused, "a wrong chunk was stored");
    let part = &holding.bytes[..100];
    let refused = put(
        anchor.address(),
        &Ask::Put {
            content,
            index,
            size: size(part)?,
        },
        part,
    )?;
    assert!(refused, "a part of a chunk was stored");
    let unknown = anchorage_manifest::ContentId(Hash::of(b"nobody's"));
    let ask = Ask::PutList {
        content: unknown,
        size: size(&holding.list)?,
    };
    let refused = put(anchor.address(), &ask, &holding.list)?;
    assert!(refused, "a list without a release was stored");
    drop(chunks);
    anchor.is_unharmed(&before, 2)
}

fn size(bytes: &[u8]) -> Result<u32> {
    Ok(u32::try_from(bytes.len())?)
}

/// Whether what is put is refused, or hung up on.
fn put(address: std::net::SocketAddr, ask: &Ask, bytes: &[u8]) -> Result<bool> {
    let mut chunks = Chunks::dial(address, &publisher())?;
    let (Ask::PutList { content, .. } | Ask::Put { content, .. }) = *ask else {
        bail!("{ask:?} puts nothing");
    };
    let offered = chunks.ask(&Ask::Offer { content })?;
    if matches!(offered, Answer::Refused { .. }) {
        return Ok(true);
    }
    chunks.wire().send(ask)?;
    // It may hang up before the bytes are through.
    let sent = chunks.wire().send_raw(bytes);
    match (sent, chunks.answer()) {
        (_, Ok(Answer::Refused { .. }) | Err(_)) => Ok(true),
        (_, Ok(Answer::Stored { .. })) => Ok(false),
        (_, Ok(other)) => bail!("it was answered by {other:?}"),
    }
}
