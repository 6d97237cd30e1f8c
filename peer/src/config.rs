//! The configuration: where the anchors are. Without a file, the two of one machine.

use anchorage_manifest::NodeId;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

/// The list that is compiled in; the same as the file of that name.
const DEFAULT: &str = include_str!("../../data/config.json");

/// What `--config` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The anchors, each with its own id.
    pub anchors: Vec<AnchorConfig>,
    /// Milliseconds between a peer's heartbeats; read by anchors, which tell their peers.
    #[serde(default = "default_heartbeat_ms")]
    pub heartbeat_ms: u32,
}

/// One anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorConfig {
    /// Its number.
    pub id: u32,
    /// Host and port where it serves.
    pub address: String,
    /// Its key; where there is none, the first one met is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<NodeId>,
}

fn default_heartbeat_ms() -> u32 {
    5_000
}

impl Config {
    /// Reads the file at `path`, or takes the default if there is no path.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let (text, what) = match path {
            Some(path) => {
                let what = path.display().to_string();
                (
                    fs::read_to_string(path)
                        .with_context(|| format!("cannot read the config {what}"))?,
                    what,
                )
            }
            None => (DEFAULT.to_owned(), "the built-in config".to_owned()),
        };
        Self::parse(&text).with_context(|| format!("cannot use the config {what}"))
    }

    fn parse(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text)?;
        if config.anchors.is_empty() {
            bail!("it names no anchor");
        }
        let mut ids = BTreeSet::new();
        for anchor in &config.anchors {
            if !ids.insert(anchor.id) {
                bail!("it names anchor {} twice", anchor.id);
            }
            let port = anchor
                .address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                bail!(
                    "the address of anchor {} is not HOST:PORT: {:?}",
                    anchor.id,
                    anchor.address
                );
            }
        }
        if !(10..=600_000).contains(&config.heartbeat_ms) {
            bail!(
                "heartbeat_ms must be between 10 and 600000, not {}",
                config.heartbeat_ms
            );
        }
        Ok(config)
    }

    /// The anchor with this id.
    pub fn anchor(&self, id: u32) -> Result<&AnchorConfig> {
        self.anchors
            .iter()
            .find(|anchor| anchor.id == id)
            .with_context(|| {
                let ids: Vec<String> = self
                    .anchors
                    .iter()
                    .map(|anchor| anchor.id.to_string())
                    .collect();
                format!("the config names no anchor {id}, only {}", ids.join(", "))
            })
    }
}

impl AnchorConfig {
    /// The socket addresses of the anchor, by a name server if need be. Blocks while it asks.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>> {
        let addresses =
            std::net::ToSocketAddrs::to_socket_addrs(&self.address).with_context(|| {
                format!(
                    "cannot find the address of anchor {}, {}",
                    self.id, self.address
                )
            })?;
        Ok(addresses.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_names_both_anchors_of_one_machine() -> Result<()> {
        let config = Config::load(None)?;
        let addresses: Vec<&str> = config
            .anchors
            .iter()
            .map(|anchor| &*anchor.address)
            .collect();
        assert_eq!(addresses, ["127.0.0.1:7001", "127.0.0.1:7002"]);
        assert_eq!(config.heartbeat_ms, 5_000);
        assert!(config.anchor(3).is_err());
        Ok(())
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            (r#"{"anchors":[]}"#, "no anchor"),
            (
                r#"{"anchors":[{"id":1,"address":"a:1"},{"id":1,"address":"b:1"}]}"#,
                "twice",
            ),
            (r#"{"anchors":[{"id":1,"address":"nowhere"}]}"#, "HOST:PORT"),
            (r#"{"anchors":[{"id":1,"address":"a:1","kee":""}]}"#, "kee"),
            (
                r#"{"anchors":[{"id":1,"address":"a:1","key":"12"}]}"#,
                "hexadecimal",
            ),
            (
                r#"{"anchors":[{"id":1,"address":"a:1"}],"heartbeat_ms":1}"#,
                "heartbeat_ms",
            ),
            ("{", "EOF"),
        ] {
            let error = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(error.contains(word), "{error}");
        }
    }
}
