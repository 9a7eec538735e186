//! From a reference to a decision: the policy, the digest behind the reference, the evidence about it, the decision; and from
//! the decision to the image. What every program asks that starts containers, or lets others start them.

mod admitted;
mod evidence;
mod federation;
mod memory;
mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use attestations::federation::Release;
use attestations::{
    Admitted, Cache, Call, Case, Decision, Denial, Digest, Gathered, Older, Policy, Reference, Remembered,
    Seen, Weighed,
};
use errors::{Error, Kind, Result};
use images::registry::{Client, Registries};
use images::{Image, Store};
use jiff::Timestamp;

pub use admitted::AdmittedImage;
use evidence::{Failed, GatheredEvidence, Gathering};
pub use federation::{Federation, read_trust};
use memory::Keeping;
pub use memory::{KeptNewest, KeptNo, KeptRelease, Memory};
pub use policy::{Policies, read as read_policy};

/// What decides, and where evidence and images are.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the policies are. They are read for each decision, so that a revocation counts at once.
    pub policies: Policies,
    /// How registries are reached.
    pub registries: Registries,
    /// Where the node remembers what it saw; none where nothing is remembered.
    pub memory: Option<PathBuf>,
}

/// What is asked, and where evidence may come from.
#[derive(Debug, Clone)]
pub struct Question {
    /// The image.
    pub reference: Reference,
    /// What is to be done with it, as far as it is known.
    pub call: Call,
    /// Files and folders with bundles, about the image or its bases.
    pub evidence: Vec<PathBuf>,
    /// Whether registries are asked too.
    pub sources: Sources,
    /// The moment that is decided for; none for now. Another one is to find out what would be, and is not remembered.
    pub at: Option<Timestamp>,
    /// What becomes of an image that is older than one that ran before.
    pub older: Older,
}

/// Whether registries are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// For the digest behind a tag, for what is attached, and for the image.
    Registries,
    /// For nothing: the reference has to name a digest, evidence comes from files, and the image is in the store.
    Offline,
}

/// How much is told of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    Verdict,
    Everything,
}

/// Decides, and pulls what was admitted.
pub struct Admission {
    policies: Policies,
    client: Client,
    memory: Option<Memory>,
    cache: Cache,
}

impl Admission {
    /// One that decides by this configuration. No policy is read and nobody is asked yet.
    ///
    /// # Errors
    /// When the memory cannot be opened.
    pub fn new(config: Config) -> Result<Self> {
        let client = Client::with(config.registries).telling(|text| tracing::warn!("{text}"));
        let memory = config.memory.map(|path| Memory::open(&path)).transpose()?;
        Ok(Self { policies: config.policies, client, memory, cache: Cache::default() })
    }

    /// Decides whether an image may run, now. The name decides first: no registry is asked before a rule of the policy may be
    /// about the reference. Evidence that is in `kept` already is not fetched again; that it still is attached is asked each
    /// time.
    ///
    /// # Errors
    /// When it cannot be decided: no policy, no such image, a registry that fails.
    pub async fn decide(&self, question: &Question, kept: Option<&Store>) -> Result<Decision> {
        Ok(self.weigh(question, kept, Telling::Verdict).await?.0)
    }

    /// As [`Admission::decide`], and how each piece of evidence weighed.
    ///
    /// # Errors
    /// As [`Admission::decide`].
    pub async fn explain(
        &self,
        question: &Question,
        kept: Option<&Store>,
    ) -> Result<(Decision, Vec<Weighed>)> {
        self.weigh(question, kept, Telling::Everything).await
    }

    async fn weigh(
        &self,
        question: &Question,
        kept: Option<&Store>,
        telling: Telling,
    ) -> Result<(Decision, Vec<Weighed>)> {
        let now = question.at.unwrap_or_else(Timestamp::now);
        let policies = self.policies.read(self.keeping(question.at), now)?;
        let by_name = |policy: &Policy| policy.denies_by_name(&question.reference, &question.call);
        if let Some(denial) = policies.each().filter_map(by_name).reduce(Denial::and) {
            return Ok((Decision::Denied(denial), Vec::new()));
        }
        let asked = attestations::Question {
            asked: question.reference.clone(),
            digest: self.digest(question).await?,
            call: question.call.clone(),
        };
        let gathering = Gathering::new(&self.client, &policies, kept);
        let found = match self.gather(&gathering, question, asked.digest).await {
            Ok(found) => found,
            Err(Failed::Error(error)) => return Err(error),
            Err(Failed::Denied(unmet)) => {
                let denial = Denial { question: asked.into(), unmet: vec![unmet], ignored: Vec::new() };
                return Ok((Decision::Denied(denial), Vec::new()));
            }
        };
        let mut joint: Option<Decision> = None;
        let mut weighed = Vec::new();
        for policy in policies.each() {
            let case = Case::open_with(policy, &asked, &found.bundles, now, Some(&self.cache))
                .noticing(found.noticed.clone());
            let bases = self.bases(&gathering, question, &case).await;
            let remembered = self.remembered(question, policy, &case, &bases)?;
            let decision = case.decide(&bases, &remembered);
            if let (Some(memory), None) = (&self.memory, question.at) {
                memory.decided(now, remembered.latest)?;
            }
            if telling == Telling::Everything {
                weighed.extend(case.weigh(&decision, &remembered));
            }
            joint = Some(match joint {
                Some(first) => first.and(decision, &asked),
                None => decision,
            });
        }
        match joint {
            Some(decision) => Ok((decision, weighed)),
            None => Err(Error::new(Kind::Bug, "no policy was asked")),
        }
    }

