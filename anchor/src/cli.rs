//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  anchor serve 1                    serve as anchor 1 of the built-in config, 127.0.0.1:7001
  anchor serve 1 --config net.json  serve as anchor 1 of that config
  anchor status 1                   show the processes of the anchor that this home serves
  kill -HUP PID                     to the supervisor: read the config again";

/// The Anchorage server: knows the releases, who has which chunks, and has chunks itself.
#[derive(Debug, Parser)]
#[command(name = "anchor", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) options: Options,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve as the anchor with this number, in the foreground, until SIGTERM or Ctrl-C
    #[command(after_help = "Example:\n  anchor serve 1 --home /srv/anchorage")]
    Serve {
        /// Number of the anchor in the config
        id: u32,
    },
    /// Show the processes of the anchor with this number, its peers, releases and bytes
    #[command(after_help = "Example:\n  anchor status 1 --json")]
    Status {
        /// Number of the anchor
        id: u32,
    },
}

/// The global options.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// JSON file that names the anchors [default: anchors 1 and 2 at 127.0.0.1:7001 and 7002]
    #[arg(long, global = true, value_name = "FILE", env = "ANCHORAGE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory for everything that is kept [default: anchorage in the XDG data directory]
    #[arg(long, global = true, value_name = "DIR", env = "ANCHORAGE_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// Say nothing but data and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_behind_the_command() -> Result<(), clap::Error> {
        let cli =
            Cli::try_parse_from(["anchor: supervisor", "status", "2", "--json", "--home", "x"])?;
        assert!(cli.options.json && matches!(cli.command, Command::Status { id: 2 }));
        Ok(())
    }
}
