//! What a todo may say.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest text of a todo, in Unicode code points.
///
/// Code points, not bytes or UTF-16 units: a person may write 140 emoji.
pub const MAX_TEXT_CODE_POINTS: usize = 140;

/// The text of a todo: 1 to [`MAX_TEXT_CODE_POINTS`] Unicode code points,
/// kept exactly as it was given (never trimmed, never escaped).
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TodoText(String);

impl TodoText {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`InvalidText`] says which rule the text breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidText> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidText::Empty);
        }
        // A code point takes one byte at least: the common case needs no count.
        if text.len() > MAX_TEXT_CODE_POINTS && text.chars().count() > MAX_TEXT_CODE_POINTS {
            return Err(InvalidText::TooLong);
        }
        if text.contains('\0') {
            return Err(InvalidText::Nul);
        }
        Ok(Self(text))
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

impl TryFrom<String> for TodoText {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<TodoText> for String {
    fn from(text: TodoText) -> Self {
        text.0
    }
}

/// Why a text cannot be the text of a todo. The message is fit for a person.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidText {
    /// There is no code point at all.
    #[error("Text should have at least 1 character")]
    Empty,
    /// More than [`MAX_TEXT_CODE_POINTS`] code points.
    #[error("Text should have at most {MAX_TEXT_CODE_POINTS} characters")]
    TooLong,
    /// U+0000, which `PostgreSQL` cannot store in a `text` column.
    #[error("Text should not contain the NUL character")]
    Nul,
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
    fn refuses_nothing_and_nul() {
        assert_eq!(TodoText::new(""), Err(InvalidText::Empty));
        assert_eq!(TodoText::new("a\0b"), Err(InvalidText::Nul));
    }

    proptest! {
        #[test]
        fn accepted_text_is_kept_to_the_letter(text in any::<String>()) {
            let valid = (1..=MAX_TEXT_CODE_POINTS).contains(&text.chars().count())
                && !text.contains('\0');
            match TodoText::new(text.clone()) {
                Ok(kept) => {
                    prop_assert!(valid);
                    prop_assert_eq!(kept.as_str(), text);
                }
                Err(_) => prop_assert!(!valid),
            }
        }
    }
}
