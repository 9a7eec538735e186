//! What a rule asks of reviews, as a policy writes it: `threshold` and `from` for the code itself, and the same for other roles.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::age::max_age;
use super::demands::threshold;
use super::text::{At, PolicyError};
use super::{Policy, ReviewDemands, Threshold};
use crate::review::{CountedOnce, OwnWork, Role};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReviewsText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
    #[serde(default)]
    author_may_review: bool,
    max_age: Option<Spanned<String>>,
    #[serde(default)]
    count_once: CountedOnce,
    #[serde(default)]
    roles: BTreeMap<String, RoleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleText {
    threshold: Spanned<usize>,
    from: Vec<Spanned<String>>,
}

impl ReviewsText {
    pub(super) fn read(self, at: At<'_>, policy: &Policy) -> Result<ReviewDemands, PolicyError> {
        let own_work = if self.author_may_review { OwnWork::Counts } else { OwnWork::Ignored };
        let people = People { at, policy, own_work, counted_once: self.count_once };
        let max_age = max_age(at, self.max_age)?;
        let code = RoleText { threshold: self.threshold, from: self.from };
        let mut roles = BTreeMap::from([(Role::code(), people.threshold(code)?)]);
        for (name, text) in self.roles {
            let span = text.threshold.span();
            let role: Role = at.parse(span.clone(), &name)?;
            if role.is_code() {
                let hint = "write threshold and from in [algorithm.reviews] itself";
                return Err(at.error(span, "code is the role that stands outside of roles", hint));
            }
            roles.insert(role, people.threshold(text)?);
        }
        Ok(ReviewDemands { roles, counted_once: self.count_once, own_work, max_age })
    }
}

/// The people of a policy, as one rule counts them.
struct People<'a> {
    at: At<'a>,
    policy: &'a Policy,
    own_work: OwnWork,
    counted_once: CountedOnce,
}

impl People<'_> {
    fn threshold(&self, text: RoleText) -> Result<Threshold, PolicyError> {
        for name in &text.from {
            self.check(name)?;
        }
        let holder = |name: &str| {
            let person = self.policy.people.get(name)?;
            match self.counted_once {
                CountedOnce::Person => Some(name.to_owned()),
                CountedOnce::Organisation => person.organisation.clone(),
            }
        };
        threshold(self.at, text.threshold, text.from, holder)
    }

    /// Whether what is known of a person is enough to count their reviews by.
    fn check(&self, name: &Spanned<String>) -> Result<(), PolicyError> {
        let Some(person) = self.policy.people.get(name.get_ref()) else { return Ok(()) };
        if self.own_work == OwnWork::Ignored && person.emails.iter().all(|email| email.trim().is_empty()) {
            let message = "nobody can tell this person from the authors: there is no e-mail address";
            let hint = "give emails in [people], as in git, or write author_may_review = true";
            return Err(self.at.error(name.span(), message, hint));
        }
        let is_named = person.organisation.as_ref().is_some_and(|it| !it.trim().is_empty());
        if self.counted_once == CountedOnce::Organisation && !is_named {
            let message = "organisations are counted, and this person has none";
            return Err(self.at.error(name.span(), message, "give organisation in [people]"));
        }
        Ok(())
    }
}
