//! `materials`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use attestations::provenance::ResourceDescriptor;
use attestations::{Bundle, Digest, Pinned, Reference};
use clap::Subcommand;
use errors::plural;
use images::store::Collect;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::registries::{Authorities, PrivateHosts, Reach};
use super::{Answer, Session};
use crate::confirm::{self, Confirmed, Verdict};
use crate::registry::Registry;
use recorder::{KeptResponses, PrivateResponses, Record, ResponseStore, Upstream, archive};

use crate::error::{Error, Kind, Result};
use crate::progress::Event;

/// Its subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the builds whose recorded responses are kept here, newest first.
    List,
    /// List the requests that a build made, in order.
    Show {
        /// Digest of the image, or of its record.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
    },
    /// Read the recorded responses of one build, or of all, and check them against their digests.
    Verify {
        /// Digest of the image, or of its record.
        #[arg(value_name = "DIGEST")]
        digest: Option<Digest>,
    },
    /// Send a build's requests again and report which servers still give the recorded responses.
    ///
    /// A rebuild that replays responses shows that the image follows from them, not that the servers ever gave them.
    /// Package indexes change over time, but the packages themselves should not: if a package now has different
    /// content or cannot be fetched, the exit code is 1. Only GET and HEAD requests are repeated.
    Confirm {
        /// Digest of the image, or of its record.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
        /// Whose certificates are believed.
        #[command(flatten)]
        authorities: Authorities,
        /// Which private servers may be asked.
        #[command(flatten)]
        private_hosts: PrivateHosts,
    },
    /// Write the recorded responses of a build to one file, for a machine without network access.
    Export {
        /// Digest of the image, or of its record.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
        /// Also write the responses that were given to steps with secrets or to requests with credentials.
        #[arg(long)]
        include_private: bool,
        /// File to write (a tar archive).
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Read recorded responses from a file that `materials export` wrote.
    Import {
        /// File to read.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Fetch the recorded responses of an image from its registry.
    Pull {
        /// Image reference: registry/name:tag or registry/name@sha256:….
        #[arg(value_name = "REFERENCE")]
        reference: Reference,
        /// How registries are reached.
        #[command(flatten)]
        reach: Reach,
    },
    /// Delete data that belongs to no build and, with --older-than, the recorded responses of old builds.
    Gc {
        /// Also delete the recorded responses of builds older than this many days.
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
        /// Only report what would be deleted.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs it.
///
/// # Errors
/// See [`Kind`].
pub(crate) fn run(command: &Command, session: &Session) -> Result<Answer> {
    let response_store = ResponseStore::open(session.workspace().state_dir())?;
    match command {
        Command::List => list(&response_store, session)?,
        Command::Show { digest } => show(&response_store, digest, session)?,
        Command::Verify { digest } => verify(&response_store, digest.as_ref(), session)?,
        Command::Confirm { digest, authorities, private_hosts } => {
            let upstream = private_hosts.permit(authorities.upstream()?)?;
            return confirm(&response_store, digest, &upstream, session);
        }
        Command::Export { digest, include_private, out } => {
            let found = response_store.find(digest)?;
            let (private, withheld) = match include_private {
                true => (PrivateResponses::Include, 0),
                false => (PrivateResponses::Withhold, response_store.private_bodies(&found)?.len()),
            };
            archive::export(&response_store, &found, private, out)?;
            let mut text = format!(
                "{} with {}, {}",
                out.display(),
                plural(found.bodies, "body"),
                plural(found.size, "byte")
            );
            if withheld > 0 {
                text.push_str(&format!(
                    "\nwithout {withheld} of these that steps with secrets or credentials were given; a rebuild \
                     from this file needs them: --include-private"
                ));
            }
            let value =
                json!({ "event": "exported", "file": out, "materials": found, "privateLeftOut": withheld });
            session.result(&text, &value)?;
        }
        Command::Import { file } => {
            let found = archive::import(&response_store, file)?;
            session.result(&lines(&found), &json!({ "event": "imported", "materials": found }))?;
        }
        Command::Pull { reference, reach } => {
            pull(&response_store, reference, reach, session)?;
        }
        Command::Gc { older_than, dry_run } => collect(&response_store, *older_than, *dry_run, session)?,
    }
    Ok(Answer::Yes)
}

fn lines(all: &[KeptResponses]) -> String {
    let line = |one: &KeptResponses| {
        format!(
            "{}  image {}  record {}  {}, {}",
            one.created,
            one.image,
            one.record,
            plural(one.bodies, "body"),
            plural(one.size, "byte")
        )
    };
    match all.is_empty() {
        true => "no materials".to_owned(),
        false => all.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}

fn list(response_store: &ResponseStore, session: &Session) -> Result<()> {
    let all = response_store.list()?;
    let blobs = response_store.store().blobs()?;
    let disk: u64 = blobs.iter().map(|(_, size)| size).sum();
    let sum: u64 = all.iter().map(|one| one.size).sum();
    let text = format!(
        "{}\n{}, {}; on disk {} in {}",
        lines(&all),
        plural(all.len(), "build"),
        plural(sum, "byte"),
        plural(disk, "byte"),
        plural(blobs.len(), "blob")
    );
    let value = json!({ "event": "materials", "materials": all, "diskBytes": disk, "blobs": blobs.len() });
    session.result(&text, &value)
}

fn show(response_store: &ResponseStore, digest: &Digest, session: &Session) -> Result<()> {
    let found = response_store.find(digest)?;
    let (_, record) = Record::stored(response_store.store(), &found.record)?;
    let mut text = String::new();
    for step in &record.steps {
        text.push_str(&format!("{}\n", step.step));
        for one in &step.exchanges {
            let (asked, got) = (&one.request, &one.response);
            text.push_str(&format!(
                "  {} {}  {}  {}  {}\n",
                asked.method,
                asked.url,
                got.status,
                plural(got.size, "byte"),
                got.body
            ));
        }
        for one in &step.failures {
            text.push_str(&format!("  {} {}  in vain: {}\n", one.method, one.url, one.reason));
        }
    }
    if text.is_empty() {
        text.push_str("the build asked for nothing");
    }
    session.result(&text, &json!({ "event": "record", "materials": found, "record": record }))
}

fn confirm(
    response_store: &ResponseStore,
    digest: &Digest,
    upstream: &Upstream,
    session: &Session,
) -> Result<Answer> {
    let found = response_store.find(digest)?;
    let (_, record) = Record::stored(response_store.store(), &found.record)?;
    let runtime = session.workspace().runtime()?;
    let report = |one: &Confirmed, done, total| {
        session.workspace().report(&Event::Asked { url: &one.url, verdict: one.verdict.name(), done, total });
    };
    let all = confirm::confirm(&record, upstream, runtime.handle(), &report)
        .map_err(|cause| Error::new(Kind::Machine, "the servers cannot be asked from here").because(cause))?;
    let mut text = String::new();
    for one in all.iter().filter(|one| one.verdict != Verdict::Same) {
        let what = one.package.as_deref().unwrap_or(&one.url);
        let reason = one.reason.as_deref().unwrap_or_default();
        text.push_str(&format!("{}: {what} ({}): {reason}\n", one.verdict.name(), one.step));
    }
    let [same, other, unavailable, not_asked] =
        [Verdict::Same, Verdict::Other, Verdict::Unavailable, Verdict::NotAsked]
            .map(|verdict| all.iter().filter(|one| one.verdict == verdict).count());
    let packages = all.iter().filter(|one| one.package.is_some()).count();
    let doubtful = all.iter().filter(|one| one.is_doubtful()).count();
    text.push_str(&format!(
        "{}: {same} the same, {other} different, {unavailable} unavailable, {not_asked} not asked for; in doubt: \
         {doubtful} of {}",
        plural(all.len(), "answer"),
        plural(packages, "package"),
    ));
    let value = json!({ "event": "confirmed", "materials": found, "answers": all, "same": same, "other": other,
        "unavailable": unavailable, "notAsked": not_asked, "packages": packages, "packagesInDoubt": doubtful });
    session.result(&text, &value)?;
    Ok(if doubtful == 0 { Answer::Yes } else { Answer::No })
}

fn verify(response_store: &ResponseStore, digest: Option<&Digest>, session: &Session) -> Result<()> {
    let all = match digest {
        Some(digest) => vec![response_store.find(digest)?],
        None => response_store.list()?,
    };
    for one in &all {
        response_store.verify(one)?;
    }
    let bytes: u64 = all.iter().map(|one| one.size).sum();
    let text = format!(
        "{}, {}: every byte is what its digest says",
        plural(all.len(), "build"),
        plural(bytes, "byte")
    );
    session.result(&text, &json!({ "event": "verified", "materials": all }))
}

fn pull(
    response_store: &ResponseStore,
    reference: &Reference,
    reach: &Reach,
    session: &Session,
) -> Result<()> {
    let runtime = session.workspace().runtime()?;
    let registry = Registry::new(reach.registries()?, session.workspace(), runtime.handle().clone());
    let mut found = Vec::new();
    for pinned in registry.images(reference, &[])? {
        let records = records_of(&registry, &pinned)?;
        let image = registry.describe(&pinned)?;
        for record in &records {
            response_store.fetch(&registry, &pinned, &image, record)?;
        }
        let of_image = |one: &KeptResponses| one.image == *pinned.digest() && records.contains(&one.record);
        found.extend(response_store.list()?.into_iter().filter(of_image));
    }
    session.result(&lines(&found), &json!({ "event": "pulled", "materials": found }))
}

/// The records that an image's provenance names.
fn records_of(registry: &Registry, pinned: &Pinned) -> Result<BTreeSet<Digest>> {
    let mut records = BTreeSet::new();
    for attachment in registry.attachments(pinned)? {
        // The signer is not checked: a record is addressed by its digest, and whoever replays it decides whether to
        // trust it.
        let Ok(statement) = Bundle::parse(&attachment.bytes).and_then(|it| it.statement_unverified()) else {
            continue;
        };
        if let Some(provenance) = statement.into_provenance() {
            let all = provenance.into_value().build_definition.resolved_dependencies;
            records.extend(
                all.iter()
                    .filter(|it| it.is(ResourceDescriptor::RECORD))
                    .filter_map(ResourceDescriptor::sha256),
            );
        }
    }
    match records.is_empty() {
        true => Err(Error::new(
            Kind::NotFound,
            format!("no provenance of {pinned} names a record of its materials"),
        )
        .hint("it was built with --no-keep, or its provenance is not in that registry")),
        false => Ok(records),
    }
}

fn collect(
    response_store: &ResponseStore,
    older_than: Option<u32>,
    dry_run: bool,
    session: &Session,
) -> Result<()> {
    let before = older_than
        .map(|days| Timestamp::now().checked_sub(SignedDuration::from_hours(24 * i64::from(days))))
        .transpose()
        .map_err(|cause| Error::new(Kind::Usage, "--older-than is too long ago").because(cause))?;
    let what = if dry_run { Collect::DryRun } else { Collect::Remove };
    let (old, collected) = response_store.collect(before, what)?;
    let verb = if dry_run { "would remove" } else { "removed" };
    let text = format!(
        "{verb} the materials of {}: {}, {}",
        plural(old.len(), "build"),
        plural(collected.blobs, "blob"),
        plural(collected.bytes, "byte")
    );
    let value = json!({ "event": "collected", "removed": !dry_run, "builds": old,
        "blobs": collected.blobs, "bytes": collected.bytes });
    session.result(&text, &value)
}
