//! Removes traces of the build from layers that are not part of the image's function.
//!
//! The list is short, explicit and versioned. No rule applies to an executable file, wherever it is. Files without a
//! rule stay as the step left them, so that differences in them remain visible.

/// The version of these rules, as provenance records it.
pub const NORMALISER: &str = attestations::provenance::NORMALISER;

/// One rule: the files it applies to, its action, and the reason.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    applies: fn(&str) -> bool,
    action: Action,
}

/// The action of a rule on a file that a step wrote.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// The file stays, without content.
    Empty,
    /// The file is left out of the layer. It is a cache that its program recreates when missing.
    Drop,
    /// The content is rewritten with the same meaning, given the build's time (seconds since 1970). None if the file
    /// does not have the expected form; it stays unchanged then.
    Rewrite(fn(&[u8], i64) -> Option<Vec<u8>>),
}

/// The most bytes of a file that is rewritten.
pub(super) const MAX_REWRITTEN: u64 = 16 << 20;

const RULES: &[Rule] = &[
    // Times and process ids of the build, one line per event.
    Rule {
        name: "package-manager-logs",
        applies: |path| {
            path.starts_with("var/log/apt/")
                || matches!(
                    path,
                    "var/log/dpkg.log"
                        | "var/log/alternatives.log"
                        | "var/log/bootstrap.log"
                        | "var/log/fontconfig.log"
                )
        },
        action: Action::Empty,
    },
    // Records of logins by user id, which a build never has; their times are the build's.
    Rule {
        name: "login-records",
        applies: |path| {
            matches!(
                path,
                "var/log/faillog" | "var/log/lastlog" | "var/log/tallylog" | "var/log/btmp" | "var/log/wtmp"
            )
        },
        action: Action::Empty,
    },
    // Inode numbers and change times of the libraries on the building machine's disk.
    Rule {
        name: "ldconfig-aux-cache",
        applies: |path| path == "var/cache/ldconfig/aux-cache",
        action: Action::Drop,
    },
    // Memory-mapped tables with addresses and times; apt recreates them.
    Rule {
        name: "apt-binary-caches",
        applies: |path| matches!(path, "var/cache/apt/pkgcache.bin" | "var/cache/apt/srcpkgcache.bin"),
        action: Action::Drop,
    },
    // Directory times of the building machine; fontconfig recreates them.
    Rule {
        name: "fontconfig-cache",
        applies: |path| path.starts_with("var/cache/fontconfig/"),
        action: Action::Drop,
    },
    // The times at which certificates were added, in the order of the machine's directory.
    Rule {
        name: "java-certificates",
        applies: |path| {
            matches!(path, "etc/ssl/certs/java/cacerts" | "etc/pki/ca-trust/extracted/java/cacerts")
                || (path.starts_with("usr/lib/jvm/") && path.ends_with("/lib/security/cacerts"))
        },
        action: Action::Rewrite(java_certificates),
    },
    // Entries with the times of downloads, and logs with a time as name. npm recreates them.
    Rule {
        name: "npm-cache",
        applies: |path| {
            ["_cacache/", "_logs/", "_update-notifier-last-checked"]
                .iter()
                .any(|part| path.split_once(".npm/").is_some_and(|(_, rest)| rest.starts_with(part)))
        },
        action: Action::Drop,
    },
    // Compiled packages with the times of their first use. Go recreates them.
    Rule { name: "go-build-cache", applies: |path| path.contains(".cache/go-build/"), action: Action::Drop },
    // The time of each download's last use, and the compiler's answers about itself, by the times of its files.
    Rule {
        name: "cargo-caches",
        applies: |path| path.ends_with(".cargo/.global-cache") || path.ends_with("/.rustc_info.json"),
        action: Action::Drop,
    },
    // Indexes of channels, with the times of downloads. Their clients (rattler, pixi) fetch them again; the packages
    // next to them stay.
    Rule {
        name: "conda-index-cache",
        applies: |path| {
            path.split_once(".cache/rattler/cache/").is_some_and(|(_, rest)| !rest.starts_with("pkgs/"))
        },
        action: Action::Drop,
    },
    // The state before the last change, which depends on the order of a package manager's writes.
    Rule {
        name: "package-manager-backups",
        applies: |path| {
            (path.starts_with("var/cache/debconf/") || path.starts_with("var/lib/dpkg/"))
                && path.ends_with("-old")
        },
        action: Action::Drop,
    },
    // A random identity. An image must have none: each machine generates its own.
    Rule {
        name: "machine-id",
        applies: |path| matches!(path, "etc/machine-id" | "var/lib/dbus/machine-id"),
        action: Action::Empty,
    },
];

/// The names of all rules.
pub fn rules() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name)
}

fn java_certificates(bytes: &[u8], epoch: i64) -> Option<Vec<u8>> {
    let mut list = jks::KeyStore::parse(bytes)?;
    let added = u64::try_from(epoch).ok()?.checked_mul(1000)?;
    list.certificates.iter_mut().for_each(|one| one.added = added);
    list.certificates.sort();
    list.to_bytes()
}

/// The rules that apply to a build's layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Normaliser {
    /// The rules of [`NORMALISER`].
    #[default]
    Version1,
    /// None: everything stays as the step left it.
    Off,
}

/// A rule that changed a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppliedRule {
    /// The rule's name.
    pub rule: &'static str,
    /// The file's path, without leading slash.
    pub path: String,
}

impl Normaliser {
    /// The action on the regular file at `path`, with the name of its rule.
    pub(super) fn action(self, path: &[u8]) -> Option<(&'static str, Action)> {
        let path = std::str::from_utf8(path).ok()?;
        let rules = if self == Self::Version1 { RULES } else { &[] };
        rules.iter().find(|rule| (rule.applies)(path)).map(|rule| (rule.name, rule.action))
    }
}
