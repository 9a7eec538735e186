//! `countersign-runner task …`: the interface from a shell.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use errors::{chain, files};
use serde_json::{Value, json};

use super::client::{Client, Error as ClientError};
use crate::queue::MAX_INPUT;

/// Where `serve` listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/countersign/runner.sock";

/// Submit tasks to a running server and follow them.
#[derive(Debug, Clone, Args)]
pub struct TaskCommand {
    /// The server's socket.
    #[arg(long, global = true, default_value = DEFAULT_SOCKET, env = "COUNTERSIGN_RUNNER_SOCKET", value_name = "PATH")]
    socket: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Submit a task and print its number.
    Submit {
        /// The image, as registry/repository:tag or @sha256:….
        image: String,
        /// The algorithm's input: a file with a JSON object, or `-` for standard input.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// The label of a database; may be repeated.
        #[arg(long = "database", value_name = "LABEL")]
        databases: Vec<String>,
        /// A key that makes repeating this call harmless.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// Wait until the task is over, then print its result.
        #[arg(long)]
        wait: bool,
    },
    /// List tasks, the newest first.
    List {
        /// Most tasks to list.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one task as JSON, with the reasons when it was denied.
    Show {
        /// The task's number.
        id: u64,
    },
    /// Print a completed task's result.
    Result {
        /// The task's number.
        id: u64,
        /// Wait until the task is over.
        #[arg(long)]
        wait: bool,
    },
    /// Print what a finished task's container wrote.
    Log {
        /// The task's number.
        id: u64,
    },
    /// Cancel a task.
    Cancel {
        /// The task's number.
        id: u64,
    },
}

/// Why the command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is out of reach or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The input's file is not a JSON object.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The task ended without a result.
    #[error("task {id} is {state}{}", reason.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    NoResult {
        /// The task.
        id: u64,
        /// Its state.
        state: String,
        /// Why.
        reason: Option<String>,
    },
    /// Standard output or the runtime failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// What to do about it, when the server or we know.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            Error::Client(ClientError::Refused { remedy, .. }) => Some(remedy),
            Error::Client(ClientError::Unreachable { .. }) => {
                Some("start `countersign-runner serve`, or name its socket with --socket")
            }
            Error::Input { .. } => Some("give a file that holds one JSON object"),
            Error::NoResult { .. } => Some("see `countersign-runner task show` and `task log`"),
            Error::Client(ClientError::Broken(_)) | Error::Io(_) => None,
        }
    }
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        use crate::error::Kind;
        let kind = match &error {
            Error::Client(ClientError::Refused { status: 404, .. }) => Kind::NotFound,
            Error::Client(ClientError::Refused { code, .. }) if code == "wrong_state" => Kind::Refused,
            Error::NoResult { .. } => Kind::Refused,
            Error::Client(ClientError::Refused { status: 400..=499, .. }) | Error::Input { .. } => {
                Kind::Input
            }
            Error::Client(_) | Error::Io(_) => Kind::Machine,
        };
        let answer = crate::error::Error::new(kind, error.to_string());
        let answer = error.remedy().into_iter().fold(answer, crate::error::Error::hint);
        answer.because(error)
    }
}

impl TaskCommand {
    /// Does what was asked, and prints to `out`; as JSON where `json` asks for it. Blocks; may be called with or without a runtime around it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(&self, json: bool, out: &mut (dyn Write + Send)) -> Result<(), Error> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(self.act(json, out))
            });
            thread.join().unwrap_or_else(|_| Err(Error::Io(std::io::Error::other("the client broke off"))))
        })
    }

    async fn act(&self, json: bool, out: &mut (dyn Write + Send)) -> Result<(), Error> {
        let client = Client::new(&self.socket);
        match &self.action {
            Action::Submit { image, input, databases, idempotency_key, wait } => {
                let mut body = json!({ "image": image, "input": read_input(input)?, "databases": databases });
                if let Some(key) = idempotency_key {
                    body["idempotency_key"] = json!(key);
                }
                let answer = client.post("/v1/tasks", Some(&body)).await?;
                let task = parse(&answer)?;
                let id =
                    task["id"].as_u64().ok_or_else(|| ClientError::Broken("it has no number".to_owned()))?;
                match wait {
                    false if json => return line(out, &answer),
                    false => return Ok(writeln!(out, "{id}")?),
                    true => {}
                }
                finished(&client, id).await?;
                line(out, &client.get(&format!("/v1/tasks/{id}/result")).await?)
            }
            Action::List { limit } => {
                let answer = client.get(&format!("/v1/tasks?limit={limit}")).await?;
                if json { line(out, &answer) } else { table(out, &parse(&answer)?) }
            }
            Action::Show { id } => pretty(out, &client.get(&format!("/v1/tasks/{id}")).await?),
            Action::Result { id, wait } => {
                if *wait {
                    finished(&client, *id).await?;
                }
                line(out, &client.get(&format!("/v1/tasks/{id}/result")).await?)
            }
            Action::Log { id } => Ok(out.write_all(&client.get(&format!("/v1/tasks/{id}/log")).await?)?),
            Action::Cancel { id } => {
                pretty(out, &client.post(&format!("/v1/tasks/{id}/cancel"), None).await?)
            }
        }
    }
}

/// Waits until a task is over; anything but a completed one is an error with its reason.
async fn finished(client: &Client, id: u64) -> Result<(), Error> {
    let mut pause = Duration::from_millis(20);
    loop {
        let task = parse(&client.get(&format!("/v1/tasks/{id}")).await?)?;
        match task["state"].as_str().unwrap_or_default() {
            "completed" => return Ok(()),
            "queued" | "verifying" | "running" => {}
            state => {
                let reason = task["reason"].as_str().map(str::to_owned);
                return Err(Error::NoResult { id, state: state.to_owned(), reason });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn read_input(path: &PathBuf) -> Result<Value, Error> {
    let fail = |reason: String| Error::Input { path: path.clone(), reason };
    let source: Box<dyn std::io::Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| fail(error.to_string()))?)
    };
    let mut bytes = Vec::new();
    files::fill(&mut bytes, source, path, MAX_INPUT as u64).map_err(|error| fail(chain::line(&error)))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(fail("it is JSON, but not an object".to_owned())) }
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    Ok(serde_json::from_slice(bytes).map_err(|error| ClientError::Broken(error.to_string()))?)
}

fn line(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_all(bytes)?;
    if !bytes.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn pretty(out: &mut dyn Write, bytes: &[u8]) -> Result<(), Error> {
    Ok(writeln!(out, "{:#}", parse(bytes)?)?)
}

fn table(out: &mut dyn Write, answer: &Value) -> Result<(), Error> {
    writeln!(out, "{:>6}  {:<10} {:<20}  IMAGE", "TASK", "STATE", "SINCE")?;
    for task in answer["tasks"].as_array().into_iter().flatten() {
        let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
        let since: String = text("updated_at").chars().take(19).collect();
        let id = task["id"].to_string();
        writeln!(out, "{id:>6}  {:<10} {since:<20}  {}", text("state"), text("image"))?;
    }
    Ok(())
}
