//! `diff`: the layers and files in which two images differ.

use attestations::Digest;
use images::Platform;
use images::compare::{Comparison, compare};
use serde_json::json;

use super::registries::Reach;
use super::{Answer, Session};
use crate::error::Result;
use crate::lookup::find;
use crate::registry::Registry;

/// Entries listed per layer in text; JSON has more.
const TOLD: usize = 20;

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// First image: a folder with an OCI image layout (FOLDER or FOLDER@DIGEST), or an image reference.
    a: String,
    /// Second image, in the same form.
    b: String,
    /// Platform to compare, when an image has several; this machine's by default.
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    reach: Reach,
}

/// Runs it.
///
/// # Errors
/// When an image is not found or cannot be fetched; see [`Kind`].
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let runtime = session.workspace().runtime()?;
    let registry =
        Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
    let platform = arguments.platform.as_ref();
    let a = find(&arguments.a, platform, &registry, session.workspace())?;
    let b = find(&arguments.b, platform, &registry, session.workspace())?;
    let comparison = compare((&a.0, &a.1), (&b.0, &b.1))?;
    let value = json!({ "a": a.1.digest(), "b": b.1.digest(), "comparison": comparison });
    session.result(&describe(&comparison), &value)?;
    Ok(if comparison == Comparison::Identical { Answer::Yes } else { Answer::No })
}

/// A comparison as text.
pub(crate) fn describe(comparison: &Comparison) -> String {
    let Comparison::Differs { config, layers } = comparison else {
        return match comparison {
            Comparison::SameContent => "same content, compressed differently".to_owned(),
            _ => "identical".to_owned(),
        };
    };
    let mut text = "differs\n".to_owned();
    let value =
        |value: &Option<serde_json::Value>| value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    for field in config {
        text.push_str(&format!(
            "config {}: {}, in the second {}\n",
            field.pointer,
            value(&field.a),
            value(&field.b)
        ));
    }
    for layer in layers {
        let digest = |digest: &Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
        text.push_str(&format!(
            "layer {}: {}, in the second {}\n",
            layer.index,
            digest(&layer.a),
            digest(&layer.b)
        ));
        for entry in layer.entries.iter().take(TOLD) {
            text.push_str(&format!("  {entry}\n"));
        }
        let more = layer.entries.len().saturating_sub(TOLD) + layer.unlisted;
        if more > 0 {
            text.push_str(&format!("  and {more} more\n"));
        }
    }
    text
}
