//! The command line that scripts rely on.

use anchorage_tests::{Finished, PATIENCE, Process, Program, Swarm, sha256_of};
use anyhow::{Context as _, Result, ensure};
use std::{fs, path::PathBuf, process::Command};

/// Every subcommand of both programs.
const COMMANDS: [(Program, &[&str]); 2] = [
    (Program::Anchor, &["serve", "status"]),
    (
        Program::Peer,
        &[
            "publish", "get", "serve", "manifest", "list", "verify", "status",
        ],
    ),
];

/// Set to anything: the help texts in `data/golden/help` are written instead of compared.
const BLESS: &str = "ANCHORAGE_BLESS";

fn run(program: Program, arguments: &[&str]) -> Result<Finished> {
    let mut command = Command::new(program.path()?);
    // The width of the help, whatever the terminal.
    command
        .args(arguments)
        .env("COLUMNS", "100")
        .env_remove("ANCHORAGE_CONFIG");
    command.env_remove("ANCHORAGE_HOME");
    Process::spawn(&mut command)?.wait(PATIENCE)
}

#[test]
fn the_help_is_as_it_was() -> Result<()> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/golden/help");
    for (program, subcommands) in COMMANDS {
        for subcommand in std::iter::once(&"").chain(subcommands) {
            let arguments: Vec<&str> = [subcommand, "--help"]
                .into_iter()
                .filter(|argument| !argument.is_empty())
                .collect();
            let help = run(program, &arguments)?.exits(0)?.stdout;
            let name = format!("{} {subcommand}", program.name());
            let path = golden.join(format!("{}.txt", name.trim_end().replace(' ', "-")));
            if std::env::var_os(BLESS).is_some() {
                fs::create_dir_all(&golden)?;
                fs::write(&path, help)?;
                continue;
            }
            let expected = fs::read_to_string(&path)
                .with_context(|| format!("{}: run once with {BLESS}=1", path.display()))?;
            assert_eq!(
                help,
                expected,
                "{}: if it is meant, run once with {BLESS}=1",
                path.display()
            );
        }
    }
    Ok(())
}

