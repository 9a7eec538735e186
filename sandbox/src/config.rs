//! The runtime configuration of one container, in the form of the OCI runtime specification 1.0.

use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::{Error, Process, ProcessLimits, Profile, Result, cgroup, defaults, filter};

/// Open files of one process when the caller has no opinion: much, but not the million that makes programs slow which
/// close every possible descriptor at their start.
const FILES: u64 = 65_536;

/// Bytes of a core dump. It would be a file of a step that no other build has, or patients' data outside the sandbox. By a
/// limit of 0 the kernel still starts the machine's handler where `core_pattern` names one (`|/usr/…`), as root and outside;
/// 1 is the value by which it starts none (core(5), "Piping core dumps to a program"), and too little for a file.
const CORE: u64 = 1;

/// One period of processor accounting, in microseconds.
const CPU_PERIOD: f64 = 100_000.0;

/// Writes down `process` for the runtime.
///
/// # Errors
/// When it holds a value that cannot be expressed, such as a relative path or a zero byte.
pub(crate) fn of(process: &Process, id: &str, root: &Path, network: &Path) -> Result<Value> {
    check(process)?;
    let readonly = matches!(process.profile, Profile::Algorithm { writable_root: false });
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": text(root)?, "readonly": readonly },
        "hostname": process.hostname,
        "process": program(process),
        "mounts": mounts(process)?,
        "linux": {
            "namespaces": namespaces(network)?,
            "cgroupsPath": cgroup::path_of(id),
            "resources": resources(&process.limits),
            "seccomp": seccomp(process.profile)?,
            "maskedPaths": defaults::MASKED_PATHS,
            "readonlyPaths": defaults::READONLY_PATHS,
        },
    }))
}

fn program(process: &Process) -> Value {
    let user = &process.user;
    // A machine may hold its root to less, and the runtime cannot raise that.
    let allowed = |resource, wanted: u64| getrlimit(resource).maximum.map_or(wanted, |most| wanted.min(most));
    let limit = |kind: &str, most: u64| json!({ "type": kind, "soft": most, "hard": most });
    let files = process.limits.files.unwrap_or(FILES);
    let open = allowed(Resource::Nofile, files);
    let mut limits = vec![limit("RLIMIT_NOFILE", open), limit("RLIMIT_CORE", CORE)];
    if let Some(bytes) = process.limits.file_size {
        limits.push(limit("RLIMIT_FSIZE", allowed(Resource::Fsize, bytes)));
    }
    json!({
        "terminal": false,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": process.args,
        "env": process.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "cwd": process.cwd,
        "capabilities": capabilities(process),
        "noNewPrivileges": process.profile != Profile::Build,
        "rlimits": limits,
    })
}

/// As Docker: an ordinary user keeps the bounding set, for programs that gain capabilities by their file.
fn capabilities(process: &Process) -> Value {
    let held: &[&str] = match process.profile {
        Profile::Build => &defaults::BUILD_CAPABILITIES,
        Profile::Algorithm { .. } => &[],
    };
    let active = if process.user.uid == 0 { held } else { &[] };
    json!({ "bounding": held, "permitted": active, "effective": active, "inheritable": [], "ambient": [] })
}

fn namespaces(network: &Path) -> Result<Value> {
    let mut all = vec![json!({ "type": "network", "path": text(network)? })];
    all.extend(["pid", "mount", "ipc", "uts", "cgroup"].map(|kind| json!({ "type": kind })));
    Ok(Value::Array(all))
}

fn mounts(process: &Process) -> Result<Vec<Value>> {
    let mut all = kernel_mounts();
    for tmpfs in &process.tmpfs {
        let size = format!("size={}", tmpfs.size);
        let access = if tmpfs.readonly { "ro" } else { "rw" };
        all.push(mount("tmpfs", "tmpfs", &tmpfs.target, &["nosuid", "nodev", "mode=1777", access, &size]));
    }
    for bind in &process.mounts {
        let source = bind.source.canonicalize().map_err(Error::path("find the mount", &bind.source))?;
        let access = if bind.readonly { "ro" } else { "rw" };
        let options = ["bind", "rprivate", "nosuid", "nodev", access];
        all.push(mount("bind", text(&source)?, &bind.target, &options));
    }
    Ok(all)
}

/// `/proc`, `/dev` and `/sys` as Docker mounts them, without the view on cgroups: what a build sees of this machine's
/// limits is not part of its inputs.
fn kernel_mounts() -> Vec<Value> {
    let quiet = ["nosuid", "noexec", "nodev"];
    let device = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let terminal = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    vec![
        mount("proc", "proc", "/proc", &quiet),
        mount("tmpfs", "tmpfs", "/dev", &device),
        mount("devpts", "devpts", "/dev/pts", &terminal),
        mount("tmpfs", "shm", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("mqueue", "mqueue", "/dev/mqueue", &quiet),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
    ]
}

fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": source, "options": options })
}

fn resources(limits: &ProcessLimits) -> Value {
    // No device at all; the runtime adds its list of harmless ones.
    let mut all = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(bytes) = limits.memory {
        all["memory"] = json!({ "limit": bytes });
        if cgroup::counts_swap() {
            all["memory"]["swap"] = json!(bytes);
        }
    }
    if let Some(most) = limits.pids {
        all["pids"] = json!({ "limit": most });
    }
    if let Some(processors) = limits.cpus {
        // The kernel's least quota is a millisecond.
        let quota = (processors * CPU_PERIOD).max(1000.0) as u64;
        all["cpu"] = json!({ "period": CPU_PERIOD as u64, "quota": quota });
    }
    all
}

/// The second filter, which takes away what the runtime needs itself: see [`filter`].
///
/// Short on purpose: the runtime compiles it at every start, for each kind of processor.
fn seccomp(profile: Profile) -> Result<Value> {
    let refuse = |names: &[&str], arguments: Value| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": defaults::EPERM, "args": arguments });
    let flags = defaults::CLONE_NAMESPACES.map(|flag| {
        let is_set = json!({ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" });
        refuse(&["clone"], json!([is_set]))
    });
    let mut calls = vec![refuse(&defaults::RUNTIME_CALLS, json!([]))];
    calls.extend(flags);
    let architectures = filter::processors(profile)?.iter().map(|processor| processor.name);
    Ok(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures.collect::<Vec<_>>(),
        "syscalls": calls,
    }))
}

fn check(process: &Process) -> Result<()> {
    let invalid = |what: &str, why| Err(Error::Invalid { what: format!("{what:?}"), why });
    if process.args.first().is_none_or(String::is_empty) {
        return invalid("args", "must name a program");
    }
    let targets = process.mounts.iter().map(|mount| &mount.target);
    let targets = targets.chain(process.tmpfs.iter().map(|tmpfs| &tmpfs.target));
    for path in targets.chain([&process.cwd]) {
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return invalid(path, "must be an absolute path without `..`");
        }
    }
    for (name, value) in &process.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return invalid(name, "cannot be set as an environment variable");
        }
    }
    if process.args.iter().any(|argument| argument.contains('\0')) {
        return invalid("args", "must hold no zero byte");
    }
    match process.limits.cpus {
        Some(processors) if !(processors > 0.0 && processors <= 4096.0) => invalid("cpus", "must be above 0"),
        _ => Ok(()),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::Invalid { what: format!("{path:?}"), why: "must be UTF-8" })
}
