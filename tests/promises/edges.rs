//! Names and files at the edges of what is allowed.

use anchorage_manifest::Manifest;
use anchorage_tests::{PATIENCE, Serving, Swarm, random_bytes, sha256, sha256_of, until};
use anyhow::{Context as _, Result, ensure};
use std::{
    fs::OpenOptions,
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::ffi::OsStrExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

#[test]
fn files_of_all_sizes_arrive_whole() -> Result<()> {
    const CHUNK: u64 = 16 << 10;
    let swarm = Swarm::start()?;
    let publisher = swarm.peer("publisher")?;
    let getter = swarm.peer("getter")?;
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 7 * CHUNK, 7 * CHUNK + 1] {
        let name = format!("size-{size}.bin");
        let (path, sha256) = swarm.file(&name, size)?;
        let event = publisher.publish(&path, &["--chunk-size", "16KiB"])?;
        assert_eq!(event["chunks"], size.div_ceil(CHUNK));
        let done = getter.get(&name, &[])?;
        assert_eq!(done["bytes"], size, "{done}");
        assert_eq!(sha256_of(&getter.path(&name))?, sha256, "{size} bytes");
        assert_eq!(
            getter.manifest(&name)?.chunks.len() as u64,
            size.div_ceil(CHUNK)
        );
        let text = getter.path(&name);
        getter
            .run(&["verify", text.to_str().context("a path")?])?
            .exits(0)?;
        assert_eq!(
            getter.get(&name, &[])?["from"],
            serde_json::json!([]),
            "already complete"
        );
    }
    Ok(())
}

#[test]
fn chunk_sizes_are_what_they_were_asked_to_be() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, _) = swarm.file("cut.bin", 3 << 20)?;
    for (text, size) in [
        ("1024", 1 << 10),
        ("256KiB", 256 << 10),
        ("1MiB", 1 << 20),
        ("16MiB", 16 << 20),
    ] {
        let name = format!("cut-{text}");
        publisher.publish(&path, &["--chunk-size", text, "--name", &name])?;
        assert_eq!(publisher.manifest(&name)?.chunk_size, size);
    }
    let text = path.to_str().context("a path")?;
    for bad in ["0", "1023", "1025", "17MiB", "many", "-1", "1XiB", ""] {
        let option = format!("--chunk-size={bad}");
        publisher
            .run(&["publish", text, &option])?
            .exits(2)
            .with_context(|| format!("{bad:?}"))?;
    }
    Ok(())
}

#[test]
fn bad_names_are_refused_before_anything_is_done() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let (path, _) = swarm.file("good.bin", 1_000)?;
    let text = path.to_str().context("a path")?;
    let long = "x".repeat(300);
    for bad in [
        "a/b",
        "..",
        ".",
        "../x",
        "/etc/passwd",
        "a\nb",
        "\u{1b}[2J",
        "",
        &long,
    ] {
        let option = format!("--name={bad}");
        for arguments in [
            &["publish", text, &option][..],
            &["get", bad],
            &["manifest", bad],
        ] {
            let finished = peer.run(arguments)?.exits(2)?;
            ensure!(finished.stderr.contains("error: "), "{finished}");
            ensure!(
                !finished.stderr.contains('\u{1b}'),
                "a terminal would act upon: {finished}"
            );
        }
    }
    let list = peer.run(&["list", "--json"])?.exits(0)?.json()?;
    assert_eq!(list, serde_json::json!([]));
    Ok(())
}

#[test]
fn names_at_the_edge_are_taken() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let (path, sha256) = swarm.file("good.bin", 1_000)?;
    let longest = "x".repeat(250);
    for name in [
        "a b",
        ".hidden",
        "Musik für alle.txt",
        "100%",
        "$HOME",
        &longest,
    ] {
        peer.publish(&path, &["--name", name])?;
        peer.get(name, &[])?;
        assert_eq!(sha256_of(&peer.path(name))?, sha256);
    }
    Ok(())
}

