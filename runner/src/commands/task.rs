//! `countersign-runner task …`: the service from a shell.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use errors::{Form, chain, files, output};
use serde_json::{Value, json};

use super::output::foreign;
use crate::service::{
    client::{Client, Error as ClientError},
    queue::MAX_INPUT,
};

/// Most bytes of a token's file.
const MAX_TOKEN: u64 = 16 << 10;
/// Where `serve` listens unless told otherwise.
pub(super) const DEFAULT_SOCKET: &str = "/run/countersign/runner.sock";

/// Submit, list and cancel tasks on a running `serve`, and fetch their results and logs.
#[derive(Debug, Clone, Args)]
pub(super) struct TaskCommand {
    /// Unix socket of the running `serve`.
    #[arg(long, global = true, default_value = DEFAULT_SOCKET, env = "COUNTERSIGN_RUNNER_SOCKET", value_name = "PATH")]
    socket: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Submit a task and print its number.
    Submit {
        /// Image reference: registry/name:tag or registry/name@sha256:….
        image: String,
        /// File with the algorithm's input, a JSON object; `-` reads standard input.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Label of a database that the algorithm may read; may be given several times.
        #[arg(long = "database", value_name = "LABEL")]
        databases: Vec<String>,
        /// File with this task's own token for the node's server; the algorithm never sees the part that proves it.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Key of your choice that makes it safe to repeat this call: the same key never starts a second task.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// Wait until the task has ended, then print its result.
        #[arg(long)]
        wait: bool,
    },
    /// List tasks, newest first.
    List {
        /// Most tasks to list.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show a task as JSON, with the reasons if it was denied.
    Show {
        /// Number of the task.
        id: u64,
    },
    /// Print the result of a completed task.
    Result {
        /// Number of the task.
        id: u64,
        /// Wait until the task has ended.
        #[arg(long)]
        wait: bool,
    },
    /// Print the container output of a finished task.
    Log {
        /// Number of the task.
        id: u64,
    },
    /// Erase the input, result and log of a finished task; the node's record keeps that it ran.
    Remove {
        /// Number of the task.
        id: u64,
    },
    /// Cancel a task.
    Cancel {
        /// Number of the task.
        id: u64,
    },
}

/// Why the command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
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
    /// The token's file cannot be used.
    #[error("{}: {reason}", path.display())]
    Token {
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
    /// The runtime failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// What to do about it, when the server or we know.
    fn remedy(&self) -> Option<&str> {
        match self {
            Error::Client(ClientError::Refused { remedy, .. }) => Some(remedy),
            Error::Client(ClientError::Unreachable { .. }) => {
                Some("start `countersign-runner serve`, or name its socket with --socket")
            }
            Error::Input { .. } => Some("give a file that holds one JSON object"),
            Error::Token { .. } => Some("give a file that holds the token and nothing else"),
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
            Error::Client(ClientError::Refused { status: 400..=499, .. })
            | Error::Input { .. }
            | Error::Token { .. } => Kind::Input,
            Error::Client(_) | Error::Io(_) => Kind::Machine,
        };
        let answer = crate::error::Error::new(kind, error.to_string());
        let answer = error.remedy().into_iter().fold(answer, crate::error::Error::hint);
        answer.because(error)
    }
}

impl TaskCommand {
    /// Does what was asked, and prints what came of it. Results, logs and reasons hold words of algorithms and of whoever
    /// may attach something to an image: on a terminal nothing in them steers it.
    ///
    /// # Errors
    /// When the server is out of reach or refuses, a file is not usable, or standard output cannot be written.
    pub(super) fn run(&self, form: Form) -> crate::error::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Io)?;
        let bytes = runtime.block_on(self.act(form))?;
        output::write(&foreign(&bytes, std::io::stdout().is_terminal()))
    }

    /// The answer is what is printed.
    async fn act(&self, form: Form) -> Result<Vec<u8>, Error> {
        let client = Client::new(&self.socket);
        match &self.action {
            Action::Submit { image, input, databases, token_file, idempotency_key, wait } => {
                let mut body = json!({ "image": image, "input": read_input(input)?, "databases": databases });
                if let Some(path) = token_file {
                    body["token"] = json!(read_token(path)?);
                }
                if let Some(key) = idempotency_key {
                    body["idempotency_key"] = json!(key);
                }
                let answer = client.post("/v1/tasks", Some(&body)).await?;
                let task = parse(&answer)?;
                let id =
                    task["id"].as_u64().ok_or_else(|| ClientError::Broken("it has no number".to_owned()))?;
                match wait {
                    false if form == Form::Json => return Ok(line(&answer)),
                    false => return Ok(format!("{id}\n").into_bytes()),
                    true => {}
                }
                finished(&client, id).await?;
                Ok(line(&client.get(&format!("/v1/tasks/{id}/result")).await?))
            }
            Action::List { limit } => {
                let answer = client.get(&format!("/v1/tasks?limit={limit}")).await?;
                match form {
                    Form::Json => Ok(line(&answer)),
                    Form::Text => Ok(table(&parse(&answer)?)),
                }
            }
            Action::Show { id } => pretty(&client.get(&format!("/v1/tasks/{id}")).await?),
            Action::Result { id, wait } => {
                if *wait {
                    finished(&client, *id).await?;
                }
                Ok(line(&client.get(&format!("/v1/tasks/{id}/result")).await?))
            }
            Action::Log { id } => Ok(client.get(&format!("/v1/tasks/{id}/log")).await?.to_vec()),
            Action::Remove { id } => {
                client.delete(&format!("/v1/tasks/{id}")).await?;
                match form {
                    Form::Json => Ok(line(json!({ "removed": id }).to_string().as_bytes())),
                    Form::Text => Ok(format!("task {id} is erased\n").into_bytes()),
                }
            }
            Action::Cancel { id } => pretty(&client.post(&format!("/v1/tasks/{id}/cancel"), None).await?),
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

fn read_token(path: &Path) -> Result<String, Error> {
    let fail = |reason: String| Error::Token { path: path.to_owned(), reason };
    let bytes = files::read(path, MAX_TOKEN).map_err(|error| fail(chain::line(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| fail("it is no text".to_owned()))?;
    Ok(text.trim().to_owned())
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    Ok(serde_json::from_slice(bytes).map_err(|error| ClientError::Broken(error.to_string()))?)
}

fn line(bytes: &[u8]) -> Vec<u8> {
    let mut line = bytes.to_vec();
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    line
}

fn pretty(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    Ok(format!("{:#}\n", parse(bytes)?).into_bytes())
}

fn table(answer: &Value) -> Vec<u8> {
    let mut out = format!("{:>6}  {:<10} {:<20}  IMAGE\n", "TASK", "STATE", "SINCE");
    for task in answer["tasks"].as_array().into_iter().flatten() {
        let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
        let since: String = text("updated_at").chars().take(19).collect();
        let id = task["id"].to_string();
        out.push_str(&format!("{id:>6}  {:<10} {since:<20}  {}\n", text("state"), text("image")));
    }
    out.into_bytes()
}
