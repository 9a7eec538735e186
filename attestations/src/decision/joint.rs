//! Two policies about one image: it may run only if each says so.

use super::{Admitted, Decision, Denial, Question, Unmet};
use crate::policy::{Issuer, Policy};

impl Decision {
    /// What both decisions about one question come to: a yes only of two, and otherwise every reason of both.
    pub fn and(self, other: Self, question: &Question) -> Self {
        match (self, other) {
            (Self::Admitted(one), Self::Admitted(other)) => one.and(other, question),
            (Self::Denied(denial), Self::Admitted(_)) | (Self::Admitted(_), Self::Denied(denial)) => {
                Self::Denied(denial)
            }
            (Self::Denied(one), Self::Denied(other)) => Self::Denied(one.and(other)),
        }
    }
}

impl Denial {
    /// Every reason of both; what is of no policy stands once.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for unmet in other.unmet {
            if !self.unmet.contains(&unmet) {
                self.unmet.push(unmet);
            }
        }
        for ignored in other.ignored {
            if !self.ignored.contains(&ignored) {
                self.ignored.push(ignored);
            }
        }
        self
    }
}

impl Admitted {
    /// The yes of each policy that was asked, this one first. Its privileges are what all of them grant.
    pub fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.also.as_deref())
    }

    /// Both, if they are about the same thing: builders whom only one policy trusts may tell another story of the image.
    fn and(mut self, other: Self, question: &Question) -> Decision {
        let told = |it: &Self| (it.pinned.clone(), it.commit.clone(), it.config_digest);
        if told(&self) == told(&other) {
            self.privileges = Box::new(self.privileges.and(*other.privileges.clone()));
            self.also = Some(Box::new(other));
            return Decision::Admitted(self);
        }
        let stories = [&self, &other]
            .map(|it| format!("{}: commit {}, config {}", it.builds.join(", "), it.commit, it.config_digest));
        let unmet = vec![Unmet::Disagreement { stories: stories.to_vec() }];
        Decision::Denied(Denial { question: question.clone().into(), unmet, ignored: Vec::new() })
    }
}

impl Policy {
    /// Conditions of this policy that are not met, with whose they are.
    pub(super) fn deny(&self, unmet: Vec<Unmet>) -> Vec<Unmet> {
        let Issuer::Federation { name, .. } = self.issuer() else { return unmet };
        let tell = |unmet: Unmet| match unmet.is_of_any_policy() {
            true => unmet,
            false => Unmet::OfFederation { federation: name.clone(), unmet: Box::new(unmet) },
        };
        unmet.into_iter().map(tell).collect()
    }
}
