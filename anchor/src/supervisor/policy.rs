//! When a worker is started again, and when not: the supervisor's decisions, without clock, processes or signals.
//!
//! ```text
//!             Exited                    start_at reached
//!  Serving ───────────► Waiting(start_at) ───────────► Starting ── Ready ──► Serving
//!     │ early deaths in a minute ≥ 5                      │ not wired in 10 s: killed
//!     ▼                                                   ▼
//!  Draining: connection and transfers first, then manifest; whoever is late is killed
//! ```
//! A death is **early** when the worker had served for less than ten seconds. Its next start waits 1, 2, 4 … 60 s,
//! and five early deaths in a minute end the tree: this is a crash loop, and only a human can help. But a worker
//! that somebody outside ended by SIGKILL has shown no fault of its own: it is started at once, however often that
//! happens. Only when it is killed before it was ready twice in a row does that look like a loop too (the system
//! may be out of memory), and counts as early.

use crate::{task::Task, time::Time};
use std::{collections::VecDeque, time::Duration};

/// A worker that has served this long starts at once when it dies.
const SETTLED: Duration = Duration::from_secs(10);

/// Longest wait before a start.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// So many early deaths of one worker …
const EARLY_MAX: usize = 5;

/// … in this time are a crash loop.
const EARLY_WINDOW: Duration = Duration::from_secs(60);

/// A worker that has not connected back by then never will.
const WIRING: Duration = Duration::from_secs(10);

/// The connection and transfer processes must have drained by then.
const DRAIN_CLIENTS: Duration = Duration::from_millis(3_500);

/// Everybody must have drained by then.
const DRAIN_ALL: Duration = Duration::from_millis(4_500);

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The supervisor runs.
    Begun,
    /// A worker has connected back.
    Wired(usize),
    /// A worker does its task.
    Ready(usize),
    /// A worker's process has ended.
    Exited(usize, Cause),
    /// A worker says that it can never do its task.
    Failed,
    /// The user wants the tree to end.
    Stopped,
    /// Time has passed.
    Tick,
}

/// What ended a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// SIGKILL.
    Killed,
    /// Anything else: it exited, or its own fault raised a signal.
    Faulted,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a worker.
    Start(usize),
    /// Say that a worker will be started in so many seconds.
    Postpone(usize, u64),
    /// Tell a worker to finish.
    Drain(usize),
    /// End a worker by SIGKILL.
    Kill(usize),
    /// Say that a worker is in a crash loop; the tree is ending.
    GiveUp(usize),
    /// All workers are ready for the first time.
    Serve,
    /// All workers are gone: end.
    Finish,
}

/// The state of all workers.
#[derive(Debug)]
pub(crate) struct Policy {
    workers: Vec<Watched>,
    /// When draining began.
    draining: Option<Time>,
    served: bool,
    finished: bool,
}

#[derive(Debug)]
struct Watched {
    task: Task,
    stage: Stage,
    /// Recent early deaths, oldest first.
    early: VecDeque<Time>,
    /// Early deaths in a row, which double the wait.
    streak: u32,
    /// Whether it was killed before it was ready, the last time.
    nipped: bool,
    told_to_drain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting {
        start_at: Time,
    },
    Starting {
        since: Time,
    },
    Wired,
    Ready {
        since: Time,
    },
    /// Killed by the supervisor, not yet gone.
    Condemned,
    Gone,
}

impl Policy {
    /// Workers for `tasks`, none of them started.
    pub(crate) fn new(tasks: &[Task]) -> Self {
        let watched = |&task| Watched {
            task,
            stage: Stage::Gone,
            early: VecDeque::new(),
            streak: 0,
            nipped: false,
            told_to_drain: false,
        };
        Self {
            workers: tasks.iter().map(watched).collect(),
            draining: None,
            served: false,
            finished: false,
        }
    }

