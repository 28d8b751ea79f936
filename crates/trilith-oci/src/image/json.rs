//! JSON as images need it: strict where readers could disagree, and of stable order.
//!
//! Every object must name a field once. Parsers differ in which of two fields of the same name
//! they believe, so a document that has them could be one image to the one who checks it and
//! another to the one who runs it. Knows nothing of images.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// An object that remembers the order of its fields.
pub(crate) type Object = Map<String, Value>;

/// Returns the object that `bytes` hold, or why they do not.
///
/// Numbers beyond 64 bits become the nearest `f64`, whose shortest text is what is written again.
pub(crate) fn parse(bytes: &[u8]) -> Result<Object, String> {
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err("it is not a JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns `object` as compact JSON, fields in their order.
pub(crate) fn print(object: &Object) -> Vec<u8> {
    // `Display` of a value is its compact form and cannot fail, unlike `to_vec`.
    Value::Object(object.clone()).to_string().into_bytes()
}

/// Returns the field `name`; one that is `null` counts as absent, as in Go.
pub(crate) fn field<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// Returns the text of the field `name`.
pub(crate) fn string<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, String> {
    typed(object, name, "a string", Value::as_str)
}

/// Returns the object in the field `name`.
pub(crate) fn object<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Object>, String> {
    typed(object, name, "an object", Value::as_object)
}

/// Returns the elements of the array in the field `name`.
pub(crate) fn array<'a>(object: &'a Object, name: &str) -> Result<Option<&'a [Value]>, String> {
    typed(object, name, "an array", |value| {
        value.as_array().map(Vec::as_slice)
    })
}

/// Checks that the field `name` is an array of strings, where it is there.
pub(crate) fn check_strings(object: &Object, name: &str) -> Result<(), String> {
    let strings = |value: &Value| {
        let elements = value.as_array()?;
        elements.iter().all(Value::is_string).then_some(())
    };
    typed(object, name, "an array of strings", strings).map(drop)
}

/// Checks that the field `name` is an object of strings, where it is there.
pub(crate) fn check_string_map(object: &Object, name: &str) -> Result<(), String> {
    let strings = |value: &Value| {
        let fields = value.as_object()?;
        fields.values().all(Value::is_string).then_some(())
    };
    typed(object, name, "an object of strings", strings).map(drop)
}

/// Returns the strings of the array in the field `name`, nothing where it is not such an array.
pub(crate) fn strings<'a>(object: &'a Object, name: &str) -> Vec<&'a str> {
    let elements = object.get(name).and_then(Value::as_array);
    elements
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn typed<'a, T>(
    object: &'a Object,
    name: &str,
    kind: &str,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<Option<T>, String> {
    field(object, name)
        .map(|value| read(value).ok_or_else(|| format!("`{name}` must be {kind}")))
        .transpose()
}

/// Checks that no two fields of `object` differ in upper and lower case alone.
///
/// Go's decoder, and with it every container engine, takes the one for the other.
pub(crate) fn check_folded(object: &Object) -> Result<(), String> {
    let mut names: Vec<String> = object.keys().map(|k| k.to_ascii_lowercase()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!(
            "field `{}` stands twice, in two spellings",
            pair[0]
        )),
        None => Ok(()),
    }
}

/// Returns the value of type `T` that `value` holds, fields that are `null` counting as absent.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let value = match value {
        Value::Object(object) => {
            check_folded(object)?;
            let present = object.iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                present
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            )
        }
        other => other.clone(),
    };
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Returns `value` as JSON, which must not fail: no map with keys that are not text.
pub(crate) fn write<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Sets the field `name`: where it stands already in its place, else before the first field
/// that comes after it by `order`, else at the end.
///
/// The outcome does not depend on the order in which several fields are set: a pair of new
/// fields always ends up between the same neighbours, in the order of `order`. This is what
/// makes an image independent of how many steps it was made in.
pub(crate) fn set(
    object: &mut Object,
    name: &str,
    value: Value,
    order: impl Fn(&str, &str) -> Ordering,
) {
    if let Some(present) = object.get_mut(name) {
        *present = value;
        return;
    }
    let position = object
        .keys()
        .position(|other| order(other, name) == Ordering::Greater)
        .unwrap_or(object.len());
    object.shift_insert(position, name.to_owned(), value);
}

