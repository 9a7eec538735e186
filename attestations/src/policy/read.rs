//! From TOML to a policy: the shape first, then what only the whole can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use jiff::Timestamp;
use serde::Deserialize;
use toml::Spanned;

use super::age::{self, KeyText};
use super::bases::BuiltBasesText;
use super::budget::Budget;
use super::callers::{OrganisationText, Organisations};
use super::demands::{BuildsText, DemandsText};
use super::functions::FunctionsText;
use super::materials::MaterialsText;
use super::parameters::ParametersText;
use super::privileges::{EgressText, PrivilegesText, ProfileText, Profiles};
use super::reviews::ReviewsText;
use super::text::{At, ListText, PolicyError};
use super::{Allowed, Builder, HeldKey, Issuer, Pattern, Person, Policy, RevokedKey, Rule, Selector};
use crate::digest::Digest;
use crate::keys::PublicKey;

/// Larger policies are refused before they are parsed.
const MAX_POLICY: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<u32>,
    expires: Option<Spanned<String>>,
    #[serde(default)]
    evidence: Vec<Spanned<String>>,
    #[serde(default)]
    revoked: Vec<Spanned<String>>,
    #[serde(default)]
    revoked_key: Vec<RevokedKeyText>,
    #[serde(default)]
    people: BTreeMap<String, PersonText>,
    #[serde(default)]
    builders: BTreeMap<String, BuilderText>,
    #[serde(default)]
    organisations: BTreeMap<String, OrganisationText>,
    #[serde(default)]
    egress: BTreeMap<Spanned<String>, ProfileText>,
    #[serde(default)]
    algorithm: Vec<Spanned<RuleText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonText {
    #[serde(rename = "name")]
    _name: String,
    organisation: Option<String>,
    emails: Vec<String>,
    keys: Vec<Spanned<KeyText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BuilderText {
    id: String,
    operator: String,
    slsa_level: Option<Spanned<u8>>,
    keys: Vec<Spanned<KeyText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedKeyText {
    key: Spanned<String>,
    from: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Option<String>,
    pattern: Option<String>,
    digest: Option<String>,
    source: Spanned<ListText>,
    bases: Spanned<ListText>,
    functions: Spanned<FunctionsText>,
    databases: Option<Spanned<ListText>>,
    egress: Option<Spanned<EgressText>>,
    users: Option<Spanned<ListText>>,
    organisations: Option<Spanned<ListText>>,
    budget: Option<Budget>,
    reviews: ReviewsText,
    builds: BuildsText,
    materials: Option<MaterialsText>,
    parameters: Option<ParametersText>,
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
        let PersonText { organisation, emails, keys: texts, .. } = person;
        let keys = keys.read(texts)?;
        let key_ids = keys.iter().map(|held| held.key.id()).collect();
        people.insert(name, Person { organisation, emails, key_ids, keys });
    }
    let mut builders = BTreeMap::new();
    for (name, it) in document.builders {
        let slsa_level = level(at, it.slsa_level)?;
        let keys = keys.read(it.keys)?;
        builders.insert(name, Builder { id: it.id, operator: it.operator, slsa_level, keys });
    }
    let revoked =
        document.revoked.iter().map(|it| at.parse(it.span(), it.get_ref())).collect::<Result<_, _>>()?;
    let expires = document.expires.map(|text| age::moment(at, text.span(), text.get_ref())).transpose()?;
    let evidence =
        document.evidence.iter().map(|it| at.parse(it.span(), it.get_ref())).collect::<Result<_, _>>()?;
    let revoked_keys = document.revoked_key.iter().map(|it| it.read(at)).collect::<Result<_, _>>()?;
    let digest = Digest::of(text.as_bytes());
    let mut policy = Policy {
        digest,
        issuer: Issuer::Node,
        expires,
        evidence,
        revoked,
        revoked_keys,
        people,
        builders,
        rules: Vec::new(),
    };
    let mut organisations = Organisations::new();
    for (name, text) in document.organisations {
        organisations.insert(name, text.read(at)?);
    }
    let named = Named { profiles: Profiles::read(at, document.egress)?, organisations };
    let mut selectors = BTreeSet::new();
    for rule in document.algorithm {
        let span = rule.span();
        let rule = self::rule(at, &policy, &named, span.clone(), rule.into_inner())?;
        if !selectors.insert(rule.selector()) {
            return Err(at.error(span, "two rules select the same", "merge them"));
        }
        policy.rules.push(rule);
    }
    Ok(policy)
}

/// Provenance is level 1; more is the administrator's word.
fn level(at: At<'_>, level: Option<Spanned<u8>>) -> Result<u8, PolicyError> {
    match level {
        None => Ok(1),
        Some(level) if (1..=3).contains(level.get_ref()) => Ok(*level.get_ref()),
        Some(level) => Err(at.error(level.span(), "SLSA has no such build level", "write 1, 2 or 3")),
    }
}

/// Keys that were already given to somebody.
struct Keys<'a> {
    at: At<'a>,
    seen: BTreeSet<Vec<u8>>,
}

impl Keys<'_> {
    fn read(&mut self, texts: Vec<Spanned<KeyText>>) -> Result<Vec<HeldKey>, PolicyError> {
        let mut keys = Vec::new();
        for text in texts {
            let span = text.span();
            let (text, valid) = text.into_inner().read(self.at, span.clone())?;
            let key = public_key(self.at, span.clone(), &text)?;
            if !self.seen.insert(key.spki_der().to_vec()) {
                return Err(self.at.error(span, "this key is given twice", "one key belongs to one holder"));
            }
            keys.push(HeldKey { key, valid });
        }
        Ok(keys)
    }
}

fn public_key(at: At<'_>, span: Range<usize>, text: &str) -> Result<PublicKey, PolicyError> {
    PublicKey::parse(text).map_err(|error| at.error(span, &error.to_string(), "give a public key"))
}

impl RevokedKeyText {
    fn read(&self, at: At<'_>) -> Result<RevokedKey, PolicyError> {
        Ok(RevokedKey {
            key: public_key(at, self.key.span(), self.key.get_ref())?,
            // Without a moment, nothing that the key ever signed is believed.
            from: self
                .from
                .as_ref()
                .map_or(Ok(Timestamp::MIN), |text| age::moment(at, text.span(), text.get_ref()))?,
        })
    }
}

/// What rules speak of by name.
struct Named {
    profiles: Profiles,
    organisations: Organisations,
}

fn rule(
    at: At<'_>,
    policy: &Policy,
    named: &Named,
    span: Range<usize>,
    text: RuleText,
) -> Result<Rule, PolicyError> {
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
    let RuleText { functions, databases, egress, users, organisations, budget, .. } = text;
    let privileges = PrivilegesText { functions, databases, egress, users, organisations, budget };
    let RuleText { source, bases, reviews, builds, materials, parameters, .. } = text;
    let bases_span = bases.span();
    let image = DemandsText { source, bases, reviews, builds, materials, parameters }.read(at, policy)?;
    // Such a rule would look strict and ask nothing.
    if image.bases == Allowed::Any && text.built_bases.is_some() {
        let hint = "write the digests that are allowed as they are, or []; or leave built_bases out";
        return Err(at.error(bases_span, "any base is allowed, so built_bases would ask nothing", hint));
    }
    Ok(Rule {
        selector,
        privileges: privileges.read(at, &named.profiles, &named.organisations)?,
        image,
        built_bases: text.built_bases.map(|it| it.read(at, policy)).transpose()?,
    })
}
