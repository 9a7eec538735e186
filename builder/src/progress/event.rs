//! What can be told, with a form for machines. The names and fields of the JSON are in `docs/progress.md`, and stay.

use std::fmt;
use std::path::Path;

use attestations::Digest;
use serde_json::{Value, json};

use super::summary::Summary;

/// Which step: its place among all, and its stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// How many there are.
    pub(crate) total: usize,
    /// The stage's name.
    pub(crate) stage: String,
    /// Whether other stages may go on beside it, so that each line of its output has to say whose it is.
    pub(crate) is_one_of_several: bool,
}

impl fmt::Display for Label {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}/{}] {}", self.number, self.total, self.stage)
    }
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    /// The build for a platform begins.
    Platform {
        /// Such as `linux/amd64`.
        platform: &'a str,
    },
    /// A base is looked for, and fetched where it is not here.
    Base {
        /// As the Dockerfile calls it.
        name: &'a str,
    },
    /// Bytes of a base came in. Several times a second at most.
    BaseBytes {
        /// As the Dockerfile calls it.
        name: &'a str,
        /// So many came in so far.
        bytes: u64,
        /// So many have to, as its manifest says; none while that is not known.
        total: Option<u64>,
    },
    /// A base is here.
    BaseFetched {
        /// As the Dockerfile calls it.
        name: &'a str,
        /// Where it came from.
        uri: &'a str,
        /// The digest of its manifest.
        digest: Digest,
        /// The bytes of its layers, compressed.
        size: u64,
        /// The bytes that came over the network: 0 when all was here.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A step begins.
    Step {
        /// Which.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
        /// The instruction.
        instruction: &'a str,
    },
    /// An ADD fetches something.
    Fetching {
        /// Which step.
        label: &'a Label,
        /// From where.
        url: &'a str,
    },
    /// A step's command printed a line.
    Output {
        /// Which step.
        label: &'a Label,
        /// The line, without what would steer a terminal.
        text: &'a str,
    },
    /// A step is done.
    StepDone {
        /// Which.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
        /// How long it took.
        seconds: f64,
        /// What the layer is that it made, if it changed anything.
        diff_id: Option<Digest>,
        /// Whether it is one that changes the configuration alone.
        is_configuration: bool,
    },
    /// A stage waits for a step's layer to be compressed: nothing else is left to do, or too many are being compressed.
    Packing {
        /// Which step.
        label: &'a Label,
    },
    /// A step's layer is in the store.
    Layer {
        /// Which step.
        label: &'a Label,
        /// What it is.
        diff_id: Digest,
        /// Its blob.
        digest: Digest,
        /// The blob's size.
        size: u64,
    },
    /// A step failed, or was ended because another did or the person had enough.
    StepFailed {
        /// Which.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
        /// After how long.
        seconds: f64,
    },
    /// What came of a step that ran ahead does not count: it stood on what the steps before it did not come to. It is done again.
    StepDropped {
        /// Which.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
    },
    /// Something went wrong on a step's network.
    Incident {
        /// Which step.
        label: &'a Label,
        /// What.
        text: &'a str,
    },
    /// A recorded answer was asked for again.
    Asked {
        /// What for.
        url: &'a str,
        /// How the present answer compares with the recorded one.
        verdict: &'a str,
        /// How many were asked for so far, with this one.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// A push begins.
    Push {
        /// Where to.
        name: &'a str,
    },
    /// Bytes went out. Several times a second at most.
    PushBytes {
        /// Where to.
        name: &'a str,
        /// So many went out so far.
        bytes: u64,
        /// So many have to; what the registry has already is not among them. None while that is not known.
        total: Option<u64>,
    },
    /// A push is done, with all that is said about the image.
    Pushed {
        /// Where to.
        name: &'a str,
        /// What the name stands for now.
        digest: Digest,
        /// The bytes of layers and config that went out: 0 when the registry had them.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
    /// An output was written.
    Wrote {
        /// The file or folder.
        path: &'a Path,
        /// How long it took.
        seconds: f64,
    },
    /// An image is built.
    Summary(&'a Summary),
    /// A rebuild begins.
    Repeating {
        /// The image's digest.
        subject: Digest,
        /// Where its provenance came from.
        origin: &'a str,
    },
    /// Something that the person should know, and that stops nothing.
    Warning {
        /// What.
        message: &'a str,
        /// The file it is about, if it is about one.
        path: Option<&'a Path>,
    },
}

impl Event<'_> {
    /// For machines.
    pub(crate) fn json(&self) -> Value {
        match *self {
            Self::Platform { platform } => json!({ "event": "platform", "platform": platform }),
            Self::Base { name } => json!({ "event": "base", "name": name }),
            Self::BaseBytes { name, bytes, total } => {
                json!({ "event": "base-bytes", "name": name, "bytes": bytes, "total": total })
            }
            Self::BaseFetched { name, uri, digest, size, bytes, seconds } => json!({
                "event": "base-fetched", "name": name, "uri": uri, "digest": digest, "size": size, "bytes": bytes,
                "seconds": seconds,
            }),
            Self::Step { label, line, instruction } => {
                json!({ "event": "step", "label": label.to_string(), "line": line, "instruction": instruction })
            }
            Self::Fetching { label, url } => {
                json!({ "event": "fetching", "label": label.to_string(), "url": url })
            }
            Self::Output { label, text } => {
                json!({ "event": "output", "label": label.to_string(), "text": text })
            }
            Self::StepDone { label, line, seconds, diff_id, .. } => json!({
                "event": "step-done", "label": label.to_string(), "line": line, "seconds": seconds,
                "diff_id": diff_id,
            }),
            Self::Packing { label } => json!({ "event": "packing", "label": label.to_string() }),
            Self::Layer { label, diff_id, digest, size } => json!({
                "event": "layer", "label": label.to_string(), "diff_id": diff_id, "digest": digest, "size": size,
            }),
            Self::StepFailed { label, line, seconds } => {
                json!({ "event": "step-failed", "label": label.to_string(), "line": line, "seconds": seconds })
            }
            Self::StepDropped { label, line } => {
                json!({ "event": "step-dropped", "label": label.to_string(), "line": line })
            }
            Self::Incident { label, text } => {
                json!({ "event": "incident", "label": label.to_string(), "text": text })
            }
            Self::Asked { url, verdict, done, total } => {
                json!({ "event": "asked", "url": url, "verdict": verdict, "done": done, "total": total })
            }
            Self::Push { name } => json!({ "event": "push", "reference": name }),
            Self::PushBytes { name, bytes, total } => {
                json!({ "event": "push-bytes", "reference": name, "bytes": bytes, "total": total })
            }
            Self::Pushed { name, digest, bytes, seconds } => json!({
                "event": "pushed", "reference": name, "digest": digest, "bytes": bytes, "seconds": seconds,
            }),
            Self::Wrote { path, seconds } => {
                json!({ "event": "wrote", "path": path.display().to_string(), "seconds": seconds })
            }
            Self::Summary(summary) => summary.json(),
            Self::Repeating { subject, origin } => {
                json!({ "event": "repeating", "subject": subject, "origin": origin })
            }
            Self::Warning { message, path } => match path {
                Some(path) => {
                    json!({ "event": "warning", "path": path.display().to_string(), "message": message })
                }
                None => json!({ "event": "warning", "message": message }),
            },
        }
    }
}
