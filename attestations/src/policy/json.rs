//! JSON inside a policy: as text in which no key stands twice, or as TOML.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// The value of a text.
///
/// # Errors
/// When it is no JSON, or a key stands twice: readers differ in which of them holds.
pub(super) fn of_text(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map(|Once(value)| value).map_err(|cause| cause.to_string())
}

/// The same value in JSON, where there is the same.
///
/// # Errors
/// For what JSON has not: dates, infinities.
pub(super) fn of_toml(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => {
            Number::from_f64(number).map(Value::Number).ok_or("JSON has no such number")?
        }
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Datetime(_) => return Err("JSON has no dates: write a string".to_owned()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(of_toml).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| Ok((key, of_toml(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

/// A value in which each key stands once.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Once(value))) = items.next_entry::<String, Once>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{}` stands twice", key.escape_debug())));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
