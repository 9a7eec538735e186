use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

use crate::{Error, Result};

/// Whom a process runs as, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further group ids.
    pub groups: Vec<u32>,
}

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
/// Far above any real file: an image must not make us read without end.
const MOST_BYTES: u64 = 4 * 1024 * 1024;
/// Docker's bound, the kernel's `id_t` without its sign.
const MOST_ID: u32 = i32::MAX as u32;

/// Finds out whom `USER spec` means in the image at `root`: see [`resolve_user_in`].
///
/// The image's files are opened with `root` as the root of every symbolic link.
///
/// # Errors
/// As [`resolve_user_in`], and when the image's files cannot be read.
pub fn resolve_user(root: &Path, spec: &str) -> Result<User> {
    resolve_user_in(&read(root, PASSWD)?, &read(root, GROUP)?, spec)
}

/// Finds out whom `USER spec` means with these `/etc/passwd` and `/etc/group`, as Docker does: `user`, `uid`, `user:group`,
/// `uid:gid` or nothing for root. A number needs no entry; a name does.
///
/// The primary group stands in `groups` as well, as with Docker, so that a program which drops it keeps what a
/// file denies to that group. When `spec` names a group, it is the only one.
///
/// # Errors
/// When a name is not there, or a number is too large.
pub fn resolve_user_in(passwd: &str, table: &str, spec: &str) -> Result<User> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let number = if user.is_empty() { Some(0) } else { id(user)? };
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => return Err(missing("user", user, "/etc/passwd")),
    };
    if let Some(group) = group {
        let gid = named_group(table, group)?;
        return Ok(User { uid, gid, groups: vec![gid] });
    }
    let gid = entry.as_ref().map_or(0, |entry| entry.gid);
    let mut groups = vec![gid];
    if let Some(entry) = &entry {
        groups.extend(memberships(table, entry.name).filter(|group| *group != gid));
    }
    Ok(User { uid, gid, groups })
}

/// The fields of a line of passwd that matter here.
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let mut numbers = fields.skip(1).map_while(|field| field.parse().ok());
        Some(Self { name, uid: numbers.next()?, gid: numbers.next()? })
    }
}

/// Lines of group: name, id, members.
fn groups_of(table: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn named_group(table: &str, group: &str) -> Result<u32> {
    if let Some(gid) = id(group)? {
        return Ok(gid);
    }
    let found = groups_of(table).find(|(name, ..)| *name == group);
    found.map(|(_, gid, _)| gid).ok_or_else(|| missing("group", group, "/etc/group"))
}

fn memberships<'a>(table: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    let listed = groups_of(table).filter(move |(_, _, members)| members.split(',').any(|name| name == user));
    listed.map(|(_, gid, _)| gid)
}

/// A number, or `None` for a name.
fn id(text: &str) -> Result<Option<u32>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse::<u32>().ok().filter(|number| *number <= MOST_ID);
    number.map(Some).ok_or_else(|| Error::Invalid { what: format!("id {text}"), why: "at most 2147483647" })
}

fn missing(kind: &'static str, name: &str, file: &'static str) -> Error {
    Error::NoSuchUser { kind, name: name.to_owned(), file }
}

/// The text of one of the image's files; empty when it has none.
fn read(root: &Path, name: &str) -> Result<String> {
    let shown = root.join(name);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let opened = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|top| openat2(&top, name, flags, Mode::empty(), ResolveFlags::IN_ROOT));
    let file = match opened {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(Error::path("open", &shown)(error.into())),
    };
    read_user_table(file).map_err(Error::path("read", &shown))
}

/// The text of an opened `/etc/passwd` or `/etc/group` of an image. What is not UTF-8 cannot be asked for anyway.
///
/// # Errors
/// When it is no regular file, or larger than 4 MiB.
pub fn read_user_table(file: File) -> io::Result<String> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn image() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1001::/:/bin/sh\n";
        fs::write(root.path().join(PASSWD), passwd).unwrap();
        fs::write(root.path().join(GROUP), "root:x:0:\nwheel:x:10:root\nlab:x:2000:bob,ann\nbad:x\n")
            .unwrap();
        root
    }

    #[test]
    fn every_form_of_user_is_understood_as_docker_does() {
        let root = image();
        for (spec, uid, gid, groups) in [
            ("", 0, 0, vec![0, 10]),
            ("0", 0, 0, vec![0, 10]),
            ("root", 0, 0, vec![0, 10]),
            ("ann", 1000, 1001, vec![1001, 2000]),
            ("1000", 1000, 1001, vec![1001, 2000]),
            ("77", 77, 0, vec![0]),
            ("ann:lab", 1000, 2000, vec![2000]),
            ("ann:0", 1000, 0, vec![0]),
            ("77:88", 77, 88, vec![88]),
            (":lab", 0, 2000, vec![2000]),
            ("ann:", 1000, 1001, vec![1001, 2000]),
        ] {
            let user = resolve_user(root.path(), spec).unwrap();
            assert_eq!(user, User { uid, gid, groups }, "{spec}");
        }
    }

    #[test]
    fn whom_the_image_does_not_have_is_refused() {
        let root = image();
        for spec in ["eve", "ann:none", "-1", "2147483648", "99999999999", "ann:2147483648", "broken"] {
            assert!(resolve_user(root.path(), spec).is_err(), "{spec}");
        }
        let bare = tempfile::tempdir().unwrap();
        assert_eq!(resolve_user(bare.path(), "5:6").unwrap(), User { uid: 5, gid: 6, groups: vec![6] });
        assert!(resolve_user(bare.path(), "root").is_err());
    }

    #[test]
    fn a_link_out_of_the_image_stays_in_it() {
        let (root, outside) = (image(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("passwd");
        fs::write(&secret, "eve:x:6:6::/:/bin/sh\n").unwrap();
        for target in [secret.clone(), Path::new("../../../../../..").join(secret.strip_prefix("/").unwrap())]
        {
            fs::remove_file(root.path().join(PASSWD)).unwrap();
            symlink(target, root.path().join(PASSWD)).unwrap();
            assert!(resolve_user(root.path(), "eve").is_err());
        }
    }

    #[test]
    fn a_pipe_or_a_directory_in_place_of_passwd_does_not_hang_us() {
        let root = image();
        fs::remove_file(root.path().join(PASSWD)).unwrap();
        nix::unistd::mkfifo(&root.path().join(PASSWD), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(resolve_user(root.path(), "ann").is_err());
    }
}
