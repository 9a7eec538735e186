//! The result of a build, as text and as JSON.

use errors::plural;
use images::Index;
use serde_json::{Value, json};

use crate::publish::BuiltImage;

/// The whole result.
pub(crate) struct Report<'a> {
    pub(crate) builds: &'a [BuiltImage],
    /// The index of the images, when there are several.
    pub(crate) index: Option<&'a Index>,
    /// The references it was pushed to.
    pub(crate) pushed: Vec<String>,
    /// The files that were written.
    pub(crate) written: Vec<String>,
    /// Whether to list each file that the normaliser changed.
    pub(crate) explain: bool,
}

impl Report<'_> {
    /// As text, with the digest first.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if let Some(index) = self.index {
            text.push_str(&format!("{}\n", index.digest()));
            for built in self.builds {
                let image = &built.outcome.executed.image;
                text.push_str(&format!("{} {}\n", image.digest(), built.outcome.parameters.platform));
            }
        } else {
            let digests = self.builds.iter().map(|built| built.outcome.executed.image.digest());
            text.extend(digests.map(|digest| format!("{digest}\n")));
        }
        text.extend(self.pushed.iter().map(|reference| format!("pushed {reference}\n")));
        text.extend(self.written.iter().map(|path| format!("wrote {path}\n")));
        for built in self.builds {
            let margin = match self.index {
                Some(_) => format!("{}: ", built.outcome.parameters.platform),
                None => String::new(),
            };
            text.extend(built.lines(self.explain).into_iter().map(|line| format!("{margin}{line}\n")));
        }
        if self.builds.iter().any(|built| built.bundle.is_none()) {
            text.push_str("not signed: give --key and --builder-id to have it admitted anywhere\n");
        }
        text
    }

    /// As JSON: one image's object, or the index with those of its images.
    pub(crate) fn json(&self) -> Value {
        match (self.index, self.builds) {
            (None, [built]) => {
                let mut value = built.json();
                value["event"] = "built".into();
                value["pushed"] = json!(self.pushed.first());
                value["references"] = json!(self.pushed);
                value
            }
            (index, builds) => json!({
                "event": "built",
                "digest": index.map(Index::digest),
                "images": builds.iter().map(BuiltImage::json).collect::<Vec<_>>(),
                "pushed": self.pushed.first(),
                "references": self.pushed,
                "signed": builds.iter().all(|built| built.bundle.is_some()),
            }),
        }
    }
}

impl BuiltImage {
    fn lines(&self, explain: bool) -> Vec<String> {
        let executed = &self.outcome.executed;
        let mut lines = Vec::new();
        if let Some(kept) = &self.materials {
            let (bodies, bytes) = (plural(kept.bodies, "body"), plural(kept.size, "byte"));
            lines.push(format!("kept {bodies}, {bytes}, in record {}", kept.record));
        }
        lines.extend(self.outcome.packages.lines());
        lines.extend(self.drift.iter().map(|line| format!("drift from the lock: {line}")));
        if explain {
            let applied = executed.applied.iter();
            lines.extend(applied.map(|applied| format!("normalised by {}: /{}", applied.rule, applied.path)));
        }
        lines.extend(executed.unrecorded.iter().map(|reason| format!("materials incomplete: {reason}")));
        lines
    }

    fn json(&self) -> Value {
        let (outcome, executed) = (&self.outcome, &self.outcome.executed);
        json!({
            "digest": executed.image.digest(),
            "platform": outcome.parameters.platform,
            "config": executed.image.config_descriptor().digest,
            "commit": outcome.parameters.commit,
            "layers": executed.layers,
            "exchanges": outcome.responses.exchanges().count(),
            "materials": self.materials,
            "locked": outcome.lock.is_some(),
            "drift": self.drift,
            "packages": outcome.packages.installed.iter().map(|package| json!({
                "purl": package.purl.to_string(),
                "from": package.origin.name(),
                "records": package.records,
                "sha256": package.file.as_ref().map(|file| file.digest.hex()),
            })).collect::<Vec<_>>(),
            "fetched": outcome.packages.passed_by.iter().map(|file| file.purl.to_string()).collect::<Vec<_>>(),
            "unreadRecords": outcome.packages.unread,
            "unrecorded": executed.unrecorded,
            "normalised": executed.applied.iter().map(|applied| json!({ "rule": applied.rule, "path": applied.path })).collect::<Vec<_>>(),
            "signed": self.bundle.is_some(),
        })
    }
}
