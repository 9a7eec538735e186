//! What a Dockerfile is told of the platform it is built for.

use std::collections::BTreeMap;

use images::Platform;

/// The variables that every Dockerfile may declare. Those of the building machine say the same as those of the
/// target, so that the result does not depend on where it is built: `FROM --platform=$BUILDPLATFORM` is a base for the
/// target, the same one on every rebuilder's machine.
pub fn arguments(platform: &Platform) -> BTreeMap<String, String> {
    let variant = platform.variant.clone().unwrap_or_default();
    ["BUILD", "TARGET"]
        .into_iter()
        .flat_map(|prefix| {
            [
                (format!("{prefix}PLATFORM"), platform.to_string()),
                (format!("{prefix}OS"), platform.os.clone()),
                (format!("{prefix}ARCH"), platform.architecture.clone()),
                (format!("{prefix}VARIANT"), variant.clone()),
            ]
        })
        .collect()
}
