//! The queue's operations on its file.

use std::{
    fs::File,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    DEFAULT_MAX_ATTEMPTS, Ending, Error, Finish, MAX_INPUT, MAX_LOG, MAX_RESULT, MAX_TEXT, Submitted, Task,
    TaskRequest, TaskState, schema,
};
use crate::{egress::Token, record::RunReport};

const COLUMNS: &str = "id, state, image, databases, reason, remedy, denial, attempts, cancel_requested, created_at, updated_at, caller";
/// What is kept of a run, which a list leaves out.
const OF_RUN: &str = "admission, egress";

/// An open queue. Clones share the one connection; one server at a time holds the file.
#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Held for the queue's life; the kernel lets go of it when the process dies, however it dies.
    _lock: File,
}

impl Queue {
    /// Opens or makes the queue, and takes back what a killed server left unfinished.
    ///
    /// # Errors
    /// When another server holds it, the file is of a newer program, or the disk fails.
    pub fn open(path: &Path) -> Result<Queue, Error> {
        Queue::open_with(path, DEFAULT_MAX_ATTEMPTS)
    }

    /// As [`Queue::open`], with another bound on how often a task is started.
    ///
    /// # Errors
    /// As [`Queue::open`].
    pub fn open_with(path: &Path, max_attempts: u32) -> Result<Queue, Error> {
        let lock = lock(path)?;
        let mut connection = Connection::open(path).map_err(|error| sqlite(path, error))?;
        schema::prepare(&mut connection, path)?;
        let inner = Inner { path: path.to_owned(), connection: Mutex::new(connection), _lock: lock };
        let queue = Queue(Arc::new(inner));
        queue.recover(max_attempts)?;
        Ok(queue)
    }

