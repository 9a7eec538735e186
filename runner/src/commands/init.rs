//! `countersign-runner init`: a commented policy and configuration.

use std::io::Write as _;
use std::path::Path;

use serde_json::json;

use super::output::{Say, YES};
use crate::config;
use crate::error::{Error, Kind, Result};

/// Writes both files into a folder; what is there stays.
pub(super) fn init(folder: &Path, say: &Say) -> Result<u8> {
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("making", folder, cause))?;
    let files = [("policy.toml", attestations::Policy::EXAMPLE), ("runner.toml", config::EXAMPLE)];
    for (name, _) in files {
        if folder.join(name).exists() {
            return Err(Error::new(
                Kind::Usage,
                format!("{} is there already, and stays", folder.join(name).display()),
            ));
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        let file = std::fs::File::options().write(true).create_new(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|cause| Error::io("writing", &path, cause))?;
    }
    say.result(
        &format!(
            "wrote {0}/policy.toml and {0}/runner.toml: read them, name your people and builders",
            folder.display()
        ),
        &json!({ "folder": folder }),
    )?;
    Ok(YES)
}
