//! A command as data, so that it can be run here or by the node that lives in the home already.

use crate::{
    dial::Ahead,
    event::{Event, Events, Listed},
    failure::{Exit, Failure},
    get::{self, Get},
    lookup,
    node::Node,
    publish::{self, Publish},
    verify::{self, Verify},
};
use anchorage_manifest::{
    Manifest, Name, Source,
    wire::{Reply, Request},
};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// What a user wants of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Publish a file.
    Publish(Publish),
    /// Fetch a file.
    Get(Get),
    /// Show the manifest of a name.
    Manifest {
        /// The release's name.
        name: String,
    },
    /// List releases.
    List,
    /// Compare a file with its release.
    Verify(Verify),
    /// Tell about the node.
    Status,
}

impl Command {
    /// Runs the command on a node.
    pub async fn run(&self, node: &Arc<Node>, events: &Events) -> Result<(), Failure> {
        match self {
            Self::Publish(request) => publish::publish(node, request, events).await,
            Self::Get(request) => get::get(node, request, events).await,
            Self::Manifest { name } => manifest(node, name, events).await,
            Self::List => list(node, events).await,
            Self::Verify(request) => verify::verify(node, request, events).await,
            Self::Status => {
                // A node without anchors still has a status: it says why it has none.
                for session in &node.sessions {
                    session.settled().await;
                }
                events.tell(Event::Status(node.status()));
                Ok(())
            }
        }
    }
}

async fn manifest(node: &Arc<Node>, name: &str, events: &Events) -> Result<(), Failure> {
    let name: Name = name
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let anchors = node.anchors(events).await?;
    let signed = lookup::resolve(&anchors, &name, events).await?;
    let release = signed.unverified();
    let mut holders = lookup::holders(&anchors, release.content).await;
    holders
        .iter_mut()
        .for_each(|holder| holder.source = node.reachable(holder.source));
    let mut sources: Vec<Source> = holders.iter().map(|holder| holder.source).collect();
    let found = lookup::list(node, release, sources.clone(), Ahead::default()).await?;
    // Anchors have had the chunks' hashes since they have the chunks, others may have to make them.
    sources.sort_by_key(|source| !node.is_anchor(source.node));
    let hashes = lookup::hashes(node, &found.content, &sources).await;
    events.tell(Event::Manifest(Manifest::new(
        release,
        &found.content,
        &hashes,
        &holders,
    )));
    Ok(())
}

/// Every release that an anchor knows, each name once, at its newest version.
async fn list(node: &Arc<Node>, events: &Events) -> Result<(), Failure> {
    let mut newest: BTreeMap<String, Listed> = BTreeMap::new();
    for session in node.anchors(events).await? {
        let mut after = None;
        loop {
            let (releases, more) = match session.request(Request::List { after }).await {
                Ok(Reply::Listed { releases, more }) => (releases, more),
                Ok(other) => {
                    events.warn(format!("anchor {}: {other:?}", session.anchor.id));
                    break;
                }
                Err(error) => {
                    events.warn(format!("{error:#}"));
                    break;
                }
            };
            after = releases
                .last()
                .map(|signed| signed.unverified().name.clone());
            for signed in releases {
                let Ok(release) = signed.verify() else {
                    events.warn(format!(
                        "anchor {}: a release with a bad signature",
                        session.anchor.id
                    ));
                    continue;
                };
                let listed = Listed {
                    name: release.name.to_string(),
                    version: release.version,
                    size: release.geometry.size(),
                    content: release.content,
                    publisher: release.publisher,
                };
                let old = newest
                    .entry(listed.name.clone())
                    .or_insert_with(|| listed.clone());
                if old.version < listed.version {
                    *old = listed;
                }
            }
            if !more || after.is_none() {
                break;
            }
        }
    }
    events.tell(Event::Releases {
        releases: newest.into_values().collect(),
    });
    Ok(())
}