    /// Accepts a task. When this returns, the task is on the disk.
    ///
    /// # Errors
    /// When the input is too large, the idempotency key was used for something else, or the disk fails.
    pub fn submit(&self, request: &TaskRequest) -> Result<Submitted, Error> {
        let input = encode(&request.input)?;
        if input.len() > MAX_INPUT {
            return Err(Error::TooLarge { what: "input", size: input.len(), max: MAX_INPUT });
        }
        let (databases, caller) = (encode(&request.databases)?, encode(&request.caller)?);
        let token = request.token.as_ref().map(Token::secret);
        let mut connection = self.connection();
        let change = self.change(&mut connection)?;
        if let Some(key) = &request.idempotency_key {
            // A task that has ended has forgotten its token: then the rest says whether it is the same.
            let same = "SELECT id, image = ?2 AND input = ?3 AND databases = ?4 AND caller = ?5
                               AND (token IS ?6 OR state NOT IN ('queued', 'verifying', 'running'))
                        FROM task WHERE idempotency_key = ?1";
            let found = change
                .query_row(
                    same,
                    params![key, request.image, input.as_bytes(), databases, caller, token],
                    |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)),
                )
                .optional()
                .map_err(|error| self.sqlite(error))?;
            match found {
                Some((id, true)) => return Ok(Submitted::Existing(id)),
                Some((id, false)) => return Err(Error::KeyReused(id)),
                None => {}
            }
        }
        let insert =
            "INSERT INTO task (state, image, input, databases, idempotency_key, created_at, updated_at, caller,
                               token)
                      VALUES ('queued', ?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)";
        let key = &request.idempotency_key;
        let values = params![request.image, input.as_bytes(), databases, key, now(), caller, token];
        change.execute(insert, values).map_err(|error| self.sqlite(error))?;
        let id = change.last_insert_rowid();
        change.commit().map_err(|error| self.sqlite(error))?;
        Ok(Submitted::New(id))
    }

    /// Takes the oldest waiting task to be verified, if there is one, and counts the attempt.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn claim(&self) -> Result<Option<(i64, TaskRequest)>, Error> {
        let claim = "UPDATE task SET state = 'verifying', attempts = attempts + 1, updated_at = ?1
                     WHERE id = (SELECT id FROM task WHERE state = 'queued' ORDER BY id LIMIT 1) AND state = 'queued'
                     RETURNING id, image, input, databases, idempotency_key, caller, token";
        let row = self
            .connection()
            .query_row(claim, [now()], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Vec<u8>>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, Option<String>>(4)?,
                    row.get::<_, String>(5)?,
                    row.get::<_, Option<String>>(6)?,
                ))
            })
            .optional()
            .map_err(|error| self.sqlite(error))?;
        let Some((id, image, input, databases, idempotency_key, caller, token)) = row else {
            return Ok(None);
        };
        let read = || -> Result<TaskRequest, Error> {
            Ok(TaskRequest {
                image,
                input: decode(&input)?,
                databases: decode(databases.as_bytes())?,
                idempotency_key,
                caller: decode(caller.as_bytes())?,
                token: token
                    .map(Token::new)
                    .transpose()
                    .map_err(|error| Error::Corrupt(error.to_string()))?,
            })
        };
        match read() {
            Ok(request) => Ok(Some((id, request))),
            Err(error) => {
                let remedy = "submit the task again".to_owned();
                self.finish(id, &Ending::Failed { reason: error.to_string(), remedy })?;
                Err(error)
            }
        }
    }

    /// Notes that a task's container is about to run.
    ///
    /// # Errors
    /// When the task is not being verified, or the disk fails.
    pub fn running(&self, id: i64) -> Result<(), Error> {
        let change =
            "UPDATE task SET state = 'running', updated_at = ?2 WHERE id = ?1 AND state = 'verifying'";
        let changed =
            self.connection().execute(change, params![id, now()]).map_err(|error| self.sqlite(error))?;
        self.require(changed, id)
    }

    /// Notes how a task ended. Of a log that is too long both ends are kept; a result that is too long makes the task
    /// fail, because half a result is none.
    ///
    /// # Errors
    /// When the task is not being worked on, a text about it is longer than `MAX_TEXT`, or the disk fails.
    pub fn finish(&self, id: i64, ending: &Ending) -> Result<(), Error> {
        let row = Finished::of(ending)?;
        let change =
            "UPDATE task SET state = ?2, reason = ?3, remedy = ?4, denial = ?5, admission = ?6, egress = ?7,
                      result = ?8, log = ?9, updated_at = ?10, token = NULL, entry = ?11
                      WHERE id = ?1 AND state IN ('verifying', 'running')";
        let state = TaskState::Finished(row.finish).as_str();
        let values = params![
            id,
            state,
            row.reason,
            row.remedy,
            row.denial,
            row.admission,
            row.egress,
            row.result,
            row.log,
            now(),
            row.entry
        ];
        let changed = self.connection().execute(change, values).map_err(|error| self.sqlite(error))?;
        self.require(changed, id)
    }

    /// Cancels a waiting task at once; of one that is being worked on it notes the wish. Returns the state after that.
    ///
    /// # Errors
    /// When there is no such task, it is already over, or the disk fails.
    pub fn cancel(&self, id: i64) -> Result<TaskState, Error> {
        let change = "UPDATE task SET cancel_requested = 1, updated_at = ?2,
                      reason = CASE state WHEN 'queued' THEN 'cancelled before it was started' END,
                      token = CASE state WHEN 'queued' THEN NULL ELSE token END,
                      state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END
                      WHERE id = ?1 AND state IN ('queued', 'verifying', 'running') RETURNING state";
        let state = self
            .connection()
            .query_row(change, params![id, now()], |row| row.get::<_, String>(0))
            .optional()
            .map_err(|error| self.sqlite(error))?;
        match state {
            Some(state) => TaskState::parse(&state),
            None => Err(Error::WrongState { id, state: self.get(id)?.state }),
        }
    }

    /// Puts back a task that a server gave up in order to stop, without counting the attempt.
    ///
    /// # Errors
    /// When the task is not being worked on, or the disk fails.
    pub fn put_back(&self, id: i64) -> Result<(), Error> {
        let change = "UPDATE task SET state = 'queued', attempts = attempts - 1, updated_at = ?2
                      WHERE id = ?1 AND state IN ('verifying', 'running')";
        let changed =
            self.connection().execute(change, params![id, now()]).map_err(|error| self.sqlite(error))?;
        self.require(changed, id)
    }

    /// One task.
    ///
    /// # Errors
    /// When there is no such task, or the disk fails.
    pub fn get(&self, id: i64) -> Result<Task, Error> {
        let select = format!("SELECT {COLUMNS}, {OF_RUN} FROM task WHERE id = ?1");
        let found = self.connection().query_row(&select, [id], |row| Ok(task(row))).optional();
        found.map_err(|error| self.sqlite(error))?.ok_or(Error::NotFound(id))?
    }

    /// Tasks, the newest first: at most `limit`, and only those with a number below `before`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self, before: Option<i64>, limit: u32) -> Result<Vec<Task>, Error> {
        let select =
            format!("SELECT {COLUMNS}, NULL, NULL FROM task WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&select).map_err(|error| self.sqlite(error))?;
        let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit], |row| Ok(task(row)));
        rows.and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| self.sqlite(error))?
            .into_iter()
            .collect()
    }

    /// A completed task's result.
    ///
    /// # Errors
    /// When there is no such task, it has not completed, or the disk fails.
    pub fn result(&self, id: i64) -> Result<Vec<u8>, Error> {
        match self.blob("result", id)? {
            (TaskState::Finished(Finish::Completed), Some(bytes)) => Ok(bytes),
            (state, _) => Err(Error::WrongState { id, state }),
        }
    }

    /// A finished task's container output, empty when it never ran.
    ///
    /// # Errors
    /// When there is no such task, it is not finished, or the disk fails.
    pub fn log(&self, id: i64) -> Result<Vec<u8>, Error> {
        match self.blob("log", id)? {
            (TaskState::Finished(_), bytes) => Ok(bytes.unwrap_or_default()),
            (state, _) => Err(Error::WrongState { id, state }),
        }
    }

    /// How many tasks wait, and how many are being worked on.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn depth(&self) -> Result<(u64, u64), Error> {
        let count =
            "SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state <> 'queued')
                     FROM task WHERE state IN ('queued', 'verifying', 'running')";
        let counted =
            self.connection().query_row(count, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let (waiting, working) = counted.map_err(|error| self.sqlite(error))?;
        Ok((waiting.unsigned_abs(), working.unsigned_abs()))
    }

    fn blob(&self, column: &'static str, id: i64) -> Result<(TaskState, Option<Vec<u8>>), Error> {
        let select = format!("SELECT state, {column} FROM task WHERE id = ?1");
        let row =
            self.connection().query_row(&select, [id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)));
        let (state, bytes) =
            row.optional().map_err(|error| self.sqlite(error))?.ok_or(Error::NotFound(id))?;
        Ok((TaskState::parse(&state)?, bytes))
    }

    /// Decides about every task that a killed server left in work. One transaction: all of it or none.
    fn recover(&self, max_attempts: u32) -> Result<(), Error> {
        let mut connection = self.connection();
        let change = self.change(&mut connection)?;
        let left = "state IN ('verifying', 'running')";
        let steps = [
            format!(
                "UPDATE task SET state = 'cancelled', updated_at = ?1, token = NULL, reason = 'cancelled; its server stopped before \
                 it ended' WHERE {left} AND cancel_requested = 1 AND ?2 >= 0"
            ),
            format!(
                "UPDATE task SET state = 'failed', updated_at = ?1, token = NULL, reason = 'the server was stopped ' || attempts || \
                 ' times while working on it', remedy = 'find out what stops the server (memory, disk, the task \
                 itself), then submit it again' WHERE {left} AND attempts >= ?2"
            ),
            format!("UPDATE task SET state = 'queued', updated_at = ?1 WHERE {left} AND attempts < ?2"),
        ];
        for step in &steps {
            change.execute(step, params![now(), max_attempts]).map_err(|error| self.sqlite(error))?;
        }
        change.commit().map_err(|error| self.sqlite(error))
    }

    pub(super) fn require(&self, changed: usize, id: i64) -> Result<(), Error> {
        if changed == 1 { Ok(()) } else { Err(Error::WrongState { id, state: self.get(id)?.state }) }
    }

    pub(super) fn change<'c>(
        &self,
        connection: &'c mut Connection,
    ) -> Result<rusqlite::Transaction<'c>, Error> {
        let immediate = rusqlite::TransactionBehavior::Immediate;
        connection.transaction_with_behavior(immediate).map_err(|error| self.sqlite(error))
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sqlite(&self, error: rusqlite::Error) -> Error {
        sqlite(&self.0.path, error)
    }
}

