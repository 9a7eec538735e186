//! Variables that describe the platform of a build.

use std::collections::BTreeMap;

use images::Platform;

/// The predefined variables that a Dockerfile may declare. Those of the build platform equal those of the target, so
/// that the result does not depend on the machine: `FROM --platform=$BUILDPLATFORM` takes the base for the target, on
/// every rebuilder's machine.
pub(crate) fn arguments(platform: &Platform) -> BTreeMap<String, String> {
    let variant = platform.variant.clone().unwrap_or_default();
    ["BUILD", "TARGET"]
        .into_iter()
        .flat_map(|prefix| {
            [
                (format!("{prefix}PLATFORM"), platform.to_string()),
                (format!("{prefix}OS"), platform.os.clone()),
                (format!("{prefix}ARCH"), platform.architecture.clone()),
                (format!("{prefix}VARIANT"), variant.clone()),
                (format!("{prefix}OSVERSION"), String::new()),
            ]
        })
        .collect()
}

/// Whether a platform matches a `--platform` value as Docker reads it: in any case, without the system, or without
/// the processor, which is this machine's then.
pub(crate) fn is_asked_by(platform: &Platform, written: &str) -> bool {
    let lower = written.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    let (processor, variant) = match parts.as_slice() {
        ["linux"] => return platform.os == "linux",
        ["linux", processor] => (*processor, None),
        ["linux", processor, variant] => (*processor, Some(*variant)),
        [processor] => (*processor, None),
        _ => return false,
    };
    let processor = match processor {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let variant =
        variant.filter(|variant| !matches!((processor, *variant), ("amd64", "v1") | ("arm64", "v8")));
    let asked = ["linux", processor].into_iter().chain(variant).collect::<Vec<_>>().join("/");
    asked.parse::<Platform>().is_ok_and(|asked| asked == *platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_written_in_several_ways() {
        let amd64 = Platform::linux("amd64");
        for text in
            ["linux/amd64", "LINUX/AMD64", "amd64", "x86_64", "linux", "linux/amd64/v1", "linux/x86-64"]
        {
            assert!(is_asked_by(&amd64, text), "{text}");
        }
        for text in ["", "linux/arm64", "arm64", "windows/amd64", "linux/amd64/v2", "linux/amd64/v1/x"] {
            assert!(!is_asked_by(&amd64, text), "{text}");
        }
        assert!(is_asked_by(&Platform::linux("arm64"), "linux/aarch64/v8"));
    }
}