#[test]
fn a_file_whose_own_name_is_none_needs_another() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    for raw in [&b"line\nbreak"[..], b"not \xff utf-8"] {
        let path = swarm
            .path("x")
            .with_file_name(std::ffi::OsStr::from_bytes(raw));
        std::fs::write(&path, b"music")?;
        let mut command = peer.command(&["publish", "--json"])?;
        command.arg(&path);
        anchorage_tests::Process::spawn(&mut command)?
            .wait(PATIENCE)?
            .exits_one_of(&[1, 2])?
            .fails_clearly()?;
        command.args(["--name", "good"]);
        anchorage_tests::Process::spawn(&mut command)?
            .wait(PATIENCE)?
            .exits(0)?;
    }
    Ok(())
}

#[test]
fn what_is_no_file_cannot_be_published() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    for path in ["/nowhere/at/all.bin", "/tmp", "/dev/null"] {
        peer.run(&["publish", path])?
            .exits(1)
            .with_context(|| path.to_owned())?
            .fails_clearly()?
            .says(&[path])?;
    }
    Ok(())
}

#[test]
fn a_file_that_changes_while_it_is_served_gives_no_wrong_byte() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, _) = swarm.file("moving.bin", 2_000_000)?;
    let text = path.to_str().context("a path")?;
    let process = publisher.spawn(&["publish", text, "--no-upload", "--json"])?;
    let mut serving = Serving::of(process)?;
    std::fs::write(&path, random_bytes(2_000_000, 99))?;
    let getter = swarm.peer("getter")?;
    let finished = getter
        .run(&["get", "moving.bin", "--timeout", "3"])?
        .exits_one_of(&[3, 4])?
        .fails_clearly()?;
    ensure!(!getter.path("moving.bin").exists(), "{finished}");
    until(PATIENCE, "the changed file withdrawn", || {
        let manifest = getter.manifest("moving.bin");
        // Nobody has it any more, perhaps not even the list of its chunks.
        let has_holder = |manifest: Manifest| {
            let mut chunks = manifest.chunks.iter();
            chunks.any(|chunk| chunk.peers.contains(&serving.address))
        };
        Ok((!manifest.is_ok_and(has_holder)).then_some(()))
    })?;
    // Shorter than it was: reading past its end is no reason to die.
    std::fs::write(&path, b"short")?;
    swarm
        .peer("other")?
        .run(&["get", "moving.bin", "--timeout", "3"])?
        .exits_one_of(&[3, 4])?;
    ensure!(
        !serving.process.has_ended()?,
        "{}",
        serving.process.so_far()
    );
    serving.process.terminate(PATIENCE)?.exits(0)?;
    Ok(())
}

#[test]
fn a_file_that_changes_while_it_is_published_is_published_whole_or_not() -> Result<()> {
    const SIZE: u64 = 48 << 20;
    let swarm = Swarm::start_one()?;
    let publisher = swarm.peer("publisher")?;
    let (path, _) = swarm.file("moving.bin", SIZE)?;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (path, stop) = (path.clone(), stop.clone());
        spawn(move || -> Result<()> {
            let mut file = OpenOptions::new().write(true).open(path)?;
            let mut random = fastrand::Rng::with_seed(3);
            let deadline = Instant::now() + PATIENCE;
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                file.seek(SeekFrom::Start(random.u64(..SIZE - 8)))?;
                file.write_all(&random.u64(..).to_be_bytes())?;
                sleep(Duration::from_micros(200));
            }
            Ok(())
        })
    };
    let text = path.to_str().context("a path")?;
    let finished = publisher.run(&["publish", text, "--json"]);
    stop.store(true, Ordering::Relaxed);
    writer.join().ok().context("the writer panicked")??;
    let finished = finished?.exits_one_of(&[0, 1, 3])?;
    if finished.code == Some(0) {
        let getter = swarm.peer("getter")?;
        getter.get("moving.bin", &[])?;
        let manifest = getter.manifest("moving.bin")?;
        assert_eq!(sha256_of(&getter.path("moving.bin"))?, manifest.sha256);
    } else {
        finished.fails_clearly()?.says(&["changed"])?;
    }
    Ok(())
}

#[test]
fn the_hash_that_is_printed_is_the_files() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let peer = swarm.peer("peer")?;
    let path = swarm.path("abc");
    std::fs::write(&path, b"abc")?;
    let event = peer.publish(&path, &[])?;
    assert_eq!(event["sha256"], sha256(b"abc").to_string());
    assert_eq!(
        event["sha256"],
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    Ok(())
}
