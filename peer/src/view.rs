//! How events look: JSON for machines, words and a progress bar for people.

use crate::{
    event::{Done, Event, Phase, Progress, PublishOutcome, Published, Status, Verified},
    output::{data, escaped, talk},
};
use anchorage_manifest::Manifest;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

/// Shows events.
pub(crate) struct View {
    json: bool,
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl View {
    /// A view; `quiet` leaves only data and errors, `json` makes every event a line.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let bar = (stderr().is_terminal() && !quiet && !json).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix}  {bar:24} {percent:>3} %  {msg}");
            bar.set_style(style.expect("a constant template").progress_chars("━╸ "));
            bar
        });
        Self { json, quiet, bar }
    }

    /// Shows one event.
    pub(crate) fn show(&self, event: &Event) {
        match event {
            Event::Manifest(manifest) if self.json => data(to_json(manifest)),
            Event::Releases { releases } if self.json => data(to_json(releases)),
            Event::Status(status) if self.json => data(to_json(status)),
            event if self.json => data(to_json(event)),
            Event::Progress(progress) => self.show_progress(progress),
            Event::Warning { message } => self.say(format!("warning: {}", escaped(message))),
            Event::Liar {
                address,
                node,
                chunk,
            } => self.say(format!(
                "warning: {address} (node {}) sent what is not chunk {}; it is not asked again",
                node.short(),
                chunk + 1
            )),
            Event::Done(done) => {
                self.clear();
                self.say(done_in_words(done));
            }
            Event::Published(published) => {
                self.clear();
                data(published_in_words(published));
            }
            Event::Serving { id, address, files } => {
                let noun = if *files == 1 { "file" } else { "files" };
                data(format!("serving {files} {noun} on {address} as {id}"));
            }
            Event::Verified(verified) => verified_in_words(verified).into_iter().for_each(data),
            Event::Manifest(manifest) => manifest_in_words(manifest).into_iter().for_each(data),
            Event::Releases { releases } => {
                for release in releases {
                    data(format!(
                        "{}  version {}  {}  by {}",
                        escaped(&release.name),
                        release.version,
                        HumanBytes(release.size),
                        release.publisher.short()
                    ));
                }
            }
            Event::Status(status) => status_in_words(status).into_iter().for_each(data),
        }
    }

    /// Takes the progress bar off the terminal.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: String) {
        match &self.bar {
            _ if self.quiet => {}
            Some(bar) => bar.suspend(|| talk(line)),
            None => talk(line),
        }
    }

    fn show_progress(&self, progress: &Progress) {
        let Some(bar) = &self.bar else { return };
        let rate = progress.bytes_per_second;
        let left = progress.size.saturating_sub(progress.bytes) as f64;
        let eta = if rate > 1.0 {
            let seconds = Duration::from_secs_f64((left / rate).min(1e9));
            format!(" · {} left", HumanDuration(seconds))
        } else {
            String::new()
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "shown to people"
        )]
        let rate = HumanBytes(rate as u64);
        let what = match progress.phase {
            Phase::Hashing => "hashing".to_owned(),
            Phase::Uploading => "uploading".to_owned(),
            Phase::Fetching if progress.sources == 1 => "1 source".to_owned(),
            Phase::Fetching => format!("{} sources", progress.sources),
        };
        bar.set_prefix(escaped(&progress.name));
        bar.set_length(progress.size);
        bar.set_position(progress.bytes);
        bar.set_message(format!(
            "{}  {rate}/s{eta} · {what}",
            HumanBytes(progress.bytes)
        ));
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// `music.txt  312 KiB in 0.2 s · 41 % from anchors, 59 % from 2 peers · sha256 3fa1… verified`
fn done_in_words(done: &Done) -> String {
    let sha256 = &done.sha256.to_string()[..4];
    let head = format!("{}  {}", escaped(&done.name), HumanBytes(done.bytes));
    if done.already_complete {
        return format!(
            "{head} already complete at {} · sha256 {sha256}… verified",
            done.path.display()
        );
    }
    let fetched: u64 = done.from.iter().map(|share| share.bytes).sum();
    let anchors: u64 = done
        .from
        .iter()
        .filter(|share| share.anchor)
        .map(|share| share.bytes)
        .sum();
    let peers = done.from.iter().filter(|share| !share.anchor).count();
    let percent = |part: u64| (100 * part + fetched / 2).checked_div(fetched).unwrap_or(0);
    let from = match (fetched, peers) {
        (0, _) => "nothing was missing".to_owned(),
        (_, 0) => "100 % from anchors".to_owned(),
        (_, 1) => format!(
            "{} % from anchors, {} % from 1 peer",
            percent(anchors),
            100 - percent(anchors)
        ),
        _ => {
            let percent = percent(anchors);
            format!(
                "{percent} % from anchors, {} % from {peers} peers",
                100 - percent
            )
        }
    };
    let time = match done.seconds {
        seconds if seconds < 0.095 => format!("{seconds:.2} s"),
        seconds => format!("{seconds:.1} s"),
    };
    format!("{head} in {time} · {from} · sha256 {sha256}… verified")
}

