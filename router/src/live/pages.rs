//! Pages of the operator's own, read with the registry: texts with places for what only a request knows.
//!
//! What is put into a place is escaped. Nothing here is read from the request but its id.

use std::borrow::Cow;
use std::fmt;

use ring::digest::{SHA256, digest};

use crate::decision::Page;

/// What a page may have a place for, as `{{name}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The request's id, to be quoted to the operator.
    RequestId,
    /// The status in digits.
    Status,
    /// What happened, in two or three words.
    Title,
    /// What happened, in a sentence.
    Message,
    /// How many seconds to wait before another try; nothing where that is not known.
    RetryAfter,
}

impl Slot {
    const ALL: [(&'static str, Self); 5] = [
        ("request_id", Self::RequestId),
        ("status", Self::Status),
        ("title", Self::Title),
        ("message", Self::Message),
        ("retry_after", Self::RetryAfter),
    ];
}

/// The pages of one folder. Two that say the same are equal, whenever they were read.
pub struct Pages {
    sum: [u8; 32],
    texts: [Option<Text>; 4],
}

impl PartialEq for Pages {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = Page::ALL
            .iter()
            .filter(|page| self.texts[**page as usize].is_some());
        f.debug_list()
            .entries(there.map(|page| page.file()))
            .finish()
    }
}

impl Pages {
    /// Of the texts of its files, in the order of [`Page::ALL`].
    ///
    /// # Errors
    /// What is wrong with them, with the file.
    pub fn parse(files: [Option<String>; 4]) -> Result<Self, String> {
        if files.iter().all(Option::is_none) {
            let names = Page::ALL.map(Page::file).join(", ");
            return Err(format!("it holds none of {names}"));
        }
        let mut whole = Vec::new();
        let mut texts = [const { None }; 4];
        for ((page, file), text) in Page::ALL.iter().zip(files).zip(&mut texts) {
            let Some(file) = file else { continue };
            whole.extend_from_slice(page.file().as_bytes());
            whole.push(0);
            whole.extend_from_slice(file.as_bytes());
            whole.push(0);
            *text = Some(Text::parse(&file).map_err(|error| format!("{}: {error}", page.file()))?);
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, &whole).as_ref());
        Ok(Self { sum, texts })
    }

    /// A page with its places filled, if it is there.
    pub fn fill<'v>(&self, page: Page, value: impl Fn(Slot) -> Cow<'v, str>) -> Option<String> {
        self.texts[page as usize]
            .as_ref()
            .map(|text| text.fill(value))
    }
}

/// A text with places: each piece, and the place behind it.
struct Text {
    pieces: Vec<(String, Slot)>,
    rest: String,
}

impl Text {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let unknown = || {
                let line = text[..text.len() - after.len()].matches('\n').count() + 1;
                let known = Slot::ALL.map(|(name, _)| format!("{{{{{name}}}}}"));
                format!(
                    "line {line}: {{{{ begins no place that is known; there are {}",
                    known.join(", ")
                )
            };
            let (name, behind) = after.split_once("}}").ok_or_else(unknown)?;
            let slot = Slot::ALL.iter().find(|(known, _)| *known == name.trim());
            pieces.push((before.to_owned(), slot.ok_or_else(unknown)?.1));
            rest = behind;
        }
        Ok(Self {
            pieces,
            rest: rest.to_owned(),
        })
    }

    fn fill<'v>(&self, value: impl Fn(Slot) -> Cow<'v, str>) -> String {
        let mut filled = String::new();
        for (before, slot) in &self.pieces {
            filled.push_str(before);
            escape(&mut filled, &value(*slot));
        }
        filled.push_str(&self.rest);
        filled
    }
}

/// Appends `text` as it may stand in HTML, in an attribute too.
pub fn escape(html: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(error: &str) -> Result<Pages, String> {
        Pages::parse([None, None, None, Some(error.to_owned())])
    }

    fn filled(text: &str) -> String {
        let value = |slot| match slot {
            Slot::RequestId => Cow::Borrowed("<id>&\"'"),
            Slot::Status => "502".into(),
            Slot::Title | Slot::Message | Slot::RetryAfter => "".into(),
        };
        pages(text).unwrap().fill(Page::Error, value).unwrap()
    }

    #[test]
    fn places_are_filled_and_escaped() {
        assert_eq!(filled("<p>{{request_id}}"), "<p>&lt;id&gt;&amp;&quot;&#39;");
        assert_eq!(filled("a{{ status }}b{{status}}c"), "a502b502c");
        assert_eq!(filled("a{b}c}}{{message}}"), "a{b}c}}");
    }

    #[test]
    fn unknown_places_are_told_with_their_line() {
        for text in ["a\nb {{cell}}", "a\nb {{status}} {{", "a\nb {{request id}}"] {
            let error = pages(text).unwrap_err();
            assert!(error.starts_with("error.html: line 2: "), "{error}");
            assert!(error.contains("{{request_id}}"), "{error}");
        }
    }

    #[test]
    fn a_folder_without_pages_is_a_mistake() {
        let error = Pages::parse([const { None }; 4]).unwrap_err();
        assert!(error.contains("maintenance.html"), "{error}");
    }

    #[test]
    fn pages_are_equal_that_say_the_same_of_the_same() {
        assert_eq!(pages("a").unwrap(), pages("a").unwrap());
        assert_ne!(pages("a").unwrap(), pages("b").unwrap());
        let other = Pages::parse([None, None, Some("a".to_owned()), None]).unwrap();
        assert_ne!(pages("a").unwrap(), other);
        assert!(other.fill(Page::Error, |_| "".into()).is_none());
    }
}
