//! `RUN --mount`: mounts of a step, which are never part of its layer.

use super::Problem;
use super::words::Flag;

/// A mount as written. Its fields are checked at once, their values once variables are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunMount {
    text: String,
    /// The fields, with their values if given.
    fields: Vec<(String, Option<String>)>,
}

/// A mount with its variables expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mount {
    /// Files for the step.
    Seen {
        /// The mount point; empty means the working directory.
        target: String,
        /// The content.
        kind: MountKind,
    },
    /// A secret for the step.
    Secret(SecretMount),
}

/// The content of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// An empty folder, removed after the step: caches are not inputs, so every build begins with empty ones.
    Cache {
        /// Its name; empty means its mount point. Caches with the same name are one.
        id: String,
        /// Its permissions.
        mode: u32,
        /// User and group.
        owner: (u32, u32),
        /// Whether writing is allowed.
        writable: bool,
    },
    /// An empty file system in memory.
    Temporary {
        /// The most bytes.
        size: Option<u64>,
        /// Whether writing is allowed.
        writable: bool,
    },
    /// A file or folder of the repository, or of a stage or image.
    Bind {
        /// The stage or image.
        from: Option<String>,
        /// The path there.
        source: String,
        /// Whether writing is allowed. Changes are discarded after the step.
        writable: bool,
    },
}

/// A secret for a step, not expanded. Its value is given to the build, and is not part of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretMount {
    /// Its name.
    pub(crate) id: String,
    /// The file for it.
    pub(crate) target: Option<String>,
    /// The variable for it.
    pub(crate) env: Option<String>,
    /// Whether the build fails without it.
    pub(crate) required: bool,
    /// The file's permissions.
    pub(crate) mode: u32,
    /// The file's user and group.
    pub(crate) owner: (u32, u32),
}

/// Fields that may be given without a value.
const BARE: [&str; 5] = ["ro", "readonly", "rw", "readwrite", "required"];
const FIELDS: [&str; 19] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "ro",
    "readonly",
    "rw",
    "readwrite",
    "size",
    "mode",
    "uid",
    "gid",
    "id",
    "sharing",
    "required",
    "env",
];
/// The permission bits allowed in a mode, as in BuildKit.
const PERMISSIONS: u32 = 0o777;

/// The values of the fields.
#[derive(Default)]
struct Said {
    kind: Option<String>,
    target: String,
    source: Option<String>,
    from: Option<String>,
    size: Option<u64>,
    mode: Option<u32>,
    user: Option<u32>,
    group: Option<u32>,
    writable: Option<bool>,
    required: Option<bool>,
    id: Option<String>,
    env: Option<String>,
    sharing: bool,
}

