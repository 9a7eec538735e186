//! What an image is built for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// `os/architecture[/variant]`; only Linux.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// Such as `v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "riscv64" => "riscv64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { architecture: architecture.to_owned(), variant: None }
    }

    /// Always `linux`.
    pub fn os(&self) -> &'static str {
        "linux"
    }

    /// The variables that every Dockerfile may declare. Those of the building machine say the same as those of the
    /// target, so that the result does not depend on where it is built.
    pub fn arguments(&self) -> BTreeMap<String, String> {
        let variant = self.variant.clone().unwrap_or_default();
        ["BUILD", "TARGET"]
            .into_iter()
            .flat_map(|prefix| {
                [
                    (format!("{prefix}PLATFORM"), self.to_string()),
                    (format!("{prefix}OS"), self.os().to_owned()),
                    (format!("{prefix}ARCH"), self.architecture.clone()),
                    (format!("{prefix}VARIANT"), variant.clone()),
                ]
            })
            .collect()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "linux/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(out, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain =
            |part: &&str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_alphanumeric());
        match parts.as_slice() {
            ["linux", architecture] if plain(architecture) => {
                Ok(Self { architecture: (*architecture).to_owned(), variant: None })
            }
            // arm64's only variant is the default one.
            ["linux", "arm64", "v8"] => Ok(Self { architecture: "arm64".to_owned(), variant: None }),
            ["linux", architecture, variant] if plain(architecture) && plain(variant) => {
                Ok(Self { architecture: (*architecture).to_owned(), variant: Some((*variant).to_owned()) })
            }
            _ => Err(format!("{text} is not a platform such as linux/amd64")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn platforms() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!("linux/arm64/v8".parse::<Platform>().unwrap().to_string(), "linux/arm64");
        for text in ["", "linux", "windows/amd64", "linux/", "linux/amd64/", "linux/a/b/c"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
