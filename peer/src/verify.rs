//! `verify`: is a file what its release says, chunk by chunk and as a whole?

use crate::{
    check::check,
    dial::Ahead,
    event::{Event, Events, Verified},
    failure::{Exit, Failure},
    file_path::FilePath,
    lookup,
    node::Node,
};
use anchorage_manifest::{Content, Name};
use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::{fmt::Write as _, fs::File, io::Read as _, path::Path, sync::Arc};
use tokio::task::spawn_blocking;

/// What is to be verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verify {
    /// The file; absolute.
    pub path: FilePath,
    /// The release's name; the file's if there is none.
    pub name: Option<String>,
}

/// Compares a file with its release.
pub async fn verify(node: &Arc<Node>, request: &Verify, events: &Events) -> Result<(), Failure> {
    let text = match &request.name {
        Some(name) => name.clone(),
        None => request
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    };
    let name: Name = text
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let anchors = node.anchors(events).await?;
    let signed = lookup::resolve(&anchors, &name, events).await?;
    let release = signed.unverified();
    let holders = lookup::holders(&anchors, release.content).await;
    let sources = holders.iter().map(|holder| holder.source).collect();
    let found = lookup::list(node, release, sources, Ahead::default()).await?;
    let content = found.content;
    let path = request.path.clone();
    let comparing = spawn_blocking(move || compare(&path, &content).map(|found| (found, content)));
    let ((bad, surplus), content) = comparing.await.context("BUG: comparing panicked")??;
    let ok = bad.is_empty() && surplus == 0;
    let chunks = content.geometry().chunks();
    let wrong = bad.len();
    let path = request.path.clone();
    events.tell(Event::Verified(Verified {
        path,
        name: text,
        ok,
        chunks,
        bad,
        surplus,
    }));
    if ok {
        return Ok(());
    }
    let mut error = format!(
        "{} is not {name}: {wrong} of {chunks} chunks are wrong",
        request.path.display()
    );
    if surplus != 0 {
        let what = if surplus > 0 { "many" } else { "few" };
        write!(error, ", and it has {} bytes too {what}", surplus.abs()).expect("a string grows");
    }
    Err(Failure::new(Exit::Mismatch, anyhow!(error))
        .hint(format!("`peer get {name} --force` fetches it again")))
}

/// The indices of wrong chunks, and the bytes too many. Without either the whole file has its SHA-256. Blocks.
fn compare(path: &Path, content: &Content) -> Result<(Vec<u32>, i64)> {
    let operand = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(operand)?;
    let mut bad = Vec::new();
    let mut size = 0;
    for index in 0..content.geometry().chunks() {
        let link = content.link(index).context("BUG: too few states")?;
        let mut bytes = Vec::with_capacity(link.extent.size as usize);
        file.by_ref()
            .take(link.extent.size.into())
            .read_to_end(&mut bytes)
            .with_context(operand)?;
        size += bytes.len() as u64;
        if !check(&link, &bytes) {
            bad.push(index);
        }
    }
    size += std::io::copy(&mut file, &mut std::io::sink()).with_context(operand)?;
    let surplus = size.cast_signed() - content.geometry().size().cast_signed();
    Ok((bad, surplus))
}
