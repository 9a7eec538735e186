//! What is taken out of a layer because it tells of the build and not of the image.
//!
//! The list is short, explicit and versioned. No rule touches a file that may be executed, in whatever folder it lies, and what is
//! on no rule stays as the step left it, so that a difference there is seen.

/// The version of these rules, as provenance records it.
pub const NORMALISER: &str = attestations::provenance::NORMALISER;

/// One rule: where it applies, what it does, and why.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    applies: fn(&str) -> bool,
    action: Action,
}

/// What a rule does to a file that a step wrote.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// The file stays, without content.
    Empty,
    /// The file is not part of the layer. It is a cache that its owner makes anew when it is missing.
    Drop,
    /// The file says the same in other bytes, given the time (seconds since 1970); none when it is of another form than
    /// the rule knows, and stays.
    Rewrite(fn(&[u8], i64) -> Option<Vec<u8>>),
}

/// Larger files are not rewritten.
pub(super) const MAX_REWRITTEN: u64 = 16 << 20;

const RULES: &[Rule] = &[
    // Times and process ids of the build, one line an event.
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
    // Records by user id of logins that a build never has; their times are the build's.
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
    // Memory-mapped tables with addresses and times; apt makes them anew.
    Rule {
        name: "apt-binary-caches",
        applies: |path| matches!(path, "var/cache/apt/pkgcache.bin" | "var/cache/apt/srcpkgcache.bin"),
        action: Action::Drop,
    },
    // Directory times of the building machine; fontconfig makes them anew.
    Rule {
        name: "fontconfig-cache",
        applies: |path| path.starts_with("var/cache/fontconfig/"),
        action: Action::Drop,
    },
    // The times at which certificates were added, in the order of a machine's directory.
    Rule {
        name: "java-certificates",
        applies: |path| {
            matches!(path, "etc/ssl/certs/java/cacerts" | "etc/pki/ca-trust/extracted/java/cacerts")
                || (path.starts_with("usr/lib/jvm/") && path.ends_with("/lib/security/cacerts"))
        },
        action: Action::Rewrite(java_certificates),
    },
    // Entries with the times of fetching, and logs named by the time. npm makes them anew.
    Rule {
        name: "npm-cache",
        applies: |path| {
            ["_cacache/", "_logs/", "_update-notifier-last-checked"]
                .iter()
                .any(|part| path.split_once(".npm/").is_some_and(|(_, rest)| rest.starts_with(part)))
        },
        action: Action::Drop,
    },
    // Compiled packages with the times of their first use. Go makes them anew.
    Rule { name: "go-build-cache", applies: |path| path.contains(".cache/go-build/"), action: Action::Drop },
    // When each download was last used, and what the compiler answered about itself, by the times of its files.
    Rule {
        name: "cargo-caches",
        applies: |path| path.ends_with(".cargo/.global-cache") || path.ends_with("/.rustc_info.json"),
        action: Action::Drop,
    },
    // Indexes of channels, with the times of fetching. Their clients (rattler, pixi) fetch them anew; the packages beside
    // them stay.
    Rule {
        name: "conda-index-cache",
        applies: |path| {
            path.split_once(".cache/rattler/cache/").is_some_and(|(_, rest)| !rest.starts_with("pkgs/"))
        },
        action: Action::Drop,
    },
    // The state before the last change: which one that was depends on the order of a package manager's writes.
    Rule {
        name: "package-manager-backups",
        applies: |path| {
            (path.starts_with("var/cache/debconf/") || path.starts_with("var/lib/dpkg/"))
                && path.ends_with("-old")
        },
        action: Action::Drop,
    },
    // A random identity. An image must have none: each machine makes its own.
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
    let mut list = crate::jks::KeyStore::parse(bytes)?;
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
    /// What happens to the regular file at `path`, and by which rule.
    pub(super) fn action(self, path: &[u8]) -> Option<(&'static str, Action)> {
        let path = std::str::from_utf8(path).ok()?;
        let rules = if self == Self::Version1 { RULES } else { &[] };
        rules.iter().find(|rule| (rule.applies)(path)).map(|rule| (rule.name, rule.action))
    }
}
