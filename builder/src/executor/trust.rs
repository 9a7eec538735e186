//! Adds the recorder's CA certificate to the image's own certificate lists, for tools that read no environment
//! variable. The changed lists are in a layer of their own below the step's, and the certificate is removed from
//! every file that the step copied it to.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use memchr::memmem;

use super::steps::copy::{self, CopyError, Folder, Node, NodeKind, NodeLookup, RootTree};

/// The lists of the distributions: Debian and Alpine, Red Hat, SUSE, and OpenSSL's default name.
const LISTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Larger lists, and larger files that may contain a copy of one, are left alone; real lists have about 200 KiB.
const LIST_LIMIT: u64 = 4 * 1024 * 1024;

/// From this many files on, they are searched by several threads.
const FEW: usize = 64;
/// The most threads that search files.
const MOST_WORKERS: usize = 8;

/// Writes into `layer`, an empty folder, every list of `root` with `ca` appended. The folders above the lists get the
/// owner, permissions and time that they have in `root`, because they hide those.
///
/// # Errors
/// When reading or writing fails.
pub(crate) fn inject(root: &Path, layer: &Path, ca: &str) -> Result<(), CopyError> {
    let tree = RootTree::open(root)?;
    let mut done: Vec<Vec<u8>> = Vec::new();
    for list in LISTS {
        let path = copy::lookup(&tree, list.as_bytes())?;
        let is_file = matches!(tree.node(&path)?, Some(Node { kind: NodeKind::File, .. }));
        if is_file && !done.contains(&path) {
            place(&tree, root, layer, &path, ca)?;
            done.push(path);
        }
    }
    Ok(())
}

/// Whether a step changed something that `layer` was made from, so that it must be made again.
///
/// # Errors
/// When `layer` cannot be read, or `changed` fails.
pub(crate) fn is_stale(
    layer: &Path,
    changed: &dyn Fn(&Path) -> std::io::Result<bool>,
) -> std::io::Result<bool> {
    if !layer.exists() {
        return Ok(false);
    }
    // The lists themselves, and the folders that symbolic links lead to.
    if changed(Path::new("etc"))? {
        return Ok(true);
    }
    for child in fs::read_dir(layer)? {
        if changed(Path::new(&child?.file_name()))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn place(tree: &RootTree, root: &Path, layer: &Path, path: &[u8], ca: &str) -> Result<(), CopyError> {
    let text = String::from_utf8_lossy(path).into_owned();
    let destination = format!("/{text}");
    let request = copy::CopyRequest::plain(std::slice::from_ref(&text), &destination, 0);
    copy::copy(tree, &mut Folder::open(layer)?, &request)?;
    let file = layer.join(&text);
    let append = || {
        let mut file = File::options().append(true).custom_flags(libc_nofollow()).open(&file)?;
        file.write_all(b"\n")?;
        file.write_all(ca.as_bytes())
    };
    append().map_err(|source| CopyError::Io {
        doing: "writing the list of certificates",
        path: text.clone(),
        source,
    })?;
    dress(root, layer, &text).map_err(|source| CopyError::Io {
        doing: "setting the owner of",
        path: text,
        source,
    })
}

/// Gives the file and the folders above it their owner, permissions and time in `root`, the deepest first.
fn dress(root: &Path, layer: &Path, path: &str) -> std::io::Result<()> {
    for part in Path::new(path).ancestors() {
        let original = fs::symlink_metadata(root.join(part))?;
        let copy = layer.join(part);
        let folder = File::open(&copy)?;
        std::os::unix::fs::fchown(&folder, Some(original.uid()), Some(original.gid()))?;
        folder.set_permissions(original.permissions())?;
        folder.set_modified(original.modified()?)?;
    }
    Ok(())
}

/// Removes `ca` from every file below `upper` that contains it, and returns how many did. Nothing else is changed.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn remove(upper: &Path, ca: &str) -> std::io::Result<usize> {
    let block = format!("\n{ca}");
    let block = memmem::Finder::new(block.as_bytes());
    let mut below = Below { folders: vec![upper.to_path_buf()], reading: None };
    let first = below.by_ref().take(FEW).collect::<std::io::Result<Vec<_>>>()?;
    if first.len() < FEW {
        return first.iter().try_fold(0, |found, file| Ok(found + usize::from(strip(file, &block)?)));
    }
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    // Bounded, since a step may leave millions of files.
    let (sender, files) = sync_channel::<PathBuf>(256);
    // Only the workers own the receiver: if all of them fail, sending fails too and does not block.
    let files = Arc::new(Mutex::new(files));
    let work = |files: &Mutex<Receiver<PathBuf>>| {
        let mut found = 0;
        loop {
            let next = files.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(file) = next else { return Ok(found) };
            found += usize::from(strip(&file, &block)?);
        }
    };
    thread::scope(|scope| {
        let start = |files: Arc<_>| scope.spawn(move || work(&files));
        let workers: Vec<_> = (0..workers).map(|_| start(files.clone())).collect();
        drop(files);
        let walked = first.into_iter().map(Ok).chain(below).try_for_each(|file| {
            let lost = |_| std::io::Error::other("no worker is left to search for certificates");
            sender.send(file?).map_err(lost)
        });
        drop(sender);
        let lost = |_| std::io::Error::other("a thread that looked for certificates ended early");
        let found = workers.into_iter().map(|worker| worker.join().map_err(lost)?);
        let found = found.collect::<std::io::Result<Vec<usize>>>()?;
        walked?;
        Ok(found.into_iter().sum())
    })
}

/// Iterates over every file below some folders.
struct Below {
    folders: Vec<PathBuf>,
    reading: Option<fs::ReadDir>,
}

impl Iterator for Below {
    type Item = std::io::Result<PathBuf>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(item) = self.reading.as_mut().and_then(Iterator::next) else {
                self.reading = match fs::read_dir(self.folders.pop()?) {
                    Ok(reading) => Some(reading),
                    Err(cause) => return Some(Err(cause)),
                };
                continue;
            };
            match item.and_then(|item| Ok((item.file_type()?, item.path()))) {
                Ok((kind, path)) if kind.is_dir() => self.folders.push(path),
                Ok((kind, path)) if kind.is_file() => return Some(Ok(path)),
                Ok(_) => {}
                Err(cause) => return Some(Err(cause)),
            }
        }
    }
}

