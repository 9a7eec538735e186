//! `materials`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use attestations::provenance::ResourceDescriptor;
use attestations::{Bundle, Digest, Pinned, Predicate, Reference};
use clap::Subcommand;
use errors::plural;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::archive;
use super::confirm::{self, Confirmed, Verdict};
use super::record::Record;
use super::travel::{Materials, Place};
use crate::build::registries::{Authorities, Reach};
use crate::build::registry::Registry;
use crate::cli::{Answer, Session};
use crate::error::{Error, Kind, Result, Told};
use crate::progress::Event;

/// Its subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the builds whose materials are kept here, the latest first.
    List,
    /// List what one build asked of the network, in the order of asking.
    Show {
        /// The digest of the image, or of the record.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
    },
    /// Read everything that is kept of one build, or of all, and hold it against its digests.
    Verify {
        /// The digest of the image, or of the record.
        #[arg(value_name = "DIGEST")]
        digest: Option<Digest>,
    },
    /// Ask the servers again what a build was answered, and say which answers they still give.
    ///
    /// A rebuild that replays what was kept shows that the image follows from it, not that the servers ever gave it. Indices of
    /// packages change with time, the packages themselves should not: when one has other bytes now, or cannot be had, the exit
    /// code is 1. Only GET and HEAD are repeated.
    Confirm {
        /// The digest of the image, or of the record.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
        /// Whose certificates are believed.
        #[command(flatten)]
        authorities: Authorities,
    },
    /// Write the materials of one build into one file, for a site without a network.
    Export {
        /// The digest of the image, or of the record.
        #[arg(value_name = "DIGEST")]
        digest: Digest,
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Take in the materials of a file that `export` wrote.
    Import {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Fetch the materials of an image from its registry.
    Pull {
        /// The image.
        #[arg(value_name = "REFERENCE")]
        reference: Reference,
        /// How registries are reached.
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove what belongs to no build, and the materials of builds that are older than asked.
    Gc {
        /// Let go of the materials of builds older than this many days.
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs it.
///
/// # Errors
/// See [`Kind`].
pub fn run(command: &Command, session: &Session) -> Result<Answer> {
    let place = Place::open(session.state_dir())?;
    match command {
        Command::List => list(&place, session)?,
        Command::Show { digest } => show(&place, digest, session)?,
        Command::Verify { digest } => verify(&place, digest.as_ref(), session)?,
        Command::Confirm { digest, authorities } => return confirm(&place, digest, authorities, session),
        Command::Export { digest, out } => {
            let found = place.find(digest)?;
            archive::export(&place, &found, out)?;
            let text = format!(
                "{} with {}, {}",
                out.display(),
                plural(found.bodies, "body"),
                plural(found.size, "byte")
            );
            session.result(&text, &json!({ "event": "exported", "file": out, "materials": found }))?;
        }
        Command::Import { file } => {
            let found = archive::import(&place, file)?;
            session.result(&lines(&found), &json!({ "event": "imported", "materials": found }))?;
        }
        Command::Pull { reference, reach } => {
            pull(&place, reference, reach, session)?;
        }
        Command::Gc { older_than, dry_run } => collect(&place, *older_than, *dry_run, session)?,
    }
    Ok(Answer::Yes)
}

fn lines(all: &[Materials]) -> String {
    let line = |one: &Materials| {
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

fn list(place: &Place, session: &Session) -> Result<()> {
    let all = place.list()?;
    let blobs = place.store().blobs().told()?;
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

fn show(place: &Place, digest: &Digest, session: &Session) -> Result<()> {
    let found = place.find(digest)?;
    let (_, record) = Record::stored(place.store(), &found.record)?;
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

fn confirm(place: &Place, digest: &Digest, authorities: &Authorities, session: &Session) -> Result<Answer> {
    let found = place.find(digest)?;
    let (_, record) = Record::stored(place.store(), &found.record)?;
    let (upstream, runtime) = (authorities.upstream()?, session.runtime()?);
    let told = |one: &Confirmed, done, total| {
        session.tell(&Event::Asked { url: &one.url, verdict: one.verdict.name(), done, total });
    };
    let all = confirm::confirm(&record, &upstream, &runtime, &told)
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

fn verify(place: &Place, digest: Option<&Digest>, session: &Session) -> Result<()> {
    let all = match digest {
        Some(digest) => vec![place.find(digest)?],
        None => place.list()?,
    };
    for one in &all {
        place.verify(one)?;
    }
    let bytes: u64 = all.iter().map(|one| one.size).sum();
    let text = format!(
        "{}, {}: every byte is what its digest says",
        plural(all.len(), "build"),
        plural(bytes, "byte")
    );
    session.result(&text, &json!({ "event": "verified", "materials": all }))
}

fn pull(place: &Place, reference: &Reference, reach: &Reach, session: &Session) -> Result<()> {
    let runtime = session.runtime()?;
    let registry = Registry::new(reach.registries()?, session, runtime.handle().clone());
    let mut found = Vec::new();
    for pinned in registry.images(reference, &[])? {
        let records = records_of(&registry, &pinned)?;
        let image = registry.describe(&pinned)?;
        for record in &records {
            place.fetch(&registry, &pinned, &image, record)?;
        }
        let of_image = |one: &Materials| one.image == *pinned.digest() && records.contains(&one.record);
        found.extend(place.list()?.into_iter().filter(of_image));
    }
    session.result(&lines(&found), &json!({ "event": "pulled", "materials": found }))
}

/// The records that an image's provenance names.
fn records_of(registry: &Registry, pinned: &Pinned) -> Result<BTreeSet<Digest>> {
    let mut records = BTreeSet::new();
    for attachment in registry.attachments(pinned)? {
        // Nobody is believed here: a record is content by digest, and what it is good for is decided by who replays it.
        let Ok(statement) = Bundle::parse(&attachment.bytes).and_then(|it| it.statement_unverified()) else {
            continue;
        };
        if let Predicate::Provenance(provenance) = statement.predicate {
            let all = provenance.build_definition.resolved_dependencies;
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

fn collect(place: &Place, older_than: Option<u32>, dry_run: bool, session: &Session) -> Result<()> {
    let before = older_than
        .map(|days| Timestamp::now().checked_sub(SignedDuration::from_hours(24 * i64::from(days))))
        .transpose()
        .map_err(|cause| Error::new(Kind::Usage, "--older-than is too long ago").because(cause))?;
    let (old, collected) = place.collect(before, !dry_run)?;
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
