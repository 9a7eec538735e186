//! JSON Schema for the arguments of a function: a closed subset of draft 2020-12, in which nothing is ignored.
//!
//! The standard ignores keywords and formats that a reader does not know. In a policy a misspelt `additionalProperties`
//! would then allow everything, so what is not known here is an error. There are no references either: a schema stands
//! where it is read, whole, nothing is fetched, and what it costs to hold a value against it is bounded by its size and
//! the value's.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use boon::{CompileError, Compiler, Draft, ErrorKind, Schemas, UrlLoader, ValidationError};
use regex::RegexBuilder;
use serde_json::{Map, Value};

/// The most bytes of a schema, written without blanks.
const MAX_SCHEMA: usize = 64 << 10;
/// The most bytes of one regular expression, and of the program that it becomes.
const MAX_PATTERN: usize = 512;
const MAX_PROGRAM: usize = 256 << 10;
/// The most pairs of a value and a schema that are looked at: each may be an error that is kept.
const MAX_WORK: usize = 1 << 20;
/// What the schema is called where it is compiled.
const PLACE: &str = "policy:///arguments";
/// The draft that is read.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Says nothing about values.
const ANNOTATIONS: [&str; 6] = ["$comment", "title", "description", "default", "examples", "deprecated"];
/// Holds no schema.
const ASSERTIONS: [&str; 19] = [
    "type",
    "enum",
    "const",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
    "required",
    "dependentRequired",
];
/// Holds one schema.
const ONE: [&str; 10] = [
    "not",
    "if",
    "then",
    "else",
    "items",
    "contains",
    "additionalProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Holds a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Holds schemas by name.
const NAMED: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];
/// The formats that are checked.
const FORMATS: [&str; 12] = [
    "date",
    "time",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uuid",
    "json-pointer",
    "regex",
];

/// A schema that was understood whole.
#[derive(Clone)]
pub(crate) struct Schema(Arc<Inner>);

struct Inner {
    value: Value,
    compiled: Schemas,
    index: boon::SchemaIndex,
    /// How many schemas are in it.
    size: usize,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// With what is wrong, where anything in it is not known, refers to something else, or is too large.
    pub(crate) fn compile(value: Value) -> Result<Self, String> {
        let bytes = value.to_string().len();
        if bytes > MAX_SCHEMA {
            return Err(format!("the schema has {bytes} bytes: {MAX_SCHEMA} are the most"));
        }
        let mut size = 0;
        check(&value, "", &mut size)?;
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        compiler.use_loader(Box::new(Nowhere));
        let mut compiled = Schemas::new();
        let told = |cause: CompileError| format!("{cause:#}").replace(PLACE, "the schema");
        compiler.add_resource(PLACE, value.clone()).map_err(told)?;
        let index = compiler.compile(PLACE, &mut compiled).map_err(told)?;
        Ok(Self(Arc::new(Inner { value, compiled, index, size })))
    }

    /// The schema as it is written.
    pub(crate) fn value(&self) -> &Value {
        &self.0.value
    }

    /// Each place that does not fit, and the keyword it fails; never the value there, which may be about a person. Empty
    /// where all of it fits.
    pub(crate) fn misfits(&self, arguments: &Value) -> BTreeSet<String> {
        let most = MAX_WORK / self.0.size.max(1);
        if values(arguments, most) > most {
            return BTreeSet::from([format!("more than {most} values are too many for this schema")]);
        }
        let mut misfits = BTreeSet::new();
        if let Err(error) = self.0.compiled.validate(arguments, self.0.index) {
            tell(&error, &mut misfits);
            if misfits.is_empty() {
                misfits.insert("the arguments".to_owned());
            }
        }
        misfits
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema({})", self.0.value)
    }
}

/// Nothing is loaded from anywhere. References are refused before; this holds even if one were overlooked.
struct Nowhere;

impl UrlLoader for Nowhere {
    fn load(&self, _: &str) -> Result<Value, Box<dyn Error>> {
        Err("a schema in a policy refers to nothing outside itself".into())
    }
}

