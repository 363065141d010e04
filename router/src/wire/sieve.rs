//! Which of many fields a head may have, found out in one look at it.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The names in a head, as a filter of 64 bits: one that is there passes, one that is not seldom does.
#[derive(Debug, Clone, Copy)]
pub struct Sieve(u64);

impl Sieve {
    /// Of what is there now; a field that is added later may not pass.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |names, name| names | bit(name)))
    }

    /// Whether a field may be there.
    pub fn passes(self, name: &HeaderName) -> bool {
        self.0 & bit(name) != 0
    }

    /// Whether a field is there.
    pub fn has(self, headers: &HeaderMap, name: &HeaderName) -> bool {
        self.passes(name) && headers.contains_key(name)
    }

    /// Removes fields of which most heads have none: only those are looked up that may be there.
    pub fn remove<'a>(
        self,
        headers: &mut HeaderMap,
        names: impl IntoIterator<Item = &'a HeaderName>,
    ) {
        for name in names {
            if self.passes(name) {
                headers.remove(name);
            }
        }
    }
}

/// A name's place, by its length and three of its letters.
fn bit(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let [first, .., last] = name else { return 1 };
    let middle = name[name.len() / 2];
    1 << ((name.len() ^ usize::from(*first) ^ usize::from(middle) << 1 ^ usize::from(*last) << 2)
        % 64)
}

/// A head's fields, to be read: those that are not there are seldom looked up.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'h> {
    headers: &'h HeaderMap,
    names: Sieve,
}

impl<'h> Fields<'h> {
    /// Those of a head.
    pub fn of(headers: &'h HeaderMap) -> Self {
        Self {
            headers,
            names: Sieve::of(headers),
        }
    }

    /// Whether a field is there.
    pub fn has(self, name: &HeaderName) -> bool {
        self.names.has(self.headers, name)
    }

    /// The value of a field's first line.
    pub fn get(self, name: &HeaderName) -> Option<&'h HeaderValue> {
        self.all(name).next()
    }

    /// The values of all of a field's lines, in their order.
    pub fn all(
        self,
        name: &HeaderName,
    ) -> impl DoubleEndedIterator<Item = &'h HeaderValue> + use<'h> {
        let lines = self.names.passes(name).then(|| self.headers.get_all(name));
        lines.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::wire::{fly, identity};

    #[test]
    fn nothing_that_is_there_is_missed() {
        let names = || fly::STEERING.iter().chain(&identity::FORWARDING);
        let mut headers = HeaderMap::new();
        for (count, name) in names().enumerate() {
            headers.append(name, HeaderValue::from(count));
            headers.append(name, HeaderValue::from(count));
        }
        headers.insert("x-other", HeaderValue::from_static("stays"));
        Sieve::of(&headers).remove(&mut headers, names());
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-other"]);
    }

    #[test]
    fn fields_are_read_as_they_are() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-a", "1"), ("x-b", "2"), ("x-a", "3")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let fields = Fields::of(&headers);
        for (name, values) in [("x-a", &["1", "3"][..]), ("x-b", &["2"]), ("x-c", &[])] {
            let name = HeaderName::from_static(name);
            assert!(fields.all(&name).eq(values), "{name}");
            assert_eq!(fields.get(&name), headers.get(&name));
            assert_eq!(fields.has(&name), !values.is_empty());
        }
    }

    #[test]
    fn few_pass_that_are_not_there() {
        let usual = [
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "accept-language",
            "cookie",
        ];
        let mut headers = HeaderMap::new();
        for name in usual {
            headers.insert(name, HeaderValue::from_static("a"));
        }
        let sieve = Sieve::of(&headers);
        let removed = fly::EDGE_ONLY.iter().chain(&identity::FORWARDING);
        let passing = removed.filter(|name| sieve.passes(name)).count();
        assert!(passing <= 3, "{passing} of them are looked up in vain");
    }
}
