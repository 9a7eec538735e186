#![allow(clippy::unwrap_used)]
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A folder with a file that is fine.
fn scene() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("etc");
    fs::create_dir(&inner).unwrap();
    mode(&inner, 0o755);
    let file = inner.join("policy.toml");
    fs::write(&file, "version = 1").unwrap();
    mode(&file, 0o644);
    (folder, file)
}

fn refusal(path: &Path) -> String {
    let error = read(path, 100).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    format!("{error} | {}", error.hint_text().unwrap_or_default())
}

#[test]
fn a_file_of_ours_below_the_worlds_temporary_folder_is_read() {
    let (_folder, file) = scene();
    assert_eq!(read_text(&file, 100).unwrap(), "version = 1");
    for fine in [0o600, 0o640, 0o444] {
        mode(&file, fine);
        assert_eq!(read(&file, 100).unwrap().len(), 11, "{fine:o}");
    }
    assert!(read(&file, 10).unwrap_err().to_string().contains("is larger than 10 bytes"));
    assert_eq!(read(&file.with_file_name("none"), 10).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_file_that_others_may_write_is_refused_with_its_mode_and_what_to_do() {
    let (_folder, file) = scene();
    mode(&file, 0o666);
    let said = refusal(&file);
    assert!(said.contains("everybody may write to") && said.contains("mode 0666"), "{said}");
    assert!(said.contains(&format!("`chmod go-w {}`", file.display())), "{said}");
    mode(&file, 0o664);
    assert!(refusal(&file).contains("its group may write to"));
    // A sticky bit says nothing on a file.
    mode(&file, 0o1666);
    assert!(refusal(&file).contains("mode 1666"));
}

#[test]
fn a_folder_on_the_way_that_others_may_write_is_refused() {
    let (folder, file) = scene();
    let inner = file.parent().unwrap();
    mode(inner, 0o777);
    let said = refusal(&file);
    assert!(said.contains(&format!("everybody may write to {} (mode 0777", inner.display())), "{said}");
    mode(inner, 0o755);
    mode(folder.path(), 0o775);
    assert!(refusal(&file).contains("its group may write to"));
    // As /tmp: others may add names there, but not take ours away.
    mode(folder.path(), 0o1777);
    assert!(read(&file, 100).is_ok());
}

#[test]
fn a_link_as_the_file_is_refused_and_names_what_it_leads_to() {
    let (_folder, file) = scene();
    let link = file.with_file_name("link");
    symlink("policy.toml", &link).unwrap();
    let said = refusal(&link);
    assert!(said.contains("is a symbolic link, which is not followed"), "{said}");
    assert!(said.contains(&format!("name the file itself: {}", file.display())), "{said}");
}

#[test]
fn links_on_the_way_are_followed_and_what_they_lead_through_is_checked() {
    let (folder, file) = scene();
    let (inner, by) = (file.parent().unwrap(), folder.path().join("by"));
    symlink("etc", &by).unwrap();
    assert!(read(&by.join("policy.toml"), 100).is_ok());
    assert!(read(&by.join("../by/./policy.toml"), 100).is_ok());
    mode(inner, 0o777);
    assert!(refusal(&by.join("policy.toml")).contains("everybody may write to"));
    mode(inner, 0o755);
    symlink(folder.path().join("loop"), folder.path().join("loop")).unwrap();
    assert!(read(&folder.path().join("loop/policy.toml"), 100).is_err());
}

#[test]
fn what_another_user_owns_is_refused_file_folder_and_link() {
    let (folder, file) = scene();
    if !rustix::process::geteuid().is_root() {
        // Only root can give files away; with nobody trusted but a stranger, ours are theirs.
        let error = Owners(vec![0, u32::MAX - 1]).open(&file).unwrap_err();
        assert!(error.to_string().contains("belongs to the user"), "{error}");
        return;
    }
    let give = |path: &Path, user| std::os::unix::fs::lchown(path, Some(user), None).unwrap();
    give(&file, 4242);
    let said = refusal(&file);
    assert!(said.contains("belongs to the user 4242 (mode 0644)") && said.contains("`chown 0 "), "{said}");
    // By way of sudo, who called is one of us.
    assert!(Owners(vec![0, 4242]).open(&file).is_ok());
    give(&file, 0);
    give(file.parent().unwrap(), 4242);
    assert!(refusal(&file).contains("belongs to the user 4242"));
    give(file.parent().unwrap(), 0);
    let by = folder.path().join("by");
    symlink("etc", &by).unwrap();
    give(&by, 4242);
    assert!(refusal(&by.join("policy.toml")).contains("belongs to the user 4242"));
}

#[test]
fn pipes_and_folders_are_no_files_that_decide_but_a_pipe_of_the_caller_is() {
    let (folder, file) = scene();
    assert!(refusal(folder.path()).contains("no regular file"));
    assert!(refusal(Path::new("/")).contains("no regular file"));
    assert!(refusal(Path::new("/dev/null")).contains("no regular file"));
    let pipe = file.with_file_name("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert!(refusal(&pipe).contains("no regular file"));
    let (reader, mut writer) = io::pipe().unwrap();
    io::Write::write_all(&mut writer, b"secret").unwrap();
    drop(writer);
    let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    assert_eq!(read(Path::new(&path), 100).unwrap(), b"secret");
    assert!(!is_descriptor(Path::new("/dev/fd/../sda")) && !is_descriptor(Path::new("/dev/fd")));
}

#[test]
fn a_state_directory_is_made_for_us_and_refused_when_it_is_anybodys() {
    let (folder, _file) = scene();
    let state = folder.path().join("var/state");
    state_directory(&state, 0o700).unwrap();
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    // Elsewhere by a link of ours, as administrators do.
    symlink(&state, folder.path().join("elsewhere")).unwrap();
    state_directory(&folder.path().join("elsewhere"), 0o700).unwrap();
    for open in [0o777, 0o1777, 0o770] {
        mode(&state, open);
        let error = state_directory(&state, 0o700).unwrap_err();
        let said = format!("{error} | {}", error.hint_text().unwrap_or_default());
        assert_eq!(error.kind(), Kind::Refused);
        assert!(said.contains("others may write to the state directory"), "{said}");
        assert!(said.contains("chmod go-w") && said.contains("--state-dir"), "{said}");
    }
    mode(&state, 0o755);
    mode(state.parent().unwrap(), 0o777);
    let error = state_directory(&state, 0o700).unwrap_err();
    assert!(error.to_string().contains("mode 0777"), "{error}");
}
