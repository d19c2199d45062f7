//! A routing key while it is written, and how one that is too long is shortened.

use super::word;
use crate::envelope::sha256_hex;

/// Longest routing key in bytes; AMQP carries it as a short string.
pub(crate) const MAX_KEY_BYTES: usize = 255;
/// What follows the beginning of a word that was cut. No value has it: `%` is encoded everywhere else.
const CUT: &str = "%~";
/// The mark and 64 hex digits.
const DIGEST_BYTES: usize = CUT.len() + 64;
/// What is left of a word at least: the longest letter, so no word gets lost.
const SHORTEST: usize = 4;

/// Whether so many bytes of text leave too little for so many placeholders.
pub(super) fn lacks_room(literal: usize, placeholders: usize) -> bool {
    let needed = match placeholders {
        0 => 0,
        some => some * SHORTEST + DIGEST_BYTES,
    };
    literal + needed > MAX_KEY_BYTES
}

/// Up to this length a word is never cut, whatever the others are.
pub(super) fn never_cut(literal: usize, placeholders: usize) -> usize {
    MAX_KEY_BYTES.saturating_sub(DIGEST_BYTES + literal) / placeholders.max(1)
}

/// A routing key, and buffers; once they have grown, writing allocates nothing unless a key is too long.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyText {
    key: String,
    /// Where in it placeholders begin and end.
    words: Vec<(usize, usize)>,
    /// For what a value looks like before it is encoded.
    pub(crate) value: Vec<u8>,
    /// The same before it is JSON.
    pub(crate) wrapped: Vec<u8>,
}

impl KeyText {
    pub(crate) fn as_str(&self) -> &str {
        &self.key
    }

    pub(crate) fn clear(&mut self) {
        self.key.clear();
        self.words.clear();
    }

    /// Gives back what is larger than `kept` bytes.
    pub(crate) fn trim(&mut self, kept: usize) {
        let largest = [
            self.key.capacity(),
            self.value.capacity(),
            self.wrapped.capacity(),
        ];
        if largest.into_iter().any(|capacity| capacity > kept) {
            *self = Self::default();
        }
    }

    pub(super) fn literal(&mut self, text: &str) {
        self.key.push_str(text);
    }

    pub(super) fn placeholder<E>(
        &mut self,
        fill: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.key.len();
        fill(self)?;
        self.words.push((start, self.key.len()));
        Ok(())
    }

    /// Appends a name.
    pub(crate) fn name(&mut self, name: &str) {
        word::write(&mut self.key, name.as_bytes());
    }

    /// Appends a text.
    pub(crate) fn text(&mut self, text: &[u8]) {
        word::write_text(&mut self.key, text);
    }

    /// Appends what is in [`KeyText::value`], which is no text.
    pub(crate) fn value(&mut self) {
        word::write(&mut self.key, &self.value);
    }

    /// Appends the form of what is not there.
    pub(crate) fn missing(&mut self) {
        self.key.push_str(word::MISSING);
    }

    /// Cuts the longest words, so that all fit, and puts a digest of the whole key behind the first of
    /// them: another key has another one. Words that are not too long stay as they are.
    pub(super) fn shorten(&mut self) {
        if self.key.len() <= MAX_KEY_BYTES || self.words.is_empty() {
            return;
        }
        let limit = self.longest();
        let digest = sha256_hex(self.key.as_bytes());
        let (mut short, mut from, mut is_first) = (String::new(), 0, true);
        for &(start, end) in &self.words {
            short.push_str(&self.key[from..start]);
            let word = &self.key[start..end];
            short.push_str(cut(word, limit));
            if word.len() > limit && std::mem::take(&mut is_first) {
                short.push_str(CUT);
                short.push_str(&digest);
            }
            from = end;
        }
        short.push_str(&self.key[from..]);
        self.clear();
        self.key.push_str(&short);
    }

    /// The length to which words are cut: as much as there is room for.
    fn longest(&self) -> usize {
        let lengths = || self.words.iter().map(|(start, end)| end - start);
        let literal = self.key.len() - lengths().sum::<usize>();
        let room = MAX_KEY_BYTES.saturating_sub(literal + DIGEST_BYTES);
        let needs = |limit: usize| lengths().map(|length| length.min(limit)).sum::<usize>();
        (SHORTEST..=room)
            .take_while(|&limit| needs(limit) <= room)
            .last()
            .unwrap_or(SHORTEST)
    }
}

/// The beginning of a word, without a part of a letter or of an encoded byte.
fn cut(word: &str, limit: usize) -> &str {
    if word.len() <= limit {
        return word;
    }
    let begins = |at: usize| word.as_bytes()[at] == b'%';
    let mut end = limit;
    while !word.is_char_boundary(end) {
        end -= 1;
    }
    if let Some(back) = (1..=2).find(|&back| end >= back && begins(end - back)) {
        end -= back;
    }
    &word[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Open, Template};
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn key(template: &str, values: &[String]) -> String {
        let template = Template::parse(template).unwrap();
        assert_eq!(template.key_fault(), None);
        let (mut key, mut values) = (KeyText::default(), values.iter());
        let written = template.write_key(&mut key, |open, key| {
            assert!(matches!(open, Open::Value { .. }));
            key.text(values.next().unwrap().as_bytes());
            Ok::<_, Infallible>(())
        });
        let Ok(()) = written;
        key.as_str().to_owned()
    }

    #[test]
    fn long_key_is_refused_or_its_short_words_change() {
        let id = |last: &str| format!("{}{last}", "i.".repeat(200));
        let template = "shop.{fullDocument.a}.{fullDocument.b}";
        let [one, other] = ["x", "y"].map(|last| key(template, &["orders".into(), id(last)]));
        assert_ne!(one, other);
        for key in [&one, &other] {
            assert!(key.starts_with("shop.orders.i%2Ei%2E"), "{key}");
            assert!((240..=255).contains(&key.len()), "{key}");
            let (_, digest) = key.split_once("%~").unwrap();
            assert_eq!(digest.len(), 64, "{key}");
        }
        let exact = key("{fullDocument.a}", &["x".repeat(255)]);
        assert_eq!(exact, "x".repeat(255));
        let both = key(template, &[id("x"), id("x")]);
        assert_eq!(both.matches("%~").count(), 1);
        assert_eq!(both.split('.').count(), 3, "{both}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn distinct_values_have_one_key_or_a_key_has_too_many_words_or_bytes(
            values in prop::collection::vec("[a.*ä%😀0]{0,5}|[a.*ä%😀]{60,110}|x{300,400}", 3),
            other in prop::collection::vec("[a.*ä%😀0]{0,5}|[a.*ä%😀]{60,110}|x{300,400}", 3),
        ) {
            let template = "pre-{fullDocument.a}.{fullDocument.b}-x.{fullDocument.c}";
            let (one, two) = (key(template, &values), key(template, &other));
            prop_assert_eq!(one == two, values == other);
            for key in [one, two] {
                prop_assert!(key.len() <= 255);
                let words: Vec<_> = key.split('.').collect();
                prop_assert_eq!(words.len(), 3, "{}", key);
                prop_assert!(words.iter().all(|word| !word.is_empty() && !word.contains(['*', '#'])));
                prop_assert!(words[0].starts_with("pre-") && words[1].ends_with("-x"));
            }
        }
    }
}
