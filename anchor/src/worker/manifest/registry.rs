//! What the anchor knows: releases, contents, members and holders; without clock, sockets or files.
//!
//! **Members** are nodes that joined; each has a lease that its heartbeats renew, and is gone three missed
//! heartbeats later. **Holders** are members that announced or acknowledged chunks of a content, and the anchor
//! itself; they are soft state that goes with the lease. **Releases** and **contents** are durable: the driver
//! commits what [`Action::Commit`] says and tells with [`Event::Committed`], and only then it is known here.
//! **Drafts** are releases in the making; they go with their publisher.

mod budget;
mod chunks;
mod drafts;
mod event;
mod held;
mod page;
#[cfg(test)]
pub(super) mod tests;

use super::database::Known;
use crate::{
    packet::{Asked, Counters},
    time::Time,
};
use anchorage_manifest::{
    ContentId, Geometry, Have, Holder, Name, NodeId, SignedRelease, Source,
    limits::{COLLECT_MS_MAX, COLLECT_MS_MIN, HEARTBEATS_MISSED_MAX, PEERS_MAX},
    wire::{Delivery, Outcome, Push, Refusal, Reply, Request},
};
use budget::Budget;
use chunks::Chunks;
pub(super) use event::{Action, Event};
use held::Held;
use page::page;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::Bound,
    time::Duration,
};

/// Messages of acks a millisecond that all members may send together; one core manages some 40.
const MEMBERS_PER_COLLECT_MS: u32 = 20;

/// What a registry starts with.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    /// The anchor's node id.
    pub(super) node: NodeId,
    /// Where it serves chunks.
    pub(super) address: SocketAddr,
    /// Milliseconds between heartbeats.
    pub(super) heartbeat_ms: u32,
    /// For the random choice of peers and sources.
    pub(super) seed: u64,
}

/// The registry.
pub(super) struct Registry {
    own: Source,
    heartbeat_ms: u32,
    rng: fastrand::Rng,
    releases: BTreeMap<Name, SignedRelease>,
    contents: BTreeMap<ContentId, Content>,
    drafts: BTreeMap<ContentId, drafts::Known>,
    members: BTreeMap<NodeId, Member>,
    /// No lease ends before this; it may be too early, as renewing a lease does not move it.
    expiry: Option<Time>,
    acks_from_anchors: u64,
    acks_from_peers: u64,
}

struct Content {
    geometry: Geometry,
    holders: BTreeMap<NodeId, Held>,
}

struct Member {
    address: SocketAddr,
    lease_until: Time,
    holds: BTreeSet<ContentId>,
}

impl Registry {
    /// A registry that knows what is durable, and nobody.
    pub(super) fn new(settings: Settings, known: Known) -> Self {
        let content = |geometry| Content {
            geometry,
            holders: BTreeMap::new(),
        };
        Self {
            own: Source {
                node: settings.node,
                address: settings.address,
            },
            heartbeat_ms: settings.heartbeat_ms,
            rng: fastrand::Rng::with_seed(settings.seed),
            releases: known
                .releases
                .into_iter()
                .map(|signed| (signed.unverified().name.clone(), signed))
                .collect(),
            contents: known
                .contents
                .into_iter()
                .map(|(id, geometry)| (id, content(geometry)))
                .collect(),
            drafts: BTreeMap::new(),
            members: BTreeMap::new(),
            expiry: None,
            acks_from_anchors: 0,
            acks_from_peers: 0,
        }
    }

