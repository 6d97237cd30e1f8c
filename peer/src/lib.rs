//! An Anchorage node: client and server at once.

pub mod config;
pub mod failure;
pub mod framed;
pub mod identity;
pub mod output;
pub mod serve;
pub mod store;
pub mod tls;
