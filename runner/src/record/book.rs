//! The node's log, and what is written into it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use attestations::run::{
    Admission, Denied, Ended, Engine, Erased, Erasure, Event, Exception, Released, Run, RunLimits, Salt,
    Salted, Started,
};
use attestations::{Admitted, Caller, Denial, Digest, Foreign, Older, Predicate, Signer, Statement, Subject};
use errors::files;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tlog::note::Signature;
use tlog::policy::Cosigned;
use tlog::{Log, Reader, SignedCheckpoint, VerifierKey};

use super::egress as kept;
use super::key;
use super::witnesses::Witnesses;
use crate::config::{self, Config, Quorum};
use crate::engine;
use crate::error::{Error, Kind, Result};
use crate::vantage6::Returned;

/// The most bytes of a checkpoint that is kept.
pub(super) const MAX_CHECKPOINT: u64 = 64 << 10;
/// The most labels of databases that are kept of one run.
const MAX_LABELS: usize = 256;

/// The node's log, open for writing.
pub struct Book {
    log: Mutex<Log>,
    signer: Arc<dyn Signer>,
    folder: PathBuf,
    key: VerifierKey,
    witnesses: Option<Witnesses>,
}

/// Which task something is written about, and what hides what it is about.
#[derive(Debug, Clone)]
pub struct RecordedTask {
    /// Its number in the queue, if it came through that.
    pub task: Option<u64>,
    /// The salt of its digests.
    pub salt: Salt,
    /// Who asked.
    pub caller: Option<String>,
}

impl RecordedTask {
    /// That of a run that came through no queue, with a new salt.
    ///
    /// # Errors
    /// When the machine has no randomness.
    pub fn new() -> Result<Self> {
        Ok(Self { task: None, salt: new_salt()?, caller: None })
    }

    /// The same, with who asks: by the number of the user, which names nobody on another machine.
    pub(crate) fn of(&self, caller: &Caller) -> Self {
        let caller = match caller {
            Caller { uid: Some(uid), .. } => Some(format!("uid:{uid}")),
            Caller { user, .. } => user.clone(),
        };
        Self { caller, ..self.clone() }
    }
}

/// A new salt.
pub(crate) fn new_salt() -> Result<Salt> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::new(Kind::Machine, "the machine gives no random bytes"))?;
    Ok(Salt::from_bytes(bytes))
}

/// The entries of the log about one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// That it starts.
    pub start: u64,
    /// How it ended.
    pub end: u64,
}

/// What is about to start.
pub(crate) struct Starting<'a> {
    pub(crate) place: &'a RecordedTask,
    pub(crate) admitted: &'a Admitted,
    pub(crate) function: &'a str,
    pub(crate) input: &'a [u8],
    pub(crate) databases: Vec<String>,
    pub(crate) limits: &'a config::LimitSettings,
    pub(crate) engine: Engine,
}

/// What is over.
pub(crate) struct Over<'a> {
    pub(crate) start: u64,
    pub(crate) started_at: Timestamp,
    /// Why the policy stopped it, where it did.
    pub(crate) revoked: Option<&'a str>,
    /// What came of it; none where the node failed.
    pub(crate) ran: Option<&'a (Option<Returned>, engine::Ended)>,
}

impl Book {
    /// Opens the log that the configuration names, or makes it, and its key.
    ///
    /// # Errors
    /// When it cannot be written, or is not the log of this key: then nothing may run.
    pub fn open(config: &Config) -> Result<Self> {
        config.make_state_dir()?;
        let signer = key::open(config)?;
        let folder = config.log_folder();
        let origin = config.record.origin.clone().unwrap_or_else(|| own_name(&*signer));
        let log = Log::open(&folder, &origin, Arc::clone(&signer))
            .map_err(during("opening the record of what runs"))?;
        let key = log.key().clone();
        let witnesses = Witnesses::open(config)?;
        Ok(Self { log: Mutex::new(log), signer, folder, key, witnesses })
    }

    /// The key that verifies the log's checkpoints; its statements are signed with the same one.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The log as it is now.
    ///
    /// # Errors
    /// When its checkpoint does not verify.
    pub fn reader(&self) -> Result<Reader> {
        Ok(Reader::open(&self.folder, &self.key)?)
    }

