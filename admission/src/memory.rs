//! What a node remembers from one decision to the next: every no that it has ever seen, the newest image that it ran by each
//! rule, and how late it was. Kept in one SQLite file of the node's state directory.
//!
//! A no hangs where the one it is about may be able to take it away. What was seen once is joined to each later decision,
//! listed or not any more; only the key that signed it can take it back.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use attestations::federation::Edition;
use attestations::{About, Digest, Evidence, FederationName, No, Repository, Seen};
use errors::{Error, Kind, Result};
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row, TransactionBehavior, params};
use serde::Serialize;

/// The schema's version, kept in SQLite's `user_version`.
const VERSION: i64 = 1;
/// How long another process is waited for.
const BUSY: Duration = Duration::from_secs(10);
/// The latest moment is written anew when it is so much later.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(60);
/// The most noes that bear on one decision. More deny by their number, as any other evidence does.
const MAX_NOES: usize = 513;

/// What to do with a file that is damaged.
const RESTORE: &str = "restore the file from a backup; without it earlier noes are not known";

const SCHEMA: &str = "
CREATE TABLE no (
    bundle     TEXT PRIMARY KEY,
    statement  TEXT NOT NULL,
    bytes      BLOB NOT NULL,
    first_seen TEXT NOT NULL
) STRICT;
CREATE TABLE about (
    about  TEXT NOT NULL,
    bundle TEXT NOT NULL REFERENCES no (bundle),
    PRIMARY KEY (about, bundle)
) STRICT, WITHOUT ROWID;
CREATE TABLE newest (
    rule        TEXT NOT NULL,
    repository  TEXT NOT NULL,
    digest      TEXT NOT NULL,
    commit_time INTEGER NOT NULL,
    PRIMARY KEY (rule, repository)
) STRICT, WITHOUT ROWID;
CREATE TABLE release (
    federation TEXT PRIMARY KEY,
    version    INTEGER NOT NULL,
    policy     TEXT NOT NULL,
    expires    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE clock (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    latest TEXT NOT NULL
) STRICT;
PRAGMA user_version = 1;
";

/// A node's memory.
pub struct Memory {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Whether what is seen is kept.
#[derive(Clone, Copy)]
pub(crate) enum Keeping<'a> {
    /// In this memory.
    In(&'a Memory),
    /// It is held against this memory, and changes nothing there.
    Against(&'a Memory),
    /// There is no memory.
    Nowhere,
}

/// One no that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptNo {
    /// The digest of its bundle.
    pub bundle: String,
    /// The digest of the signed statement.
    pub statement: String,
    /// When it was seen for the first time.
    pub first_seen: String,
    /// What it is about: images, commits, trees, statements.
    pub about: Vec<String>,
}

/// The highest release of a federation's policy that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptRelease {
    /// Whose.
    pub federation: String,
    /// Which.
    #[serde(flatten)]
    pub edition: Edition,
}

/// The newest image that ran by one rule under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptNewest {
    /// What selects the rule.
    pub rule: String,
    /// The image's name.
    pub repository: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The time of its commit.
    pub commit_time: String,
}