/// Edits the object in the field `name`, an empty one where there is none.
pub(crate) fn edit(
    object: &mut Object,
    name: &str,
    order: impl Fn(&str, &str) -> Ordering,
    change: impl FnOnce(&mut Object),
) {
    let mut inner = match object.get_mut(name).map(Value::take) {
        Some(Value::Object(inner)) => inner,
        _ => Object::new(),
    };
    change(&mut inner);
    set(object, name, inner.into(), order);
}

/// Appends `element` to the array in the field `name`, an empty one where there is none.
pub(crate) fn push(
    object: &mut Object,
    name: &str,
    order: impl Fn(&str, &str) -> Ordering,
    element: Value,
) {
    let mut elements = match object.get_mut(name).map(Value::take) {
        Some(Value::Array(elements)) => elements,
        _ => Vec::new(),
    };
    elements.push(element);
    set(object, name, elements.into(), order);
}

/// Returns an order in which the fields in `schema` stand as there; others compare equal to all.
pub(crate) fn by_schema(schema: &'static [&'static str]) -> impl Fn(&str, &str) -> Ordering {
    let rank = |name: &str| schema.iter().position(|known| *known == name);
    move |a, b| match (rank(a), rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => Ordering::Equal,
    }
}

/// A value no object of which names a field twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(Strict(element)) = sequence.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some((name, Strict(value))) = fields.next_entry::<String, Strict>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom(format_args!(
                    "field `{name}` stands twice"
                )));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn refuses_what_readers_disagree_on() {
        for (text, reason) in [
            ("", "EOF"),
            ("[]", "not a JSON object"),
            ("{} {}", "trailing"),
            (r#"{"a":1,"a":2}"#, "field `a` stands twice"),
            (r#"{"x":[{"b":1,"b":1}]}"#, "field `b` stands twice"),
            (r#"{"a":1e999}"#, "number out of range"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            (
                &format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200)),
                "recursion limit",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        let folded = parse(br#"{"config":1,"Config":2}"#).unwrap();
        assert!(check_folded(&folded).unwrap_err().contains("`config`"));
    }

    #[test]
    fn printing_keeps_order_and_numbers() {
        let text =
            r#"{"b":1,"a":{"z":-9223372036854775808,"y":18446744073709551615},"c":[0.1,null]}"#;
        assert_eq!(print(&parse(text.as_bytes()).unwrap()), text.as_bytes());
    }

    #[test]
    fn printing_is_idempotent_for_numbers_that_change() {
        for number in [
            "0.10",
            "1e3",
            "123456789012345678901234567890",
            "2.2250738585072011e-308",
        ] {
            let once = print(&parse(format!("{{\"a\":{number}}}").as_bytes()).unwrap());
            assert_eq!(print(&parse(&once).unwrap()), once);
        }
    }

    proptest! {
        #[test]
        fn setting_fields_in_any_order_gives_the_same_object(
            present in proptest::sample::subsequence(vec!["c", "x", "a", "e", "y"], 0..5),
            new in Just(vec!["a", "b", "c", "d", "e", "f"]).prop_shuffle(),
        ) {
            const SCHEMA: &[&str] = &["a", "b", "c", "d", "e", "f"];
            let base: Object = present.iter().map(|name| ((*name).to_owned(), json!(0))).collect();
            let (mut sorted, mut shuffled) = (base.clone(), base);
            for name in SCHEMA {
                set(&mut sorted, name, json!(1), by_schema(SCHEMA));
            }
            for name in new {
                set(&mut shuffled, name, json!(1), by_schema(SCHEMA));
            }
            prop_assert_eq!(print(&sorted), print(&shuffled));
        }
    }
}
