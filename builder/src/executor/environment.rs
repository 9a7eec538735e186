//! The environment of a RUN step: variables that make tools deterministic, the files for its host name and name
//! resolution, and the recorder's certificate. None of it ends up in the image's configuration.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jks::{KeyStore, Trusted};

use crate::plan::config::DEFAULT_PATH;

/// The host name of every step.
pub(crate) const HOSTNAME: &str = "countersign";
/// The recorder's CA certificate. In `/dev`, which the runtime mounts, so that it leaves no trace in the layer.
pub(crate) const CA_FILE: &str = "/dev/countersign-ca.pem";

/// Variables that make tools deterministic, each with its tool.
const FIXED: [(&str, &str); 5] = [
    // The order of sets in files that Python compiles.
    ("PYTHONHASHSEED", "0"),
    // uv's cache has random names, and its metadata has times.
    ("UV_NO_CACHE", "1"),
    ("UV_LINK_MODE", "copy"),
    ("UV_NO_INSTALLER_METADATA", "1"),
    // pip compiles in a folder with a random name, which debug information would include. Python's build tools append
    // this to their own flags; make and autoconf prepend it to theirs, where it has no effect.
    ("CPPFLAGS", "-g0"),
];

/// Variables that name a certificate file, for tools that have certificates of their own.
const TRUST: [&str; 7] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
];

/// Java reads only its own key store, so this names another one; for Maven it also sets the time of archive entries.
/// Java reports the variable on standard error, which cannot be switched off. The options are appended to those of the
/// Dockerfile.
const JAVA: &str = "JAVA_TOOL_OPTIONS";
/// The same certificate as a Java key store.
pub(crate) const CA_JAVA: &str = "/dev/countersign-ca.jks";
/// Additional configuration for apt.
const APT: &str = "/dev/countersign-apt.conf";

/// The environment of a step: the Dockerfile's variables, which take precedence, and those that the build adds.
/// `HOME` is left to the sandbox, which reads it from the image.
pub(crate) fn variables(own: &[(String, String)], epoch: i64) -> Vec<(String, String)> {
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
    add("APT_CONFIG", APT);
    let time = jiff::Timestamp::from_second(epoch).map(|time| time.to_string()).unwrap_or_default();
    let java = format!(
        "-Djavax.net.ssl.trustStore={CA_JAVA} -Djavax.net.ssl.trustStoreType=JKS -Dproject.build.outputTimestamp={time}"
    );
    match all.iter_mut().find(|(name, _)| name == JAVA) {
        Some((_, own)) => *own = format!("{own} {java}"),
        None => all.push((JAVA.to_owned(), java)),
    }
    all
}

/// A file that is mounted over one of the image's, as Docker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Its name in the folder of mounted files.
    pub(crate) name: &'static str,
    /// Its path in the step.
    pub(crate) target: &'static str,
}

/// The mounted files.
pub(crate) const MOUNTED: [Mounted; 6] = [
    Mounted { name: "resolv.conf", target: "/etc/resolv.conf" },
    Mounted { name: "hosts", target: "/etc/hosts" },
    Mounted { name: "hostname", target: "/etc/hostname" },
    Mounted { name: "ca.pem", target: CA_FILE },
    Mounted { name: "ca.jks", target: CA_JAVA },
    Mounted { name: "apt.conf", target: APT },
];

/// The certificate as a Java key store.
fn java_list(der: &[u8]) -> Vec<u8> {
    let alias = b"countersign".to_vec();
    let trusted = Trusted { alias, added: 0, kind: b"X.509".to_vec(), der: der.to_vec() };
    // One certificate never exceeds the format's limits. An empty file would make Java refuse every server.
    KeyStore { certificates: vec![trusted] }.to_bytes().unwrap_or_default()
}

/// For replays: an expired package index is still the recorded one, as its digest shows.
const APT_IN_A_REPLAY: &str = "Acquire::Check-Valid-Until \"false\";\n";

/// The most bytes of a step's mounted files, including those that it writes into them.
pub(crate) const MOUNTED_SIZE: u64 = 1 << 20;

/// Writes the mounted files into `folder`, readable by every user of a step. `ca` is the recorder's CA certificate,
/// as PEM and DER.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write_mounted(
    folder: &Path,
    (pem, der): (&str, &[u8]),
    is_replay: bool,
) -> std::io::Result<()> {
    let hosts = format!("127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let hostname = format!("{HOSTNAME}\n");
    let java = java_list(der);
    let apt = if is_replay { APT_IN_A_REPLAY } else { "" };
    let files: [&[u8]; 6] = [
        b"nameserver 127.0.0.1\noptions ndots:0\n",
        hosts.as_bytes(),
        hostname.as_bytes(),
        pem.as_bytes(),
        &java,
        apt.as_bytes(),
    ];
    for (file, bytes) in MOUNTED.iter().zip(files) {
        let path = folder.join(file.name);
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
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
        let own = [(JAVA.to_owned(), "-Xmx1g".to_owned())];
        let java = variables(&own, 42).into_iter().filter(|(key, _)| key == JAVA).collect::<Vec<_>>();
        assert!(java.len() == 1 && java[0].1.starts_with("-Xmx1g -Djavax.net.ssl.trustStore="), "{java:?}");
    }
}
