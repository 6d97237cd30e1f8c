//! `anchor serve`: checks everything that can be wrong before anything is forked, then supervises.

use crate::{
    cli::Options,
    home::Home,
    supervisor::{self, Settings},
    sys::{descriptors, spawn},
    task::Task,
};
use anchorage_peer::serve::Share;
use anchorage_peer::{
    config::{AnchorConfig, Config},
    failure::{Exit, Failure},
    identity::Identity,
};
use anyhow::{Context as _, Result};
use std::{
    io::ErrorKind,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    process::Command,
    time::{Duration, Instant},
};

/// The workers of an anchor whose supervisor was killed may hold its port for a moment longer.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// Serves as anchor `id` until a signal ends it.
pub(crate) fn run(title: &str, id: u32, options: &Options) -> Result<(), Failure> {
    if title != Task::SUPERVISOR {
        entitle();
    }
    // What `ps` and `top` show where they do not show the title; exec has set it to the name of the link.
    let _ = nix::sys::prctl::set_name(c"anchor");
    let config = Config::load(options.config.as_deref())
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let anchor = config
        .anchor(id)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let home = Home::new(options.home.as_deref(), id)?;
    descriptors::reserve().context("cannot set up descriptors")?;
    descriptors::raise_limit();
    home.create()?;
    let _lock = home.lock()?.ok_or_else(|| {
        let error = anyhow::anyhow!(
            "the state directory {} is locked by another anchor",
            home.directory().display()
        );
        Failure::new(Exit::Failed, error)
            .hint("end that one first, or give this one a --home of its own")
    })?;
    let identity = Identity::load_or_create(&home.key())?;
    if let Some(key) = anchor.key
        && key != identity.id()
    {
        let error = anyhow::anyhow!(
            "the config says that anchor {id} has the key {key}, but {} has {}",
            home.key().display(),
            identity.id()
        );
        return Err(Failure::new(Exit::Failed, error)
            .hint("correct the key in the config, or say with --home where the right one is"));
    }
    let listener = bind(anchor)?;
    let position = config
        .anchors
        .iter()
        .position(|anchor| anchor.id == id)
        .unwrap_or(0);
    supervisor::run(Settings {
        id,
        heartbeat_ms: config.heartbeat_ms,
        share: Share::part(position, config.anchors.len()),
        config: options.config.clone(),
        home,
        identity,
        listener,
        quiet: options.quiet,
        json: options.json,
    })
}

/// Becomes the same process under the supervisor's title. Without /proc it stays what it is, which only `ps` shows.
fn entitle() {
    let _ = Command::new(spawn::SELF)
        .arg0(Task::SUPERVISOR)
        .args(std::env::args_os().skip(1))
        .exec();
}

fn bind(anchor: &AnchorConfig) -> Result<TcpListener, Failure> {
    let addresses = anchor.resolve()?;
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match TcpListener::bind(&addresses[..]) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => {
                let in_use = error.kind() == ErrorKind::AddrInUse;
                let error = anyhow::Error::new(error).context(format!(
                    "cannot listen on {}, the address of anchor {}",
                    anchor.address, anchor.id
                ));
                let hint = if in_use {
                    "another program serves there: end it, or give this anchor another address in the config"
                } else {
                    "give this anchor an address of this machine in the config"
                };
                return Err(Failure::new(Exit::Failed, error).hint(hint));
            }
        }
    }
}
