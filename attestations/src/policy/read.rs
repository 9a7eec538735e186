//! From TOML to a policy: the shape first, then what only the whole can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::bases::BuiltBasesText;
use super::demands::{BuildsText, DemandsText, ReviewsText};
use super::materials::MaterialsText;
use super::text::{At, ListText, PolicyError};
use super::{Allowed, Builder, Pattern, Person, Policy, Rule, Selector};
use crate::keys::PublicKey;

/// Larger policies are refused before they are parsed.
const MAX_POLICY: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<u32>,
    #[serde(default)]
    revoked: Vec<Spanned<String>>,
    #[serde(default)]
    people: BTreeMap<String, PersonText>,
    #[serde(default)]
    builders: BTreeMap<String, BuilderText>,
    #[serde(default)]
    algorithm: Vec<Spanned<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonText {
    #[serde(rename = "name")]
    _name: String,
    emails: Vec<String>,
    keys: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuilderText {
    id: String,
    operator: String,
    keys: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Option<String>,
    pattern: Option<String>,
    digest: Option<String>,
    source: Spanned<ListText>,
    bases: Spanned<ListText>,
    functions: Spanned<ListText>,
    reviews: ReviewsText,
    builds: BuildsText,
    materials: Option<MaterialsText>,
    built_bases: Option<BuiltBasesText>,
}

pub(super) fn read(text: &str) -> Result<Policy, PolicyError> {
    let at = At::new(text);
    if text.len() > MAX_POLICY {
        return Err(at.error(0..0, "the policy is larger than 1 MiB", "split it by node"));
    }
    if text.trim().is_empty() {
        return Err(at.error(0..0, "the policy is empty", "write one with `countersign-runner init`"));
    }
    let document: Document = toml::from_str(text).map_err(|error| {
        at.error(error.span().unwrap_or(0..0), error.message(), "docs/policy.md lists every field")
    })?;
    if *document.version.get_ref() != 1 {
        return Err(at.error(
            document.version.span(),
            "unknown version of the policy language",
            "write version = 1",
        ));
    }
    let mut keys = Keys { at, seen: BTreeSet::new() };
    let mut people = BTreeMap::new();
    for (name, person) in document.people {
        people.insert(name, Person { emails: person.emails, keys: keys.read(person.keys)? });
    }
    let mut builders = BTreeMap::new();
    for (name, it) in document.builders {
        builders.insert(name, Builder { id: it.id, operator: it.operator, keys: keys.read(it.keys)? });
    }
    let revoked =
        document.revoked.iter().map(|it| at.parse(it.span(), it.get_ref())).collect::<Result<_, _>>()?;
    let mut policy = Policy { revoked, people, builders, rules: Vec::new() };
    let mut selectors = BTreeSet::new();
    for rule in document.algorithm {
        let span = rule.span();
        let rule = self::rule(at, &policy, span.clone(), rule.into_inner())?;
        if !selectors.insert(rule.selector()) {
            return Err(at.error(span, "two rules select the same", "merge them"));
        }
        policy.rules.push(rule);
    }
    Ok(policy)
}

/// Keys that were already given to somebody.
struct Keys<'a> {
    at: At<'a>,
    seen: BTreeSet<Vec<u8>>,
}

impl Keys<'_> {
    fn read(&mut self, texts: Vec<Spanned<String>>) -> Result<Vec<PublicKey>, PolicyError> {
        let mut keys = Vec::new();
        for text in texts {
            let key = PublicKey::parse(text.get_ref())
                .map_err(|error| self.at.error(text.span(), &error.to_string(), "give a public key"))?;
            if !self.seen.insert(key.spki_der().to_vec()) {
                return Err(self.at.error(
                    text.span(),
                    "this key is given twice",
                    "one key belongs to one holder",
                ));
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

fn rule(at: At<'_>, policy: &Policy, span: Range<usize>, text: RuleText) -> Result<Rule, PolicyError> {
    let selector = match (&text.name, &text.pattern, &text.digest) {
        (Some(name), None, None) => Selector::Name(at.parse(span, name)?),
        (None, Some(pattern), None) => Selector::Pattern(Pattern::new(pattern).ok_or_else(|| {
            at.error(span, "this pattern can match no name", "use registry/name with `*` or `**`")
        })?),
        (None, None, Some(digest)) => Selector::Digest(at.parse(span, digest)?),
        _ => {
            return Err(at.error(span, "not exactly one of name, pattern, digest", "keep one of them"));
        }
    };
    let RuleText { source, bases, reviews, builds, materials, .. } = text;
    let bases_span = bases.span();
    let image = DemandsText { source, bases, reviews, builds, materials }.read(at, policy)?;
    // Such a rule would look strict and ask nothing.
    if image.bases == Allowed::Any && text.built_bases.is_some() {
        let hint = "write the digests that are allowed as they are, or []; or leave built_bases out";
        return Err(at.error(bases_span, "any base is allowed, so built_bases would ask nothing", hint));
    }
    Ok(Rule {
        selector,
        functions: at.list(text.functions, |_, _, name| Ok(name.to_owned()))?,
        image,
        built_bases: text.built_bases.map(|it| it.read(at, policy)).transpose()?,
    })
}