impl Memory {
    /// Opens the file, and makes it where it is not there yet.
    ///
    /// # Errors
    /// When it cannot be read or written, or is of a later version: nothing is decided by half a memory.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = |cause| failed(path, "opening", cause);
        let mut connection = Connection::open(path).map_err(doing)?;
        connection.busy_timeout(BUSY).map_err(doing)?;
        keep_in_wal(&connection).map_err(doing)?;
        // A no that cannot be found any more would be the same as none.
        let sound: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(doing)?;
        if sound != "ok" {
            return Err(
                Error::new(Kind::Machine, format!("{} is damaged: {sound}", path.display())).hint(RESTORE)
            );
        }
        let version = |connection: &Connection| {
            connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        };
        if version(&connection).map_err(doing)? == 0 {
            let change =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing)?;
            // Another process may have made it meanwhile.
            if version(&change).map_err(doing)? == 0 {
                change.execute_batch(SCHEMA).map_err(doing)?;
            }
            change.commit().map_err(doing)?;
        }
        match version(&connection).map_err(doing)? {
            VERSION => Ok(Self { path: path.to_owned(), connection: Mutex::new(connection) }),
            found => Err(Error::new(
                Kind::Machine,
                format!("{} is of version {found}: this program knows {VERSION}", path.display()),
            )
            .hint("use the newer countersign-runner that made it")),
        }
    }

    /// Every no about any of these, and every withdrawal of one.
    pub(crate) fn noes(&self, about: &BTreeSet<About>) -> Result<Vec<Evidence>> {
        let connection = self.lock();
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        let mut next: Vec<String> = about.iter().map(ToString::to_string).collect();
        while let Some(key) = next.pop() {
            let mut query = self.tell(
                "reading",
                connection.prepare_cached(
                    "SELECT about.bundle, no.statement, no.bytes, no.first_seen FROM about LEFT JOIN no USING (bundle) \
                     WHERE about.about = ?1",
                ),
            )?;
            let rows = self.tell("reading", query.query_map([&key], kept_bundle))?;
            for row in rows {
                let (bundle, kept) = self.tell("reading", row)?;
                let (statement, evidence) =
                    kept.ok_or_else(|| self.corrupt(format!("no bundle {bundle}")))?;
                if Digest::of(&evidence.bytes).to_string() != bundle {
                    return Err(self.corrupt(format!("another bundle than {bundle}")));
                }
                if seen.insert(bundle) && found.len() < MAX_NOES {
                    next.push(format!("statement:{statement}"));
                    found.push(evidence);
                }
            }
        }
        Ok(found)
    }

    /// Keeps these noes. They are on the disk when this returns.
    pub(crate) fn keep(&self, noes: &[No<'_>], now: Timestamp) -> Result<()> {
        if noes.is_empty() {
            return Ok(());
        }
        let mut connection = self.lock();
        let mut new = Vec::new();
        for no in noes {
            let bundle = Digest::of(no.bundle).to_string();
            let known = connection
                .prepare_cached("SELECT 1 FROM no WHERE bundle = ?1")
                .and_then(|mut query| query.exists([&bundle]));
            if !self.tell("reading", known)? {
                new.push((bundle, no));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        self.tell("writing", durably(&mut connection, |connection| write_noes(connection, &new, now)))
    }

    /// The newest image that ran by this rule under this name.
    pub(crate) fn newest(&self, rule: &str, repository: &Repository) -> Result<Option<Seen>> {
        let connection = self.lock();
        let row = connection
            .query_row(
                "SELECT digest, commit_time FROM newest WHERE rule = ?1 AND repository = ?2",
                params![rule, repository.to_string()],
                |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)),
            )
            .optional();
        let Some((digest, commit_time)) = self.tell("reading", row)? else { return Ok(None) };
        let digest = digest.parse().map_err(|cause| self.corrupt(format!("{digest}: {cause}")))?;
        Ok(Some(Seen { digest, commit_time }))
    }

    /// Remembers what is about to run. One that is older than the newest changes nothing.
    pub(crate) fn ran(&self, rule: &str, repository: &Repository, seen: Seen) -> Result<()> {
        let written = self.lock().execute(
            "INSERT INTO newest (rule, repository, digest, commit_time) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT DO UPDATE SET digest = excluded.digest, commit_time = excluded.commit_time \
             WHERE excluded.commit_time > newest.commit_time",
            params![rule, repository.to_string(), seen.digest.to_string(), seen.commit_time],
        );
        self.tell("writing", written).map(drop)
    }

    /// The latest moment at which anything was decided.
    pub fn latest(&self) -> Result<Option<Timestamp>> {
        let row =
            self.lock().query_row("SELECT latest FROM clock", [], |row| row.get::<_, String>(0)).optional();
        let Some(text) = self.tell("reading", row)? else { return Ok(None) };
        text.parse().map(Some).map_err(|cause| self.corrupt(format!("{text}: {cause}")))
    }

    /// Remembers that something was decided now.
    pub(crate) fn decided(&self, now: Timestamp, latest: Option<Timestamp>) -> Result<()> {
        if latest.is_some_and(|latest| now.duration_since(latest) < CLOCK_STEP) {
            return Ok(());
        }
        let written = self.lock().execute(
            "INSERT INTO clock (id, latest) VALUES (1, ?1) ON CONFLICT DO UPDATE SET latest = excluded.latest \
             WHERE excluded.latest > clock.latest",
            [fixed(now)],
        );
        self.tell("writing", written).map(drop)
    }

    /// Forgets the latest moment: an administrator's word that the clock was wrong.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn reset_clock(&self) -> Result<()> {
        let written = self.lock().execute("DELETE FROM clock", []);
        self.tell("writing", written).map(drop)
    }

    /// Forgets the newest image of one name, by all rules; returns by how many.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_newest(&self, repository: &Repository) -> Result<usize> {
        let written =
            self.lock().execute("DELETE FROM newest WHERE repository = ?1", [repository.to_string()]);
        self.tell("writing", written)
    }

    /// The highest release of a federation's policy that was seen.
    pub(crate) fn release(&self, federation: &FederationName) -> Result<Option<Edition>> {
        let all = self.list_releases()?;
        Ok(all.into_iter().find(|one| one.federation == federation.as_str()).map(|one| one.edition))
    }

    /// Remembers a release; one of a lower version, or of the same, changes nothing. It is on the disk when this returns.
    pub(crate) fn keep_release(&self, federation: &FederationName, edition: &Edition) -> Result<()> {
        let Edition { version, policy, expires } = edition;
        let written = durably(&mut self.lock(), |connection| {
            connection.execute(
                "INSERT INTO release (federation, version, policy, expires) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET version = excluded.version, policy = excluded.policy, \
                 expires = excluded.expires WHERE excluded.version > release.version",
                params![federation.as_str(), version.get(), policy.to_string(), expires.to_string()],
            )
        });
        self.tell("writing", written).map(drop)
    }

    /// Forgets the highest release of a federation: its key holders' word that a version was a mistake. Returns whether there
    /// was one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_release(&self, federation: &FederationName) -> Result<bool> {
        let forgotten =
            self.lock().execute("DELETE FROM release WHERE federation = ?1", [federation.as_str()]);
        self.tell("writing", forgotten).map(|count| count > 0)
    }

    /// The highest release of each federation.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what was never written there.
    pub fn list_releases(&self) -> Result<Vec<KeptRelease>> {
        type Row = (String, u32, String, String);
        let connection = self.lock();
        let found: rusqlite::Result<Vec<Row>> = (|| {
            let mut query = connection.prepare_cached(
                "SELECT federation, version, policy, expires FROM release ORDER BY federation",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            rows.collect()
        })();
        let read = |(federation, version, policy, expires): Row| {
            let edition = || {
                let (policy, expires) = (policy.parse().ok()?, expires.parse().ok()?);
                Some(Edition { version: NonZeroU32::new(version)?, policy, expires })
            };
            let corrupt = || self.corrupt(format!("version {version} of {federation}"));
            let edition = edition().ok_or_else(corrupt)?;
            Ok(KeptRelease { federation, edition })
        };
        self.tell("reading", found)?.into_iter().map(read).collect()
    }

    /// Every no that is kept, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list_noes(&self) -> Result<Vec<KeptNo>> {
        let connection = self.lock();
        let found = (|| {
            let mut query = connection
                .prepare("SELECT bundle, statement, first_seen FROM no ORDER BY first_seen, bundle")?;
            let mut about = connection.prepare("SELECT about FROM about WHERE bundle = ?1 ORDER BY about")?;
            let rows = query.query_map([], |row| {
                let bundle: String = row.get(0)?;
                let about = about.query_map([&bundle], |row| row.get(0))?.collect::<Result<_, _>>()?;
                Ok(KeptNo { bundle, statement: row.get(1)?, first_seen: row.get(2)?, about })
            })?;
            rows.collect()
        })();
        self.tell("reading", found)
    }

    /// The newest image of each rule and name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list_newest(&self) -> Result<Vec<KeptNewest>> {
        let connection = self.lock();
        let found = (|| {
            let mut query = connection.prepare(
                "SELECT rule, repository, digest, commit_time FROM newest ORDER BY rule, repository",
            )?;
            let rows = query.query_map([], |row| {
                let time = Timestamp::from_second(row.get(3)?).unwrap_or(Timestamp::MIN).to_string();
                Ok(KeptNewest {
                    rule: row.get(0)?,
                    repository: row.get(1)?,
                    digest: row.get(2)?,
                    commit_time: time,
                })
            })?;
            rows.collect()
        })();
        self.tell("reading", found)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // Each call is one statement or one transaction: a panic within leaves nothing half done.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell<T>(&self, doing: &str, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|cause| failed(&self.path, doing, cause))
    }

    fn corrupt(&self, what: String) -> Error {
        Error::new(
            Kind::Machine,
            format!("{} holds what was never written there: {what}", self.path.display()),
        )
        .hint(RESTORE)
    }
}

