//! What is true of every document.

use bson::{Bson, Document};
use mrcon::envelope::extjson::ExtJson;
use proptest::prelude::*;
use serde_json::Value;

use crate::normal::{expected, normal};
use crate::{arbitrary, encode, raw};

/// Compared as text, so that the order of keys counts.
fn assert_means_what_bson_says(doc: Document, mode: ExtJson) -> Result<(), TestCaseError> {
    let (text, written) = encode(&raw(&doc), mode).expect("a document can be written");
    let parsed = serde_json::from_str(&text).expect("the text is JSON");
    prop_assert!(!written.replaced_text);
    prop_assert_eq!(
        normal(parsed).to_string(),
        normal(expected(doc, mode)).to_string()
    );
    Ok(())
}

proptest! {
    #[test]
    fn relaxed_text_that_means_something_else(doc in arbitrary::document()) {
        assert_means_what_bson_says(doc, ExtJson::Relaxed)?;
    }

    #[test]
    fn canonical_text_that_means_something_else(doc in arbitrary::document()) {
        assert_means_what_bson_says(doc, ExtJson::Canonical)?;
    }

    #[test]
    fn canonical_text_that_does_not_read_back(doc in arbitrary::unambiguous_document()) {
        let (text, _) = encode(&raw(&doc), ExtJson::Canonical).expect("a document can be written");
        let value: Value = serde_json::from_str(&text).expect("the text is JSON");
        prop_assert_eq!(Bson::try_from(value).expect("Extended JSON"), Bson::Document(doc));
    }
}
