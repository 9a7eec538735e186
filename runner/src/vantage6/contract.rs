//! What a container finds: vantage6's contract for algorithm containers (version 4), in files and environment.
//!
//! Every value of the environment is base32 with `=` written as `!`, as the algorithms' own wrapper decodes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt as _, PermissionsExt};
use std::path::{Path, PathBuf};

use admission::AdmittedImage;
use attestations::policy::Budget;
use attestations::{Admitted, Call, Caller};
use data_encoding::BASE32;
use images::{Image, Store};
use rustix::fs::OFlags;
use serde_json::Value;

use crate::config::{self, Database};
use crate::egress::{Proxy, Rules, Token, Upstream};
use crate::error::{Error, Kind, Result};
use crate::vantage6::Returned;

/// Where the container finds its files.
const FOLDER: &str = "/mnt/countersign";
/// The port of the proxy on the container's loopback.
pub(crate) const PROXY_PORT: u16 = 8080;

/// What a task asks of an algorithm.
#[derive(Debug, Clone)]
pub struct Input {
    bytes: Vec<u8>,
    function: String,
    arguments: Value,
}

impl Input {
    /// Parses `{"method": …, "args": […], "kwargs": {…}}`.
    ///
    /// # Errors
    /// When it is no such object: what cannot be checked against the policy's functions is not passed on.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let refused = |reason: String| {
            Error::new(Kind::Input, format!("the input is not usable: {reason}"))
                .hint("write {\"method\": \"name\", \"kwargs\": {}}")
        };
        let value: Value = serde_json::from_slice(bytes).map_err(|cause| refused(cause.to_string()))?;
        let object = value.as_object().ok_or_else(|| refused("it is no JSON object".to_owned()))?;
        let function = object.get("method").and_then(Value::as_str).filter(|name| !name.is_empty());
        let function = function.ok_or_else(|| refused("it names no `method`".to_owned()))?.to_owned();
        for (name, is_right) in
            [("args", Value::is_array as fn(&Value) -> bool), ("kwargs", Value::is_object)]
        {
            if object.get(name).is_some_and(|given| !is_right(given)) {
                let wanted = if name == "args" { "list" } else { "object" };
                return Err(refused(format!("`{name}` is no {wanted}")));
            }
        }
        // Written anew from what was parsed: the algorithm reads the very method that was checked, even where a key stood twice.
        let bytes = serde_json::to_vec(&value).map_err(|cause| refused(cause.to_string()))?;
        Ok(Self { bytes, function, arguments: arguments(value) })
    }

    /// What it is called with: all of the input but the method, with the `args` and `kwargs` that the algorithm assumes where
    /// there are none.
    pub fn arguments(&self) -> &Value {
        &self.arguments
    }

    /// The function it calls.
    pub fn function(&self) -> &str {
        &self.function
    }

    /// The whole of a call of it, as it is held against a policy.
    pub(crate) fn call<'a>(&self, databases: impl Iterator<Item = &'a String>, caller: &Caller) -> Call {
        let databases: BTreeSet<&String> = databases.collect();
        Call {
            function: Some(self.function.clone()),
            arguments: Some(self.arguments.clone()),
            databases: Some(databases.into_iter().cloned().collect()),
            caller: Some(caller.clone()),
        }
    }

    /// What the algorithm reads.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn arguments(input: Value) -> Value {
    let Value::Object(mut object) = input else { return input };
    object.remove("method");
    object.entry("args").or_insert_with(|| Value::Array(Vec::new()));
    object.entry("kwargs").or_insert_with(|| Value::Object(serde_json::Map::new()));
    Value::Object(object)
}

/// What an image is started with: an input, data, and somebody who asks.
#[derive(Debug, Clone)]
pub(crate) struct CallRequest {
    /// What the algorithm is asked.
    pub input: Input,
    /// What it sees, by label.
    pub databases: BTreeMap<String, Database>,
    /// Who asks.
    pub caller: Caller,
}

