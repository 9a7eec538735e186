//! From TOML to a policy: the shape first, then what only the whole can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::bases::BuiltBasesText;
use super::materials::MaterialsText;
use super::{
    Allowed, Builder, Demands, FailedRebuild, Pattern, Person, Policy, Rule, Selector, Threshold,
    normal_source,
};
use crate::keys::PublicKey;
use crate::reviews::OwnWork;

/// Larger policies are refused before they are parsed.
const MAX_POLICY: usize = 1 << 20;

/// Why a text is no policy. Nothing is admitted by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy, line {line}, column {column}: {message}; {hint}")]
pub struct PolicyError {
    /// The line, from 1.
    pub line: usize,
    /// The column in bytes, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

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

/// What is asked of one image, whatever table it stands in.
pub(super) struct DemandsText {
    pub(super) source: Spanned<ListText>,
    pub(super) bases: Spanned<ListText>,
    pub(super) reviews: ReviewsText,
    pub(super) builds: BuildsText,
    pub(super) materials: Option<MaterialsText>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum ListText {
    Word(String),
    Items(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReviewsText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
    #[serde(default)]
    author_may_review: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildsText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
    failed_rebuild: FailedRebuild,
}

pub(super) fn read(text: &str) -> Result<Policy, PolicyError> {
    let at = At(text);
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
        let rule = at.rule(&policy, span.clone(), rule.into_inner())?;
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

/// Positions in the text.
#[derive(Clone, Copy)]
pub(super) struct At<'a>(&'a str);

impl At<'_> {
    pub(super) fn error(self, span: Range<usize>, message: &str, hint: &str) -> PolicyError {
        let before = self.0.get(..span.start).unwrap_or_default();
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        let line = before.matches('\n').count() + 1;
        PolicyError { line, column, message: message.to_owned(), hint: hint.to_owned() }
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        self,
        span: Range<usize>,
        text: &str,
    ) -> Result<T, PolicyError> {
        text.parse().map_err(|error: T::Err| self.error(span, &error.to_string(), "write it whole"))
    }

    fn rule(self, policy: &Policy, span: Range<usize>, text: RuleText) -> Result<Rule, PolicyError> {
        let selector = match (&text.name, &text.pattern, &text.digest) {
            (Some(name), None, None) => Selector::Name(self.parse(span, name)?),
            (None, Some(pattern), None) => Selector::Pattern(Pattern::new(pattern).ok_or_else(|| {
                self.error(span, "this pattern can match no name", "use registry/name with `*` or `**`")
            })?),
            (None, None, Some(digest)) => Selector::Digest(self.parse(span, digest)?),
            _ => {
                return Err(self.error(span, "not exactly one of name, pattern, digest", "keep one of them"));
            }
        };
        let RuleText { source, bases, reviews, builds, materials, .. } = text;
        let bases_span = bases.span();
        let image = self.demands(policy, DemandsText { source, bases, reviews, builds, materials })?;
        // Such a rule would look strict and ask nothing.
        if image.bases == Allowed::Any && text.built_bases.is_some() {
            let hint = "write the digests that are allowed as they are, or []; or leave built_bases out";
            return Err(self.error(
                bases_span,
                "any base is allowed, so built_bases would ask nothing",
                hint,
            ));
        }
        Ok(Rule {
            selector,
            functions: self.list(text.functions, |_, _, name| Ok(name.to_owned()))?,
            image,
            built_bases: text.built_bases.map(|it| it.read(self, policy)).transpose()?,
        })
    }

    pub(super) fn demands(self, policy: &Policy, text: DemandsText) -> Result<Demands, PolicyError> {
        let known_people = |name: &str| policy.people.contains_key(name).then(|| name.to_owned());
        let operator = |name: &str| policy.builders.get(name).map(|builder| builder.operator.clone());
        Ok(Demands {
            source: self.list(text.source, |_, _, url| Ok(normal_source(url)))?,
            bases: self.list(text.bases, Self::parse)?,
            reviews: self.threshold(text.reviews.threshold, text.reviews.from, known_people)?,
            own_work: match text.reviews.author_may_review {
                true => OwnWork::Counts,
                false => OwnWork::Ignored,
            },
            builds: self.threshold(text.builds.threshold, text.builds.from, operator)?,
            failed_rebuild: text.builds.failed_rebuild,
            materials: text.materials.map(|it| it.read(self)).transpose()?,
        })
    }

    pub(super) fn list<T>(
        self,
        text: Spanned<ListText>,
        item: impl Fn(Self, Range<usize>, &str) -> Result<T, PolicyError>,
    ) -> Result<Allowed<T>, PolicyError> {
        let span = text.span();
        match text.into_inner() {
            ListText::Word(word) if word == "any" => Ok(Allowed::Any),
            ListText::Word(_) => {
                Err(self.error(span, "neither a list nor \"any\"", "write [\"…\"] or \"any\""))
            }
            ListText::Items(items) => items
                .iter()
                .map(|it| item(self, span.clone(), it))
                .collect::<Result<_, _>>()
                .map(Allowed::Only),
        }
    }

    /// `holder` gives what is counted once: a person, a builder's operator.
    fn threshold(
        self,
        wanted: Spanned<usize>,
        names: Vec<Spanned<String>>,
        holder: impl Fn(&str) -> Option<String>,
    ) -> Result<Threshold, PolicyError> {
        let mut holders = BTreeSet::new();
        for name in &names {
            let found = holder(name.get_ref()).ok_or_else(|| {
                self.error(
                    name.span(),
                    "nobody in this policy has this name",
                    "add it to [people] or [builders]",
                )
            })?;
            holders.insert(found);
        }
        let threshold = *wanted.get_ref();
        if threshold == 0 || threshold > holders.len() {
            let hint = "give at least 1 and at most the number of distinct holders in `from`";
            return Err(self.error(wanted.span(), "this threshold means nothing or can never be met", hint));
        }
        Ok(Threshold { threshold, from: names.into_iter().map(Spanned::into_inner).collect() })
    }
}
