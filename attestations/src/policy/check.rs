//! What is odd about a policy that can be read: rules that nothing reaches, and conditions that nobody can meet.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::callers::Callers;
use super::functions::Functions;
use super::privileges::Privileges;
use super::{Allowed, Demands, HeldKey, Policy, Rule, Selector, Threshold};
use crate::review::CountedOnce;

/// What ends within this time is told of.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a rule, a person, a builder, or the policy.
    pub about: String,
    /// What is odd.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something can never be admitted, or never comes to be used.
    Error,
    /// It admits more than most mean, or ends soon.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl Policy {
    /// Everything that is odd about it at `now`; the worst first.
    pub fn findings(&self, now: Timestamp) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(expires) = self.expires {
            let message = format!("it expires at {expires}");
            match expires <= now {
                true => {
                    found.push(error("the policy", format!("it expired at {expires}: nothing is admitted")))
                }
                false if expires.duration_since(now) < SOON => found.push(warning("the policy", message)),
                false => {}
            }
        }
        for (at, rule) in self.rules.iter().enumerate() {
            let about = format!("rule {}", rule.selector());
            found.extend(self.reach(at, rule).map(|why| error(&about, why)));
            self.demands(&rule.image, &about, now, &mut found);
            found.extend(rule.privileges.odd(&about));
            if let Some(bases) = &rule.built_bases {
                self.demands(&bases.base, &format!("{about}, built_bases"), now, &mut found);
            }
        }
        for (name, person) in &self.people {
            self.keys(&format!("person {name}"), &person.keys, now, &mut found);
        }
        for (name, builder) in &self.builders {
            self.keys(&format!("builder {name}"), &builder.keys, now, &mut found);
        }
        found.sort_by_key(|one| one.severity);
        found
    }

    /// Why nothing comes to a rule, if nothing does.
    fn reach(&self, at: usize, rule: &Rule) -> Option<String> {
        match &rule.selector {
            Selector::Digest(digest) => {
                self.revoked.contains(digest).then(|| "its digest is in `revoked`".to_owned())
            }
            Selector::Name(_) => None,
            Selector::Pattern(own) => {
                let earlier = self.rules.iter().take(at).find_map(|other| match &other.selector {
                    Selector::Pattern(pattern) if pattern.covers(own) => Some(pattern),
                    _ => None,
                })?;
                Some(format!("the earlier pattern {earlier} matches everything that this one does"))
            }
        }
    }

    fn demands(&self, demands: &Demands, about: &str, now: Timestamp, found: &mut Vec<Finding>) {
        for (role, asked) in &demands.reviews.roles {
            let holders = self.holders(demands, asked, now);
            if holders < asked.threshold {
                let (what, wanted) = (demands.reviews.counted_once.plural(), asked.threshold);
                let role = if role.is_code() { String::new() } else { format!(" in the role {role}") };
                let message = format!(
                    "{wanted} {what} are asked for{role}, and {holders} have a key that is believed now"
                );
                found.push(error(about, message));
            }
        }
        let operators: BTreeSet<&String> = demands
            .builds
            .from
            .iter()
            .filter_map(|name| self.builders.get(name))
            .filter(|builder| self.can_sign(&builder.keys, now))
            .map(|builder| &builder.operator)
            .collect();
        let wanted = demands.builds.threshold.max(demands.independent);
        if operators.len() < wanted {
            found.push(error(
                about,
                format!(
                    "builds of {wanted} operator(s) are asked for, and {} have a key that is believed now",
                    operators.len()
                ),
            ));
        }
        for name in &demands.must_hear {
            if self.builders.get(name).is_none_or(|builder| !self.can_sign(&builder.keys, now)) {
                found
                    .push(error(about, format!("{name} must be heard, and has no key that is believed now")));
            }
        }
        for (field, is_any) in
            [("source", demands.source == Allowed::Any), ("bases", demands.bases == Allowed::Any)]
        {
            if is_any {
                found.push(warning(
                    about,
                    format!("{field} = \"any\" leaves it to whoever writes the algorithm"),
                ));
            }
        }
        if demands.source == Allowed::Only(Vec::new()) {
            found.push(error(about, "source is empty: no repository is allowed".to_owned()));
        }
        if demands.builds.threshold == 1 {
            found.push(warning(about, "one builder is enough: nobody else checks what it says".to_owned()));
        }
    }

    /// How many of those who are asked for reviews could give one at `now`, of what counts once.
    fn holders(&self, demands: &Demands, asked: &Threshold, now: Timestamp) -> usize {
        let known = asked.from.iter().filter_map(|name| self.people.get_key_value(name));
        let able = known.filter(|(_, person)| self.can_sign(&person.keys, now));
        let holders: BTreeSet<&String> = match demands.reviews.counted_once {
            CountedOnce::Person => able.map(|(name, _)| name).collect(),
            CountedOnce::Organisation => {
                able.filter_map(|(_, person)| person.organisation.as_ref()).collect()
            }
        };
        holders.len()
    }

    fn keys(&self, about: &str, keys: &[HeldKey], now: Timestamp, found: &mut Vec<Finding>) {
        if keys.is_empty() {
            found.push(warning(about, "no key is listed".to_owned()));
        } else if !self.can_sign(keys, now) {
            found.push(warning(
                about,
                "no key is believed now: each has ended, has not begun, or is revoked".to_owned(),
            ));
        }
        for until in keys.iter().filter_map(|key| key.valid.until) {
            if until > now && until.duration_since(now) < SOON {
                found.push(warning(about, format!("a key is believed until {until}")));
            }
        }
    }

    /// Whether one of these keys could say yes at `now`.
    fn can_sign(&self, keys: &[HeldKey], now: Timestamp) -> bool {
        keys.iter().any(|held| held.valid.covers(now) && self.key_revoked(&held.key, now).is_none())
    }
}

impl Privileges {
    /// Calls that nobody can make, and grants that come to nothing.
    fn odd(&self, about: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Functions::Only(functions) = &self.functions {
            if functions.is_empty() {
                found.push(error(about, "functions is empty: no function may be called".to_owned()));
            }
            let never = functions.iter().filter(|(_, arguments)| arguments.fit_nothing());
            found.extend(never.map(|(name, _)| {
                error(about, format!("the arguments of {name} fit nothing: its schema is `false`"))
            }));
        }
        if self.callers == Callers::Only(Vec::new()) {
            found.push(error(about, "users and organisations name nobody: nobody may ask".to_owned()));
        }
        let budget = &self.budget;
        if budget.result_kib == Some(0) {
            found.push(error(about, "the budget's result_kib is 0: no result may leave".to_owned()));
        }
        let none =
            [("requests", budget.requests), ("bytes_out", budget.bytes_out), ("bytes_in", budget.bytes_in)];
        for (field, _) in none.into_iter().filter(|(_, most)| *most == Some(0) && !self.egress.is_empty()) {
            found.push(warning(
                about,
                format!("egress lists requests, and the budget's {field} is 0: none passes"),
            ));
        }
        found
    }
}

fn error(about: &str, message: String) -> Finding {
    Finding { severity: Severity::Error, about: about.to_owned(), message }
}

fn warning(about: &str, message: String) -> Finding {
    Finding { severity: Severity::Warning, about: about.to_owned(), message }
}