/// An image with what it is started with, all of which its proof permits. Only [`AdmittedCall::new`] makes one, and an
/// engine's job takes nothing else: so what is started is what was admitted, and its way out is the one that was granted.
#[derive(Debug, Clone)]
pub(crate) struct AdmittedCall {
    image: AdmittedImage,
    wanted: CallRequest,
}

impl AdmittedCall {
    /// Puts an admitted image and what is wanted of it together.
    ///
    /// # Errors
    /// When the proof does not permit all of it.
    pub(crate) fn new(image: AdmittedImage, wanted: CallRequest) -> Result<Self> {
        let call = wanted.input.call(wanted.databases.keys(), &wanted.caller);
        let refused = image.admitted().privileges().unmet(&call);
        let Some(first) = refused.first() else { return Ok(Self { image, wanted }) };
        let rule = image.admitted().rule();
        Err(Error::new(Kind::Refused, format!("the rule {rule} does not allow this call: {first}")))
    }

    /// The way out that was granted, to the server of the configuration and within its list.
    ///
    /// # Errors
    /// When the configuration's server is not usable.
    pub(crate) fn proxy(&self, upstream: &config::Upstream, token: Option<Token>) -> Result<Proxy> {
        let unusable = |cause| {
            Error::new(Kind::Input, "the upstream server of runner.toml is not usable").because(cause)
        };
        let granted = Rules::from(self.admitted().privileges().egress().clone());
        let server = upstream.url.clone().map_or(Upstream::None, Upstream::Url);
        Ok(Proxy::new(granted, server, token)
            .map_err(unusable)?
            .within(upstream.allow.clone())
            .with_budget(*self.budget()))
    }

    /// What it may use up.
    pub(crate) fn budget(&self) -> &Budget {
        self.admitted().privileges().budget()
    }

    /// The proof.
    pub(crate) fn admitted(&self) -> &Admitted {
        self.image.admitted()
    }

    /// The input.
    pub(crate) fn input(&self) -> &Input {
        &self.wanted.input
    }

    /// The image.
    pub(crate) fn image(&self) -> &Image {
        self.image.image()
    }

    /// The store that holds the image.
    pub(crate) fn store(&self) -> &Store {
        self.image.store()
    }
}

/// A file or folder of this machine that the container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Where it is here.
    pub source: PathBuf,
    /// Where the container sees it.
    pub target: String,
    /// Whether it may only be read.
    pub readonly: bool,
}

/// The files of one run, in a folder that only root enters; removed when dropped.
#[derive(Debug)]
pub(crate) struct Files {
    folder: tempfile::TempDir,
    /// Held for as long as the run lives; the kernel lets go of it when we are killed.
    _lock: fs::File,
    mounts: Vec<Mounted>,
    env: Vec<(String, String)>,
}

impl Files {
    /// Lays out the files of one run below `state_dir`.
    ///
    /// # Errors
    /// When a database is missing, or the disk refuses.
    pub(crate) fn lay_out(state_dir: &Path, call: &AdmittedCall, token: &str) -> Result<Self> {
        Self::of_input(state_dir, &call.wanted.input, token, &call.wanted.databases)
    }

    fn of_input(
        state_dir: &Path,
        input: &Input,
        token: &str,
        databases: &BTreeMap<String, Database>,
    ) -> Result<Self> {
        let (folder, lock) = make_folder(&state_dir.join("runs"))?;
        let mut files = Self { folder, _lock: lock, mounts: Vec::new(), env: Vec::new() };
        files.place("input", &input.bytes, 0o444, "INPUT_FILE")?;
        files.place("token", token.as_bytes(), 0o444, "TOKEN_FILE")?;
        files.place("output", b"", 0o666, "OUTPUT_FILE")?;
        files.set("TEMPORARY_FOLDER", &temporary_folder());
        files.set("HOST", "http://127.0.0.1");
        files.set("PORT", &PROXY_PORT.to_string());
        files.set("API_PATH", "");
        files.databases(databases)?;
        Ok(files)
    }