/// That everything in a schema is known here. Counts the schemas in it.
fn check(schema: &Value, place: &str, size: &mut usize) -> Result<(), String> {
    *size += 1;
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => return Err(format!("{} is no schema: write an object, true or false", named(place))),
    };
    for (keyword, value) in keywords {
        let inside = format!("{place}/{keyword}");
        match keyword.as_str() {
            "$schema" if value == DRAFT => {}
            "$schema" => return Err(format!("{} is not {DRAFT}", named(&inside))),
            "pattern" => pattern(value.as_str().unwrap_or_default(), &inside)?,
            "format" if value.as_str().is_some_and(|format| FORMATS.contains(&format)) => {}
            "format" => return Err(format!("{} is none of {}", named(&inside), FORMATS.join(", "))),
            word if ANNOTATIONS.contains(&word) || ASSERTIONS.contains(&word) => {}
            word if ONE.contains(&word) => check(value, &inside, size)?,
            word if LIST.contains(&word) => {
                for (number, one) in value.as_array().into_iter().flatten().enumerate() {
                    check(one, &format!("{inside}/{number}"), size)?;
                }
            }
            word if NAMED.contains(&word) => by_name(word, value.as_object(), &inside, size)?,
            "$ref" | "$dynamicRef" | "$id" | "$anchor" | "$dynamicAnchor" | "$defs" | "definitions" => {
                return Err(format!("{}: a schema in a policy refers to nothing", named(&inside)));
            }
            _ => return Err(format!("{} is a keyword that is not known here", named(&inside))),
        }
    }
    Ok(())
}

fn by_name(
    word: &str,
    schemas: Option<&Map<String, Value>>,
    place: &str,
    size: &mut usize,
) -> Result<(), String> {
    for (name, one) in schemas.into_iter().flatten() {
        if word == "patternProperties" {
            pattern(name, place)?;
        }
        check(one, &format!("{place}/{name}"), size)?;
    }
    Ok(())
}

/// That a regular expression is one, and small.
fn pattern(text: &str, place: &str) -> Result<(), String> {
    let fail = |why: &str| format!("{} is no regular expression that is taken: {why}", named(place));
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(fail("write 1 to 512 bytes"));
    }
    let compiled = RegexBuilder::new(text).size_limit(MAX_PROGRAM).build();
    compiled.map(drop).map_err(|cause| fail(&cause.to_string()))
}

fn named(place: &str) -> &str {
    if place.is_empty() { "the whole" } else { place }
}

/// How many values there are, counted no further than one beyond `most`.
fn values(value: &Value, most: usize) -> usize {
    let mut waiting = vec![value];
    let mut count = 0;
    while let Some(value) = waiting.pop() {
        count += 1;
        if count + waiting.len() > most {
            return most.saturating_add(1);
        }
        match value {
            Value::Array(items) if items.len() > most => return most.saturating_add(1),
            Value::Array(items) => waiting.extend(items),
            Value::Object(items) if items.len() > most => return most.saturating_add(1),
            Value::Object(items) => waiting.extend(items.values()),
            _ => {}
        }
    }
    count
}

/// Adds what does not fit. Of alternatives none of which fits the place of the whole is told, not each in turn.
fn tell(error: &ValidationError<'_, '_>, misfits: &mut BTreeSet<String>) {
    let place = error.instance_location.to_string();
    let place = if place.is_empty() { "the arguments" } else { &place };
    match &error.kind {
        ErrorKind::AdditionalProperties { got } => {
            misfits.extend(got.iter().map(|name| format!("{}/{name}: not known", error.instance_location)));
        }
        ErrorKind::Required { want } => {
            misfits.insert(format!("{place}: lacks {}", want.join(", ")));
        }
        ErrorKind::Group | ErrorKind::Schema { .. } | ErrorKind::AllOf => {
            error.causes.iter().for_each(|cause| tell(cause, misfits));
        }
        kind => {
            let keyword = kind.keyword_path().map_or("false", |path| path.keyword);
            misfits.insert(format!("{place}: {keyword}"));
        }
    }
}
