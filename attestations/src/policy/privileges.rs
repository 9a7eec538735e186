//! What an image may do once it is admitted: which functions, which data, which requests, and for whom. What a rule does
//! not name is not given.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;

use super::Allowed;
use super::budget::Budget;
use super::callers::{Callers, CallersText, Organisations};
use super::functions::{Functions, FunctionsText};
use super::requests::{AllowedRequest, AllowedRequests};
use super::text::{At, ListText, PolicyError};
use crate::call::is_label;

/// What a rule lets an image do, or of an admission what was granted.
#[derive(Debug, Clone, Serialize)]
pub struct Privileges {
    pub(crate) functions: Functions,
    pub(crate) databases: Allowed<String>,
    pub(crate) egress: AllowedRequests,
    pub(crate) callers: Callers,
    pub(crate) budget: Budget,
}

impl Privileges {
    /// The requests that may pass to the node's server.
    pub fn egress(&self) -> &AllowedRequests {
        &self.egress
    }

    /// What a run may use up.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

/// The profiles of requests that a policy names, and those that every policy knows.
#[derive(Debug)]
pub(super) struct Profiles(BTreeMap<String, AllowedRequests>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileText {
    requests: Vec<AllowedRequest>,
}

impl Profiles {
    pub(super) fn read(at: At<'_>, own: BTreeMap<Spanned<String>, ProfileText>) -> Result<Self, PolicyError> {
        let mut all = BTreeMap::from([
            ("none".to_owned(), AllowedRequests::default()),
            ("vantage6-read".to_owned(), AllowedRequests::vantage6_read()),
            ("vantage6-central".to_owned(), AllowedRequests::vantage6_central()),
        ]);
        for (name, profile) in own {
            let span = name.span();
            let name = name.into_inner();
            if all.contains_key(&name) {
                let message = format!("`{name}` is the name of a profile that every policy knows");
                return Err(at.error(span, &message, "give yours another name"));
            }
            all.insert(name, AllowedRequests::new(profile.requests));
        }
        Ok(Self(all))
    }
}

/// The name of a profile, `"none"` among them, or the requests themselves.
pub(super) enum EgressText {
    Profile(String),
    Requests(Vec<AllowedRequest>),
}

/// By hand, so that what is wrong with one request is said, and not that the whole is neither of the two.
impl<'de> Deserialize<'de> for EgressText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = EgressText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", the name of a profile, or a list of requests")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<EgressText, E> {
                Ok(EgressText::Profile(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<EgressText, A::Error> {
                let mut requests = Vec::new();
                while let Some(request) = items.next_element()? {
                    requests.push(request);
                }
                Ok(EgressText::Requests(requests))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl EgressText {
    fn read(text: Spanned<Self>, at: At<'_>, profiles: &Profiles) -> Result<AllowedRequests, PolicyError> {
        let span = text.span();
        match text.into_inner() {
            Self::Requests(requests) => Ok(AllowedRequests::new(requests)),
            Self::Profile(name) => profiles.0.get(&name).cloned().ok_or_else(|| {
                let message = format!("no profile of requests is called `{}`", name.escape_debug());
                let known: Vec<&str> = profiles.0.keys().map(String::as_str).collect();
                let hint = format!("add [egress.NAME], or use one of {}", known.join(", "));
                at.error(span, &message, &hint)
            }),
        }
    }
}

/// What a rule says of it.
pub(super) struct PrivilegesText {
    pub(super) functions: Spanned<FunctionsText>,
    pub(super) databases: Option<Spanned<ListText>>,
    pub(super) egress: Option<Spanned<EgressText>>,
    pub(super) users: Option<Spanned<ListText>>,
    pub(super) organisations: Option<Spanned<ListText>>,
    pub(super) budget: Option<Budget>,
}

impl PrivilegesText {
    pub(super) fn read(
        self,
        at: At<'_>,
        profiles: &Profiles,
        organisations: &Organisations,
    ) -> Result<Privileges, PolicyError> {
        let databases = self.databases.map(|text| at.list(text, label)).transpose()?;
        let egress = self.egress.map(|text| EgressText::read(text, at, profiles)).transpose()?;
        let callers = CallersText { users: self.users, organisations: self.organisations };
        Ok(Privileges {
            functions: FunctionsText::read(self.functions, at)?,
            databases: databases.unwrap_or(Allowed::Only(Vec::new())),
            egress: egress.unwrap_or_default(),
            callers: callers.read(at, organisations)?,
            budget: self.budget.unwrap_or_default(),
        })
    }
}

fn label(at: At<'_>, span: std::ops::Range<usize>, text: &str) -> Result<String, PolicyError> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    let message = format!("`{}` can be no database's label", text.escape_debug());
    Err(at.error(span, &message, "write 1 to 64 letters, digits, - and _"))
}