    /// Takes note of an event. Unknown workers are ignored.
    pub(crate) fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Begun => (0..self.workers.len()).for_each(|index| self.start(now, index, out)),
            Event::Wired(index) => {
                if let Some(worker) = self.workers.get_mut(index)
                    && matches!(worker.stage, Stage::Starting { .. })
                {
                    worker.stage = Stage::Wired;
                }
            }
            Event::Ready(index) => self.ready(now, index, out),
            Event::Exited(index, cause) => self.exited(now, index, cause, out),
            Event::Failed | Event::Stopped => self.drain(now),
            Event::Tick => {}
        }
        self.proceed(now, out);
    }

    /// When something is due without any event.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let due = |worker: &Watched| match (self.draining, worker.stage) {
            (Some(since), _) if worker.task == Task::Manifest => Some(since.plus(DRAIN_ALL)),
            (Some(since), _) => Some(since.plus(DRAIN_CLIENTS)),
            (None, Stage::Waiting { start_at }) => Some(start_at),
            (None, Stage::Starting { since }) => Some(since.plus(WIRING)),
            (None, _) => None,
        };
        let alive = |worker: &&Watched| !matches!(worker.stage, Stage::Gone | Stage::Condemned);
        self.workers.iter().filter(alive).filter_map(due).min()
    }

    /// Whether the tree is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    fn start(&mut self, now: Time, index: usize, out: &mut Vec<Action>) {
        self.workers[index].stage = Stage::Starting { since: now };
        out.push(Action::Start(index));
    }

    fn ready(&mut self, now: Time, index: usize, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(index) else {
            return;
        };
        if worker.stage != Stage::Wired {
            return;
        }
        worker.stage = Stage::Ready { since: now };
        worker.nipped = false;
        let all = |worker: &Watched| matches!(worker.stage, Stage::Ready { .. });
        if !self.served && self.workers.iter().all(all) {
            self.served = true;
            out.push(Action::Serve);
        }
    }

    fn exited(&mut self, now: Time, index: usize, cause: Cause, out: &mut Vec<Action>) {
        let draining = self.draining.is_some();
        let Some(worker) = self.workers.get_mut(index) else {
            return;
        };
        let stage = std::mem::replace(&mut worker.stage, Stage::Gone);
        if draining {
            return;
        }
        let outside = cause == Cause::Killed && stage != Stage::Condemned;
        let blameless = match stage {
            Stage::Ready { since } => outside || now.since(since) >= SETTLED,
            _ => outside && !std::mem::replace(&mut worker.nipped, outside),
        };
        if blameless {
            worker.streak = 0;
            self.start(now, index, out);
            return;
        }
        worker.early.push_back(now);
        while worker
            .early
            .front()
            .is_some_and(|&at| now.since(at) > EARLY_WINDOW)
        {
            worker.early.pop_front();
        }
        if worker.early.len() >= EARLY_MAX {
            out.push(Action::GiveUp(index));
            self.drain(now);
            return;
        }
        let wait = Duration::from_secs(1 << worker.streak.min(6)).min(WAIT_MAX);
        worker.streak += 1;
        worker.stage = Stage::Waiting {
            start_at: now.plus(wait),
        };
        out.push(Action::Postpone(index, wait.as_secs()));
    }

    fn drain(&mut self, now: Time) {
        self.draining.get_or_insert(now);
    }

    /// Does what is due.
    fn proceed(&mut self, now: Time, out: &mut Vec<Action>) {
        let Some(since) = self.draining else {
            for index in 0..self.workers.len() {
                match self.workers[index].stage {
                    Stage::Waiting { start_at } if start_at <= now => self.start(now, index, out),
                    Stage::Starting { since } if since.plus(WIRING) <= now => {
                        self.workers[index].kill(index, out);
                    }
                    _ => {}
                }
            }
            return;
        };
        let gone = |worker: &Watched| matches!(worker.stage, Stage::Gone | Stage::Waiting { .. });
        let clients_gone = self
            .workers
            .iter()
            .all(|worker| worker.task == Task::Manifest || gone(worker));
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let last = worker.task == Task::Manifest;
            let limit = if last { DRAIN_ALL } else { DRAIN_CLIENTS };
            match worker.stage {
                Stage::Gone | Stage::Condemned => {}
                Stage::Waiting { .. } => worker.stage = Stage::Gone,
                // Without its orders it cannot be told.
                Stage::Starting { .. } => worker.kill(index, out),
                Stage::Wired | Stage::Ready { .. } if now >= since.plus(limit) => {
                    worker.kill(index, out);
                }
                Stage::Wired | Stage::Ready { .. } => {
                    if (!last || clients_gone) && !worker.told_to_drain {
                        worker.told_to_drain = true;
                        out.push(Action::Drain(index));
                    }
                }
            }
        }
        if !self.finished && self.workers.iter().all(gone) {
            self.finished = true;
            out.push(Action::Finish);
        }
    }
}

