//! The command line `peer`.

use anchorage_peer::{cli::Cli, failure::Failure, output::talk, run::run};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::from(error)),
    };
    let result = runtime.block_on(run(&cli));
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