    /// Asks the witnesses of the configuration to cosign the log as it is now, if it names some. Takes ten seconds at most.
    ///
    /// # Errors
    /// When too few do.
    pub(crate) async fn ask_witnesses(&self) -> Result<Option<Cosigned>> {
        match &self.witnesses {
            Some(witnesses) => witnesses.ask(self).await.map(Some),
            None => Ok(None),
        }
    }

    /// As [`Self::ask_witnesses`], where nothing may go on without a quorum; otherwise nobody is asked.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn require_quorum(&self) -> Result<()> {
        match &self.witnesses {
            Some(witnesses) if witnesses.quorum == Quorum::Required => witnesses.ask(self).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Keeps cosignatures, if the log still is of this size.
    pub(super) fn cosign(&self, size: u64, signatures: Vec<Signature>) -> Result<()> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.cosign(size, signatures).map(|_| ()).map_err(during("keeping what witnesses signed"))
    }

    /// Writes down a no.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn denied(&self, place: &RecordedTask, denial: &Denial) -> Result<u64> {
        let asked = &denial.question;
        let name = asked.asked.repository().to_string();
        let subject = match &asked.digest {
            Some(digest) => Subject::image(name, digest),
            // Nobody was asked what it stands for: the name is all there is.
            None => named(&asked.asked.to_string()),
        };
        let unmet = denial.unmet.iter().map(|unmet| unmet.code().to_owned()).collect();
        self.write(place, subject, Event::Denied(Denied { unmet, caller: caller(place) }))
    }

    /// Writes down that a run starts, before it does.
    ///
    /// # Errors
    /// When it cannot be written: then it must not start.
    pub(crate) fn started(&self, it: Starting<'_>) -> Result<u64> {
        let admission = Admission {
            commit: it.admitted.commit().clone(),
            rule: it.admitted.rule().to_owned(),
            policy: *it.admitted.policy(),
            federation_policy: it.admitted.each().nth(1).map(|yes| *yes.policy()),
            evidence: evidence(it.admitted),
            exceptions: match it.admitted.older() {
                Older::Denied => Vec::new(),
                Older::Allowed => vec![Exception::OlderThanSeen],
            },
            decided_at: it.admitted.decided_at(),
        };
        let limits = RunLimits {
            memory: it.limits.memory(),
            pids: it.limits.pids,
            cpus: it.limits.cpus,
            wall_seconds: it.limits.wall_seconds,
            result: it.limits.result(),
            writable_root: it.limits.writable_root,
        };
        let started = Started {
            admission,
            function: Foreign::new(it.function).to_string(),
            caller: caller(it.place),
            databases: it
                .databases
                .iter()
                .take(MAX_LABELS)
                .map(|label| Foreign::new(label).to_string())
                .collect(),
            input: it.place.salt.digest(it.input),
            limits,
            engine: it.engine,
        };
        self.write(it.place, image(it.admitted), Event::Started(Box::new(started)))
    }

    /// Writes down how a run ended.
    ///
    /// # Errors
    /// When it cannot be written: then its result must not be given out.
    pub(crate) fn ended(&self, place: &RecordedTask, admitted: &Admitted, it: &Over<'_>) -> Result<u64> {
        let ended = Ended {
            start: it.start,
            started_at: it.started_at,
            ending: match (it.revoked, it.ran) {
                (Some(_), _) => attestations::run::Ending::Revoked,
                (None, Some((_, ended))) => ending(ended.ending),
                (None, None) => attestations::run::Ending::Failed,
            },
            output: it.ran.and_then(|(returned, _)| Some(place.salt.digest(returned.as_ref()?.result()?))),
            egress: it.ran.map(|(_, ended)| kept::of(&ended.egress)).unwrap_or_default(),
        };
        self.write(place, image(admitted), Event::Ended(Box::new(ended)))
    }

    /// Writes down that a result leaves the node, before it does.
    ///
    /// # Errors
    /// When it cannot be written: then it must not leave.
    pub(crate) fn released(
        &self,
        place: &RecordedTask,
        image: &Subject,
        end: Option<u64>,
        result: &[u8],
    ) -> Result<u64> {
        let output = place.salt.digest(result);
        self.write(place, image.clone(), Event::Released(Released { end, output }))
    }

    /// Writes down that a task is erased.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn erased(&self, task: u64, image: Subject, reason: Erasure) -> Result<u64> {
        self.append(
            image,
            Run { at: Timestamp::now(), task: Some(task), event: Event::Erased(Erased { reason }) },
        )
    }

    fn write(&self, place: &RecordedTask, subject: Subject, event: Event) -> Result<u64> {
        self.append(subject, Run { at: Timestamp::now(), task: place.task, event })
    }

    fn append(&self, subject: Subject, run: Run) -> Result<u64> {
        let statement = Statement { subject: vec![subject], predicate: Predicate::Run(Box::new(run)) };
        let bundle = attestations::sign(&statement, &*self.signer)
            .map_err(|cause| Error::new(Kind::Key, "signing the record of what runs").because(cause))?;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let appended = log.append(bundle.to_bytes()).map_err(during("writing the record of what runs"))?;
        Ok(appended.index)
    }
}