    /// Takes note of an event. Total: whatever a peer or a worker sends, the answer is a reply or nothing.
    pub(super) fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        self.expire(now, out);
        match event {
            Event::Asked(asked) => self.asked(now, asked, out),
            Event::Has { content, segment } => {
                // A store may hold what no release here has (any more); nobody can ask for that.
                let _ = self.hold(self.own.node, content, &Chunks::Segment(&segment), out);
            }
            Event::Stored { content, chunks } => {
                let _ = self.hold(self.own.node, content, &Chunks::List(&chunks), out);
            }
            Event::Committed { release } => self.committed(release, out),
            Event::Retried { sequence, release } => self.judge(sequence, release, out),
            Event::Reloaded { heartbeat_ms } => self.heartbeat_ms = heartbeat_ms,
            Event::Tick => {}
        }
    }

    /// When the first lease ends, at the earliest.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.expiry
    }

    /// The sizes of a content, if some release has it.
    pub(super) fn geometry(&self, content: ContentId) -> Option<Geometry> {
        self.contents.get(&content).map(|content| content.geometry)
    }

    /// What `anchor status` shows of it.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            peers: self.members.len() as u64,
            releases: self.releases.len() as u64,
            acks_from_anchors: self.acks_from_anchors,
            acks_from_peers: self.acks_from_peers,
            ..Counters::default()
        }
    }

    fn asked(&mut self, now: Time, asked: Asked, out: &mut Vec<Action>) {
        let Asked {
            sequence,
            node,
            observed,
            request,
        } = asked;
        let result = match request {
            Request::Publish { release } => {
                match release.verify() {
                    Ok(_) => self.judge(sequence, release, out),
                    Err(_) => out.push(Action::Reply {
                        sequence,
                        reply: Reply::Refused {
                            refusal: Refusal::BadSignature,
                        },
                    }),
                }
                return;
            }
            Request::Resolve { name } => match self.releases.get(&name) {
                Some(release) => Ok(Reply::Resolved {
                    release: release.clone(),
                }),
                None => Err(Refusal::UnknownName),
            },
            Request::List { after } => Ok(self.list(after.as_ref())),
            Request::Holders { content, after } => self.holders(content, after),
            Request::FindDraft { name } => self.find_draft(&name),
            Request::Join { port, advertise } => {
                let address = advertise.unwrap_or(SocketAddr::new(observed.ip(), port));
                Ok(self.join(now, node, observed, address, out))
            }
            Request::Leave => {
                self.remove(node, out);
                Ok(Reply::Done)
            }
            // The connection process answers it.
            Request::Hello { .. } => Err(Refusal::Malformed("a second Hello".into())),
            request => self.asked_by_member(now, node, request, out),
        };
        let reply = result.unwrap_or_else(|refusal| Reply::Refused { refusal });
        out.push(Action::Reply { sequence, reply });
    }

    /// What only a member may ask.
    fn asked_by_member(
        &mut self,
        now: Time,
        node: NodeId,
        request: Request,
        out: &mut Vec<Action>,
    ) -> Result<Reply, Refusal> {
        let lease_until = now.plus(self.lease());
        let member = self.members.get_mut(&node).ok_or(Refusal::NotJoined)?;
        match request {
            Request::Heartbeat => {
                member.lease_until = lease_until;
                Ok(Reply::Done)
            }
            Request::Announce { content, segment } => {
                member.lease_until = lease_until;
                self.hold(node, content, &Chunks::Segment(&segment), out)?;
                Ok(Reply::Done)
            }
            Request::Ack {
                content,
                deliveries,
            } => {
                member.lease_until = lease_until;
                for Delivery { from, chunks } in &deliveries {
                    let new = self.hold(node, content, &Chunks::List(chunks), out)?;
                    // Anchors do not join.
                    let count = if self.members.contains_key(from) {
                        &mut self.acks_from_peers
                    } else {
                        &mut self.acks_from_anchors
                    };
                    *count = count.saturating_add(new.into());
                }
                let collect_ms = self.collect_ms();
                Ok(Reply::Acked { collect_ms })
            }
            Request::Withdraw { content } => {
                if member.holds.remove(&content) {
                    self.drop_holder(node, content, out);
                }
                self.withdraw_draft(node, content, out);
                Ok(Reply::Done)
            }
            Request::Draft { draft } => {
                member.lease_until = lease_until;
                self.register_draft(node, draft, out)
            }
            Request::Watch { content } => {
                // Who is about to have it can be dialled: when many come at once, they know each other by the time that
                // the first chunks are there.
                self.hold(node, content, &Chunks::List(&[]), out)?;
                self.watch(node, content)
            }
            other => Err(Refusal::Malformed(format!(
                "a member cannot ask this: {other:?}"
            ))),
        }
    }

    /// How long members may collect acks: as long as the messages of all of them, at their most, are what a part of one
    /// core can deal with.
    fn collect_ms(&self) -> u32 {
        let members = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        (members / MEMBERS_PER_COLLECT_MS).clamp(COLLECT_MS_MIN, COLLECT_MS_MAX)
    }

    /// Three missed heartbeats, and half of one for what is under way.
    fn lease(&self) -> Duration {
        let heartbeat = Duration::from_millis(self.heartbeat_ms.into());
        heartbeat * HEARTBEATS_MISSED_MAX + heartbeat / 2
    }

    fn join(
        &mut self,
        now: Time,
        node: NodeId,
        observed: SocketAddr,
        address: SocketAddr,
        out: &mut Vec<Action>,
    ) -> Reply {
        let lease_until = now.plus(self.lease());
        if let Some(member) = self.members.get_mut(&node) {
            member.lease_until = lease_until;
            if member.address != address {
                member.address = address;
                let source = Source { node, address };
                let came = |&content: &ContentId| Action::Push(Push::Came { content, source });
                out.extend(member.holds.iter().map(came));
            }
        } else {
            let member = Member {
                address,
                lease_until,
                holds: BTreeSet::new(),
            };
            self.members.insert(node, member);
            self.expiry = Some(self.expiry.map_or(lease_until, |due| due.min(lease_until)));
        }
        let others = self
            .members
            .iter()
            .filter(|(other, _)| **other != node)
            .map(|(&node, member)| Source {
                node,
                address: member.address,
            });
        let peers = self.rng.choose_multiple(others, PEERS_MAX);
        Reply::Joined {
            observed,
            address,
            heartbeat_ms: self.heartbeat_ms,
            collect_ms: self.collect_ms(),
            peers,
        }
    }

    fn watch(&mut self, node: NodeId, content: ContentId) -> Result<Reply, Refusal> {
        let holders = &self
            .contents
            .get(&content)
            .ok_or(Refusal::UnknownContent)?
            .holders;
        let own = holders.contains_key(&self.own.node).then_some(self.own);
        let (members, own_node) = (&self.members, self.own.node);
        let others = holders
            .keys()
            .filter(|&&other| other != node && other != own_node)
            .filter_map(|&node| {
                members.get(&node).map(|member| Source {
                    node,
                    address: member.address,
                })
            });
        let mut sources = self
            .rng
            .choose_multiple(others, PEERS_MAX - usize::from(own.is_some()));
        sources.extend(own);
        self.rng.shuffle(&mut sources);
        Ok(Reply::Watching { sources })
    }

    fn holders(&self, content: ContentId, after: Option<NodeId>) -> Result<Reply, Refusal> {
        let content = self.contents.get(&content).ok_or(Refusal::UnknownContent)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let budget = Budget::of(&content.holders);
        let all = content
            .holders
            .range((from, Bound::Unbounded))
            .filter_map(|(&node, held)| {
                let have = if budget.covers(node, held) {
                    Have::Chunks(held.pack())
                } else {
                    Have::Count(held.count())
                };
                let source = self.source(node)?;
                Some(Holder { source, have })
            });
        let (holders, more) = page(all);
        Ok(Reply::Holding { holders, more })
    }

    fn list(&self, after: Option<&Name>) -> Reply {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.releases.range((from, Bound::Unbounded));
        let (releases, more) = page(all.map(|(_, release)| release.clone()));
        Reply::Listed { releases, more }
    }

    fn source(&self, node: NodeId) -> Option<Source> {
        if node == self.own.node {
            return Some(self.own);
        }
        let address = self.members.get(&node)?.address;
        Some(Source { node, address })
    }

    /// Decides what becomes of a release whose signature is good.
    fn judge(&mut self, sequence: u64, signed: SignedRelease, out: &mut Vec<Action>) {
        let release = signed.unverified();
        let stored = self
            .releases
            .get(&release.name)
            .map(SignedRelease::unverified);
        let known = self.geometry(release.content);
        let reply = match stored {
            Some(stored) if stored.publisher != release.publisher => Err(Refusal::Taken {
                publisher: stored.publisher,
            }),
            Some(stored) if stored == release => Ok(Reply::Published {
                outcome: Outcome::Unchanged,
            }),
            Some(stored) if stored.version >= release.version => Err(Refusal::Conflict {
                version: stored.version,
            }),
            _ if release.version == 0 => Err(Refusal::Malformed("versions count from 1".into())),
            // The id covers the sizes, so one of the two is a lie.
            _ if known.is_some_and(|known| known != release.geometry) => Err(Refusal::Mismatch),
            _ => {
                out.push(Action::Commit {
                    sequence,
                    release: signed,
                });
                return;
            }
        };
        if reply.is_ok() {
            self.seal(&signed, out);
        }
        let reply = reply.unwrap_or_else(|refusal| Reply::Refused { refusal });
        out.push(Action::Reply { sequence, reply });
    }

    fn committed(&mut self, signed: SignedRelease, out: &mut Vec<Action>) {
        self.seal(&signed, out);
        let release = signed.unverified();
        self.contents.entry(release.content).or_insert(Content {
            geometry: release.geometry,
            holders: BTreeMap::new(),
        });
        self.releases.insert(release.name.clone(), signed);
    }

    /// Makes a member, or the anchor, a holder of chunks; the number of chunks that it did not have before.
    fn hold(
        &mut self,
        node: NodeId,
        id: ContentId,
        chunks: &Chunks<'_>,
        out: &mut Vec<Action>,
    ) -> Result<u32, Refusal> {
        let source = self.source(node).ok_or(Refusal::NotJoined)?;
        let content = self.contents.get_mut(&id).ok_or(Refusal::UnknownContent)?;
        let count = content.geometry.chunks();
        chunks.check(count)?;
        let have = content.holders.entry(node).or_insert_with(|| {
            out.push(Action::Push(Push::Came {
                content: id,
                source,
            }));
            Held::empty(count)
        });
        let before = have.count();
        match chunks {
            Chunks::List(list) => list.iter().for_each(|&index| have.insert(index)),
            Chunks::Segment(segment) => have
                .merge(segment)
                .map_err(|error| Refusal::Malformed(error.to_string()))?,
        }
        let new = have.count() - before;
        if let Some(member) = self.members.get_mut(&node) {
            member.holds.insert(id);
        }
        Ok(new)
    }

    fn drop_holder(&mut self, node: NodeId, id: ContentId, out: &mut Vec<Action>) {
        if let Some(content) = self.contents.get_mut(&id)
            && content.holders.remove(&node).is_some()
        {
            out.push(Action::Push(Push::Gone { content: id, node }));
        }
    }

    fn remove(&mut self, node: NodeId, out: &mut Vec<Action>) {
        for content in self
            .members
            .remove(&node)
            .map(|member| member.holds)
            .unwrap_or_default()
        {
            self.drop_holder(node, content, out);
        }
        self.drop_drafts_of(node, out);
    }

    fn expire(&mut self, now: Time, out: &mut Vec<Action>) {
        if self.expiry.is_none_or(|due| now < due) {
            return;
        }
        let late = |member: &Member| member.lease_until <= now;
        let gone: Vec<NodeId> = self
            .members
            .iter()
            .filter_map(|(&node, member)| late(member).then_some(node))
            .collect();
        for node in gone {
            self.remove(node, out);
        }
        self.expiry = self.members.values().map(|member| member.lease_until).min();
    }
}
