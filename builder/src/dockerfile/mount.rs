//! `RUN --mount`: what a step sees beside its root, and leaves no trace of.

use super::Problem;
use super::words::Flag;

/// A mount, not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// Where the step sees it.
    pub target: String,
    /// What is there.
    pub kind: MountKind,
}

impl RunMount {
    /// The stage or image that it comes from.
    pub fn from(&self) -> Option<&str> {
        match &self.kind {
            MountKind::Bind { from, .. } => from.as_deref(),
            _ => None,
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// An empty folder, gone after the step: a cache is no input, so every build begins with an empty one.
    Cache {
        /// Its permissions.
        mode: u32,
        /// User and group.
        owner: (u32, u32),
    },
    /// An empty file system in memory.
    Temporary {
        /// Bytes at most.
        size: Option<u64>,
    },
    /// A file or folder of the repository, or of a stage or image.
    Bind {
        /// The stage or image.
        from: Option<String>,
        /// The path there.
        source: String,
        /// Whether writing is allowed. What is written is gone after the step.
        writable: bool,
    },
}

/// A secret that a step is given, not expanded. What is given by that name at the time of the build is none of the
/// Dockerfile's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// Its name.
    pub id: String,
    /// The file that holds it.
    pub target: Option<String>,
    /// The variable that holds it.
    pub env: Option<String>,
    /// Whether the build fails without it.
    pub required: bool,
    /// The file's permissions.
    pub mode: u32,
    /// The file's user and group.
    pub owner: (u32, u32),
}

/// Either kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// What a step sees.
    Seen(RunMount),
    /// What it is told.
    Secret(SecretMount),
}

const TRUE: [&str; 3] = ["", "true", "1"];

pub(super) fn parse(flag: &Flag) -> Result<Mount, Problem> {
    let text = flag.value.as_deref().unwrap_or_default();
    let (mut kind, mut target, mut source, mut from) = ("bind", None, None, None);
    let (mut size, mut mode, mut user, mut group) = (None, None, None, None);
    let (mut readonly, mut writable, mut required) = (false, false, false);
    let (mut id, mut env) = (None, None);
    let wrong = |what: &str| Problem::syntax(format!("RUN --mount={}: {what}", shortened(text)));
    for field in text.split(',') {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let number = || value.parse::<u32>().map_err(|_| wrong(&format!("{name} needs a number")));
        match name.to_ascii_lowercase().as_str() {
            "type" => kind = value,
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "source" | "src" => source = Some(value.to_owned()),
            "from" => from = Some(value.to_owned()),
            "ro" | "readonly" => readonly = TRUE.contains(&value),
            "rw" | "readwrite" => writable = TRUE.contains(&value),
            "size" => size = Some(bytes(value).ok_or_else(|| wrong("size needs a number, such as 64m"))?),
            "mode" => {
                let octal = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                mode = Some(octal.ok_or_else(|| wrong("mode needs an octal number"))?);
            }
            "uid" => user = Some(number()?),
            "gid" => group = Some(number()?),
            // Of a cache a name for what is empty each time, as is the way of sharing it.
            "id" => id = Some(value.to_owned()),
            "sharing" => {}
            "required" => required = TRUE.contains(&value),
            "env" => env = Some(value.to_owned()),
            _ => return Err(wrong(&format!("{name} is unknown"))),
        }
    }
    let only_of = |of: &str, given: bool, name: &str| match given && kind != of {
        true => Err(wrong(&format!("{name} is for type={of}"))),
        false => Ok(()),
    };
    let kind = match kind {
        "ssh" => {
            return Err(Problem::unsupported(
                "RUN --mount=type=ssh",
                "what passes through an agent cannot be recorded: fetch over HTTPS, with a token by --mount=type=secret if it has to be",
            ));
        }
        "secret" => {
            if from.is_some() || size.is_some() || readonly || writable {
                return Err(wrong("a secret has id, target, env, required, mode, uid and gid"));
            }
            let owner = (user.unwrap_or_default(), group.unwrap_or_default());
            let given = source.or(id);
            return secret(given, target, env, required, mode.unwrap_or(0o400), owner)
                .map(Mount::Secret)
                .map_err(wrong);
        }
        "cache" if from.is_some() || source.is_some() => {
            return Err(Problem::unsupported(
                "RUN --mount=type=cache with from or source",
                "caches are empty here; use type=bind,from=… for what a step needs",
            ));
        }
        "cache" => MountKind::Cache {
            mode: mode.unwrap_or(0o755),
            owner: (user.unwrap_or_default(), group.unwrap_or_default()),
        },
        "tmpfs" => MountKind::Temporary { size },
        "bind" => MountKind::Bind {
            from,
            source: source.unwrap_or_else(|| "/".to_owned()),
            writable: writable && !readonly,
        },
        other => return Err(wrong(&format!("type={} is unknown", shortened(other)))),
    };
    let name = match kind {
        MountKind::Cache { .. } => "cache",
        MountKind::Temporary { .. } => "tmpfs",
        MountKind::Bind { .. } => "bind",
    };
    if name != "tmpfs" {
        only_of("tmpfs", size.is_some(), "size")?;
    }
    if name != "cache" {
        only_of("cache", mode.is_some() || user.is_some() || group.is_some(), "mode, uid and gid")?;
    }
    if required || env.is_some() {
        return Err(wrong("required and env are for type=secret"));
    }
    match target {
        Some(target) if !target.is_empty() => Ok(Mount::Seen(RunMount { target, kind })),
        _ => Err(wrong("a target is missing")),
    }
}

