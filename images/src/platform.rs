//! The platform of an image, with the names of OCI (image-spec `image-index.md`), which are Go's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The processors that Linux supports, with Go's names. Anything else is a typing error, which would otherwise only
/// be noticed when the image is run.
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x",
];

/// The platform of an image. Ordered, so that lists of platforms always have the same order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The processor: `amd64`, `arm64`.
    pub architecture: String,
    /// The operating system: `linux`.
    pub os: String,
    /// The processor's variant, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on this processor.
    pub fn linux(architecture: impl Into<String>) -> Self {
        Self { architecture: architecture.into(), os: "linux".to_owned(), variant: None }
    }

    /// The platform of this machine.
    pub fn here() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        })
    }

    /// Whether an image for `self` runs on `other`; a missing variant matches any.
    pub fn fits(&self, other: &Self) -> bool {
        let variant = self.variant.is_none() || other.variant.is_none() || self.variant == other.variant;
        self.architecture == other.architecture && self.os == other.os && variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// From the usual form: `linux/arm64`, `linux/arm/v7`. Only Linux is supported.
impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text} is not a platform such as linux/amd64");
        let parts: Vec<&str> = text.split('/').collect();
        let (architecture, variant) = match parts.as_slice() {
            // The kernel's names of the same processors.
            ["linux", "x86_64"] => ("amd64", None),
            // arm64's only variant is the default one.
            ["linux", "aarch64"] | ["linux", "arm64", "v8"] => ("arm64", None),
            ["linux", architecture] => (*architecture, None),
            ["linux", architecture, variant] => (*architecture, Some(*variant)),
            _ => return Err(wrong()),
        };
        let is_plain =
            |part: &str| !part.is_empty() && part.bytes().all(|letter| letter.is_ascii_alphanumeric());
        if !variant.is_none_or(is_plain) {
            return Err(wrong());
        }
        if !ARCHITECTURES.contains(&architecture) {
            let known = ARCHITECTURES.join(", ");
            return Err(format!("{text} is no platform: the processors of Linux are {known}"));
        }
        Ok(Self { variant: variant.map(str::to_owned), ..Self::linux(architecture) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn platforms_are_read_as_they_are_written() {
        for text in ["linux/amd64", "linux/arm/v7", "linux/s390x"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for (text, same) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/x86_64", "linux/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), same);
        }
        let here = Platform::here().to_string();
        assert_eq!(here.parse::<Platform>().unwrap(), Platform::here());
        for text in
            ["", "linux", "windows/amd64", "linux/", "linux/amd64/", "linux/a/b/c", "linux/amd46", "amd64"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_variant_fits_any() {
        let read = |text: &str| text.parse::<Platform>().unwrap();
        assert!(
            read("linux/arm").fits(&read("linux/arm/v7")) && read("linux/arm/v7").fits(&read("linux/arm"))
        );
        assert!(!read("linux/arm/v6").fits(&read("linux/arm/v7")));
        assert!(!read("linux/arm64").fits(&read("linux/arm")));
    }
}