/// Sets how the file is written. Where several open a new one at once, the change of its journal is what SQLite does not
/// wait for by itself.
fn keep_in_wal(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        let done = connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;",
        );
        match done {
            Err(cause) if is_busy(&cause) && begun.elapsed() < BUSY => std::thread::sleep(BUSY / 1000),
            done => return done,
        }
    }
}

fn is_busy(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn failed(path: &Path, doing: &str, cause: rusqlite::Error) -> Error {
    let hint = match is_busy(&cause) {
        true => {
            "another process holds it: wait for it to end, or end it, and ask again; nothing is admitted without it"
        }
        false => "nothing is admitted without it: look at the disk and the rights of the state directory",
    };
    Error::new(Kind::Machine, format!("{doing} the node's memory {}", path.display()))
        .hint(hint)
        .because(cause)
}

/// A bundle's digest, and the bundle with its statement's; none of these where only the first is kept.
fn kept_bundle(row: &Row<'_>) -> rusqlite::Result<(String, Option<(String, Evidence)>)> {
    let bundle: String = row.get(0)?;
    let Some(statement) = row.get::<_, Option<String>>(1)? else { return Ok((bundle, None)) };
    let (bytes, first_seen): (Vec<u8>, String) = (row.get(2)?, row.get(3)?);
    let origin = format!("remembered since {first_seen}: {bundle}");
    Ok((bundle, Some((statement, Evidence { origin, bytes }))))
}

/// Has the disk flushed before a change is done, which other changes need not wait for.
fn durably<T>(
    connection: &mut Connection,
    change: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    let changed = change(connection);
    let back = connection.execute_batch("PRAGMA synchronous = NORMAL");
    changed.and_then(|changed| back.map(|()| changed))
}

/// Writes noes, each with the digest of its bundle.
fn write_noes(
    connection: &mut Connection,
    noes: &[(String, &No<'_>)],
    now: Timestamp,
) -> rusqlite::Result<()> {
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (bundle, no) in noes {
        change.execute(
            "INSERT OR IGNORE INTO no (bundle, statement, bytes, first_seen) VALUES (?1, ?2, ?3, ?4)",
            params![bundle, no.statement.to_string(), no.bundle, fixed(now)],
        )?;
        for about in &no.about {
            change.execute(
                "INSERT OR IGNORE INTO about (about, bundle) VALUES (?1, ?2)",
                params![about.to_string(), bundle],
            )?;
        }
    }
    change.commit()
}

/// A time whose texts sort as the times do.
fn fixed(time: Timestamp) -> String {
    format!("{time:.6}")
}
