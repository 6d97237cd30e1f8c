//! `anchor status`: asks the supervisor of this home over its Unix socket.

use crate::{
    cli::Options,
    home::{Home, SocketPath},
    report::Report,
};
use anchorage_peer::{
    failure::{Exit, Failure},
    output,
};
use anyhow::{Context as _, Result};
use std::{io::Read as _, os::unix::net::UnixStream, time::Duration};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints the report of anchor `id`, as a table or as JSON.
pub(crate) fn run(id: u32, options: &Options) -> Result<(), Failure> {
    let home = Home::new(options.home.as_deref(), id)?;
    let text = ask(&home).map_err(|error| {
        let error = error.context(format!("anchor {id} does not answer"));
        Failure::new(Exit::Failed, error).hint(format!(
            "start it with `anchor serve {id}`, or say with --home where its state is, not in {}",
            home.directory().display()
        ))
    })?;
    if options.json {
        output::data(text.trim_end());
    } else {
        let report: Report = serde_json::from_str(&text)
            .context("the supervisor's answer is not understood; is it of another version?")?;
        output::data(report);
    }
    Ok(())
}

fn ask(home: &Home) -> Result<String> {
    let socket = SocketPath::new(home)?;
    let mut stream = UnixStream::connect(socket.path())
        .with_context(|| format!("cannot reach {}/status.sock", home.directory().display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .context("cannot read the supervisor's answer")?;
    Ok(text)
}
