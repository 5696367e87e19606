//! The search term for the list.

use crate::MAX_TEXT_CODE_POINTS;
use crate::text::on_one_line;

/// A part of a text to search for, ignoring case.
///
/// The comparison is our own: a database's idea of a letter depends on how it
/// was set up.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SearchTerm {
    given: String,
    folded: String,
}

impl SearchTerm {
    /// The trimmed term, `None` if it is empty. A line break matches the space
    /// that replaces it in a text.
    ///
    /// # Errors
    /// If it is longer than any text.
    pub fn new(term: &str) -> Result<Option<Self>, SearchTooLong> {
        // A code point takes 4 bytes at most: this bounds the work below.
        if term.len() > 8 * MAX_TEXT_CODE_POINTS {
            return Err(SearchTooLong);
        }
        let given = on_one_line(term.trim().to_owned());
        if given.chars().count() > MAX_TEXT_CODE_POINTS {
            return Err(SearchTooLong);
        }
        if given.is_empty() {
            return Ok(None);
        }
        let mut folded = String::with_capacity(given.len());
        fold_into(&given, &mut folded);
        Ok(Some(Self { given, folded }))
    }

    /// The term as it was given, but trimmed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// Whether `text` contains the term. `buffer` can be reused across calls.
    #[must_use]
    pub fn is_in(&self, text: &str, buffer: &mut String) -> bool {
        buffer.clear();
        fold_into(text, buffer);
        buffer.contains(&self.folded)
    }
}

/// A search term has more code points than a text can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("A search should have at most {MAX_TEXT_CODE_POINTS} characters")]
pub struct SearchTooLong;

/// Upper-casing and then lower-casing unifies what Unicode's case folding does:
/// ß and SS, ς and Σ.
fn fold_into(text: &str, folded: &mut String) {
    for c in text.chars() {
        if c.is_ascii() {
            folded.push(c.to_ascii_lowercase());
        } else {
            folded.extend(c.to_uppercase().flat_map(char::to_lowercase));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finds(term: &str, text: &str) -> bool {
        let term = SearchTerm::new(term).unwrap().unwrap();
        term.is_in(text, &mut String::new())
    }

    #[test]
    fn case_does_not_matter_in_any_script() {
        for (term, text) in [
            ("MILK", "Buy milk"),
            ("straße", "STRASSE fegen"),
            ("STRASSE", "Straße fegen"),
            ("ОБЕД", "приготовить обед"),
            ("οδος", "ΟΔΟΣ"),
            ("é", "CAFÉ"),
            ("100%", "100% sure"),
            ("_", "snake_case"),
            (" milk ", "milk"),
            ("a\nb", "A B"),
        ] {
            assert!(finds(term, text), "{term:?} in {text:?}");
        }
        assert!(!finds("a_c", "abc"));
        assert!(!finds("%", "abc"));
    }

    #[test]
    fn terms_are_limited_in_length() {
        assert_eq!(SearchTerm::new(" \n "), Ok(None));
        assert!(SearchTerm::new(&"😀".repeat(140)).is_ok());
        assert_eq!(SearchTerm::new(&"a".repeat(141)), Err(SearchTooLong));
        assert_eq!(SearchTerm::new(&" ".repeat(100_000)), Err(SearchTooLong));
    }

    proptest! {
        #[test]
        fn every_part_of_a_text_is_found_in_it(
            before in ".{0,20}", part in "[^ ]{1,20}", after in ".{0,20}",
        ) {
            prop_assume!(matches!(SearchTerm::new(&part), Ok(Some(_))));
            let text = on_one_line(format!("{before}{}{after}", part.trim()));
            prop_assert!(finds(&part, &text));
            prop_assert!(finds(&part.to_uppercase(), &text.to_lowercase()) || !part.is_ascii());
        }
    }
}