/// The digests of the bundles about the image that counted.
fn evidence(admitted: &Admitted) -> Vec<Digest> {
    let counted = admitted.each().flat_map(Admitted::counted).map(|counted| counted.bundle);
    let mut all: Vec<Digest> = counted.collect();
    all.sort();
    all.dedup();
    all
}

/// A failure of the log, with what it stopped.
fn during(doing: &'static str) -> impl FnOnce(tlog::Error) -> Error {
    move |cause| {
        let cause = Error::from(cause);
        let error = Error::new(cause.kind(), doing);
        let hint = cause.hint_text().map(str::to_owned);
        hint.into_iter().fold(error, Error::hint).because(cause)
    }
}

/// The key that verifies the log of a node, which is made where there is none yet.
pub(crate) fn verifier(config: &Config) -> Result<VerifierKey> {
    config.make_state_dir()?;
    let signer = key::open(config)?;
    let origin = config.record.origin.clone().unwrap_or_else(|| own_name(&*signer));
    Ok(VerifierKey::new(&origin, tlog::Purpose::Log, signer.public_key())?)
}

/// Refuses to go on where the node wrote a log and its memory is gone: a no that it has seen would be forgotten with it.
///
/// # Errors
/// [`Kind::Refused`], with what to do.
pub(crate) fn refuse_lost_memory(config: &Config) -> Result<()> {
    let memory = config.memory();
    let is_there = std::fs::metadata(&memory).is_ok_and(|found| found.len() > 0);
    if is_there || !has_entries(&config.log_folder()) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Refused,
        format!("this node has run before, and what it remembers is gone: {}", memory.display()),
    )
    .hint(
        "restore the file from a backup; `countersign-runner memory begin-anew` goes on without earlier noes",
    ))
}

/// Whether the log in this folder has entries. One that cannot be read stops the node by itself when it is opened.
fn has_entries(folder: &Path) -> bool {
    let read = files::read(&folder.join(tlog::layout::CHECKPOINT), MAX_CHECKPOINT).ok();
    let signed = read.and_then(|bytes| SignedCheckpoint::parse(&bytes).ok());
    signed.is_some_and(|signed| signed.unverified().size > 0)
}

/// The image as the subject of a statement.
pub(crate) fn image(admitted: &Admitted) -> Subject {
    Subject::image(admitted.pinned().repository().to_string(), admitted.pinned().digest())
}

/// An image of which nothing but its name is known.
pub(crate) fn named(name: &str) -> Subject {
    let digest = Digest::of(name.as_bytes()).hex();
    Subject { name: name.to_owned(), digest: [("sha256OfName".to_owned(), digest)].into() }
}

/// What a node that is given no name is called: what its key says of it.
fn own_name(signer: &dyn Signer) -> String {
    let digest = Digest::of(signer.public_key().spki_der()).hex();
    format!("countersign-node/{}", &digest[..16])
}

fn caller(place: &RecordedTask) -> Option<Salted> {
    place.caller.as_ref().map(|caller| place.salt.digest(caller.as_bytes()))
}

fn ending(ending: engine::Ending) -> attestations::run::Ending {
    use attestations::run::Ending as Kept;
    match ending {
        engine::Ending::Exited(code) => Kept::Exited(code),
        engine::Ending::Signal(signal) => Kept::Signal(signal),
        engine::Ending::TimedOut => Kept::TimedOut,
        engine::Ending::OutOfMemory => Kept::OutOfMemory,
        engine::Ending::Cancelled => Kept::Cancelled,
    }
}
