//! The tasks of an anchor, one process each.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a worker process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Accepts connections, speaks the control protocol.
    Connection,
    /// Keeps releases and holders, owns the database.
    Manifest,
    /// Moves chunks in and out of the store.
    Transfer(u8),
}

impl Task {
    /// The title of the supervisor in `ps`.
    pub(crate) const SUPERVISOR: &str = "anchor: supervisor";

    /// The title of the process in `ps`, which is also how a process knows that it is this worker.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Connection => "anchor: connection",
            Self::Manifest => "anchor: manifest",
            Self::Transfer(_) => "anchor: transfer",
        }
    }

    /// The worker that a process of this title and first argument is.
    pub(crate) fn of_process(title: &str, argument: Option<&str>) -> Option<Self> {
        let index = argument.and_then(|text| text.parse().ok());
        [
            Self::Connection,
            Self::Manifest,
            Self::Transfer(index.unwrap_or(0)),
        ]
        .into_iter()
        .find(|task| task.title() == title)
    }

    /// The task without its number, as `anchor status` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Manifest => "manifest",
            Self::Transfer(_) => "transfer",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transfer(index) => write!(f, "transfer {index}"),
            _ => f.write_str(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself_by_its_title() {
        for task in [Task::Connection, Task::Manifest, Task::Transfer(3)] {
            assert_eq!(Task::of_process(task.title(), Some("3")), Some(task));
        }
        assert_eq!(Task::of_process(Task::SUPERVISOR, Some("serve")), None);
        assert_eq!(Task::of_process("anchor", None), None);
    }
}
