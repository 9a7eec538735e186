//! Which functions may be called, and with which arguments.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Spanned;

use super::json;
use super::schema::Schema;
use super::text::{At, PolicyError};

/// The functions that may be called.
#[derive(Debug, Clone)]
pub(crate) enum Functions {
    /// Every one, with any arguments.
    Any,
    /// These alone; an empty list allows none.
    Only(BTreeMap<String, Arguments>),
}

/// What the arguments of a function must be.
#[derive(Debug, Clone)]
pub(crate) enum Arguments {
    /// Anything.
    Any,
    /// What fits each of these schemas.
    Fit(Vec<Schema>),
}

impl Arguments {
    /// Whether one of the schemas is `false`, which nothing fits. Other schemas are not looked into.
    pub(super) fn fit_nothing(&self) -> bool {
        matches!(self, Self::Fit(schemas) if schemas.iter().any(|schema| *schema.value() == false))
    }
}

impl Functions {
    /// What the arguments of this function must be; none where it may not be called.
    pub(crate) fn arguments(&self, name: &str) -> Option<&Arguments> {
        match self {
            Self::Any => Some(&Arguments::Any),
            Self::Only(functions) => functions.get(name),
        }
    }

    /// What both allow.
    pub(crate) fn and(self, other: Self) -> Self {
        let (these, mut those) = match (self, other) {
            (Self::Any, other) => return other,
            (only, Self::Any) => return only,
            (Self::Only(these), Self::Only(those)) => (these, those),
        };
        let both = these.into_iter().filter_map(|(name, arguments)| {
            let other = those.remove(&name)?;
            Some((name, arguments.and(other)))
        });
        Self::Only(both.collect())
    }

    /// Of these the one with this name.
    pub(crate) fn only(self, name: &str) -> Self {
        let arguments = self.arguments(name).cloned();
        Self::Only(arguments.into_iter().map(|it| (name.to_owned(), it)).collect())
    }
}

impl Arguments {
    /// What both allow.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Any, other) | (other, Self::Any) => other,
            (Self::Fit(these), Self::Fit(those)) => Self::Fit([these, those].concat()),
        }
    }
}

/// `"any"`, or each function with what its arguments must be.
impl Serialize for Functions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self::Only(functions) = self else { return serializer.serialize_str("any") };
        let mut map = serializer.serialize_map(Some(functions.len()))?;
        for (name, arguments) in functions {
            map.serialize_entry(name, arguments)?;
        }
        map.end()
    }
}

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Any => map.serialize_entry("arguments", "any")?,
            Self::Fit(schemas) => match schemas.as_slice() {
                [schema] => map.serialize_entry("arguments", schema.value())?,
                all => {
                    let all: Vec<_> = all.iter().map(Schema::value).collect();
                    map.serialize_entry("arguments", &BTreeMap::from([("allOf", all)]))?;
                }
            },
        }
        map.end()
    }
}

/// `"any"`, a list of names, or a table with what each one's arguments must be.
pub(super) enum FunctionsText {
    Word(String),
    Names(Vec<String>),
    Table(BTreeMap<String, FunctionText>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionText {
    arguments: Option<Spanned<toml::Value>>,
}

/// By hand, so that errors inside keep their words and their lines.
impl<'de> Deserialize<'de> for FunctionsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOfThree;
        impl<'de> Visitor<'de> for OneOfThree {
            type Value = FunctionsText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", a list of names, or a table of functions")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<FunctionsText, E> {
                Ok(FunctionsText::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FunctionsText, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(FunctionsText::Names(names))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<FunctionsText, A::Error> {
                let mut table = BTreeMap::new();
                while let Some((name, function)) = items.next_entry()? {
                    table.insert(name, function);
                }
                Ok(FunctionsText::Table(table))
            }
        }
        deserializer.deserialize_any(OneOfThree)
    }
}

impl FunctionsText {
    pub(super) fn read(text: Spanned<Self>, at: At<'_>) -> Result<Functions, PolicyError> {
        let span = text.span();
        match text.into_inner() {
            Self::Word(word) if word == "any" => Ok(Functions::Any),
            Self::Word(_) => {
                let hint = "write [\"…\"], \"any\", or a table";
                Err(at.error(span, "neither a list nor \"any\"", hint))
            }
            Self::Names(names) => {
                Ok(Functions::Only(names.into_iter().map(|name| (name, Arguments::Any)).collect()))
            }
            Self::Table(table) => {
                let read = |(name, function): (String, FunctionText)| Ok((name, function.read(at)?));
                table.into_iter().map(read).collect::<Result<_, _>>().map(Functions::Only)
            }
        }
    }
}

impl FunctionText {
    fn read(self, at: At<'_>) -> Result<Arguments, PolicyError> {
        let Some(text) = self.arguments else { return Ok(Arguments::Any) };
        let span = text.span();
        let value = match text.into_inner() {
            toml::Value::String(text) => json::of_text(&text),
            table => json::of_toml(table),
        };
        let schema = value.and_then(Schema::compile);
        schema.map(|schema| Arguments::Fit(vec![schema])).map_err(|why| {
            let message = format!("this is no JSON Schema that can be used: {why}");
            at.error(span, &message, "docs/policy.md lists the keywords that there are")
        })
    }
}
