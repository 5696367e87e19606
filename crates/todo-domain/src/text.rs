//! The text of a todo.

use std::fmt;

use icu_properties::props::{
    DefaultIgnorableCodePoint, GeneralCategory, NoncharacterCodePoint, PrependedConcatenationMark,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use serde::{Deserialize, Serialize};

/// The maximum length of a todo's text, in Unicode code points.
///
/// Code points, not bytes or UTF-16 units: a person may write 140 emoji.
pub const MAX_TEXT_CODE_POINTS: usize = 140;

/// The text of a todo: one line of at most [`MAX_TEXT_CODE_POINTS`] Unicode
/// code points, at least one of which is visible.
///
/// [`TodoText::new`] is the only way in for input from users or clients.
/// Deserializing trusts our stores and services and does not check again, so
/// that todos accepted under an earlier rule can still be read.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TodoText(String);

impl TodoText {
    /// Checks `text` and keeps it, never trimmed, never escaped. Each line
    /// break of Unicode (UAX #14, the classes BK, CR, LF and NL; CR LF is one)
    /// becomes a space.
    ///
    /// # Errors
    /// [`InvalidText`] says which rule the text breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidText> {
        let text = on_one_line(text.into());
        // A code point takes one byte at least: the common case needs no count.
        if text.len() > MAX_TEXT_CODE_POINTS && text.chars().count() > MAX_TEXT_CODE_POINTS {
            return Err(InvalidText::TooLong);
        }
        if text.contains('\0') {
            return Err(InvalidText::Nul);
        }
        if !text.chars().any(is_visible) {
            return Err(InvalidText::Empty);
        }
        Ok(Self(text))
    }

    /// A text that was already checked before it was stored.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TodoText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TodoText> for String {
    fn from(text: TodoText) -> Self {
        text.0
    }
}

/// Why a text cannot be the text of a todo. The message is fit for users.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidText {
    /// No character is visible.
    #[error("Text should have at least 1 visible character")]
    Empty,
    /// More than [`MAX_TEXT_CODE_POINTS`] code points.
    #[error("Text should have at most {MAX_TEXT_CODE_POINTS} characters")]
    TooLong,
    /// U+0000, which `PostgreSQL` cannot store in a `text` column.
    #[error("Text should not contain the NUL character")]
    Nul,
}

/// Replaces each line break with a space.
pub(crate) fn on_one_line(text: String) -> String {
    if text.contains(is_line_break) {
        text.replace("\r\n", " ").replace(is_line_break, " ")
    } else {
        text
    }
}

/// Unicode's mandatory line breaks (UAX #14, rules LB4 and LB5).
fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether a font draws something for `c`.
fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    let drawn = match CodePointMapData::<GeneralCategory>::new().get(c) {
        GeneralCategory::SpaceSeparator
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator
        | GeneralCategory::Control
        | GeneralCategory::Surrogate => false,
        // Marks that enclose the digits after them are the only drawn ones.
        GeneralCategory::Format => {
            CodePointSetData::new::<PrependedConcatenationMark>().contains(c)
        }
        // May be a letter of a newer Unicode version than the tables'.
        GeneralCategory::Unassigned => {
            !CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
        }
        _ => !is_blank_by_definition(c),
    };
    drawn && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Letters, marks and symbols that the code charts define as blank. No property
