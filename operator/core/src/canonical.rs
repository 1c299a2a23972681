//! One text for one meaning: JSON in a canonical form, and names made from its hash.
//!
//! Names that outlive a process (revisions, broker ids) are made here, so they must not depend on the order of
//! a map, on the features another crate switches on, or on fields that are absent. This module decides only the
//! form; what goes into a name is its callers' affair.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// `value` as text without white space: keys sorted by byte order, and members that are `null` left out, so
/// that a field which is added to a type later and absent changes nothing. Empty lists and objects stay, because
/// in Kubernetes they can mean something (`emptyDir: {}`).
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// The first `length` (at most 64) lower-case hexadecimal digits of the SHA-256 of `text`: 4 bits a digit.
#[must_use]
pub fn digest(text: &str, length: usize) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let hash = Sha256::digest(text.as_bytes());
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles
        .take(length)
        .map(|nibble| DIGITS[usize::from(nibble)])
        .collect()
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(_, value)| !value.is_null()).collect();
            members.sort_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (position, (name, value)) in members.into_iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{canonical, digest};
    use serde_json::json;

    #[test]
    fn order_and_absence_do_not_matter() {
        let one = json!({"b": {"y": null, "x": [1, "a\"b", true]}, "a": {}});
        assert_eq!(canonical(&one), r#"{"a":{},"b":{"x":[1,"a\"b",true]}}"#);
        assert_ne!(canonical(&json!({"a": {}})), canonical(&json!({})));
        assert_ne!(canonical(&json!([null, 1])), canonical(&json!([1])));
    }

    #[test]
    fn digest_is_that_of_the_standard() {
        // FIPS 180-2, appendix B.1: SHA-256 of "abc".
        assert_eq!(digest("abc", 16), "ba7816bf8f01cfea");
        assert_eq!(digest("abc", 99).len(), 64);
    }
}
