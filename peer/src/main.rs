//! The command line `peer`.

use anchorage_peer::{cli::Cli, failure::Failure, output::talk, run::run};
use anyhow::Context as _;
use clap::Parser as _;
use std::{process::ExitCode, thread::available_parallelism};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Every second processor for the network: the threads that hash, read and write have the others.
    let processors = available_parallelism().map_or(1, usize::from);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(processors.div_ceil(2))
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::from(error)),
    };
    // On a worker, so that whoever wakes it need not wake another thread.
    let running = runtime.spawn(async move { run(&cli).await });
    let result = runtime
        .block_on(running)
        .context("BUG: the command panicked");
    let result = result.map_err(Failure::from).flatten();
    // Threads that still flush or hash something have nothing left to say.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    talk(failure);
    failure.exit.into()
}