/// distinguishes them from drawn ones, so they have to be listed.
fn is_blank_by_definition(c: char) -> bool {
    matches!(
        c,
        // BRAILLE PATTERN BLANK
        '\u{2800}'
        // EGYPTIAN HIEROGLYPH FULL BLANK and HALF BLANK
        | '\u{13441}' | '\u{13442}'
        // KHITAN SMALL SCRIPT FILLER
        | '\u{16fe4}'
        // MUSICAL SYMBOL NULL NOTEHEAD
        | '\u{1d159}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_code_points_not_bytes_or_utf16_units() {
        assert!(TodoText::new("😀".repeat(140)).is_ok());
        assert_eq!(TodoText::new("😀".repeat(141)), Err(InvalidText::TooLong));
        assert!(TodoText::new("e\u{301}".repeat(70)).is_ok());
        assert_eq!(
            TodoText::new("e\u{301}".repeat(71)),
            Err(InvalidText::TooLong)
        );
    }

    #[test]
    fn refuses_nul() {
        assert_eq!(TodoText::new("a\0b"), Err(InvalidText::Nul));
    }

    #[test]
    fn line_breaks_become_spaces_before_they_are_counted() {
        for (given, kept) in [
            ("Buy milk\nand bread", "Buy milk and bread"),
            ("a\r\nb", "a b"),
            ("a\n\rb", "a  b"),
            ("a\r\r\nb", "a  b"),
            ("a\u{b}b\u{c}c\u{85}d\u{2028}e\u{2029}f", "a b c d e f"),
            ("\na\n", " a "),
            // A tab and the separators of records do not break a line.
            ("a\tb\u{1c}c\u{1f}d", "a\tb\u{1c}c\u{1f}d"),
        ] {
            assert_eq!(TodoText::new(given).unwrap().as_str(), kept, "{given:?}");
        }
        let longest = format!("a{}", "\r\n".repeat(139));
        assert!(TodoText::new(longest).is_ok());
    }

    #[test]
    fn a_text_without_visible_characters_is_refused() {
        for c in [
            "",
            " ",
            "\t",
            "\n",
            "\u{1}",
            "\u{7f}",
            "\u{9b}",
            "\u{a0}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{1160}",
            "\u{1680}",
            "\u{17b4}",
            "\u{180b}",
            "\u{180e}",
            "\u{2003}",
            "\u{200b}",
            "\u{200d}",
            "\u{200e}",
            "\u{2028}",
            "\u{202e}",
            "\u{2060}",
            "\u{2065}",
            "\u{2066}",
            "\u{206f}",
            "\u{2800}",
            "\u{3000}",
            "\u{3164}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{ffa0}",
            "\u{fff9}",
            "\u{fffe}",
            "\u{13430}",
            "\u{13441}",
            "\u{1bca0}",
            "\u{1d159}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{e0100}",
            "\u{10ffff}",
        ] {
            for text in [c.to_owned(), c.repeat(140), format!("{c} \u{200b}\u{3164}")] {
                assert_eq!(TodoText::new(text), Err(InvalidText::Empty), "{c:?}");
            }
            if !c.is_empty() {
                assert!(TodoText::new(format!("{c}a")).is_ok(), "{c:?}");
            }
        }
    }

    #[test]
    fn a_text_with_a_visible_character_is_accepted() {
        for text in [
            "a",
            ".",
            "ß",
            "\u{5d0}",
            "\u{627}",
            "한",
            "中",
            "😀",
            "👩\u{200d}👩\u{200d}👧",
            "❤\u{fe0f}",
            "1\u{fe0f}\u{20e3}",
            "\u{301}",
            "\u{20dd}",
            "\u{600}",
            "\u{6dd}",
            "\u{2801}",
            "\u{fffc}",
            "\u{fffd}",
            "\u{e000}",
            "\u{378}",
            "🇪🇺",
        ] {
            assert!(TodoText::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn texts_stored_under_earlier_rules_can_be_read() {
        for text in [" ", "two\nlines", "\u{200b}"] {
            let json = serde_json::to_string(text).unwrap();
            let read: TodoText = serde_json::from_str(&json).unwrap();
            assert_eq!(read.as_str(), text);
            assert_eq!(read, TodoText::stored(text.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn accepted_text_is_kept_except_for_line_breaks(text in any::<String>()) {
            let kept = match TodoText::new(text.clone()) {
                Ok(kept) => kept.to_string(),
                Err(InvalidText::Empty) => {
                    // Some letters are blank, such as U+3164.
                    prop_assert!(!text.contains(|c: char| c.is_ascii_graphic()));
                    return Ok(());
                }
                Err(InvalidText::Nul) => {
                    prop_assert!(text.contains('\0'));
                    return Ok(());
                }
                Err(InvalidText::TooLong) => {
                    prop_assert!(text.chars().count() > MAX_TEXT_CODE_POINTS);
                    return Ok(());
                }
            };
            prop_assert!(!kept.contains(is_line_break));
            prop_assert!(kept.contains(is_visible));
            prop_assert!((1..=MAX_TEXT_CODE_POINTS).contains(&kept.chars().count()));
            // The check is idempotent, and changes only line breaks.
            let again = TodoText::new(kept.clone()).unwrap();
            prop_assert_eq!(again.as_str(), &kept);
            prop_assert_eq!(
                kept.replace(' ', ""),
                text.replace(is_line_break, "").replace(' ', "")
            );
        }

        #[test]
        fn invisible_characters_need_a_visible_one(
            invisible in proptest::collection::vec(
                prop_oneof![
                    proptest::char::range('\u{2000}', '\u{200f}'), proptest::char::range('\u{2060}', '\u{206f}'), proptest::char::range('\u{fe00}', '\u{fe0f}'),
                    proptest::char::range('\u{e0000}', '\u{e0fff}'), proptest::char::range('\u{1}', '\u{20}'), proptest::char::range('\u{7f}', '\u{a0}'),
                ],
                0..70,
            ),
        ) {
            let invisible = String::from_iter(invisible);
            prop_assert_eq!(TodoText::new(invisible.clone()), Err(InvalidText::Empty));
            let seen = format!("{invisible}x{invisible}");
            prop_assume!(seen.chars().count() <= MAX_TEXT_CODE_POINTS);
            prop_assert!(TodoText::new(seen).is_ok());
        }
    }
}
