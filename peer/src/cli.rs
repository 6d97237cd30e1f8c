//! The command line of `peer`.

use crate::{command::Command, file_path::FilePath, get::Get, publish::Publish, verify::Verify};
use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Share big files: fetch from everybody who has a part, verified and encrypted, and pass it on.
#[derive(Debug, Parser)]
#[command(
    name = "peer",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  peer publish music.txt         give a file to the anchors, under its own name
  peer get music.txt             fetch it, from the anchors and all who have a part of it
  peer serve                     serve what this home owns to others"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// JSON file that names the anchors [default: anchors 1 and 2 at 127.0.0.1:7001 and 7002]
    #[arg(long, global = true, env = "ANCHORAGE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for the node's key and what it owns [default: anchorage in the XDG data directory]
    #[arg(long, global = true, env = "ANCHORAGE_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Where to serve chunks; port 0 is any that is free
    #[arg(
        long,
        global = true,
        value_name = "ADDR:PORT",
        default_value = "0.0.0.0:0"
    )]
    pub listen: SocketAddr,
    /// Where others reach this node, if it is not where the anchors see it
    #[arg(long, global = true, value_name = "ADDR:PORT")]
    pub advertise: Option<SocketAddr>,
    /// Say nothing but data and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// What a user can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Publish a file: sign it, register it with the anchors, upload it to them
    #[command(after_help = "Examples:
  peer publish music.txt
  peer publish disk.img --name debian-12.img --chunk-size 1MiB
  peer publish data.tar --no-upload     serve it from here, without a second copy")]
    Publish {
        /// The file
        path: PathBuf,
        /// The name that others will ask for [default: the file's]
        #[arg(long)]
        name: Option<String>,
        /// Bytes of a chunk, a multiple of 64, like 256KiB or 1MiB [default: by the file's size]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        chunk_size: Option<u32>,
        /// Leave the bytes here and serve them until Ctrl-C, or by the `peer serve` of this home
        #[arg(long)]
        no_upload: bool,
    },
    /// Fetch a file from everybody who has a part of it
    #[command(after_help = "Examples:
  peer get music.txt
  peer get debian-12.img -o /srv/images/ --serve
  peer get data.tar --json | tail -n 1     what came from whom")]
    Get {
        /// The release's name
        name: String,
        /// File or directory to write to [default: the name, here]
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Go on serving afterwards, until Ctrl-C
        #[arg(long)]
        serve: bool,
        /// Replace an existing file that has other content
        #[arg(long)]
        force: bool,
        /// Give up after so many seconds without progress
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
    /// Serve everything this home owns, until SIGTERM or Ctrl-C
    #[command(after_help = "Example:
  peer serve --listen 0.0.0.0:4000 --advertise 203.0.113.7:4000")]
    Serve,
    /// Show who has which chunk of a name
    #[command(after_help = "Example:
  peer manifest music.txt --json | jq '.chunks[0].peers'")]
    Manifest {
        /// The release's name
        name: String,
    },
    /// List the releases that the anchors know
    #[command(after_help = "Example:
  peer list --json | jq -r '.[].name'")]
    List,
    /// Compare a file with its release, chunk by chunk and as a whole
    #[command(after_help = "Example:
  peer verify ~/Downloads/music.txt --name music.txt")]
    Verify {
        /// The file
        path: PathBuf,
        /// The release's name [default: the file's]
        #[arg(long)]
        name: Option<String>,
    },
    /// Tell about this node: id, address, anchors, files
    #[command(after_help = "Example:
  peer status --json | jq .peers_known")]
    Status,
}

impl Verb {
    /// The command to run; none for `serve`, which only serves.
    pub fn command(&self) -> Result<Option<Command>> {
        Ok(Some(match self {
            Self::Serve => return Ok(None),
            Self::Publish {
                path,
                name,
                chunk_size,
                no_upload,
            } => Command::Publish(Publish {
                path: absolute(path)?,
                name: name.clone(),
                chunk_size: *chunk_size,
                upload: !no_upload,
            }),
            Self::Get {
                name,
                output,
                force,
                timeout,
                ..
            } => Command::Get(Get {
                name: name.clone(),
                output: absolute(output.as_deref().unwrap_or(Path::new(".")))?,
                force: *force,
                timeout_s: *timeout,
            }),
            Self::Manifest { name } => Command::Manifest { name: name.clone() },
            Self::List => Command::List,
            Self::Verify { path, name } => Command::Verify(Verify {
                path: absolute(path)?,
                name: name.clone(),
            }),
            Self::Status => Command::Status,
        }))
    }

    /// Whether the command changes nothing in the home.
    pub fn only_asks(&self) -> bool {
        matches!(
            self,
            Self::Manifest { .. } | Self::List | Self::Verify { .. } | Self::Status
        )
    }

    /// Whether the process goes on serving once the command is done.
    pub fn serves_on(&self) -> bool {
        matches!(
            self,
            Self::Serve
                | Self::Get { serve: true, .. }
                | Self::Publish {
                    no_upload: true,
                    ..
                }
        )
    }
}

fn absolute(path: &Path) -> Result<FilePath> {
    let absolute = std::path::absolute(path);
    absolute
        .map(FilePath)
        .with_context(|| format!("cannot use the path {}", path.display()))
}

/// A number of bytes, with or without a unit of 1,024: `4096`, `256KiB`, `1MiB`.
fn parse_size(text: &str) -> Result<u32, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        _ => return Err("a size is a number with KiB or MiB, like 256KiB".to_owned()),
    };
    let size = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    size.ok_or_else(|| "a size is a number with KiB or MiB, like 256KiB".to_owned())
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
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("256KiB"), Ok(256 << 10));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        for text in ["", "MiB", "1MB", "-1", "5000MiB", "1.5MiB"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }
}
