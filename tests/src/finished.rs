//! A command that has ended: what it said, and how.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::fmt;

/// Exit code and output of a command.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub what: String,
    /// Its exit code, if it was no signal that ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Everything it wrote to stdout.
    pub stdout: String,
    /// Everything it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Itself, if the exit code is `code` and nothing panicked; otherwise an error with all of its output.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "expected exit code {code}: {self}");
        self.did_not_panic()
    }

    /// Itself, if the exit code is one of `codes` and nothing panicked.
    pub fn exits_one_of(self, codes: &[i32]) -> Result<Self> {
        ensure!(
            self.code.is_some_and(|code| codes.contains(&code)),
            "expected one of the exit codes {codes:?}: {self}"
        );
        self.did_not_panic()
    }

    /// Itself, if stderr has all of `words` in it, in any case.
    pub fn says(self, words: &[&str]) -> Result<Self> {
        let text = self.stderr.to_lowercase();
        for word in words {
            ensure!(
                text.contains(&word.to_lowercase()),
                "expected {word:?} on stderr: {self}"
            );
        }
        Ok(self)
    }

    /// Itself, if stderr is an `error: …` paragraph, perhaps with a `hint: …` paragraph, and perhaps warnings before.
    pub fn fails_clearly(self) -> Result<Self> {
        ensure!(
            self.stderr.lines().any(|line| line.starts_with("error: ")),
            "expected a line `error: …` on stderr: {self}"
        );
        if let Some(at) = self.stderr.find("hint: ") {
            ensure!(
                self.stderr[..at].ends_with("\n\n"),
                "expected a blank line before the hint: {self}"
            );
        }
        Ok(self)
    }

    /// The JSON documents on stdout, one a line.
    pub fn events(&self) -> Result<Vec<Value>> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).with_context(|| format!("{line:?} is not JSON: {self}"))
            })
            .collect()
    }

    /// The last JSON document on stdout, if it is the event `name`.
    pub fn last(&self, name: &str) -> Result<Value> {
        let last = self.events()?.pop();
        let last = last.with_context(|| format!("expected an event {name}: {self}"))?;
        ensure!(
            last["event"] == name,
            "expected the event {name} at the end: {self}"
        );
        Ok(last)
    }

    /// The one JSON document that stdout is.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("stdout is not one JSON document: {self}"))
    }

    fn did_not_panic(self) -> Result<Self> {
        ensure!(
            !self.stderr.contains("panicked") && !self.stderr.contains("BUG:"),
            "expected no panic: {self}"
        );
        Ok(self)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}`", self.what)?;
        match (self.code, self.signal) {
            (Some(code), _) => writeln!(f, "  exit code {code}")?,
            (None, signal) => writeln!(f, "  ended by signal {signal:?}")?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            writeln!(f, "  {name}:")?;
            let lines: Vec<&str> = text.lines().collect();
            // The head and the tail of something long.
            for (number, line) in lines.iter().enumerate() {
                if number < 30 || number + 30 >= lines.len() {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        Ok(())
    }
}