    /// What the container sees of this machine.
    pub(crate) fn mounts(&self) -> &[Mounted] {
        &self.mounts
    }

    /// What is added to the image's own environment.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// What tells this run from all others of this machine.
    pub(crate) fn name(&self) -> String {
        self.folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What it gave as its result, of which no more than `limit` bytes are read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn returned(&self, limit: u64) -> Result<Returned> {
        let path = self.folder.path().join("output");
        let failed = |cause| Error::io("reading", &path, cause);
        // One file is opened, measured and read. A container that outlives its end may still write: what is read is bounded
        // by itself.
        let opened =
            fs::File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path);
        let file = opened.map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
        let size = size.max(bytes.len() as u64);
        Ok(Returned::new(bytes, size, limit))
    }

    fn databases(&mut self, databases: &BTreeMap<String, Database>) -> Result<()> {
        let mut labels = Vec::new();
        for (label, database) in databases {
            if label.is_empty()
                || !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            {
                return Err(Error::new(
                    Kind::Input,
                    format!("`{label}` is no label of a database: letters, digits, - and _ are"),
                ));
            }
            let source = database
                .path
                .canonicalize()
                .map_err(|cause| Error::io("finding the database", &database.path, cause))?;
            let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let target = format!("{FOLDER}/data/{label}/{name}");
            let variable = label.to_uppercase().replace('-', "_");
            if self.env.iter().any(|(name, _)| *name == format!("{variable}_DATABASE_URI")) {
                let message =
                    format!("the database `{label}` and another one here become one variable, {variable}");
                return Err(Error::new(Kind::Input, message).hint("give one of them another label"));
            }
            self.set(&format!("{variable}_DATABASE_URI"), &target);
            self.set(&format!("{variable}_DATABASE_TYPE"), &database.kind);
            self.mounts.push(Mounted { source, target, readonly: true });
            labels.push(label.as_str());
        }
        let labels = labels.join(",");
        self.set("USER_REQUESTED_DATABASE_LABELS", &labels);
        self.set("DB_LABELS", &labels);
        Ok(())
    }

    fn place(&mut self, name: &str, bytes: &[u8], mode: u32, variable: &str) -> Result<()> {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).map_err(|cause| Error::io("writing", &path, cause))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(|cause| Error::io("setting the mode of", &path, cause))?;
        let target = format!("{FOLDER}/{name}");
        self.set(variable, &target);
        self.mounts.push(Mounted { source: path, target, readonly: mode & 0o222 == 0 });
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), encoded(value)));
    }
}

/// A folder for one run, and its lock. Those of killed programs, which hold inputs, results and tokens, are removed.
fn make_folder(runs: &Path) -> Result<(tempfile::TempDir, fs::File)> {
    let making = |cause| Error::io("making a folder in", runs, cause);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(runs).map_err(making)?;
    // One at a time, so that nobody sees another's folder between its creation and its lock.
    let gate = open_lock(runs)?;
    gate.lock().map_err(making)?;
    for entry in fs::read_dir(runs).map_err(making)? {
        let folder = entry.map_err(making)?.path();
        if folder.is_dir() && open_lock(&folder)?.try_lock().is_ok() {
            fs::remove_dir_all(&folder).map_err(|cause| Error::io("removing", &folder, cause))?;
        }
    }
    let folder = tempfile::Builder::new().prefix("run-").tempdir_in(runs).map_err(making)?;
    let lock = open_lock(folder.path())?;
    lock.lock().map_err(making)?;
    Ok((folder, lock))
}

fn open_lock(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let opened = fs::File::options().create(true).truncate(false).write(true).open(&path);
    opened.map_err(|cause| Error::io("opening", &path, cause))
}

/// The container's folders in memory.
pub(crate) fn temporary_folders() -> [String; 2] {
    ["/tmp".to_owned(), temporary_folder()]
}

fn temporary_folder() -> String {
    format!("{FOLDER}/temporary")
}