/// Sorts SQLite's failures: a full disk is something the administrator can mend.
pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Error::DiskFull(path.to_owned()),
        _ => Error::Sqlite(error),
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = private(&name)?;
    match file.try_lock() {
        // SQLite makes its files by the umask; the inputs in them are nobody else's business.
        Ok(()) => private(path).map(|_| file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::File { path: name, source }),
    }
}

fn private(path: &Path) -> Result<File, Error> {
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    opened.map_err(|source| Error::File { path: path.to_owned(), source })
}

/// A task's row, as its ending leaves it.
struct Finished {
    finish: Finish,
    reason: Option<String>,
    remedy: Option<String>,
    denial: Option<String>,
    admission: Option<String>,
    egress: Option<String>,
    result: Option<Vec<u8>>,
    log: Option<Vec<u8>>,
    entry: Option<i64>,
}

impl Finished {
    fn of(ending: &Ending) -> Result<Finished, Error> {
        let said = |what, text: &str| within(what, text.to_owned()).map(Some);
        let result_of = |report: &RunReport| report.result.as_ref().map_or(0, Vec::len);
        Ok(match ending {
            Ending::Completed(report) if result_of(report) <= MAX_RESULT => Finished {
                result: report.result.clone(),
                ..Finished::after(Finish::Completed, Some(report))?
            },
            Ending::Completed(report) => Finished {
                reason: Some(format!(
                    "the result is {} bytes, over the limit of {MAX_RESULT}",
                    result_of(report)
                )),
                remedy: Some("let the algorithm return less, for example an aggregate".to_owned()),
                ..Finished::after(Finish::Failed, Some(report))?
            },
            Ending::Crashed { reason, report } => Finished {
                reason: said("reason", reason)?,
                ..Finished::after(Finish::Crashed, Some(report))?
            },
            Ending::Denied(denial) => Finished {
                reason: Some("the policy does not admit this image".to_owned()),
                denial: Some(within("denial", encode(denial)?)?),
                ..Finished::after(Finish::Denied, None)?
            },
            Ending::Failed { reason, remedy } => Finished {
                reason: said("reason", reason)?,
                remedy: said("remedy", remedy)?,
                ..Finished::after(Finish::Failed, None)?
            },
            Ending::Cancelled(report) => Finished {
                reason: Some("cancelled while it was worked on".to_owned()),
                ..Finished::after(Finish::Cancelled, report.as_deref())?
            },
        })
    }