fn published_in_words(published: &Published) -> String {
    let anchors: Vec<String> = published.anchors.iter().map(u32::to_string).collect();
    let anchors = match &anchors[..] {
        [one] => format!("anchor {one}"),
        _ => format!("anchors {}", anchors.join(", ")),
    };
    format!(
        "{}  {} in {} chunks · version {}{} · {} {anchors} · sha256 {}…",
        escaped(&published.name),
        HumanBytes(published.size),
        published.chunks,
        published.version,
        if published.outcome == PublishOutcome::Unchanged {
            ", unchanged"
        } else {
            ""
        },
        if published.uploaded {
            "uploaded to"
        } else {
            "registered with"
        },
        &published.sha256.to_string()[..4]
    )
}

fn verified_in_words(verified: &Verified) -> Vec<String> {
    let name = escaped(&verified.name);
    if verified.ok {
        return vec![format!(
            "{} is {name}: {} chunks verified",
            verified.path.display(),
            verified.chunks
        )];
    }
    verified
        .bad
        .iter()
        .map(|index| format!("chunk {} of {name} is wrong", index + 1))
        .collect()
}

fn manifest_in_words(manifest: &Manifest) -> Vec<String> {
    let nodes: BTreeSet<_> = manifest
        .chunks
        .iter()
        .flat_map(|chunk| &chunk.peers)
        .collect();
    let mut lines = vec![
        format!("name       {}", escaped(&manifest.name)),
        format!("version    {}", manifest.version),
        format!(
            "size       {} ({} bytes)",
            HumanBytes(manifest.size),
            manifest.size
        ),
        format!("sha256     {}", manifest.sha256),
        format!("content    {}", manifest.content),
        format!("publisher  {}", manifest.publisher),
        format!(
            "chunks     {} of {}, held by {} nodes",
            manifest.chunks.len(),
            HumanBytes(manifest.chunk_size.into()),
            nodes.len() + manifest.others.len()
        ),
    ];
    if !manifest.others.is_empty() {
        lines.push(format!(
            "           of {} nodes it is only known how many chunks they have",
            manifest.others.len()
        ));
    }
    for chunk in &manifest.chunks {
        let peers: Vec<String> = chunk.peers.iter().map(ToString::to_string).collect();
        let sha256 = chunk
            .sha256
            .map_or_else(|| "?".repeat(12), |hash| hash.short());
        lines.push(format!(
            "{}  {:>8}  {sha256}…  {}",
            escaped(&chunk.name),
            chunk.size,
            peers.join(" ")
        ));
    }
    lines
}

fn status_in_words(status: &Status) -> Vec<String> {
    let address = match status.address {
        Some(address) => address.to_string(),
        None => "not serving".to_owned(),
    };
    let mut lines = vec![
        format!("id         {}", status.id),
        format!("address    {address}"),
    ];
    for anchor in &status.anchors {
        let state = match &anchor.error {
            None if anchor.connected => "connected".to_owned(),
            None => "connecting".to_owned(),
            Some(error) => escaped(error),
        };
        lines.push(format!(
            "anchor {}   {}  {state}",
            anchor.id, anchor.address
        ));
    }
    lines.push(format!("peers      {} known", status.peers_known));
    let (bytes_in, bytes_out) = (HumanBytes(status.bytes_in), HumanBytes(status.bytes_out));
    lines.push(format!("traffic    {bytes_in} in, {bytes_out} out"));
    for file in &status.files {
        let name = escaped(file.name.as_deref().unwrap_or("?"));
        let state = if file.complete {
            "complete"
        } else {
            "incomplete"
        };
        let size = HumanBytes(file.size);
        lines.push(format!(
            "file       {name}  {size}  {state}  {}",
            file.path.display()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Share;
    use anchorage_manifest::Hash;

    #[test]
    fn the_final_line_is_as_promised() {
        let share = |port, anchor, bytes| Share {
            address: ([127, 0, 0, 1], port).into(),
            anchor,
            bytes,
            chunks: 1,
        };
        let mut done = Done {
            name: "music.txt".to_owned(),
            path: std::path::Path::new("music.txt").into(),
            bytes: 312 << 10,
            seconds: 0.234,
            sha256: Hash([0x3f; 32]),
            already_complete: false,
            from: vec![share(1, true, 41), share(2, false, 30), share(3, false, 29)],
        };
        assert_eq!(
            done_in_words(&done),
            "music.txt  312.00 KiB in 0.2 s · 41 % from anchors, 59 % from 2 peers · sha256 3f3f… verified"
        );
        done.from.clear();
        assert!(done_in_words(&done).contains("nothing was missing"));
        done.already_complete = true;
        assert!(done_in_words(&done).contains("already complete"));
    }
}
