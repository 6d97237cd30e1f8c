//! The Anchorage server: a supervisor and its worker processes; and the command line `anchor`.
//!
//! One binary, many processes: `anchor serve` becomes the supervisor, which starts this binary again for every
//! worker. A process knows what it is by its title, the zeroth argument.

mod cli;
mod home;
mod order;
mod packet;
mod report;
mod serve;
mod status;
mod supervisor;
mod sys;
mod task;
mod time;
mod worker;

use anchorage_peer::{failure::Failure, output};
use clap::Parser as _;
use std::process::ExitCode;
use task::Task;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let title = arguments.next().unwrap_or_default();
    let index = arguments.next();
    if let Some(task) = Task::of_process(&title, index.as_deref()) {
        return worker::run(task);
    }
    let cli = cli::Cli::parse();
    let result = match cli.command {
        cli::Command::Serve { id } => serve::run(&title, id, &cli.options),
        cli::Command::Status { id } => status::run(id, &cli.options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    output::talk(failure);
    failure.exit.into()
}
