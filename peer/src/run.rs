//! One run of `peer`: the command goes to the node that lives in the home, or a node moves in and runs it.

use crate::{
    cli::{Cli, Global, Verb},
    config::Config,
    event::{Event, Events},
    failure::{Exit, Failure},
    guest::{self, Host},
    home::{Home, HomeLock},
    node::Node,
    output::talk,
    session::{Session, State},
    store::Slot,
    view::View,
};
use anyhow::{Context as _, Result, anyhow};
use std::{sync::Arc, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::sleep,
};

/// How long a home may be neither free nor answering.
const MOVING_TRIES: u32 = 100;

/// Time between two looks at such a home.
const MOVING_PAUSE: Duration = Duration::from_millis(50);

/// Runs the command line and shows what comes of it.
pub async fn run(cli: &Cli) -> Result<(), Failure> {
    let (events, told) = Events::channel();
    let (end, ended) = oneshot::channel();
    let view = View::new(cli.global.json, cli.global.quiet);
    let showing = tokio::spawn(show(view, told, ended));
    let result = run_until_signal(cli, events).await;
    // Nobody waits for an interrupted command's last thread.
    drop(end);
    showing.await.context("BUG: showing events panicked")?;
    result
}

/// Shows events until the command has ended, and what it told before that.
async fn show(
    view: View,
    mut told: mpsc::UnboundedReceiver<Event>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            biased;
            event = told.recv() => match event {
                Some(event) => view.show(&event),
                None => break,
            },
            _ = &mut ended => break,
        }
    }
    view.clear();
}

async fn run_until_signal(cli: &Cli, events: Events) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let home = match &cli.global.home {
        Some(path) => Home::open(path)?,
        None => Home::open(&Home::default_path()?)?,
    };
    let command = cli.verb.command()?;
    for _ in 0..MOVING_TRIES {
        if let Some(lock) = home.lock()? {
            return live(cli, &home, lock, &events, &mut signals).await;
        }
        if let Some(command) = &command {
            let asked = tokio::select! {
                asked = guest::ask(&home, command, &events) => asked,
                () = signals.next() => return Err(interrupted()),
            };
            match asked {
                Some(result)
                    if result.is_ok() && matches!(cli.verb, Verb::Get { serve: true, .. }) =>
                {
                    talk("the node that lives in this home goes on serving");
                    return result;
                }
                Some(result) => return result,
                None => {}
            }
        }
        sleep(MOVING_PAUSE).await;
    }
    let error = anyhow!("another node lives in {}", home.path().display());
    Err(Failure::new(Exit::Failed, error)
        .hint("--home DIR takes another home; `peer status` asks that node"))
}

/// Lives in the home for as long as the command needs it.
async fn live(
    cli: &Cli,
    home: &Home,
    lock: HomeLock,
    events: &Events,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let Global {
        config,
        listen,
        advertise,
        ..
    } = &cli.global;
    let config =
        Config::load(config.as_deref()).map_err(|error| Failure::new(Exit::Usage, error))?;
    let node = Node::start(home, &config, *listen, *advertise)?;
    // Who only asks does not live here: others need not wait for it, nor it for others.
    let lives = !cli.verb.only_asks();
    if lives {
        node.sweep();
    }
    let lodging = lives
        .then(|| Host::open(home, &node))
        .transpose()?
        .zip(lives.then_some(lock));
    let command = cli.verb.command()?;
    let working = async {
        if let Some(command) = command {
            command.run(&node, events).await?;
        }
        Ok(())
    };
    let mut result = tokio::select! {
        result = working => result,
        () = signals.next() => return Err(interrupted()),
    };
    if result.is_ok() && cli.verb.serves_on() {
        result = tokio::select! {
            never = serve(&node, events) => never,
            // This is how serving is meant to end.
            () = signals.next() => Ok(()),
        };
    } else if let Some((host, _)) = &lodging {
        tokio::select! {
            () = host.empty() => {}
            () = signals.next() => return Err(interrupted()),
        }
    }
    node.leave().await;
    result
}

/// Serves for good; tells what it serves and how the anchors come and go.
async fn serve(node: &Arc<Node>, events: &Events) -> Result<(), Failure> {
    node.join().await?;
    node.anchors(events).await?;
    let mut tasks = JoinSet::new();
    for session in node.sessions.clone() {
        tasks.spawn(watch(session, events.clone()));
    }
    tasks.spawn(look_after(node.clone(), events.clone()));
    events.tell(node.serving()?);
    std::future::pending().await
}

/// Looks after files that have changed: those that did while nobody looked, then those that do under way.
async fn look_after(node: Arc<Node>, events: Events) {
    let mut lost = node.store.lost();
    for slot in node
        .store
        .slots()
        .into_iter()
        .filter(|slot| slot.in_doubt())
    {
        recheck(&node, &slot, &events).await;
    }
    loop {
        match lost.recv().await {
            Ok(content) => {
                if let Some(slot) = node.store.slot(content) {
                    recheck(&node, &slot, &events).await;
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Reads a doubtful file again, and offers what is still good of it.
async fn recheck(node: &Node, slot: &Arc<Slot>, events: &Events) {
    let path = slot.path();
    events.warn(format!(
        "{} may have changed since it was stored; reading it again",
        path.display()
    ));
    node.withdraw(slot.id()).await;
    let again = slot.clone();
    let looking = spawn_blocking(move || again.recheck().and_then(|()| again.settle()));
    match looking.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => events.warn(format!("{error:#}")),
        Err(error) => events.warn(error.to_string()),
    }
    let (good, all) = (slot.have().count(), slot.geometry().chunks());
    events.warn(format!(
        "{good} of {all} chunks of {} are as they were",
        path.display()
    ));
    if good > 0 {
        node.announce(slot).await;
    }
}

/// Warns when an anchor is lost, and tells when it is back.
async fn watch(mut session: Session, events: Events) {
    let mut was_up = session.connected().is_some();
    loop {
        match session.changed().await {
            Some(State::Connected { .. }) if !was_up => {
                events.warn(format!(
                    "anchor {} at {} is back",
                    session.anchor.id, session.anchor.address
                ));
                was_up = true;
            }
            Some(State::Failed(failure)) if was_up => {
                events.warn(format!("{:#}; trying again", failure.error));
                was_up = false;
            }
            Some(_) => {}
            None => return,
        }
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, anyhow!("interrupted"))
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// A file over the limit of its size is an error, not the end of the process.
    _file_size: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            _file_size: listen(SignalKind::from_raw(nix::libc::SIGXFSZ))?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
