//! A path that survives JSON: text where it is UTF-8, bytes where it is not.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    ffi::OsString,
    ops::Deref,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(self.0.as_os_str().as_bytes().to_vec()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into(),
            Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }))
    }
}

impl Deref for FilePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl From<&Path> for FilePath {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_round_trips() -> Result<(), serde_json::Error> {
        for bytes in [&b"/tmp/music.txt"[..], b"/tmp/\xff\xfe", b""] {
            let path = FilePath(OsString::from_vec(bytes.to_vec()).into());
            let json = serde_json::to_string(&path)?;
            assert_eq!(serde_json::from_str::<FilePath>(&json)?, path);
        }
        Ok(())
    }
}