/// As BuildKit: without an id, the target's last part names the secret; without target and variable, it lies in
/// `/run/secrets` by that name.
fn secret(
    id: Option<String>,
    target: Option<String>,
    env: Option<String>,
    required: bool,
    mode: u32,
    owner: (u32, u32),
) -> Result<SecretMount, &'static str> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (id, target, env) = (given(id), given(target), given(env));
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

/// A size as Docker takes it: `1048576`, `64m`, `1gb`, `1GiB`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn any(text: &str) -> Result<Mount, Problem> {
        parse(&Flag { name: "mount".to_owned(), value: Some(text.to_owned()) })
    }

    fn mount(text: &str) -> Result<RunMount, Problem> {
        match any(text)? {
            Mount::Seen(mount) => Ok(mount),
            Mount::Secret(secret) => Err(Problem::syntax(secret.id)),
        }
    }

    #[test]
    fn secrets_are_named_by_id_or_target() {
        let secret = |text: &str| match any(text) {
            Ok(Mount::Secret(it)) => {
                (it.id, it.target.unwrap_or_default(), it.env.unwrap_or_default(), it.required, it.mode)
            }
            other => panic!("{text}: {other:?}"),
        };
        let of = |id: &str, target: &str, env: &str, required, mode| {
            (id.to_owned(), target.to_owned(), env.to_owned(), required, mode)
        };
        assert_eq!(secret("type=secret,id=a/b"), of("a/b", "/run/secrets/b", "", false, 0o400));
        assert_eq!(
            secret("type=secret,dst=/etc/x.conf,mode=0440"),
            of("x.conf", "/etc/x.conf", "", false, 0o440)
        );
        assert_eq!(secret("type=secret,id=a,env=A,required"), of("a", "", "A", true, 0o400));
        assert_eq!(secret("type=secret,id=a,env=A,target=/a,required=true"), of("a", "/a", "A", true, 0o400));
        for text in [
            "type=secret",
            "type=secret,id=",
            "type=secret,id=a,from=b",
            "type=secret,id=a,rw",
            "type=secret,id=a,size=1",
        ] {
            assert!(any(text).is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_of_mounts() {
        let of = |target: &str, kind| RunMount { target: target.to_owned(), kind };
        let bind = |from: Option<&str>, source: &str, writable| MountKind::Bind {
            from: from.map(str::to_owned),
            source: source.to_owned(),
            writable,
        };
        let table = [
            (
                "type=cache,target=/c,id=x,sharing=locked",
                of("/c", MountKind::Cache { mode: 0o755, owner: (0, 0) }),
            ),
            (
                "type=cache,dst=c,uid=1,gid=2,mode=0700",
                of("c", MountKind::Cache { mode: 0o700, owner: (1, 2) }),
            ),
            ("type=tmpfs,target=/t", of("/t", MountKind::Temporary { size: None })),
            ("type=tmpfs,target=/t,size=64m", of("/t", MountKind::Temporary { size: Some(64 << 20) })),
            ("target=/b", of("/b", bind(None, "/", false))),
            ("type=bind,source=a,destination=/b,rw", of("/b", bind(None, "a", true))),
            ("type=bind,src=a,target=/b,from=one,ro", of("/b", bind(Some("one"), "a", false))),
        ];
        for (text, expected) in table {
            assert_eq!(mount(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_mounted() {
        for text in [
            "",
            "type=cache",
            "type=cache,target=",
            "type=cache,target=/x,from=one",
            "type=cache,target=/x,env=X",
            "type=bind,target=/x,required",
            "type=ssh",
            "type=ssh,id=x",
            "type=else,target=/x",
            "type=tmpfs,target=/x,size=much",
            "type=tmpfs,target=/x,mode=0700",
            "type=bind,target=/x,size=1m",
            "type=cache,target=/x,mode=9",
            "type=cache,target=/x,colour=red",
        ] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
