//! Each unmet condition for people: what was wanted, what was found, and what to do. The words stay the same.

use super::Unmet;
use crate::review::CountedOnce;

impl Unmet {
    /// What the policy asks.
    pub fn condition(&self) -> String {
        match self {
            Self::OtherDigest { asked, .. } => format!("the image is the one that {asked} names"),
            Self::Revoked { .. } => "the image is not revoked".into(),
            Self::NoRule { .. } => "a rule of the policy is about the image".into(),
            Self::Function { .. } => "the function is allowed".into(),
            Self::Arguments { function, .. } => format!("the arguments of {function} fit its schema"),
            Self::Database { .. } => "every database is allowed".into(),
            Self::Caller { .. } => "whoever asks is allowed to".into(),
            Self::Source { .. } => "the source repository is allowed".into(),
            Self::Base { .. } => "every base image is allowed".into(),
            Self::Builds { wanted, from, .. } => {
                format!("{wanted} distinct builder(s) of {}", from.join(", "))
            }
            Self::Reviews { role, wanted, once, from, .. } => {
                let role = if role.is_code() { String::new() } else { format!(" for {role}") };
                let what = match once {
                    CountedOnce::Person => "approving reviewer(s) of",
                    CountedOnce::Organisation => "organisation(s) with an approving reviewer of",
                };
                format!("{wanted} {what} {}{role}", from.join(", "))
            }
            Self::Rejected { .. } => "no trusted reviewer rejected the commit".into(),
            Self::FailedRebuild { .. } => "no trusted rebuild came out otherwise".into(),
            Self::Disagreement { .. } => "the builders agree on commit, inputs and config".into(),
            Self::Unreadable { .. } => "what trusted people and builders signed can be read".into(),
            Self::IncompleteMaterials { .. } => "everything that entered the build is named".into(),
            Self::Hosts { .. } => "every host that the build reached is allowed".into(),
            Self::IncompletePackages { .. } => "every package of the image is known".into(),
            Self::FetchedPackages { .. } => "no forbidden package came over the network".into(),
            Self::MissingPackages { .. } => "every required package is in the image".into(),
            Self::ForbiddenPackages { .. } => "no forbidden package is in the image".into(),
            Self::PackageNames { .. } => "every package of the build has a canonical name (purl)".into(),
            Self::IndependentMaterials { wanted, from, .. } => format!(
                "{wanted} operator(s) of {} that saw for themselves what entered over the network",
                from.join(", ")
            ),
            Self::MaterialsDiffer { .. } => "the servers give what was recorded".into(),
            Self::MustHear { silent } => format!("a verdict of {}", silent.join(", ")),
            Self::Parameters { .. } => "the reviewed tree or the rule gives every parameter".into(),
            Self::Stale { .. } => "reviews and builds that are not too old".into(),
            Self::OlderThanSeen { .. } => "no newer image ran here by the same rule".into(),
            Self::PolicyExpired { .. } => "the policy has not expired".into(),
            Self::ClockSetBack { .. } => "the clock does not go back".into(),
            Self::TooMuchEvidence { .. } => {
                format!("at most {} bundles of evidence", super::super::MAX_EVIDENCE)
            }
            Self::EvidenceSize { limit, .. } => format!("at most {} MiB of evidence in all", limit >> 20),
            Self::EvidenceGone { .. } => "everything that is listed for the image is there".into(),
            Self::OfBase { base, unmet } => format!("of base {base}: {}", unmet.condition()),
            Self::BaseEvidence { .. } => "what is attached to it can be asked for".into(),
            Self::TooManyBases { .. } => {
                format!("at most {} bases that are not listed by digest", super::super::MAX_BASES)
            }
            Self::OfFederation { federation, unmet } => {
                format!("by the policy of {federation}: {}", unmet.condition())
            }
        }
    }

    /// What was found instead.
    pub fn found(&self) -> String {
        match self {
            Self::OtherDigest { found, .. } => found.to_string(),
            Self::Revoked { digest } => format!("{digest} is revoked"),
            Self::NoRule { repository } => format!("no rule for {repository}"),
            Self::Function { function } => format!("{function} is not listed"),
            Self::Arguments { found, .. } => found.to_string(),
            Self::Database { found } => format!("not listed: {found}"),
            Self::Caller { caller } => format!("{caller} is not listed"),
            Self::Source { source } => source.to_string(),
            Self::Base { base: Some(base) } => base.to_string(),
            Self::Base { base: None } => "a base without digest".into(),
            Self::Builds { counted, commit, .. } | Self::Reviews { counted, commit, .. } => {
                let who = if counted.is_empty() { "none".to_owned() } else { counted.join(", ") };
                commit.as_ref().map_or_else(|| who.clone(), |commit| format!("{who} for commit {commit}"))
            }
            Self::Rejected { by, commit } => format!("{by} rejected commit {commit}"),
            Self::FailedRebuild { by } => format!("{by} got another image"),
            Self::Disagreement { stories } => stories.join("; "),
            Self::Unreadable { by, origin, reason } => format!("{by} signed {origin}: {reason}"),
            Self::IncompleteMaterials { reasons: few }
            | Self::Hosts { found: few }
            | Self::IncompletePackages { reasons: few }
            | Self::FetchedPackages { found: few }
            | Self::ForbiddenPackages { found: few }
            | Self::PackageNames { found: few } => few.to_string(),
            Self::IndependentMaterials { counted, .. } if counted.is_empty() => {
                "none: every rebuild replayed recorded responses".into()
            }
            Self::IndependentMaterials { counted, .. } => {
                format!("{} alone: other rebuilds replayed recorded responses", counted.join(", "))
            }
            Self::MaterialsDiffer { by, found } => format!("{by} got another thing for {found}"),
            Self::MustHear { .. } => "nothing signed by them about this image".into(),
            Self::Parameters { found } | Self::Stale { found } => found.to_string(),
            Self::OlderThanSeen { found, seen, newest } => {
                format!("a commit of {found}, and {newest} of {seen} ran before")
            }
            Self::PolicyExpired { expired } => format!("it expired at {expired}"),
            Self::ClockSetBack { now, seen } => format!("it is {now}, and at {seen} something was decided"),
            Self::MissingPackages { wanted } => format!("nothing that matches {wanted}"),
            Self::TooMuchEvidence { count } => format!("{count} bundles"),
            Self::EvidenceSize { size, .. } => format!("at least {size} bytes"),
            Self::EvidenceGone { origin, kind } => format!("{origin} ({kind}) is listed and not there"),
            Self::OfBase { unmet, .. } => unmet.found(),
            Self::BaseEvidence { reason } => reason.to_string(),
            Self::TooManyBases { count } => format!("{count} bases"),
            Self::OfFederation { unmet, .. } => unmet.found(),
        }
    }

