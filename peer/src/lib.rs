//! An Anchorage node: client and server at once.

mod buffers;
pub mod cli;
pub mod command;
pub mod config;
pub mod dial;
pub mod event;
pub mod failure;
pub mod file_path;
pub mod framed;
pub mod get;
pub mod guest;
pub mod home;
pub mod identity;
pub mod known_anchors;
pub mod lookup;
pub mod node;
pub mod output;
pub mod publish;
pub mod run;
pub mod scheduler;
pub mod serve;
pub mod session;
pub mod store;
pub mod time;
pub mod tls;
pub mod verify;
mod view;
