//! The node: one configuration, one store, and all that is between a request and a verified run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use admission::{Admission, Question};
use attestations::{Caller, Decision, Denial, Digest, Subject, Weighed};
use errors::trusted;
use images::Store;
use jiff::Timestamp;
use sandbox::Canceller;

use crate::config::{self, Config, Database, EngineKind};
use crate::egress::Token;
use crate::engine::{Ended, Engine, Job};
use crate::error::{self, Error, Kind, Result};
use crate::record::{self, Book, Ending, Entries, Over, RecordedTask, RunReport, Starting, TaskOutput};
use crate::revocation;
use crate::vantage6::{AdmittedCall, CallRequest, Files, Input, Returned};

/// A node.
pub struct Node {
    config: Config,
    admission: Admission,
    runtime: tokio::runtime::Handle,
    /// Opened at the first run: verifying writes nothing.
    book: Mutex<Option<Arc<Book>>>,
}

/// Whether a node keeps in its state directory what it saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembering {
    /// It does, from now on at the latest.
    Always,
    /// If it does already: a question alone begins no memory.
    IfItDoes,
}

/// What is to run.
pub struct RunRequest {
    /// The image and its evidence. What is known of the call is taken from the rest of this.
    pub question: Question,
    /// What the algorithm is asked.
    pub input: Input,
    /// Labels of the databases it sees; those of the configuration, or of `extra`.
    pub databases: Vec<String>,
    /// Databases that the configuration does not name.
    pub extra: BTreeMap<String, Database>,
    /// Who asks.
    pub caller: Caller,
    /// The task's own token for the node's server, in place of the configuration's.
    pub token: Option<Token>,
    /// What starts it.
    pub engine: EngineKind,
    /// Ends it early.
    pub canceller: Canceller,
    /// What is written down about it.
    pub place: RecordedTask,
}

/// How a request to run came out.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The policy does not admit it.
    Denied(Box<Denial>),
    /// It ran.
    Ran(Box<RunReport>),
}

impl Node {
    /// A node by its configuration, on a runtime.
    ///
    /// # Errors
    /// When a mirror or a file of certificates is not usable, or the node's memory.
    pub fn new(config: Config, runtime: tokio::runtime::Handle, remembering: Remembering) -> Result<Self> {
        let registries = config.registries()?;
        let memory = match remembering {
            Remembering::Always => {
                config.make_state_dir()?;
                record::refuse_lost_memory(&config)?;
                Some(config.memory())
            }
            Remembering::IfItDoes => memory_at_hand(&config)?,
        };
        let policies = config.policies()?;
        let admission = Admission::new(admission::Config { policies, registries, memory })?;
        Ok(Self { config, admission, runtime, book: Mutex::default() })
    }

    /// Whether an image may run, now.
    ///
    /// # Errors
    /// When that cannot be decided.
    pub async fn verify(&self, question: &Question) -> Result<Decision> {
        self.admission.decide(question, None).await
    }

    /// As [`Node::verify`], and how each piece of evidence weighed.
    ///
    /// # Errors
    /// As [`Node::verify`].
    pub async fn explain(&self, question: &Question) -> Result<(Decision, Vec<Weighed>)> {
        self.admission.explain(question, None).await
    }

    /// The digest of the policy that decides.
    ///
    /// # Errors
    /// When there is no usable one.
    pub(crate) fn policy_digest(&self) -> Result<Digest> {
        self.admission.policy_digest()
    }

    /// Verifies, and runs exactly what was admitted. Blocks; not to be called on the runtime's own threads.
    ///
    /// # Errors
    /// When it cannot be decided, the image cannot be had, or the engine fails.
    pub fn run(&self, run: RunRequest) -> Result<Outcome> {
        self.run_telling(run, || {})
    }

