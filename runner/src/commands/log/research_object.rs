//! `log crate`: one run as a research object (RO-Crate 1.1, Process Run Crate 0.5) with the phases of a Five Safes RO-Crate: the
//! decision is a SignOff, the run a CreateAction, and the release a DisclosureCheck. Nothing of the data is in it, only what
//! the log says: digests with a salt.

use std::path::{Path, PathBuf};

use attestations::Subject;
use attestations::run::{Ended, Ending, Event, Released, Started};
use clap::Args;
use errors::{Form, files, output};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Open;
use super::read;
use crate::commands::output::YES;
use crate::error::{Error, Kind, Result};
use crate::record;

#[derive(Debug, Args)]
pub(super) struct CrateCommand {
    /// Index of the entry that says how the run ended, or task:NUMBER.
    #[arg(value_name = "ENTRY")]
    entry: String,
    /// Folder to write to; it must be empty or missing.
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Name of the organisation that operates this node.
    #[arg(long, value_name = "NAME")]
    organisation: String,
    /// URL of that organisation.
    #[arg(long, value_name = "URL")]
    url: String,
}

/// What the log says of one run.
struct Told {
    subject: Subject,
    start: (u64, Box<Started>),
    end: (u64, Timestamp, Box<Ended>),
    release: Option<(u64, Timestamp, Released)>,
}

impl CrateCommand {
    pub(super) fn run(&self, log: &Open, form: Form) -> Result<u8> {
        let told = told(log, self.index(log)?)?;
        make_empty(&self.to)?;
        let mut parts = Vec::new();
        let mut entries = vec![("started", told.start.0), ("ended", told.end.0)];
        entries.extend(told.release.iter().map(|(index, ..)| ("released", *index)));
        for (name, index) in entries {
            let (statement, proof) = (format!("{name}.sigstore.json"), format!("{name}.tlog-proof"));
            files::write_new(&self.to.join(&statement), &log.reader.entry(index)?)?;
            let text = record::proof(&log.reader, index, None)?.to_string();
            files::write_new(&self.to.join(&proof), text.as_bytes())?;
            parts.push((statement, "application/json", format!("signed entry {index} of the log")));
            parts.push((proof, "text/plain", format!("proof that entry {index} is in the log")));
        }
        let document = self.document(&told, &parts);
        let text = serde_json::to_vec_pretty(&document)
            .map_err(|cause| Error::new(Kind::Bug, "writing the crate").because(cause))?;
        files::write_new(&self.to.join("ro-crate-metadata.json"), &text)?;
        let text = format!("the run is in {}", self.to.display());
        output::result(form, &text, &json!({ "folder": self.to, "entry": told.end.0 }))?;
        Ok(YES)
    }

    /// The entry that says how the run ended.
    fn index(&self, log: &Open) -> Result<u64> {
        let Some(task) = self.entry.strip_prefix("task:") else { return super::number(&self.entry) };
        let is_end = |event: &Event| matches!(event, Event::Ended(_));
        read::of_task(log, super::number(task)?, "end of", is_end)
    }