impl RunMount {
    pub(super) fn parse(flag: &Flag) -> Result<Self, Problem> {
        let text = flag.value.clone().unwrap_or_default();
        let fields = separated(&text).ok_or_else(|| wrong(&text, "a quote does not fit"))?;
        let fields = fields.iter().map(|field| match field.split_once('=') {
            Some((name, value)) => (name.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        });
        let mount = Self { fields: fields.collect(), text };
        for (name, value) in &mount.fields {
            if !FIELDS.contains(&name.as_str()) {
                return Err(mount.wrong(&format!("{} is unknown", shortened(name))));
            }
            if value.is_none() && !BARE.contains(&name.as_str()) {
                return Err(mount.wrong(&format!("{name} needs a value")));
            }
            if name == "from" && value.as_ref().is_some_and(|value| value.contains('$')) {
                return Err(mount
                    .wrong("from cannot be a variable: name a stage of that base, and take it from there"));
            }
        }
        // A mount without variables is checked before anything is built.
        if !mount.text.contains(['$', '\\', '\'', '"']) {
            mount.expanded(&|text| Ok(text.to_owned()))?;
        }
        Ok(mount)
    }

    /// The stage or image that it comes from.
    pub(crate) fn from(&self) -> Option<&str> {
        self.last("from").filter(|from| !from.is_empty())
    }

    /// Whether it is a secret, as far as that is known before expansion.
    pub(crate) fn is_secret(&self) -> bool {
        self.last("type").is_some_and(|kind| kind.eq_ignore_ascii_case("secret"))
    }

    /// Expands the mount; `word` expands a value.
    pub(crate) fn expanded(&self, word: &dyn Fn(&str) -> Result<String, Problem>) -> Result<Mount, Problem> {
        let said = self.read(word)?;
        let only_of = |of: &str, given: bool, name: &str| match given {
            true => Err(self.wrong(&format!("{name} is for type={of}"))),
            false => Ok(()),
        };
        let kind = said.kind.as_deref().unwrap_or("bind");
        if kind == "ssh" {
            return Err(Problem::unsupported(
                "RUN --mount=type=ssh",
                "what passes through an agent cannot be recorded: fetch over HTTPS, with a token by --mount=type=secret if it has to be",
            ));
        }
        only_of("cache", said.sharing && kind != "cache", "sharing")?;
        only_of("tmpfs", said.size.is_some() && kind != "tmpfs", "size")?;
        only_of("secret", said.env.is_some() && kind != "secret", "env")?;
        only_of("secret", said.required.is_some() && kind != "secret", "required")?;
        let has_owner = said.mode.is_some() || said.user.is_some() || said.group.is_some();
        let owner = (said.user.unwrap_or_default(), said.group.unwrap_or_default());
        only_of("cache and secret", has_owner && !["cache", "secret"].contains(&kind), "mode, uid and gid")?;
        let kind = match kind {
            "secret" => return self.secret(said, owner).map(Mount::Secret),
            "cache" => self.cache(&said, has_owner, owner)?,
            "tmpfs" => MountKind::Temporary { size: said.size, writable: said.writable.unwrap_or(true) },
            "bind" => bind(&said, false),
            other => return Err(self.wrong(&format!("type={} is unknown", shortened(other)))),
        };
        Ok(Mount::Seen { target: said.target, kind })
    }

    fn read(&self, word: &dyn Fn(&str) -> Result<String, Problem>) -> Result<Said, Problem> {
        let mut said = Said::default();
        for (name, value) in &self.fields {
            let value = value.as_deref().map(word).transpose()?;
            let yes = match value.as_deref() {
                None => Some(true),
                Some(text) => yes_or_no(text),
            };
            let yes = || yes.ok_or_else(|| self.wrong(&format!("{name} is true or false")));
            let value = value.clone().unwrap_or_default();
            let number = || value.parse::<u32>().map_err(|_| self.wrong(&format!("{name} needs a number")));
            match name.as_str() {
                "type" => said.kind = Some(value.to_ascii_lowercase()),
                "target" | "dst" | "destination" => said.target = value,
                "source" | "src" => said.source = Some(value),
                "from" => said.from = Some(value).filter(|from| !from.is_empty()),
                "ro" | "readonly" => said.writable = Some(!yes()?),
                "rw" | "readwrite" => said.writable = Some(yes()?),
                "size" => {
                    let size = bytes(&value).ok_or_else(|| self.wrong("size needs a number, such as 64m"))?;
                    said.size = Some(size);
                }
                "mode" => {
                    let octal = u32::from_str_radix(&value, 8);
                    let octal = octal.map_err(|_| self.wrong("mode needs an octal number"))?;
                    said.mode = Some(octal & PERMISSIONS);
                }
                "uid" => said.user = Some(number()?),
                "gid" => said.group = Some(number()?),
                "id" => said.id = Some(value),
                "sharing" => match value.to_ascii_lowercase().as_str() {
                    "shared" | "private" | "locked" => said.sharing = true,
                    _ => return Err(self.wrong("sharing is shared, private or locked")),
                },
                "required" => said.required = Some(yes()?),
                _ => said.env = Some(value),
            }
        }
        Ok(said)
    }

    /// An empty folder, or a copy of a stage's folder: a cache starts with that content, and is always new here.
    fn cache(&self, said: &Said, has_owner: bool, owner: (u32, u32)) -> Result<MountKind, Problem> {
        let is_root = said.source.as_deref().is_none_or(|source| source.trim_matches(['/', '.']).is_empty());
        if !is_root && said.from.is_none() {
            return Err(self.wrong("the source of a cache needs from: the stage that has it"));
        }
        // BuildKit creates a folder with that owner next to the stage's content, and mounts it.
        if said.from.is_none() || (is_root && has_owner) {
            let mode = said.mode.unwrap_or(0o755);
            let (id, writable) = (said.id.clone().unwrap_or_default(), said.writable.unwrap_or(true));
            return Ok(MountKind::Cache { id, mode, owner, writable });
        }
        Ok(bind(said, true))
    }

    fn secret(&self, said: Said, owner: (u32, u32)) -> Result<SecretMount, Problem> {
        if said.from.is_some() {
            return Err(self.wrong("a secret has no from"));
        }
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let id = match (given(said.source), given(said.id)) {
            (Some(_), Some(_)) => return Err(self.wrong("source and id are two names for the same")),
            (source, id) => source.or(id),
        };
        let mode = said.mode.unwrap_or(0o400);
        secret(id, given(Some(said.target)), given(said.env), said.required == Some(true), mode, owner)
            .map_err(|what| self.wrong(what))
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.fields.iter().rev().find(|(field, _)| field == name).and_then(|(_, value)| value.as_deref())
    }

    fn wrong(&self, what: &str) -> Problem {
        wrong(&self.text, what)
    }
}

fn wrong(text: &str, what: &str) -> Problem {
    Problem::syntax(format!("RUN --mount={}: {what}", shortened(text)))
}

fn bind(said: &Said, writable: bool) -> MountKind {
    MountKind::Bind {
        from: said.from.clone(),
        source: said.source.clone().unwrap_or_else(|| "/".to_owned()),
        writable: said.writable.unwrap_or(writable),
    }
}

/// Splits at commas as in CSV: a quoted field may contain commas, and two quotes for one. None if quotes are wrong.
fn separated(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) =
                rest.split_once(',').map_or((rest, None), |(field, after)| (field, Some(after)));
            if field.contains('"') {
                return None;
            }
            fields.push(field.to_owned());
            match after {
                Some(after) => rest = after,
                None => return Some(fields),
            }
            continue;
        };
        let (mut field, mut left) = (String::new(), quoted);
        loop {
            let (part, after) = left.split_once('"')?;
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    left = more;
                }
                None => {
                    left = after;
                    break;
                }
            }
        }
        fields.push(field);
        match left.strip_prefix(',') {
            Some(after) => rest = after,
            None => return left.is_empty().then_some(fields),
        }
    }
}

/// A boolean in Go's forms.
fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// As in BuildKit: without an id, the target's last part is the id; without target and variable, the file is
/// `/run/secrets/` with the id.
fn secret(
    id: Option<String>,
    target: Option<String>,
    env: Option<String>,
    required: bool,
    mode: u32,
    owner: (u32, u32),
) -> Result<SecretMount, &'static str> {
    let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let id = match (id, &target) {
        (Some(id), _) => id,
        (None, Some(target)) => last(target),
        (None, None) => return Err("a secret needs an id or a target"),
    };
    let target = match (target, &env) {
        (None, None) => Some(format!("/run/secrets/{}", last(&id))),
        (target, _) => target,
    };
    Ok(SecretMount { id, target, env, required, mode, owner })
}

/// A size in Docker's forms: `1048576`, `64m`, `1.5gb`, `1 GiB`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let end = text.rfind(|letter: char| letter.is_ascii_digit() || letter == '.' || letter == ' ')?;
    let (number, unit) = text.split_at(end + 1);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes >= 1.0 && bytes < i64::MAX as f64).then_some(bytes as u64)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