impl Watched {
    fn kill(&mut self, index: usize, out: &mut Vec<Action>) {
        self.stage = Stage::Condemned;
        out.push(Action::Kill(index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TASKS: [Task; 3] = [Task::Connection, Task::Manifest, Task::Transfer(0)];

    /// A policy with its clock and what it has said since the last look.
    struct Bench {
        policy: Policy,
        now: Time,
        out: Vec<Action>,
    }

    impl Bench {
        fn serving() -> Self {
            let mut bench = Self {
                policy: Policy::new(&TASKS),
                now: Time(0),
                out: Vec::new(),
            };
            bench.event(Event::Begun);
            assert_eq!(bench.said(), [0, 1, 2].map(Action::Start));
            for index in 0..3 {
                bench.up(index);
            }
            assert_eq!(bench.said(), [Action::Serve]);
            bench
        }

        fn up(&mut self, index: usize) {
            self.event(Event::Wired(index));
            self.event(Event::Ready(index));
        }

        fn event(&mut self, event: Event) {
            self.policy.handle(self.now, event, &mut self.out);
        }

        fn pass(&mut self, duration: Duration) {
            self.now = self.now.plus(duration);
            self.event(Event::Tick);
        }

        fn said(&mut self) -> Vec<Action> {
            std::mem::take(&mut self.out)
        }
    }

    #[test]
    fn a_settled_worker_starts_at_once() {
        let mut bench = Bench::serving();
        bench.pass(SETTLED);
        bench.event(Event::Exited(2, Cause::Faulted));
        assert_eq!(bench.said(), [Action::Start(2)]);
    }

    #[test]
    fn a_crash_loop_waits_longer_and_longer_and_ends_the_tree() {
        let mut bench = Bench::serving();
        for wait in [1, 2, 4, 8] {
            bench.event(Event::Exited(0, Cause::Faulted));
            assert_eq!(bench.said(), [Action::Postpone(0, wait)]);
            bench.pass(Duration::from_secs(wait));
            assert_eq!(bench.said(), [Action::Start(0)]);
            bench.up(0);
        }
        bench.event(Event::Exited(0, Cause::Faulted));
        assert_eq!(bench.said(), [Action::GiveUp(0), Action::Drain(2)]);
        bench.event(Event::Exited(2, Cause::Faulted));
        assert_eq!(bench.said(), [Action::Drain(1)]);
        bench.event(Event::Exited(1, Cause::Faulted));
        assert_eq!(bench.said(), [Action::Finish]);
    }

    #[test]
    fn kills_from_outside_are_no_fault_however_many() {
        let mut bench = Bench::serving();
        for _ in 0..1_000 {
            bench.event(Event::Exited(1, Cause::Killed));
            assert_eq!(bench.said(), [Action::Start(1)]);
            bench.pass(Duration::from_millis(50));
            bench.up(1);
            bench.pass(Duration::from_millis(250));
            assert_eq!(bench.said(), []);
        }
        // Once before it was ready is chance, twice is not.
        bench.event(Event::Exited(1, Cause::Killed));
        bench.event(Event::Exited(1, Cause::Killed));
        assert_eq!(bench.said(), [1, 1].map(Action::Start));
        bench.event(Event::Exited(1, Cause::Killed));
        assert_eq!(bench.said(), [Action::Postpone(1, 1)]);
    }

    #[test]
    fn a_worker_that_never_connects_is_killed_and_at_fault() {
        let mut bench = Bench::serving();
        bench.event(Event::Exited(2, Cause::Killed));
        assert_eq!(bench.said(), [Action::Start(2)]);
        assert_eq!(bench.policy.deadline(), Some(bench.now.plus(WIRING)));
        bench.pass(WIRING);
        assert_eq!(bench.said(), [Action::Kill(2)]);
        bench.event(Event::Exited(2, Cause::Killed));
        assert_eq!(bench.said(), [Action::Postpone(2, 1)]);
    }

    #[test]
    fn draining_ends_within_five_seconds_even_if_nobody_listens() {
        let mut bench = Bench::serving();
        bench.event(Event::Stopped);
        assert_eq!(bench.said(), [Action::Drain(0), Action::Drain(2)]);
        bench.pass(DRAIN_CLIENTS);
        assert_eq!(bench.said(), [Action::Kill(0), Action::Kill(2)]);
        for index in [0, 2] {
            bench.event(Event::Exited(index, Cause::Killed));
        }
        assert_eq!(bench.said(), [Action::Drain(1)]);
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.said(), [Action::Kill(1)]);
        bench.event(Event::Exited(1, Cause::Killed));
        assert_eq!(bench.said(), [Action::Finish]);
        assert!(bench.now < Time(5_000_000));
    }

    fn events() -> impl Strategy<Value = Event> {
        let index = 0usize..4;
        prop_oneof![
            index.clone().prop_map(Event::Wired),
            index.clone().prop_map(Event::Ready),
            index
                .clone()
                .prop_map(|index| Event::Exited(index, Cause::Killed)),
            index.prop_map(|index| Event::Exited(index, Cause::Faulted)),
            Just(Event::Tick),
        ]
    }

    proptest! {
        /// Whatever happens, a worker that is not alive is always due to start, until the tree drains; then it ends.
        #[test]
        fn nobody_is_forgotten(steps in proptest::collection::vec((events(), 0u64..20_000_000), 0..200)) {
            let mut bench = Bench::serving();
            for (event, wait) in steps {
                bench.now = Time(bench.now.0 + wait);
                bench.event(event);
                for worker in &bench.policy.workers {
                    prop_assert!(bench.policy.is_draining() || worker.stage != Stage::Gone);
                }
            }
            bench.event(Event::Stopped);
            bench.pass(DRAIN_ALL);
            for index in 0..3 {
                bench.event(Event::Exited(index, Cause::Killed));
            }
            prop_assert_eq!(bench.said().pop(), Some(Action::Finish));
        }
    }
}
