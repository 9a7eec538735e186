//! `countersign-runner init`: a commented policy and configuration.

use std::path::Path;

use errors::{Form, files, output};
use serde_json::json;

use super::output::YES;
use crate::config;
use crate::error::{Error, Kind, Result};

/// Writes both files into a folder; what is there stays.
pub(super) fn run(folder: &Path, form: Form) -> Result<u8> {
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
        files::write_new(&folder.join(name), text.as_bytes())?;
    }
    output::result(
        form,
        &format!(
            "wrote {0}/policy.toml and {0}/runner.toml: read them, name your people and builders",
            folder.display()
        ),
        &json!({ "folder": folder }),
    )?;
    Ok(YES)
}
