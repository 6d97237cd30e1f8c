//! The name of a release. It becomes a file name on strangers' machines, so it is checked on every way in.

use crate::limits::NAME_SIZE_MAX;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// A name that is safe as a file name: 1 to 255 bytes, no `/`, no control characters, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// It has no bytes.
    #[error("a name must not be empty")]
    Empty,
    /// It has more than [`NAME_SIZE_MAX`] bytes.
    #[error("a name has at most {NAME_SIZE_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// It would leave the directory that it is written to.
    #[error("a name must not be {0:?}")]
    Directory(String),
    /// It holds a character that file systems or terminals take for something else.
    #[error("a name must not contain {0:?}")]
    Character(char),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of chunk `index`, counted from 1 and put before the extension: `music.txt` → `music1.txt`.
    pub fn of_chunk(&self, index: u32) -> String {
        let number = u64::from(index) + 1;
        match self.0.rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() => format!("{stem}{number}.{extension}"),
            _ => format!("{}{number}", self.0),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_SIZE_MAX {
            return Err(NameError::TooLong(text.len()));
        }
        if text == "." || text == ".." {
            return Err(NameError::Directory(text));
        }
        // U+2028 to U+202E and U+2066 to U+2069 break lines or turn the reading direction around.
        let deceives = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match text
            .chars()
            .find(|&c| c == '/' || c == '\\' || c.is_control() || deceives(c))
        {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(text)),
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_escapes_a_directory_or_a_terminal_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "../x",
            "a\\b",
            "a\nb",
            "\x1b[2J",
            "a\0",
            "\u{202e}x",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        assert_eq!(
            "x".repeat(300).parse::<Name>(),
            Err(NameError::TooLong(300))
        );
        for text in ["music.txt", "…", "a b", &"x".repeat(255), ".hidden", "-n"] {
            assert!(text.parse::<Name>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn chunk_names_count_from_one_before_the_extension() {
        let name = |text: &str| text.parse::<Name>().expect("a good name");
        assert_eq!(name("music.txt").of_chunk(0), "music1.txt");
        assert_eq!(name("a.tar.gz").of_chunk(9), "a.tar10.gz");
        assert_eq!(name("README").of_chunk(1), "README2");
        assert_eq!(name(".profile").of_chunk(1), ".profile2");
    }
}
