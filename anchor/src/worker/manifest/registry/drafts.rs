//! Drafts: releases in the making. Memory only; each lives as long as its publisher is a member.
//!
//! A draft is a content like any other to those who watch it, hold it and store it; here is what is special: whose
//! it is, and what it becomes.

use super::{Action, Content, Registry};
use anchorage_manifest::{
    ContentId, Draft, Name, NodeId, Release, SignedRelease,
    limits::{DRAFTS_MAX, DRAFTS_PER_PUBLISHER_MAX},
    wire::{Push, Refusal, Reply},
};
use std::collections::BTreeMap;

/// A draft that is known.
pub(super) struct Known {
    draft: Draft,
    /// It is looked up no more, but those who fetch it still ask for sources.
    is_sealed: bool,
}

impl Registry {
    /// Registers a draft for the node that asks, a member.
    pub(super) fn register_draft(
        &mut self,
        node: NodeId,
        draft: Draft,
        out: &mut Vec<Action>,
    ) -> Result<Reply, Refusal> {
        if draft.publisher != node {
            return Err(Refusal::Malformed(
                "a draft is registered by its publisher alone".into(),
            ));
        }
        let id = draft.id();
        if self.drafts.contains_key(&id) {
            return Ok(Reply::Done);
        }
        if let Some(release) = self.releases.get(&draft.name) {
            let publisher = release.unverified().publisher;
            if publisher != node {
                return Err(Refusal::Taken { publisher });
            }
        }
        if let Some((old, publisher)) = self.unsealed(&draft.name) {
            if publisher != node {
                return Err(Refusal::Taken { publisher });
            }
            self.drop_draft(old, out);
        }
        let own = self.drafts_of(node);
        if own.len() >= DRAFTS_PER_PUBLISHER_MAX {
            let mut sealed = own.iter().filter(|id| self.drafts[id].is_sealed);
            let oldest = *sealed.next().ok_or(Refusal::Busy)?;
            self.drop_draft(oldest, out);
        }
        if self.drafts.len() >= DRAFTS_MAX {
            return Err(Refusal::Busy);
        }
        let content = Content {
            geometry: draft.geometry,
            holders: BTreeMap::new(),
        };
        self.contents.insert(id, content);
        let is_sealed = false;
        self.drafts.insert(id, Known { draft, is_sealed });
        Ok(Reply::Done)
    }

    /// The draft of a name.
    pub(super) fn find_draft(&self, name: &Name) -> Result<Reply, Refusal> {
        let (id, _) = self.unsealed(name).ok_or(Refusal::UnknownName)?;
        let draft = self.drafts[&id].draft.clone();
        Ok(Reply::Drafted { draft })
    }

    /// A release is durable: the draft of its name has become it.
    pub(super) fn seal(&mut self, signed: &SignedRelease, out: &mut Vec<Action>) {
        let Release {
            name, publisher, ..
        } = signed.unverified();
        let Some((id, _)) = self.unsealed(name).filter(|(_, owner)| owner == publisher) else {
            return;
        };
        if let Some(known) = self.drafts.get_mut(&id) {
            known.is_sealed = true;
            out.push(Action::Push(Push::Sealed {
                draft: id,
                release: signed.clone(),
            }));
        }
    }

    /// A publisher says that it has nothing of a content: if that is a draft of its own, nobody will.
    pub(super) fn withdraw_draft(&mut self, node: NodeId, id: ContentId, out: &mut Vec<Action>) {
        let known = self.drafts.get(&id);
        if known.is_some_and(|known| known.draft.publisher == node && !known.is_sealed) {
            self.drop_draft(id, out);
        }
    }

    /// A publisher is gone, and its drafts with it.
    pub(super) fn drop_drafts_of(&mut self, node: NodeId, out: &mut Vec<Action>) {
        for id in self.drafts_of(node) {
            self.drop_draft(id, out);
        }
    }

    fn unsealed(&self, name: &Name) -> Option<(ContentId, NodeId)> {
        let mut unsealed = self.drafts.iter().filter(|(_, known)| !known.is_sealed);
        let (&id, known) = unsealed.find(|(_, known)| known.draft.name == *name)?;
        Some((id, known.draft.publisher))
    }

    fn drafts_of(&self, node: NodeId) -> Vec<ContentId> {
        let of_node = |(&id, known): (_, &Known)| (known.draft.publisher == node).then_some(id);
        self.drafts.iter().filter_map(of_node).collect()
    }

    fn drop_draft(&mut self, id: ContentId, out: &mut Vec<Action>) {
        self.drafts.remove(&id);
        let Some(content) = self.contents.remove(&id) else {
            return;
        };
        for node in content.holders.into_keys() {
            if let Some(member) = self.members.get_mut(&node) {
                member.holds.remove(&id);
            }
            out.push(Action::Push(Push::Gone { content: id, node }));
        }
    }
}