/// Two names of one file may be processed at once, which is harmless: both write the same bytes.
fn strip(path: &Path, block: &memmem::Finder<'_>) -> std::io::Result<bool> {
    let mut file = File::options().read(true).custom_flags(libc_nofollow()).open(path)?;
    let size = file.metadata()?.len();
    if size > LIST_LIMIT || size < block.needle().len() as u64 {
        return Ok(false);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    Read::by_ref(&mut file).take(LIST_LIMIT).read_to_end(&mut bytes)?;
    let Some(kept) = without(&bytes, block) else { return Ok(false) };
    // Written in place, so that owner, permissions and hard links stay.
    let mut file = File::options().write(true).custom_flags(libc_nofollow()).open(path)?;
    file.set_len(0)?;
    file.write_all(&kept)?;
    Ok(true)
}

/// The bytes without any `block` in them; none when there is none.
fn without(bytes: &[u8], block: &memmem::Finder<'_>) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut from = 0;
    while let Some(at) = block.find(&bytes[from..]) {
        kept.extend_from_slice(&bytes[from..from + at]);
        from += at + block.needle().len();
    }
    (from > 0).then(|| {
        kept.extend_from_slice(&bytes[from..]);
        kept
    })
}

fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const CA: &str = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/ssl/certs")).unwrap();
        fs::write(root.path().join("etc/ssl/certs/ca-certificates.crt"), "one\ntwo").unwrap();
        std::os::unix::fs::symlink("certs/ca-certificates.crt", root.path().join("etc/ssl/cert.pem"))
            .unwrap();
        fs::set_permissions(root.path().join("etc/ssl"), PermissionsExt::from_mode(0o750)).unwrap();
        File::open(root.path().join("etc/ssl")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        root
    }

    #[test]
    fn what_is_put_in_is_taken_out_to_the_byte() {
        let (root, layer) = (root(), tempfile::tempdir().unwrap());
        inject(root.path(), layer.path(), CA).unwrap();
        let list = layer.path().join("etc/ssl/certs/ca-certificates.crt");
        assert_eq!(fs::read_to_string(&list).unwrap(), format!("one\ntwo\n{CA}"));
        assert!(!layer.path().join("etc/ssl/cert.pem").exists());
        let folder = fs::metadata(layer.path().join("etc/ssl")).unwrap();
        assert_eq!((folder.permissions().mode() & 0o7777, folder.mtime()), (0o750, 0));
        fs::write(layer.path().join("copy"), format!("x\n{CA}y\n{CA}z")).unwrap();
        fs::write(layer.path().join("other"), CA).unwrap();
        assert_eq!(remove(layer.path(), CA).unwrap(), 2);
        assert_eq!(fs::read_to_string(&list).unwrap(), "one\ntwo");
        assert_eq!(fs::read_to_string(layer.path().join("copy")).unwrap(), "xyz");
    }

    #[test]
    fn many_files_are_looked_into() {
        let upper = tempfile::tempdir().unwrap();
        for number in 0..3 * FEW {
            let folder = upper.path().join(format!("{}", number % 7));
            fs::create_dir_all(&folder).unwrap();
            let text = if number % 3 == 0 { format!("a\n{CA}b") } else { "ab".to_owned() };
            fs::write(folder.join(number.to_string()), text).unwrap();
        }
        assert_eq!(remove(upper.path(), CA).unwrap(), FEW);
        let below = Below { folders: vec![upper.path().to_path_buf()], reading: None };
        let texts: Vec<String> = below.map(|file| fs::read_to_string(file.unwrap()).unwrap()).collect();
        assert!(texts.len() == 3 * FEW && texts.iter().all(|text| text == "ab"), "{texts:?}");
    }

    #[test]
    fn what_was_put_in_holds_until_a_step_comes_near() {
        let (root, layer) = (root(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("opt/lists")).unwrap();
        fs::rename(root.path().join("etc/ssl/certs/ca-certificates.crt"), root.path().join("opt/lists/all"))
            .unwrap();
        std::os::unix::fs::symlink("/opt/lists/all", root.path().join("etc/ssl/certs/ca-certificates.crt"))
            .unwrap();
        inject(root.path(), layer.path(), CA).unwrap();
        assert!(layer.path().join("opt/lists/all").exists());
        for (changed, stale) in [("usr", false), ("etc", true), ("opt", true)] {
            let upper = tempfile::tempdir().unwrap();
            fs::create_dir(upper.path().join(changed)).unwrap();
            let changed_in = |path: &Path| upper.path().join(path).try_exists();
            assert_eq!(is_stale(layer.path(), &changed_in).unwrap(), stale, "{changed}");
        }
    }

    #[test]
    fn an_image_without_a_list_gets_none() {
        let (root, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        inject(root.path(), layer.path(), CA).unwrap();
        assert_eq!(fs::read_dir(layer.path()).unwrap().count(), 0);
    }
}
