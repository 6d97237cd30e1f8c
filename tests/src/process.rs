//! One child process and everything that it forked. Nothing of it outlives the value.

use crate::{Finished, proc, until};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{sleep, spawn},
    time::Duration,
};

/// Which of a process's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Data.
    Stdout,
    /// Talk.
    Stderr,
}

/// A running child. It leads a process group of its own, by which its descendants are found even after it died.
pub struct Process {
    child: Child,
    what: String,
    stdout: Arc<Mutex<Text>>,
    stderr: Arc<Mutex<Text>>,
    status: Option<ExitStatus>,
    family: Mutex<BTreeSet<proc::Stat>>,
}

/// What a stream has brought so far.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
}

impl Process {
    /// Starts `command`; its output is collected from now on.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let what = describe(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start `{what}`"))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Ok(Self {
            child,
            what,
            stdout,
            stderr,
            status: None,
            family: Mutex::default(),
        })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.remember();
        proc::signal(self.pid(), signal)
    }

    /// Everything that one stream has brought so far.
    pub fn text(&self, stream: Stream) -> String {
        let text = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        String::from_utf8_lossy(&lock(text).bytes).into_owned()
    }

    /// Waits for a whole line of `stream` that `wanted` takes.
    pub fn line<T>(
        &mut self,
        stream: Stream,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let found = until(limit, "a line", || {
            let over = self.has_ended()?;
            if over {
                self.drain();
            }
            let text = self.text(stream);
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            match whole.lines().find_map(&wanted) {
                None if over => bail!("it ended before"),
                found => Ok(found),
            }
        });
        found.map_err(|error| {
            anyhow::anyhow!(
                "a line of {stream:?} did not come: {error:#}: {}",
                self.so_far()
            )
        })
    }

    /// Waits for a JSON line on stdout that is the event `name`.
    pub fn event(&mut self, name: &str, limit: Duration) -> Result<serde_json::Value> {
        self.line(Stream::Stdout, limit, |line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            (value["event"] == name).then_some(value)
        })
        .with_context(|| format!("no event {name}"))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().context("cannot ask for a child")?;
        }
        Ok(self.status.is_some())
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<Finished> {
        if let Err(error) = until(limit, "its end", || Ok(self.has_ended()?.then_some(()))) {
            bail!("{error:#}: {}", self.so_far());
        }
        self.drain();
        Ok(self.so_far())
    }

    /// Takes what an ended process wrote last, which may still be in the pipe. A descendant may keep the pipe open
    /// for good.
    fn drain(&self) {
        let _ = until(Duration::from_secs(2), "the end of its output", || {
            Ok((lock(&self.stdout).ended && lock(&self.stderr).ended).then_some(()))
        });
    }

    /// SIGTERM, then its end.
    pub fn terminate(&mut self, limit: Duration) -> Result<Finished> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Itself and everything that it forked and that is still alive.
    pub fn tree(&self) -> Vec<proc::Stat> {
        self.remember();
        let mut tree = self.family();
        tree.retain(|stat| proc::alive(*stat));
        tree.iter().copied().collect()
    }

    /// Ends all of its tree by SIGKILL, and waits until it is gone.
    pub fn kill_tree(&mut self) -> Result<()> {
        until(Duration::from_secs(20), "the end of a process tree", || {
            let tree = self.tree();
            for stat in &tree {
                proc::signal(stat.pid, Signal::SIGKILL)?;
            }
            Ok((self.has_ended()? && tree.is_empty()).then_some(()))
        })
    }

    /// What it has said so far.
    pub fn so_far(&self) -> Finished {
        Finished {
            what: self.what.clone(),
            code: self.status.and_then(|status| status.code()),
            signal: self.status.and_then(|status| status.signal()),
            stdout: self.text(Stream::Stdout),
            stderr: self.text(Stream::Stderr),
        }
    }

    /// Descendants are found by their parents while these live, and by their group afterwards.
    fn remember(&self) {
        let group = self.pid();
        let mut family = self.family();
        family.extend(proc::descendants(group));
        family.extend(proc::all().into_iter().filter(|stat| stat.group == group));
        if self.status.is_none() {
            family.extend(proc::stat(group));
        }
    }

    fn family(&self) -> MutexGuard<'_, BTreeSet<proc::Stat>> {
        self.family.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kill_tree().is_err() {
            sleep(Duration::from_millis(10));
        }
    }
}

fn describe(command: &Command) -> String {
    let mut what = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        what.push(' ');
        what.push_str(&argument.to_string_lossy());
    }
    what
}

fn lock(text: &Mutex<Text>) -> MutexGuard<'_, Text> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Arc<Mutex<Text>> {
    let text = Arc::new(Mutex::new(Text::default()));
    let shared = text.clone();
    spawn(move || {
        let mut reader = stream.map(BufReader::new);
        while let Some(reader) = &mut reader {
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(count) if count > 0 => lock(&shared).bytes.append(&mut line),
                _ => break,
            }
        }
        lock(&shared).ended = true;
    });
    text
}
