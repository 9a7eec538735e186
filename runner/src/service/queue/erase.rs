//! What hides a task's data in the node's log, and erasing both.

use attestations::Subject;
use attestations::run::Salt;
use rusqlite::{OptionalExtension as _, params};

use super::{Error, Finish, Outgoing, Queue, TaskState};
use crate::record::{self, RecordedTask};

const FINISHED: &str = "('completed','crashed','denied','failed','cancelled')";

impl Queue {
    /// A task as the node's log names it: its number, and its salt, which is made when it is first asked for.
    ///
    /// # Errors
    /// When there is no such task, the machine has no randomness, or the disk fails.
    pub fn place(&self, id: i64) -> Result<RecordedTask, Error> {
        let new = record::new_salt().map_err(|error| Error::Corrupt(error.to_string()))?;
        let keep = "UPDATE task SET salt = coalesce(salt, ?2) WHERE id = ?1 RETURNING salt";
        let kept =
            self.connection().query_row(keep, params![id, new.as_bytes()], |row| row.get::<_, Vec<u8>>(0));
        let kept = kept.optional().map_err(|error| self.sqlite(error))?.ok_or(Error::NotFound(id))?;
        let bytes = kept.try_into().map_err(|_| Error::Corrupt(format!("the salt of task {id}")))?;
        Ok(RecordedTask { task: Some(id.unsigned_abs()), salt: Salt::from_bytes(bytes), caller: None })
    }

    /// A completed task's result, with what is written down when it is given out.
    ///
    /// # Errors
    /// When there is no such task, it has not completed, or the disk fails.
    pub fn outgoing(&self, id: i64) -> Result<Outgoing, Error> {
        let (place, image) = (self.place(id)?, self.image(id)?);
        let select = "SELECT state, result, entry FROM task WHERE id = ?1";
        let row = self.connection().query_row(select, [id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?, row.get::<_, Option<i64>>(2)?))
        });
        let row = row.optional().map_err(|error| self.sqlite(error))?;
        let (state, result, entry) = row.ok_or(Error::NotFound(id))?;
        match (TaskState::parse(&state)?, result) {
            (TaskState::Finished(Finish::Completed), Some(result)) => {
                Ok(Outgoing { place, image, entry: entry.map(i64::unsigned_abs), result })
            }
            (state, _) => Err(Error::WrongState { id, state }),
        }
    }

    /// The image that a task asked for, by the digest that was admitted where one was.
    ///
    /// # Errors
    /// When there is no such task, or the disk fails.
    pub fn image(&self, id: i64) -> Result<Subject, Error> {
        let task = self.get(id)?;
        let pinned = task.admission.as_ref().and_then(|admission| admission["pinned"].as_str());
        let pinned = pinned.and_then(|text| text.parse::<attestations::Reference>().ok());
        let found = pinned.as_ref().and_then(|it| it.digest().map(|digest| (it.repository(), digest)));
        Ok(match found {
            Some((repository, digest)) => Subject::image(repository.to_string(), digest),
            None => record::named(&task.image),
        })
    }

    /// Whether a task is over, so that it can be erased.
    ///
    /// # Errors
    /// When it is not, there is no such task, or the disk fails.
    pub fn erasable(&self, id: i64) -> Result<(), Error> {
        match self.get(id)?.state {
            TaskState::Finished(_) => Ok(()),
            state => Err(Error::WrongState { id, state }),
        }
    }

    /// Erases a finished task: its row with input, result, output and salt, from the file and its journal.
    ///
    /// # Errors
    /// When there is no such task, it is not over, or the disk fails.
    pub fn erase(&self, id: i64) -> Result<(), Error> {
        let erase = format!("DELETE FROM task WHERE id = ?1 AND state IN {FINISHED}");
        let changed = self.connection().execute(&erase, [id]).map_err(|error| self.sqlite(error))?;
        self.require(changed, id)?;
        // The journal holds what was written before: it is folded into the file, whose free pages are zeros, and emptied.
        let connection = self.connection();
        let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        match emptied.map_err(|error| self.sqlite(error))? {
            0 => Ok(()),
            _ => Err(Error::Corrupt("its journal is in use, and could not be emptied".to_owned())),
        }
    }

    /// The tasks that were over before `time`, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn over_before(&self, time: jiff::Timestamp, limit: u32) -> Result<Vec<i64>, Error> {
        let select =
            format!("SELECT id, updated_at FROM task WHERE state IN {FINISHED} ORDER BY id LIMIT ?1");
        let connection = self.connection();
        let mut statement = connection.prepare_cached(&select).map_err(|error| self.sqlite(error))?;
        let rows = statement.query_map([limit], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
        let rows: Vec<_> = rows.and_then(Iterator::collect).map_err(|error| self.sqlite(error))?;
        let is_over = |text: &str| text.parse::<jiff::Timestamp>().is_ok_and(|at| at < time);
        Ok(rows.into_iter().filter(|(_, at)| is_over(at)).map(|(id, _)| id).collect())
    }
}