#[test]
fn every_help_has_an_example() -> Result<()> {
    for (program, subcommands) in COMMANDS {
        for subcommand in subcommands {
            let help = run(program, &[subcommand, "--help"])?.exits(0)?.stdout;
            let example = format!("{} {subcommand}", program.name());
            let count = help
                .lines()
                .filter(|line| line.trim_start().contains(&example))
                .count();
            // Once in the usage, and once in the example.
            ensure!(
                count >= 2 && help.to_lowercase().contains("example"),
                "{help}"
            );
            for option in ["--config", "--home", "--quiet", "--json"] {
                ensure!(
                    help.contains(option),
                    "no {option} in the help of {example}: {help}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_command_line_without_sense_exits_2() -> Result<()> {
    for (program, arguments) in [
        (Program::Peer, &[][..]),
        (Program::Peer, &["frobnicate"]),
        (Program::Peer, &["get"]),
        (Program::Peer, &["get", "a", "--frobnicate"]),
        (Program::Peer, &["serve", "--listen", "nowhere"]),
        (Program::Peer, &["get", "a", "--timeout", "soon"]),
        (Program::Anchor, &[]),
        (Program::Anchor, &["serve"]),
        (Program::Anchor, &["serve", "one"]),
    ] {
        run(program, arguments)?
            .exits(2)
            .with_context(|| format!("{} {arguments:?}", program.name()))?;
    }
    Ok(())
}

#[test]
fn both_say_their_version() -> Result<()> {
    for program in [Program::Anchor, Program::Peer] {
        let finished = run(program, &["--version"])?.exits(0)?;
        assert_eq!(
            finished.stdout,
            format!("{} {}\n", program.name(), env!("CARGO_PKG_VERSION"))
        );
    }
    Ok(())
}

#[test]
fn config_and_home_may_come_from_the_environment() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let home = swarm.path("home-of-the-environment");
    let mut command = Command::new(Program::Peer.path()?);
    command
        .arg("list")
        .env("ANCHORAGE_CONFIG", swarm.config())
        .env("ANCHORAGE_HOME", &home);
    Process::spawn(&mut command)?.wait(PATIENCE)?.exits(0)?;
    ensure!(home.join("known_anchors").exists());

    let data = swarm.path("data");
    let mut command = Command::new(Program::Peer.path()?);
    command
        .args(["list", "--config"])
        .arg(swarm.config())
        .env_remove("ANCHORAGE_HOME")
        .env("XDG_DATA_HOME", &data);
    Process::spawn(&mut command)?.wait(PATIENCE)?.exits(0)?;
    ensure!(
        data.join("anchorage/known_anchors").exists(),
        "the XDG data directory is not used"
    );
    Ok(())
}

#[test]
fn a_config_that_cannot_be_used_is_said() -> Result<()> {
    let swarm = Swarm::builder().lay_out()?;
    let peer = swarm.peer("peer")?;
    for (text, word) in [
        (Some("{"), "config.json"),
        (Some(r#"{"anchors":[]}"#), "no anchor"),
        (
            Some(r#"{"anchors":[{"id":1,"address":"a:1"}],"hearbeat":1}"#),
            "hearbeat",
        ),
        (None, "config.json"),
    ] {
        match text {
            Some(text) => fs::write(swarm.config(), text)?,
            None => fs::remove_file(swarm.config())?,
        }
        peer.run(&["list"])?
            .exits_one_of(&[1, 2])?
            .fails_clearly()?
            .says(&[word])?;
    }
    Ok(())
}

#[test]
fn the_only_talk_of_a_good_get_is_its_final_line() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("music.txt", 320_000)?;
    swarm.peer("publisher")?.publish(&path, &[])?;
    let getter = swarm.peer("getter")?;
    let finished = getter.run(&["get", "music.txt"])?.exits(0)?;
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{finished}");
    for word in [
        "music.txt",
        "KiB in",
        " s ",
        "100 % from anchors",
        "sha256",
        "verified",
    ] {
        ensure!(lines[0].contains(word), "no {word:?}: {finished}");
    }
    ensure!(lines[0].contains(&sha256.to_string()[..4]), "{finished}");
    ensure!(!finished.stderr.contains(['\r', '\u{1b}']), "{finished}");
    Ok(())
}

#[test]
fn the_final_line_tells_peers_from_anchors() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("music.txt", 320_000)?;
    let text = path.to_str().context("a path")?;
    let publisher = swarm.peer("publisher")?;
    let mut publishing = publisher.spawn(&["publish", text, "--no-upload", "--json"])?;
    publishing.event("serving", PATIENCE)?;
    let finished = swarm.peer("getter")?.run(&["get", "music.txt"])?.exits(0)?;
    ensure!(finished.stderr.contains("100 % from 1 peer"), "{finished}");
    Ok(())
}

#[test]
fn quiet_is_quiet() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, sha256) = swarm.file("music.txt", 320_000)?;
    let publisher = swarm.peer("publisher")?;
    let text = path.to_str().context("a path")?;
    let finished = publisher.run(&["publish", text, "--quiet"])?.exits(0)?;
    assert_eq!(finished.stderr, "", "{finished}");
    let getter = swarm.peer("getter")?;
    let finished = getter.run(&["get", "music.txt", "--quiet"])?.exits(0)?;
    assert_eq!(finished.stderr, "", "{finished}");
    assert_eq!(sha256_of(&getter.path("music.txt"))?, sha256);
    // What went wrong is said all the same.
    getter
        .run(&["get", "nothing", "--quiet"])?
        .exits(1)?
        .fails_clearly()?;
    Ok(())
}

#[test]
fn json_is_nothing_but_json() -> Result<()> {
    let swarm = Swarm::start_one()?;
    let (path, _) = swarm.file("music.txt", 320_000)?;
    let peer = swarm.peer("peer")?;
    let text = path.to_str().context("a path")?;
    for arguments in [
        &["publish", text][..],
        &["get", "music.txt"],
        &["manifest", "music.txt"],
        &["list"],
        &["verify", text],
    ] {
        let finished = peer.run(&[arguments, &["--json"]].concat())?.exits(0)?;
        if matches!(arguments[0], "manifest" | "list") {
            finished.json()?;
        } else {
            ensure!(!finished.events()?.is_empty(), "{finished}");
        }
    }
    let status = peer.status()?;
    for field in [
        "id",
        "address",
        "anchors",
        "peers_known",
        "files",
        "bytes_in",
        "bytes_out",
        "serving",
    ] {
        ensure!(
            !status[field].is_null() || field == "address",
            "no {field}: {status}"
        );
    }
    assert_eq!(status["anchors"][0]["connected"], true, "{status}");
    assert_eq!(status["serving"], false, "{status}");
    let people = peer.run(&["status"])?.exits(0)?;
    ensure!(people.stdout.contains("music.txt"), "{people}");
    Ok(())
}

#[test]
fn people_are_told_where_an_anchor_serves_and_its_key() -> Result<()> {
    let swarm = Swarm::builder().anchors(1).lay_out()?;
    let mut command = Command::new(Program::Anchor.path()?);
    command
        .args(["serve", "1", "--config"])
        .arg(swarm.config())
        .arg("--home")
        .arg(swarm.anchor_home());
    let mut process = Process::spawn(&mut command)?;
    let line = process.line(anchorage_tests::Stream::Stdout, PATIENCE, |line| {
        line.starts_with("anchor 1 serving on 127.0.0.1:")
            .then(|| line.to_owned())
    })?;
    let key = line.rsplit_once(" key ").context("a key")?.1;
    ensure!(
        key.len() == 64 && key.chars().all(|c| c.is_ascii_hexdigit()),
        "{line}"
    );
    process.terminate(PATIENCE)?.exits(0)?;
    Ok(())
}

#[test]
fn the_status_of_an_anchor_that_is_down_is_an_error() -> Result<()> {
    let mut swarm = Swarm::start_one()?;
    let anchor = swarm.anchor_mut(1);
    anchor.process().kill_tree()?;
    anchor
        .ask_status(&[])?
        .exits_one_of(&[1, 4])?
        .fails_clearly()?;
    Ok(())
}

#[test]
fn sigterm_and_ctrl_c_end_a_serving_peer_with_0() -> Result<()> {
    use nix::sys::signal::Signal;
    let swarm = Swarm::start_one()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut serving = swarm.peer("peer")?.serve(&[])?;
        serving.process.signal(signal)?;
        serving.process.wait(PATIENCE)?.exits(0)?;
    }
    Ok(())
}
