//! Progress events, with their JSON form. The names and fields of the JSON are specified in `docs/progress.md`, and
//! are stable.

use std::fmt;
use std::path::Path;

use attestations::Digest;
use serde_json::{Value, json};

use super::summary::Summary;

/// A step's position in the build, and its stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Label {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// The number of all steps.
    pub(crate) total: usize,
    /// The stage's name.
    pub(crate) stage: String,
    /// Whether other stages may run at the same time, so that each line of its output needs its label.
    pub(crate) is_one_of_several: bool,
}

impl fmt::Display for Label {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}/{}] {}", self.number, self.total, self.stage)
    }
}

/// A progress event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event<'a> {
    /// The build for a platform begins.
    Platform {
        /// Such as `linux/amd64`.
        platform: &'a str,
    },
    /// A base is looked up, and fetched if it is not in the store.
    Base {
        /// Its name in the Dockerfile.
        name: &'a str,
    },
    /// Bytes of a base arrived. Reported at most several times a second.
    BaseBytes {
        /// Its name in the Dockerfile.
        name: &'a str,
        /// The bytes so far.
        bytes: u64,
        /// The bytes to fetch according to its manifest; none while that is not known.
        total: Option<u64>,
    },
    /// A base is in the store.
    BaseFetched {
        /// Its name in the Dockerfile.
        name: &'a str,
        /// Its origin.
        uri: &'a str,
        /// The digest of its manifest.
        digest: Digest,
        /// The bytes of its layers, compressed.
        size: u64,
        /// The bytes that were fetched over the network: 0 if the store had everything.
        bytes: u64,
        /// The duration.
        seconds: f64,
    },
    /// A step begins.
    Step {
        /// The step.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
        /// The instruction.
        instruction: &'a str,
    },
    /// An ADD fetches something.
    Fetching {
        /// The step.
        label: &'a Label,
        /// The URL.
        url: &'a str,
    },
    /// A step's command printed a line.
    Output {
        /// The step.
        label: &'a Label,
        /// The line, without control characters for a terminal.
        text: &'a str,
    },
    /// A step is done.
    StepDone {
        /// The step.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
        /// The duration.
        seconds: f64,
        /// The diff ID of its layer, if it changed anything.
        diff_id: Option<Digest>,
        /// Whether it changes only the configuration.
        is_configuration: bool,
    },
    /// A stage waits for the compression of a step's layer: nothing else is left to do, or too many layers are being
    /// compressed.
    Packing {
        /// The step.
        label: &'a Label,
    },
    /// A step's layer is in the store.
    Layer {
        /// The step.
        label: &'a Label,
        /// Its diff ID.
        diff_id: Digest,
        /// The digest of its blob.
        digest: Digest,
        /// The blob's size.
        size: u64,
    },
    /// A step failed, or was cancelled because another failed or the user interrupted the build.
    StepFailed {
        /// The step.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
        /// The duration.
        seconds: f64,
    },
    /// The early result of a step is discarded, because an earlier step produced another layer than predicted. The
    /// step runs again.
    StepDropped {
        /// The step.
        label: &'a Label,
        /// Its line in the Dockerfile.
        line: usize,
    },
    /// An incident on a step's network.
    Incident {
        /// The step.
        label: &'a Label,
        /// The description.
        text: &'a str,
    },
    /// A recorded request was sent again.
    Asked {
        /// Its URL.
        url: &'a str,
        /// How the response compares with the recorded one.
        verdict: &'a str,
        /// The number of requests so far, including this one.
        done: usize,
        /// The number of all requests.
        total: usize,
    },
    /// A push begins.
    Push {
        /// The destination.
        name: &'a str,
    },
    /// Bytes were sent. Reported at most several times a second.
    PushBytes {
        /// The destination.
        name: &'a str,
        /// The bytes so far.
        bytes: u64,
        /// The bytes to send, not counting those that the registry has; none while that is not known.
        total: Option<u64>,
    },
    /// A push is done, including the image's attachments.
    Pushed {
        /// The destination.
        name: &'a str,
        /// The digest that the name has now.
        digest: Digest,
        /// The bytes of layers and config that were sent: 0 if the registry had them.
        bytes: u64,
        /// The duration.
        seconds: f64,
    },
    /// An output was written.
    Wrote {
        /// The file or folder.
        path: &'a Path,
        /// The duration.
        seconds: f64,
    },
    /// An image is built.
    Summary(&'a Summary),
    /// A rebuild begins.
    Repeating {
        /// The image's digest.
        subject: Digest,
        /// The origin of its provenance.
        origin: &'a str,
    },
    /// A problem that the user should know of, but that stops nothing.
    Warning {
        /// The message.
        message: &'a str,
        /// The file that it is about, if any.
        path: Option<&'a Path>,
    },
}

impl Event<'_> {
    /// The JSON form.
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