    fn document(&self, told: &Told, parts: &[(String, &str, String)]) -> Value {
        let (image, started, (_, ended_at, ended)) = (image(&told.subject), &told.start.1, &told.end);
        let of = |id: &str| json!({ "@id": id });
        let kinds = |id: &str, name: &str, version: &str| json!({ "@id": id, "@type": "CreativeWork", "name": name, "version": version });
        let actions: Vec<Value> = ["#decision", "#run"]
            .into_iter()
            .chain(told.release.as_ref().map(|_| "#release"))
            .map(of)
            .collect();
        let mut graph = vec![
            json!({
                "@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": of("./"),
                "conformsTo": of("https://w3id.org/ro/crate/1.1"),
            }),
            json!({
                "@id": "./", "@type": "Dataset", "name": format!("A run of {}", told.subject.name),
                "description": format!("What a node of {} did with an admitted image, by its log.", self.organisation),
                "datePublished": time(*ended_at), "license": of("#licence"),
                "author": of(&self.url), "publisher": of(&self.url),
                "conformsTo": [of("https://w3id.org/ro/wfrun/process/0.5"), of("https://w3id.org/5s-crate/0.4")],
                "mentions": actions, "hasPart": parts.iter().map(|(id, ..)| of(id)).collect::<Vec<_>>(),
            }),
            kinds("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
            kinds("https://w3id.org/5s-crate/0.4", "Five Safes RO-Crate", "0.4"),
            json!({
                "@id": "#licence", "@type": "CreativeWork", "name": "No licence was stated",
                "description": "The node states none for what it wrote down.",
            }),
            json!({ "@id": self.url, "@type": "Organization", "name": self.organisation, "url": self.url }),
            json!({
                "@id": image, "@type": "SoftwareApplication", "name": told.subject.name, "identifier": image,
                "softwareVersion": started.admission.commit.to_string(), "url": format!("https://{}", told.subject.name),
            }),
            json!({
                "@id": "#policy", "@type": "CreativeWork", "name": format!("the rule {}", started.admission.rule),
                "identifier": started.admission.policy.to_string(),
            }),
            json!({ "@id": "#input", "@type": "CreativeWork", "name": "the input", "identifier": started.input }),
        ];
        let mut seen = vec![of("#input")];
        for label in &started.databases {
            let id = format!("#database-{label}");
            seen.push(of(&id));
            graph
                .push(json!({ "@id": id, "@type": "CreativeWork", "name": format!("the database {label}") }));
        }
        graph.push(assessment(
            ("#decision", "SignOff", "The node's policy admitted the image"),
            (&self.url, &image, started.admission.decided_at),
        ));
        let mut run = json!({
            "@id": "#run", "@type": "CreateAction", "name": format!("The function {} ran", started.function),
            "description": format!("It ended: {}.", super::show::ending(ended)),
            "startTime": time(ended.started_at), "endTime": time(*ended_at), "instrument": of(&image),
            "agent": of(&self.url), "object": seen,
            "actionStatus": match ended.ending {
                Ending::Exited(0) => "http://schema.org/CompletedActionStatus",
                _ => "http://schema.org/FailedActionStatus",
            },
        });
        if let Some(result) = ended.output {
            run["result"] = of("#result");
            graph.push(json!({ "@id": "#result", "@type": "CreativeWork", "name": "the result", "identifier": result }));
        }
        graph.push(run);
        if let Some((_, at, _)) = &told.release {
            let what = ("#release", "DisclosureCheck", "The result left the node");
            graph.push(assessment(what, (&self.url, "#result", *at)));
        }
        graph.extend(parts.iter().map(|(id, format, name)| {
            json!({ "@id": id, "@type": "File", "name": name, "encodingFormat": format })
        }));
        json!({ "@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph })
    }
}

/// A phase of the Five Safes, as an action.
fn assessment((id, kind, name): (&str, &str, &str), (agent, object, at): (&str, &str, Timestamp)) -> Value {
    json!({
        "@id": id, "@type": "AssessAction", "additionalType": { "@id": format!("https://w3id.org/shp#{kind}") },
        "name": name, "agent": { "@id": agent }, "instrument": { "@id": "#policy" }, "object": { "@id": object },
        "endTime": time(at), "actionStatus": "http://schema.org/CompletedActionStatus",
    })
}

/// What the log says of the run that ended with this entry.
fn told(log: &Open, index: u64) -> Result<Told> {
    let size = log.reader.checkpoint().size;
    if index >= size {
        return Err(Error::new(Kind::NotFound, format!("the log has {size} entries, and none at {index}")));
    }
    let read = |index| read::entry(index, &log.reader.entry(index)?, &log.key);
    let end = read(index)?;
    let Event::Ended(ended) = end.run.event else {
        return Err(Error::new(
            Kind::Usage,
            format!("entry {index} says `{}`, and not how a run ended", end.run.event.name()),
        )
        .hint("name the entry of its end: `countersign-runner log show` lists them"));
    };
    let Event::Started(started) = read(ended.start)?.run.event else {
        return Err(Error::new(
            Kind::Refused,
            format!("entry {} does not say that the run started", ended.start),
        ));
    };
    let mut release = None;
    for later in index + 1..size {
        let found = read(later)?;
        if let Event::Released(it) = found.run.event
            && it.end == Some(index)
        {
            release = Some((later, found.run.at, it));
            break;
        }
    }
    Ok(Told { subject: end.subject, start: (ended.start, started), end: (index, end.run.at, ended), release })
}

/// The image as an absolute URI.
fn image(subject: &Subject) -> String {
    let digest = subject.digest.get("sha256").map_or("", String::as_str);
    format!("oci://{}@sha256:{digest}", subject.name)
}

/// To the second, as the vocabulary's readers want it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

fn make_empty(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("making", folder, cause))?;
    let mut entries = std::fs::read_dir(folder).map_err(|cause| Error::io("reading", folder, cause))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::new(Kind::Usage, format!("{} is not empty", folder.display()))
            .hint("name an empty folder, or one that is not there yet")),
    }
}
