//! The openhands schemes against `golden/openhands.json`, which holds what the reference
//! answers. The trees of that file are tested elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use trilith_core::{OpenHandsInputs, shorten, slug_v0, slug_v1};

const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn golden(section: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openhands.json");
    let text = std::fs::read_to_string(path).unwrap();
    let mut golden: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(cases) = golden[section].take() else {
        panic!("`{section}` is not a list");
    };
    assert!(!cases.is_empty());
    cases
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap()
}

/// A content is text, `{"hex": digits}` or `{"repeat": [byte, count]}`.
fn content(spec: &Value) -> Vec<u8> {
    if let Some(text) = spec.as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(digits) = spec["hex"].as_str() {
        return digits
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
    }
    let number = |index: usize| spec["repeat"][index].as_u64().unwrap();
    vec![u8::try_from(number(0)).unwrap(); usize::try_from(number(1)).unwrap()]
}

#[test]
fn short() {
    for case in golden("short") {
        assert_eq!(shorten(text(&case, "hex")), text(&case, "short"));
    }
}

#[test]
fn slugs() {
    for case in golden("slugs") {
        let image = text(&case, "image");
        assert_eq!(slug_v0(image), text(&case, "v0"));
        assert_eq!(slug_v1(image), text(&case, "v1"));
    }
}

#[test]
fn locks() {
    for case in golden("locks") {
        let files: Vec<Vec<u8>> = case["order"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|name| case["files"].get(name.as_str().unwrap()))
            .map(content)
            .collect();
        let inputs = OpenHandsInputs {
            version: "1",
            base_image: text(&case, "base_image"),
            browser: case["enable_browser"].as_bool().unwrap(),
            lock_files: files.iter().map(Vec::as_slice).collect(),
            source_digest: EMPTY_MD5,
            suffix: "",
        };
        let short = text(&case, "short");
        assert_eq!(shorten(&inputs.lock_hash()), short, "{case}");
        // A base pinned by digest has a lock hash, though no versioned tag.
        if !inputs.base_image.contains('@') {
            let (v0, v1) = (inputs.tags_v0().unwrap(), inputs.tags_v1().unwrap());
            assert_eq!(v0.lock.as_str(), format!("oh_v1_{short}"));
            assert_eq!(v1.lock.as_str(), format!("v1_{short}"));
            assert_eq!(
                v0.source.as_str(),
                format!("oh_v1_{short}_uc3mgirxygs0uf85")
            );
            assert_eq!(v1.source.as_str(), format!("v1_{short}_uc3mgirxygs0uf85"));
        }
    }
}