    /// What would meet it.
    pub fn remedy(&self) -> String {
        match self {
            Self::OtherDigest { .. } => "ask for the digest that is meant",
            Self::Revoked { .. } => "use an image that is not revoked",
            Self::NoRule { .. } => {
                "add an [[algorithm]] for this exact name to the policy; where a rule allows the image by its digest, \
                 ask for it as NAME@sha256:…"
            }
            Self::Function { .. } => "add it to the rule's functions",
            Self::Arguments { function, .. } => {
                return format!(
                    "ask with arguments that fit, or change the schema in the rule's [algorithm.functions.{function}]"
                );
            }
            Self::Database { .. } => "ask without these, or add them to the rule's databases",
            Self::Caller { .. } => {
                "let somebody ask whom the rule lists, or add this one to its users or to one of its organisations"
            }
            Self::Source { .. } => "build from an allowed repository, or add this one to the rule's source",
            Self::Base { .. } => "build on an allowed base, or add this one to the rule's bases",
            Self::Builds { .. } => {
                "let another listed builder run `countersign-builder rebuild` and attach the result"
            }
            Self::Reviews { .. } => {
                "let another listed person run `countersign-builder review sign`, and `review attach` with the result"
            }
            Self::Rejected { .. } => "fix what was rejected in a new commit and have that reviewed",
            Self::Disagreement { .. } => "find out who is wrong, and take that builder out of the policy",
            Self::Unreadable { .. } => "use a newer countersign-runner, or ask who signed it what it says",
            Self::IncompleteMaterials { .. } => {
                "change the steps it names so that all they take in is recorded, and build again"
            }
            Self::Hosts { .. } => {
                "build from allowed hosts, or add these to hosts in the rule's [algorithm.materials]"
            }
            Self::IncompletePackages { .. } => {
                "mend the records it names and build again, with a builder that looks for packages in the image"
            }
            Self::FetchedPackages { .. } => {
                "build without fetching them, or take the pattern out of forbid_fetched in the rule's \
                 [algorithm.materials]"
            }
            Self::MissingPackages { .. } => {
                "add these to the build, or take them out of require in the rule's [algorithm.materials]"
            }
            Self::ForbiddenPackages { .. } => {
                "build without them, or take the pattern out of forbid in the rule's [algorithm.materials]"
            }
            Self::PackageNames { .. } => "build again with a builder that writes the names canonically",
            Self::OfBase { base, unmet } => {
                return format!(
                    "{}; the rule for it is [algorithm.built_bases], and listing {base} in bases allows it as it is",
                    unmet.remedy()
                );
            }
            Self::BaseEvidence { .. } => {
                "push the base with its evidence to one of the repositories of [algorithm.built_bases] and build from there"
            }
            Self::TooManyBases { .. } => "build on fewer bases, or list their digests in the rule's bases",
            Self::IndependentMaterials { .. } => {
                "let another listed operator run `countersign-builder rebuild --confirm`, or `--online`, and attach the result"
            }
            Self::MaterialsDiffer { .. } => {
                "find out what the first builder was given, with `countersign-builder materials confirm`"
            }
            Self::MustHear { .. } => {
                "have each run `countersign-builder rebuild` and attach the result, whichever it is"
            }
            Self::Parameters { .. } => {
                "put these into countersign.toml or the Dockerfile, have that reviewed and build again without them; or \
                 allow them in the rule's [algorithm.parameters]"
            }
            Self::Stale { .. } => {
                "have the commit reviewed and built again, or raise max_age of the rule's reviews or builds"
            }
            Self::OlderThanSeen { .. } => {
                "use the newer image; or say --allow-older, which is recorded"
            }
            Self::PolicyExpired { .. } => "get the policy that follows it from whoever wrote it, or move `expires`",
            Self::ClockSetBack { .. } => {
                "set the clock right; if it was wrong before, remove the later moment with \
                 `countersign-runner memory reset-clock`"
            }
            Self::TooMuchEvidence { .. } | Self::EvidenceSize { .. } => {
                "remove what does not belong to the image from its registry"
            }
            Self::EvidenceGone { .. } => {
                "put the manifest back; or, if it is meant to be gone, take its entry out of the list: \
                 docs/registries.md says how"
            }
            Self::OfFederation { federation, unmet } => {
                return format!(
                    "{}; only a new release by the key holders of {federation} changes its policy",
                    unmet.remedy()
                );
            }
            Self::FailedRebuild { .. } => "find out why with `countersign-builder diff`, then build again",
        }
        .to_owned()
    }
}
