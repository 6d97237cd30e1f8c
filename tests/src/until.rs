//! Waiting for something to become true, with an end.

use anyhow::{Result, bail};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Asks every 20 ms until `question` gives an answer; fails after `limit`, saying what was waited for.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut question: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = question()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", limit.as_secs_f64());
        }
        sleep(Duration::from_millis(20));
    }
}
