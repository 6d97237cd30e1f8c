//! The one file that prints: stdout is data, stderr is talk.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where printing happens"
)]

use std::fmt;

/// A line of data.
pub fn data(line: impl fmt::Display) {
    println!("{line}");
}

/// A line of talk.
pub fn talk(line: impl fmt::Display) {
    eprintln!("{line}");
}

/// A text that strangers wrote, with everything escaped that a terminal would act upon.
pub fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(super::escaped("a\x1b[2J\n…"), "a\\u{1b}[2J\\n…");
    }
}
