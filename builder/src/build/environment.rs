//! What a RUN step finds around it: the variables that make tools deterministic, and the files of its host name and
//! names. None of it ends up in the image's configuration.

use std::path::Path;

use super::config::DEFAULT_PATH;

/// The host name of every step.
pub const HOSTNAME: &str = "countersign";
/// Where a step finds the certificate of the recorder's authority; `/dev` is the runtime's and leaves no trace.
pub const CA_FILE: &str = "/dev/countersign-ca.pem";

/// Variables that tools read to be deterministic, each with the tool.
const FIXED: [(&str, &str); 4] = [
    // Python's order of sets in compiled files.
    ("PYTHONHASHSEED", "0"),
    // uv's cache has random names, and its metadata has times.
    ("UV_NO_CACHE", "1"),
    ("UV_LINK_MODE", "copy"),
    ("UV_NO_INSTALLER_METADATA", "1"),
];

/// Variables by which tools with certificates of their own are told of another file.
const TRUST: [&str; 7] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
];

/// The environment of a step: the Dockerfile's variables, which win, and what the build adds. `HOME` is left to the
/// sandbox, which reads it from the image.
pub fn variables(own: &[(String, String)], epoch: i64) -> Vec<(String, String)> {
    let mut all = own.to_vec();
    let mut add = |name: &str, value: &str| {
        if !all.iter().any(|(known, _)| known == name) {
            all.push((name.to_owned(), value.to_owned()));
        }
    };
    add("PATH", DEFAULT_PATH);
    add("SOURCE_DATE_EPOCH", &epoch.to_string());
    for (name, value) in FIXED {
        add(name, value);
    }
    for name in TRUST {
        add(name, CA_FILE);
    }
    all
}

/// A file that is mounted over one of the image's, as Docker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounted {
    /// Its name in the folder of mounted files.
    pub name: &'static str,
    /// Where the step sees it.
    pub target: &'static str,
}

/// The mounted files.
pub const MOUNTED: [Mounted; 4] = [
    Mounted { name: "resolv.conf", target: "/etc/resolv.conf" },
    Mounted { name: "hosts", target: "/etc/hosts" },
    Mounted { name: "hostname", target: "/etc/hostname" },
    Mounted { name: "ca.pem", target: CA_FILE },
];

/// Writes the mounted files into `folder`.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_mounted(folder: &Path, ca: &str) -> std::io::Result<()> {
    let hosts = format!("127.0.0.1\tlocalhost {HOSTNAME}\n");
    let texts = ["nameserver 127.0.0.1\noptions ndots:0\n", &hosts, &format!("{HOSTNAME}\n"), ca];
    for (file, text) in MOUNTED.iter().zip(texts) {
        std::fs::write(folder.join(file.name), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_wins() {
        let own = [("PYTHONHASHSEED".to_owned(), "7".to_owned()), ("PATH".to_owned(), "/x".to_owned())];
        let all = variables(&own, 42);
        let value = |name: &str| {
            all.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!((value("PYTHONHASHSEED"), value("PATH")), (vec!["7"], vec!["/x"]));
        assert_eq!(value("SOURCE_DATE_EPOCH"), ["42"]);
        assert_eq!(value("PIP_CERT"), [CA_FILE]);
    }
}