    /// As [`Node::run`], and calls `starting` once the image is admitted and at hand, before the engine starts it.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub(crate) fn run_telling(&self, mut run: RunRequest, starting: impl FnOnce()) -> Result<Outcome> {
        run.question.call = run.input.call(run.databases.iter().chain(run.extra.keys()), &run.caller);
        let place = run.place.of(&run.caller);
        // What cannot be written down does not run.
        let book = self.book()?;
        // The engine is made ready meanwhile; it touches nothing of the image, and a denial does not wait for it to matter.
        let store = Store::open(self.config.state_dir.join("images"))
            .map_err(|cause| cause.during("opening the store of images"))?;
        let (decision, engine) = std::thread::scope(|scope| {
            let opening = scope.spawn(|| Engine::open(run.engine, &self.config, &self.runtime));
            let deciding = self.admission.decide(&run.question, Some(&store));
            let decision = self.runtime.block_on(deciding);
            (decision, opening.join().unwrap_or_else(|_| Err(error::bug("opening the engine panicked"))))
        });
        let admitted = match decision? {
            Decision::Admitted(admitted) => admitted,
            Decision::Denied(denial) => {
                book.denied(&place, &denial)?;
                return Ok(Outcome::Denied(Box::new(denial)));
            }
        };
        let engine = engine?;
        let started = Instant::now();
        let image = self.runtime.block_on(self.admission.fetch(&admitted, run.question.sources, &store))?;
        let databases = self.databases(&run)?;
        let labels = databases.keys().cloned().collect();
        let wanted = CallRequest { input: run.input, databases, caller: run.caller };
        let call = AdmittedCall::new(image, wanted)?;
        // What may ask nothing has no use for a token.
        let token = match call.admitted().privileges().egress().is_empty() {
            true => None,
            false => run.token.map_or_else(|| self.token(), |own| Ok(Some(own)))?,
        };
        let shown = token.as_ref().map(Token::claims).unwrap_or_default();
        let files = Files::lay_out(&self.config.state_dir, &call, &shown)?;
        let limits = self.config.limits.within(call.budget());
        let mut log = TaskOutput::new(limits.log());
        let proxy = call.proxy(&self.config.upstream, token)?;
        let start = book.started(Starting {
            place: &place,
            admitted: call.admitted(),
            function: call.input().function(),
            input: call.input().bytes(),
            databases: labels,
            limits: &limits,
            engine: engine.told(),
        })?;
        let quorum = self.runtime.block_on(book.require_quorum());
        let started_at = Timestamp::now();
        let (ran, revoked) = revocation::watched(&self.admission, &admitted, &run.canceller, |canceller| {
            quorum?;
            starting();
            let limits = &limits;
            let job = Job { call: &call, files: &files, proxy, limits, canceller, runtime: &self.runtime };
            engine.start(job, &mut |bytes| log.push(bytes))
        });
        let ran = ran.and_then(|ended| match &revoked {
            // What the policy stopped gives no result, also where it had just ended.
            Some(_) => Ok((None, ended)),
            None if ended.ending == Ending::Exited(0) => Ok((Some(files.returned(limits.result())?), ended)),
            None => Ok((None, ended)),
        });
        let over = Over { start, started_at, revoked: revoked.as_deref(), ran: ran.as_ref().ok() };
        let end = book.ended(&place, call.admitted(), &over)?;
        self.runtime.block_on(book.require_quorum())?;
        let (returned, Ended { ending, egress }) = ran?;
        let (result, unusable) = match returned {
            Some(Returned::Result(result)) => (Some(result), None),
            Some(Returned::Unusable(why)) => (None, Some(why)),
            None => (None, None),
        };
        let (took, admitted, entries) = (started.elapsed(), call.admitted().clone(), Entries { start, end });
        let report = RunReport { admitted, ending, revoked, unusable, result, egress, log, took, entries };
        Ok(Outcome::Ran(Box::new(report)))
    }

    /// The record of what runs here, opened at its first use.
    ///
    /// # Errors
    /// As [`Book::open`].
    pub fn book(&self) -> Result<Arc<Book>> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match &*book {
            Some(book) => Ok(Arc::clone(book)),
            None => Ok(Arc::clone(book.insert(Arc::new(Book::open(&self.config)?)))),
        }
    }

    /// Writes down that the result of a run leaves the node; until that is done it must not.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn release(
        &self,
        place: &RecordedTask,
        image: &Subject,
        end: Option<u64>,
        result: &[u8],
    ) -> Result<u64> {
        self.book()?.released(place, image, end, result)
    }

    /// Asks the witnesses to cosign what was written down, where the configuration names some. Without a quorum there is a
    /// warning: whoever needs one has it before this.
    pub(crate) async fn ask_witnesses(&self) {
        let asked = match self.book() {
            Ok(book) => book.ask_witnesses().await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = asked {
            tracing::warn!(error = %errors::chain::line(&error), "the log is not cosigned as it is now");
        }
    }

    fn databases(&self, run: &RunRequest) -> Result<BTreeMap<String, Database>> {
        let mut found = run.extra.clone();
        for label in &run.databases {
            let database = run.extra.get(label).or_else(|| self.config.databases.get(label));
            let database = database.ok_or_else(|| {
                Error::new(Kind::NotFound, format!("no database is called `{label}` here"))
                    .hint("runner.toml names the databases, under [databases.LABEL]")
            })?;
            found.insert(label.clone(), database.clone());
        }
        Ok(found)
    }

    /// The token that all tasks share.
    fn token(&self) -> Result<Option<Token>> {
        self.config.upstream.token_file.as_deref().map(read_token).transpose()
    }
}

/// The node's memory, where it has one. That it cannot be looked for is not the same as that it is not there.
fn memory_at_hand(config: &Config) -> Result<Option<PathBuf>> {
    let path = config.memory();
    match path.try_exists() {
        Ok(false) => Ok(None),
        Ok(true) => {
            config.make_state_dir()?;
            Ok(Some(path))
        }
        Err(cause) => Err(Error::io("looking for the node's memory", &path, cause)
            .hint("ask as the user of the node; or name another state directory with --state-dir, of which nothing is remembered")),
    }
}

/// Reads a token for the node's server.
///
/// # Errors
/// When others may change the file, or it holds no token.
pub(crate) fn read_token(path: &Path) -> Result<Token> {
    let text = trusted::read_text(path, config::MAX_FILE)?;
    Token::new(text.trim()).map_err(|cause| {
        Error::new(Kind::Input, format!("{} holds no token that can be used", path.display())).because(cause)
    })
}
