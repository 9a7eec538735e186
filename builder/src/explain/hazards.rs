//! What is hard to repeat, or to review, and what to do about it. Names never change: other programs read them.

use serde::Serialize;

/// A kind of hazard.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Rule {
    /// Its name.
    #[serde(rename = "rule")]
    pub(crate) name: &'static str,
    /// The problem.
    pub(crate) why: &'static str,
    /// A solution.
    pub(crate) fix: &'static str,
}

macro_rules! rules {
    ($($constant:ident = $name:literal, $why:literal, $fix:literal;)*) => {
        $(pub(super) static $constant: Rule = Rule { name: $name, why: $why, fix: $fix };)*

        /// Every rule, in the order of the documentation.
        #[cfg(test)]
        pub(super) static ALL: &[&Rule] = &[$(&$constant),*];
    };
}

rules! {
    BASE_BY_TAG = "base-by-tag",
        "a tag can name another image tomorrow; it is resolved once and recorded",
        "pin the base by digest, here or under [bases] in countersign.toml";
    EMPTY_ARGUMENT = "empty-argument",
        "a variable without a value leaves this name incomplete",
        "give the ARG a default, or the build --build-arg NAME=VALUE";
    UNPINNED_PIP = "unpinned-pip",
        "the index gives the newest version that fits, another one tomorrow",
        "pin each package with ==, or install from a requirements file with --require-hashes";
    REQUIREMENTS = "requirements-file",
        "whether it can be repeated is decided in that file, which was not seen",
        "pin everything in it, with hashes: pip-compile --generate-hashes, uv export; or explain the commit with --repo";
    UNPINNED_PROJECT = "unpinned-project",
        "the newest versions of its dependencies and of its build tools are taken",
        "install what is locked first, then the project with --no-deps --no-build-isolation";
    UNPINNED_APT = "unpinned-apt",
        "the archive gives the version of the day and drops the older ones",
        "build on a base that has the packages, or install from a snapshot of the archive";
    UNPINNED_APK = "unpinned-apk",
        "the repository gives the version of the day and drops the older ones",
        "build on a base that has the packages, or pin each as NAME=VERSION and mirror the repository";
    UNPINNED_RPM = "unpinned-rpm",
        "the repository gives the version of the day",
        "build on a base that has the packages, or name each as NAME-VERSION-RELEASE";
    UNPINNED_R = "unpinned-r",
        "the repository gives the newest version",
        "restore an renv.lock, or take packages from a dated snapshot of the repository";
    UNLOCKED = "unlocked-install",
        "without its lock file the tool takes the newest versions that fit",
        "use the locked form: npm ci, cargo install --locked, uv sync --locked, conda-lock, bundle install with frozen";
    UNCHECKED_DOWNLOAD = "unchecked-download",
        "what the server sends tomorrow may be something else",
        "check it in the same RUN: echo 'DIGEST  FILE' | sha256sum -c";
    PIPED_SHELL = "download-into-shell",
        "a reviewer cannot read what is run: it is not in the commit",
        "commit the script, or download, check and run it in three steps";
    UNCHECKED_ADD = "unchecked-add",
        "what the server sends tomorrow may be something else",
        "say what it has to be: ADD --checksum=sha256:…";
    MOVING_GIT = "moving-git",
        "a branch or tag can name another commit tomorrow",
        "name the full commit id: git checkout ID, git+https://…@ID, ADD …#ID or --checksum";
    CLOCK = "clock",
        "the time of the build gets into the result",
        "use $SOURCE_DATE_EPOCH, which is the commit's time: date -d @$SOURCE_DATE_EPOCH";
    READS_EPOCH = "reads-epoch",
        "SOURCE_DATE_EPOCH is set here, to the commit's time, where Docker sets nothing: what takes a date from it, as \
         scripts for snapshots of an archive do, installs other packages than with Docker",
        "set the date itself: ENV SOURCE_DATE_EPOCH=…, or take the variable away: env -u SOURCE_DATE_EPOCH …";
    CHANCE = "chance",
        "it is another value in every build",
        "make it when the image runs, or commit it";
    KEY_MATERIAL = "key-material",
        "everybody who has the image has this key, and it is another one in every build",
        "make keys when the image runs";
    THIS_MACHINE = "this-machine",
        "the result depends on the machine that builds",
        "name the target: -march=x86-64-v2; write no host's name into files";
    SECRET = "secret",
        "only those can repeat the build who have it, and the provenance says that not all of it is recorded",
        "serve what the step fetches without a secret, or bring it with the repository";
    SECRET_ARGUMENT = "secret-argument",
        "its value stays in the image's history and in the provenance",
        "RUN --mount=type=secret,id=NAME, and build --secret id=NAME,src=FILE";
}

/// Where a rule applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hazard {
    /// The rule.
    #[serde(flatten)]
    pub(crate) rule: &'static Rule,
    /// The words that it is about, cut.
    pub(crate) words: String,
    /// The file of the context that has them, where that is not the Dockerfile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<String>,
}