fn encoded(value: &str) -> String {
    BASE32.encode(value.as_bytes()).replace('=', "!")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_the_wrapper_decodes_them() {
        assert_eq!(encoded("http://127.0.0.1"), "NB2HI4B2F4XTCMRXFYYC4MBOGE!!!!!!");
    }

    #[test]
    fn an_input_without_a_function_is_refused() {
        for text in ["", "[]", "{}", "{\"method\": 1}", "{\"method\": \"\"}", "{\"method\""] {
            assert!(Input::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_killed_run_left_is_removed_by_the_next_and_a_living_one_stays() {
        let state = tempfile::tempdir().unwrap();
        let lay_out = || {
            let input = Input::parse(br#"{"method":"average"}"#).unwrap();
            Files::of_input(state.path(), &input, "", &BTreeMap::new()).unwrap()
        };
        let living = lay_out();
        let dead = state.path().join("runs/run-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("output"), "a result").unwrap();
        let next = lay_out();
        assert!(!dead.exists());
        let (living_folder, next_folder) = (living.folder.path().to_owned(), next.folder.path().to_owned());
        assert!(living_folder.join("output").exists() && next_folder.join("output").exists());
        drop((living, next));
        assert!(!living_folder.exists() && !next_folder.exists());
    }

    #[test]
    fn a_result_is_read_up_to_its_limit_and_from_no_other_file() {
        let state = tempfile::tempdir().unwrap();
        let input = Input::parse(br#"{"method":"average"}"#).unwrap();
        let files = Files::of_input(state.path(), &input, "", &BTreeMap::new()).unwrap();
        let output = files.folder.path().join("output");
        fs::write(&output, "1234567890").unwrap();
        assert_eq!(files.returned(10).unwrap(), Returned::Result(b"1234567890".to_vec()));
        let Returned::Unusable(why) = files.returned(9).unwrap() else { panic!("it has 10 bytes") };
        assert!(why.reason.contains("10 bytes: 9 are allowed"), "{}", why.reason);
        fs::remove_file(&output).unwrap();
        std::os::unix::fs::symlink("/proc/self/environ", &output).unwrap();
        assert!(files.returned(1 << 20).is_err());
    }

    #[test]
    fn two_labels_never_become_one_variable() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("rows.csv");
        fs::write(&path, "a\n").unwrap();
        let database = Database { path, kind: "csv".to_owned() };
        let input = Input::parse(br#"{"method":"average"}"#).unwrap();
        let lay_out = |labels: &[&str]| {
            let databases = labels.iter().map(|label| ((*label).to_owned(), database.clone())).collect();
            Files::of_input(state.path(), &input, "", &databases)
        };
        assert!(lay_out(&["a-b", "a_c"]).is_ok());
        for labels in [["a-b", "a_b"], ["rows", "ROWS"]] {
            assert!(lay_out(&labels).unwrap_err().to_string().contains("become one variable"), "{labels:?}");
        }
    }

    #[test]
    fn arguments_are_all_of_the_input_but_the_method() {
        let input =
            Input::parse(br#"{"method":"average","kwargs":{"method":"x"},"output_format":"json"}"#).unwrap();
        let wanted = serde_json::json!({ "args": [], "kwargs": { "method": "x" }, "output_format": "json" });
        assert_eq!(input.arguments(), &wanted);
        assert!(
            !String::from_utf8_lossy(&input.bytes).contains("args\":[]"),
            "what was not there is not passed on"
        );
    }

    #[test]
    fn the_function_that_is_checked_is_the_one_that_is_passed_on() {
        let input = Input::parse(br#"{"method":"allowed","method":"other"}"#).unwrap();
        let passed: Value = serde_json::from_slice(&input.bytes).unwrap();
        assert_eq!(passed["method"], input.function());
        assert_eq!(passed.as_object().unwrap().len(), 1);
        assert_eq!(String::from_utf8_lossy(&input.bytes).matches("method").count(), 1);
    }
}