    /// What is found about the bases that this case asks for.
    async fn bases(
        &self,
        gathering: &Gathering<'_>,
        question: &Question,
        case: &Case<'_>,
    ) -> BTreeMap<Digest, Gathered> {
        let mut bases = BTreeMap::new();
        for base in case.bases() {
            let gathered = match question.sources {
                Sources::Registries => gathering.of_base(base).await,
                // The files are at hand already, and whoever decides offline says that they are all there is.
                Sources::Offline => Gathered::Bundles(Vec::new()),
            };
            bases.insert(base.digest, gathered);
        }
        bases
    }

    /// What is seen is kept, unless another moment than now is asked about.
    fn keeping(&self, at: Option<Timestamp>) -> Keeping<'_> {
        match (&self.memory, at) {
            (None, _) => Keeping::Nowhere,
            (Some(memory), None) => Keeping::In(memory),
            (Some(memory), Some(_)) => Keeping::Against(memory),
        }
    }

    /// What the node remembers that bears on this. The noes at hand are kept first, so that what was seen once cannot be lost
    /// again, whatever happens next.
    fn remembered(
        &self,
        question: &Question,
        policy: &Policy,
        case: &Case<'_>,
        bases: &BTreeMap<Digest, Gathered>,
    ) -> Result<Remembered> {
        let older = question.older;
        let Some(memory) = &self.memory else { return Ok(Remembered { older, ..Remembered::default() }) };
        let now = Timestamp::now();
        memory.keep(&case.noes(), now)?;
        for gathered in bases.values() {
            if let Gathered::Bundles(bundles) = gathered {
                memory.keep(&attestations::noes(policy, bundles, &self.cache), now)?;
            }
        }
        let newest =
            case.rule().map(|rule| memory.newest(&rule, question.reference.repository())).transpose()?;
        Ok(Remembered {
            noes: memory.noes(&case.about())?,
            newest: newest.flatten(),
            older,
            // Another moment than now is asked about: the clock has nothing to do with it.
            latest: if question.at.is_some() { None } else { memory.latest()? },
        })
    }

    /// Why an image that was admitted must not run on, by what a policy revokes now; nothing while it may. Where one policy
    /// cannot be read, the other one still revokes.
    ///
    /// # Errors
    /// When there is no usable policy at this moment.
    pub fn revokes(&self, admitted: &Admitted) -> Result<Option<String>> {
        let now = Timestamp::now();
        let mut unread = Ok(None);
        for policies in self.policies.split() {
            match policies.read(self.keeping(None), now) {
                Ok(read) => {
                    if let Some(reason) = read.each().find_map(|policy| policy.revokes(admitted)) {
                        return Ok(Some(reason));
                    }
                }
                Err(error) => unread = Err(error),
            }
        }
        unread
    }

    /// The digest of the policy that decides: the node's own, or the federation's where it has none.
    ///
    /// # Errors
    /// When there is no usable one.
    pub fn policy_digest(&self) -> Result<Digest> {
        let read = self.policies.read(self.keeping(None), Timestamp::now())?;
        let first = read.each().next().map(Policy::digest);
        first.ok_or_else(|| Error::new(Kind::Bug, "no policy was read"))
    }

    /// The federation's release that is in force now, where a federation is followed.
    ///
    /// # Errors
    /// When there is no usable one.
    pub fn release(&self) -> Result<Option<Release>> {
        let Some(federation) = self.policies.federation() else { return Ok(None) };
        federation::read(federation, self.keeping(None), Timestamp::now()).map(Some)
    }

    /// The evidence about the image itself.
    async fn gather(
        &self,
        gathering: &Gathering<'_>,
        question: &Question,
        digest: Digest,
    ) -> Result<GatheredEvidence, Failed> {
        let mut found = GatheredEvidence::default();
        for path in &question.evidence {
            found.bundles.extend(gathering.in_path(path)?);
        }
        if question.sources == Sources::Registries {
            let pinned = question.reference.repository().clone().pin(digest);
            found.extend(gathering.attached(&pinned).await?);
            let repositories: BTreeSet<_> =
                gathering.policies().each().flat_map(Policy::evidence_repositories).collect();
            for repository in repositories {
                found.extend(gathering.attached(&repository.clone().pin(digest)).await?);
            }
        }
        Ok(found)
    }

    /// The image of the proof: pulled into `store` by its digest, or offline found there.
    ///
    /// # Errors
    /// When it cannot be had, or is not what its builders said of it.
    pub async fn fetch(&self, admitted: &Admitted, sources: Sources, store: &Store) -> Result<AdmittedImage> {
        let image = match sources {
            Sources::Offline => Image::load(store, admitted.pinned().digest()),
            Sources::Registries => self.client.pull(admitted.pinned(), store).await,
        };
        let image = image.map_err(|cause| cause.during(format!("getting {}", admitted.pinned())))?;
        if let Some(memory) = &self.memory {
            let seen =
                Seen { digest: *admitted.pinned().digest(), commit_time: admitted.commit_time().as_second() };
            for yes in admitted.each() {
                memory.ran(yes.rule(), yes.pinned().repository(), seen)?;
            }
        }
        AdmittedImage::new(admitted, image, store)
    }

    /// The digest that the reference names: its own, or that behind its tag.
    async fn digest(&self, question: &Question) -> Result<Digest> {
        let reference = &question.reference;
        match (reference.digest(), question.sources) {
            (Some(digest), Sources::Offline) => Ok(*digest),
            (None, Sources::Offline) => Err(Error::new(
                Kind::Usage,
                format!("{reference} is a tag, and what it names is only known to the registry"),
            )
            .hint("with --offline, name the image by digest: registry/name@sha256:…")),
            (_, Sources::Registries) => {
                let doing = format!("finding {reference}");
                self.client.resolve(reference).await.map_err(|cause| cause.during(&doing))
            }
        }
    }
}
