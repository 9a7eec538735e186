//! The package managers of distributions.

use super::super::hazards::*;
use super::Judge;
use super::calls::Call;

/// Whether it is about one of these programs.
pub(super) fn judge(judge: &mut Judge<'_>, call: &Call<'_>) -> bool {
    match call.program.as_str() {
        "apt-get" | "apt" | "aptitude" => apt(judge, call),
        "apk" => apk(judge, call),
        "dnf" | "yum" | "microdnf" | "tdnf" | "zypper" => rpm(judge, call),
        "pacman" if call.args.iter().any(|arg| arg.starts_with("-S")) => judge.add(&UNPINNED_RPM, call),
        "debootstrap" | "mmdebstrap" if !judge.uses_snapshot() => judge.add(&UNPINNED_APT, call),
        _ => return false,
    }
    true
}

fn apt(judge: &mut Judge<'_>, call: &Call<'_>) {
    let words = call.operands(&["-o", "-t", "-c", "--target-release"]);
    let Some((verb, packages)) = words.split_first() else { return };
    let is_asked = match *verb {
        "upgrade" | "dist-upgrade" | "full-upgrade" | "safe-upgrade" | "build-dep" => true,
        "install" | "satisfy" | "download" | "source" => packages.iter().any(|package| is_open_deb(package)),
        _ => false,
    };
    if is_asked && !judge.uses_snapshot() {
        judge.add(&UNPINNED_APT, call);
    }
    let makes_keys = |package: &&str| matches!(name_of(package), "openssh-server" | "ssh" | "ssl-cert");
    if *verb == "install" && packages.iter().any(makes_keys) {
        judge.add(&KEY_MATERIAL, call);
    }
}

fn name_of(package: &str) -> &str {
    package.split(['=', ':']).next().unwrap_or(package)
}

fn is_open_deb(package: &str) -> bool {
    let is_file = package.starts_with(['.', '/']) || package.ends_with(".deb");
    // What is taken away again, and what a variable holds.
    !is_file && !package.contains('=') && !package.ends_with('-') && !package.starts_with('$')
}

fn apk(judge: &mut Judge<'_>, call: &Call<'_>) {
    let valued =
        ["-t", "--virtual", "-X", "--repository", "--keys-dir", "--repositories-file", "-p", "--root"];
    let words = call.operands(&valued);
    let is_open = |package: &&&str| {
        !package.contains(['=', '~', '<', '>'])
            && !package.starts_with(['.', '/', '$'])
            && !package.ends_with(".apk")
    };
    match words.split_first() {
        Some((&"upgrade", _)) => judge.add(&UNPINNED_APK, call),
        Some((&"add", packages)) if packages.iter().any(|package| is_open(&package)) => {
            judge.add(&UNPINNED_APK, call);
        }
        _ => {}
    }
}

fn rpm(judge: &mut Judge<'_>, call: &Call<'_>) {
    let words =
        call.operands(&["-c", "--setopt", "--repo", "--enablerepo", "--disablerepo", "-x", "--exclude"]);
    let Some((verb, packages)) = words.split_first() else { return };
    let is_asked = match *verb {
        "update" | "upgrade" | "up" | "dup" | "distro-sync" | "groupinstall" | "group" | "module" => true,
        "install" | "in" | "reinstall" | "localinstall" => {
            packages.iter().any(|package| is_open_rpm(package))
        }
        _ => false,
    };
    if is_asked {
        judge.add(&UNPINNED_RPM, call);
    }
    if packages.iter().any(|package| package.contains("://")) && !judge.facts.is_checked {
        judge.add(&UNCHECKED_DOWNLOAD, call);
    }
    if *verb == "install" && packages.contains(&"openssh-server") {
        judge.add(&KEY_MATERIAL, call);
    }
}

/// Whether it lacks `-VERSION-RELEASE`.
fn is_open_rpm(package: &str) -> bool {
    let is_file = package.starts_with(['.', '/', '$']) || package.contains("://");
    let mut parts = package.rsplitn(3, '-');
    let is_number =
        |part: Option<&str>| part.is_some_and(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    let (release, version) = (is_number(parts.next()), is_number(parts.next()));
    let is_pinned = release && version && parts.next().is_some() || package.contains('=');
    !(is_file || is_pinned)
}