    /// What every ending after a run keeps of it.
    fn after(finish: Finish, run: Option<&RunReport>) -> Result<Finished, Error> {
        let kept = |what, text: Result<String, Error>| within(what, text?);
        Ok(Finished {
            finish,
            reason: None,
            remedy: None,
            denial: None,
            admission: run.map(|run| kept("admission", encode(&run.admitted))).transpose()?,
            egress: run.map(|run| kept("record of egress", encode(&run.egress))).transpose()?,
            result: None,
            log: run.map(|run| run.log.within(MAX_LOG).bytes()),
            entry: run.map(|run| run.entries.end.cast_signed()),
        })
    }
}

fn within(what: &'static str, text: String) -> Result<String, Error> {
    match text.len() {
        size if size > MAX_TEXT => Err(Error::TooLarge { what, size, max: MAX_TEXT }),
        _ => Ok(text),
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

fn encode(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Corrupt(error.to_string()))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Corrupt(error.to_string()))
}

fn task(row: &Row<'_>) -> Result<Task, Error> {
    let column = |error: rusqlite::Error| Error::Corrupt(error.to_string());
    let time = |index| -> Result<jiff::Timestamp, Error> {
        let text: String = row.get(index).map_err(column)?;
        text.parse().map_err(|error| Error::Corrupt(format!("{text:?}: {error}")))
    };
    let json = |index| -> Result<Option<serde_json::Value>, Error> {
        let text: Option<String> = row.get(index).map_err(column)?;
        text.map(|text| decode(text.as_bytes())).transpose()
    };
    Ok(Task {
        id: row.get(0).map_err(column)?,
        state: TaskState::parse(&row.get::<_, String>(1).map_err(column)?)?,
        image: row.get(2).map_err(column)?,
        databases: decode(row.get::<_, String>(3).map_err(column)?.as_bytes())?,
        reason: row.get(4).map_err(column)?,
        remedy: row.get(5).map_err(column)?,
        denial: json(6)?,
        caller: decode(row.get::<_, String>(11).map_err(column)?.as_bytes())?,
        admission: json(12)?,
        egress: json(13)?,
        attempts: row.get(7).map_err(column)?,
        cancel_requested: row.get(8).map_err(column)?,
        created_at: time(9)?,
        updated_at: time(10)?,
    })
}
