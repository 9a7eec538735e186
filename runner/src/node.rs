//! The node: one configuration, one store, and the way from a request to a verified run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use attestations::{Admitted, Decision, Denial};
use errors::trusted;
use images::Store;
use images::registry::Client;
use sandbox::Canceller;
use serde_json::{Value, json};

use crate::admission::{self, Registry, Request};
use crate::config::{self, Config, Database, EngineKind};
use crate::egress::{self, Proxy, Rules, Token, Upstream};
use crate::engine::{Ended, Ending, Engine, Job};
use crate::error::{self, Error, Kind, Result};
use crate::task::{Files, Input};

/// A node.
pub struct Node {
    config: Config,
    client: Client,
    runtime: tokio::runtime::Handle,
}

/// What is to run.
pub struct Run {
    /// The image and its evidence. The function is taken from the input.
    pub request: Request,
    /// What the algorithm is asked.
    pub input: Input,
    /// Labels of the databases it sees; those of the configuration, or of `extra`.
    pub databases: Vec<String>,
    /// Databases that the configuration does not name.
    pub extra: BTreeMap<String, Database>,
    /// What starts it.
    pub engine: EngineKind,
    /// Ends it early.
    pub canceller: Canceller,
}

/// How a request to run came out.
pub enum Outcome {
    /// The policy does not admit it.
    Denied(Box<Denial>),
    /// It ran.
    Ran(Box<Report>),
}

/// What is known of a run.
pub struct Report {
    /// Why it was allowed.
    pub admitted: Admitted,
    /// How it ended.
    pub ending: Ending,
    /// Its result, when it ended well.
    pub result: Option<Vec<u8>>,
    /// What it asked of the outside: what its proxy passed and refused.
    pub egress: egress::Log,
    /// What it printed, as far as it is kept.
    pub log: Log,
    /// From the decision to the end.
    pub took: Duration,
}

impl Report {
    /// The report for machines, without the result.
    pub fn to_json(&self) -> Value {
        json!({
            "admitted": self.admitted,
            "ending": self.ending.to_string(),
            "succeeded": self.ending == Ending::Exited(0),
            "seconds": self.took.as_secs_f64(),
            "egress": self.egress,
            "log": self.log.text(),
            "logBytesNotKept": self.log.lost,
        })
    }
}

impl Node {
    /// A node by its configuration, on a runtime.
    pub fn new(config: Config, runtime: tokio::runtime::Handle) -> Self {
        let client = Client::new(config.plain_registries.iter().cloned());
        Self { config, client, runtime }
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether an image may run, now.
    ///
    /// # Errors
    /// When that cannot be decided.
    pub async fn verify(&self, request: &Request) -> Result<Decision> {
        admission::admit(&self.client, &self.config.policy, request, None).await
    }

    /// Verifies, and runs exactly what was admitted. Blocks; not to be called on the runtime's own threads.
    ///
    /// # Errors
    /// When it cannot be decided, the image cannot be had, or the engine fails.
    pub fn run(&self, run: Run) -> Result<Outcome> {
        self.run_telling(run, || {})
    }

    /// As [`Node::run`], and calls `starting` once the image is admitted and at hand, before the engine starts it.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub fn run_telling(&self, mut run: Run, starting: impl FnOnce()) -> Result<Outcome> {
        run.request.function = Some(run.input.function().to_owned());
        // The engine is made ready meanwhile; it touches nothing of the image, and a denial does not wait for it to matter.
        self.config.make_state_dir()?;
        let store = Store::open(self.config.state_dir.join("images"))
            .map_err(|cause| error::images("opening the store of images", cause))?;
        let (decision, engine) = std::thread::scope(|scope| {
            let opening = scope.spawn(|| Engine::open(run.engine, &self.config, &self.runtime));
            let deciding = admission::admit(&self.client, &self.config.policy, &run.request, Some(&store));
            let decision = self.runtime.block_on(deciding);
            (decision, opening.join().unwrap_or_else(|_| Err(error::bug("opening the engine panicked"))))
        });
        let admitted = match decision? {
            Decision::Admitted(admitted) => admitted,
            Decision::Denied(denial) => return Ok(Outcome::Denied(Box::new(denial))),
        };
        let engine = engine?;
        if !admitted.permits(run.input.function()) {
            return Err(error::bug("a function passed the decision that its proof does not permit"));
        }
        let started = Instant::now();
        let image = match run.request.registry {
            Registry::Offline => images::Image::load(&store, admitted.pinned().digest()),
            Registry::Asked => self.runtime.block_on(self.client.pull(admitted.pinned(), &store)),
        };
        let image = image.map_err(|cause| error::images(&format!("getting {}", admitted.pinned()), cause))?;
        let databases = self.databases(&run)?;
        let token = self.token()?;
        let shown = token.as_deref().map(without_signature).unwrap_or_default();
        let files = Files::lay_out(&self.config.state_dir, &run.input, &shown, &databases)?;
        let mut log = Log::new(self.config.limits.log());
        let job = Job {
            image: &image,
            store: &store,
            files: &files,
            proxy: self.proxy(token)?,
            limits: &self.config.limits,
            canceller: &run.canceller,
            runtime: &self.runtime,
        };
        starting();
        let Ended { ending, egress } = engine.start(&admitted, job, &mut |bytes| log.push(bytes))?;
        let result = match ending {
            Ending::Exited(0) => Some(files.result(self.config.limits.result())?),
            _ => None,
        };
        Ok(Outcome::Ran(Box::new(Report { admitted, ending, result, egress, log, took: started.elapsed() })))
    }

    fn databases(&self, run: &Run) -> Result<BTreeMap<String, Database>> {
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

    fn token(&self) -> Result<Option<String>> {
        let Some(path) = &self.config.upstream.token_file else { return Ok(None) };
        Ok(Some(trusted::read_text(path, config::MAX_FILE)?.trim().to_owned()))
    }

    fn proxy(&self, token: Option<String>) -> Result<Proxy> {
        let unusable = |cause| {
            Error::new(Kind::Input, "the upstream server of runner.toml is not usable").because(cause)
        };
        let upstream = self.config.upstream.url.clone().map_or(Upstream::None, Upstream::Url);
        let rules = self.config.upstream.allow.clone().unwrap_or_else(Rules::vantage6);
        let token = token.map(Token::new).transpose().map_err(unusable)?;
        Proxy::new(rules, upstream, token).map_err(unusable)
    }
}

/// The algorithm reads who it runs for from its token; it has no use for the part that proves it, which the proxy adds.
fn without_signature(token: &str) -> String {
    match token.rsplit_once('.') {
        Some((claims, _)) => format!("{claims}."),
        None => String::new(),
    }
}

/// The first bytes that a run printed; the rest is counted.
#[derive(Debug, Clone, Default)]
pub struct Log {
    kept: Vec<u8>,
    limit: usize,
    lost: u64,
}

impl Log {
    fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit, lost: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.lost += (bytes.len() - room) as u64;
    }

    /// What was kept, as text; what would move a terminal's cursor is shown instead of done.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
    }

    /// The bytes that were kept.
    pub fn bytes(&self) -> &[u8] {
        &self.kept
    }
}
