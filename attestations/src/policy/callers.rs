//! Who may ask for a call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use toml::Spanned;

use super::Allowed;
use super::text::{At, ListText, PolicyError};
use crate::call::Caller;

/// The most letters of a user's name.
const MAX_NAME: usize = 256;

/// Who may ask. Without a word about it in a rule: anybody who can reach the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Anybody.
    Anybody,
    /// These, and nobody else.
    Only(Vec<User>),
}

/// A user of the node's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum User {
    /// By name.
    Name(String),
    /// By number.
    Uid(u32),
}

/// The users of each organisation that the policy names.
pub(super) type Organisations = BTreeMap<String, Vec<User>>;

impl Callers {
    pub(crate) fn permit(&self, caller: &Caller) -> bool {
        match self {
            Self::Anybody => true,
            Self::Only(users) => users.iter().any(|user| user.is(caller)),
        }
    }

    /// Whom both name in the same way.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Anybody, other) | (other, Self::Anybody) => other,
            (Self::Only(mut users), Self::Only(others)) => {
                users.retain(|user| others.contains(user));
                Self::Only(users)
            }
        }
    }

    /// Only this caller, where they are a user of the machine.
    pub(crate) fn only(self, caller: &Caller) -> Self {
        match (caller.uid, &caller.user) {
            (Some(uid), _) => Self::Only(vec![User::Uid(uid)]),
            (None, Some(name)) => Self::Only(vec![User::Name(name.clone())]),
            (None, None) => self,
        }
    }
}

impl User {
    fn is(&self, caller: &Caller) -> bool {
        match self {
            Self::Name(name) => caller.user.as_ref() == Some(name),
            Self::Uid(uid) => caller.uid == Some(*uid),
        }
    }

    fn read(at: At<'_>, span: std::ops::Range<usize>, text: &str) -> Result<Self, PolicyError> {
        if let Some(number) = text.strip_prefix("uid:") {
            let uid = number.parse().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()));
            let hint = "write uid: and the user's number, as in \"uid:1000\"";
            return uid.map(Self::Uid).ok_or_else(|| {
                at.error(span, &format!("`{}` is no user's number", number.escape_debug()), hint)
            });
        }
        let is_name = |letter: char| !letter.is_control() && !letter.is_whitespace() && letter != ':';
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(is_name) {
            let message = format!("`{}` is no user's name", text.escape_debug());
            return Err(at.error(span, &message, "write a user of this machine, or uid: and a number"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// As in the policy: `"any"`, or the list.
impl Serialize for Callers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Anybody => serializer.serialize_str("any"),
            Self::Only(users) => serializer.collect_seq(users.iter().map(|user| match user {
                User::Name(name) => name.clone(),
                User::Uid(uid) => format!("uid:{uid}"),
            })),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrganisationText {
    users: Vec<Spanned<String>>,
}

impl OrganisationText {
    pub(super) fn read(self, at: At<'_>) -> Result<Vec<User>, PolicyError> {
        self.users.iter().map(|text| User::read(at, text.span(), text.get_ref())).collect()
    }
}

/// Who may ask, as a rule writes it: users, users of organisations, or both.
pub(super) struct CallersText {
    pub(super) users: Option<Spanned<ListText>>,
    pub(super) organisations: Option<Spanned<ListText>>,
}

impl CallersText {
    pub(super) fn read(self, at: At<'_>, known: &Organisations) -> Result<Callers, PolicyError> {
        let span = self.users.as_ref().or(self.organisations.as_ref()).map(Spanned::span);
        let users = self.users.map(|text| at.list(text, User::read)).transpose()?;
        let organisations = self.organisations.map(|text| {
            at.list(text, |at, span, name| {
                known.get(name).cloned().ok_or_else(|| {
                    let message = format!("no organisation is called `{}`", name.escape_debug());
                    at.error(span, &message, "add it to the policy as [organisations.NAME]")
                })
            })
        });
        match (users, organisations.transpose()?) {
            (None, None) => Ok(Callers::Anybody),
            (Some(Allowed::Any), None) => Ok(Callers::Anybody),
            (Some(Allowed::Any), Some(_)) | (_, Some(Allowed::Any)) => {
                let hint = "list them, or write users = \"any\" alone";
                let message = "any caller is allowed, so the other list would ask nothing";
                Err(at.error(span.unwrap_or_default(), message, hint))
            }
            (users, organisations) => {
                let listed = |list| match list {
                    Some(Allowed::Only(items)) => items,
                    _ => Vec::new(),
                };
                let mut all = listed(users);
                if let Some(Allowed::Only(lists)) = organisations {
                    all.extend(lists.into_iter().flatten());
                }
                Ok(Callers::Only(all))
            }
        }
    }
}
