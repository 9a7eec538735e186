//! Emulation of other processors: whether this machine's kernel hands their programs to an emulator (Linux
//! `Documentation/admin-guide/binfmt-misc.rst`). The registration is only read and never changed: it applies to the
//! whole machine, so it is its administrator's decision.

use std::fs;
use std::path::{Path, PathBuf};

use attestations::Digest;
use images::Platform;

use crate::error::{Error, Kind, Result};

/// Where the kernel lists the registered interpreters.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
const INSTALL: &str = "apt-get install qemu-user-static binfmt-support";
/// The files there that are not entries.
const NO_ENTRIES: [&str; 2] = ["register", "status"];

/// How programs of a platform run on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Emulator {
    /// The processor runs them itself.
    Native,
    /// The kernel starts this emulator for them.
    Interpreter(PathBuf),
    /// They cannot run.
    Missing {
        /// The platform.
        platform: Platform,
        /// The reason.
        why: Missing,
    },
}

/// Why there is no emulator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    /// The kernel's list is not mounted.
    #[error("{} is not mounted, so the kernel hands programs to no emulator", .0.display())]
    NotMounted(PathBuf),
    /// The list is switched off as a whole.
    #[error("emulation is switched off in {}/status", .0.display())]
    Off(PathBuf),
    /// No entry matches these programs.
    #[error("no emulator is registered for its programs")]
    NotRegistered,
    /// An entry is switched off.
    #[error("the emulator {0} is registered, but switched off")]
    Disabled(String),
    /// An entry would look for its interpreter inside the image.
    #[error(
        "the emulator {0} is registered without the flag F, so that the kernel looks for it in the image"
    )]
    NotFixed(String),
}

impl Missing {
    /// The commands that register an emulator for a platform.
    fn mend(&self, platform: &Platform) -> String {
        match self {
            Self::NotMounted(_) | Self::NotRegistered => {
                let entry = Processor::of(platform).map_or_else(String::new, |it| format!(" {}", it.entry));
                format!("as root, run: {INSTALL} && update-binfmts --enable{entry}")
            }
            Self::Off(place) => format!("as root, run: echo 1 > {}/status", place.display()),
            Self::Disabled(name) => format!("as root, run: update-binfmts --enable {name}"),
            Self::NotFixed(name) => format!(
                "take it out (echo -1 > {BINFMT}/{name}) and let Debian's packages register theirs: {INSTALL}"
            ),
        }
    }
}

impl Emulator {
    /// How programs of a platform run on this machine.
    pub(crate) fn of(platform: &Platform) -> Self {
        match is_native(&Platform::here(), platform) {
            true => Self::Native,
            false => Self::registered(platform, Path::new(BINFMT)),
        }
    }

    /// The same, with the kernel's list in `place`.
    fn registered(platform: &Platform, place: &Path) -> Self {
        match find(platform, place) {
            Ok(interpreter) => Self::Interpreter(interpreter),
            Err(why) => Self::Missing { platform: platform.clone(), why },
        }
    }

    /// Checks that commands of the platform can run at all.
    ///
    /// # Errors
    /// [`Kind::Machine`] when they cannot, with the packages to install.
    pub(crate) fn check(&self) -> Result<()> {
        let Self::Missing { platform, why } = self else { return Ok(()) };
        let here = Platform::here();
        let what = format!("this machine is {here}, and cannot run commands (RUN) for {platform}: {why}");
        Err(Error::new(Kind::Machine, what)
            .hint(format!("{}; or build on a machine of that platform", why.mend(platform))))
    }

    /// The emulator as a component of the builder in provenance: its program's name and digest. None for native
    /// execution.
    pub(crate) fn part(&self) -> Option<(String, String)> {
        let Self::Interpreter(registered) = self else { return None };
        // Debian registers a symbolic link with a generic name; its target names the emulator.
        let program = registered.canonicalize().unwrap_or_else(|_| registered.clone());
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // With the flag F the kernel keeps the program open, even if its file is gone.
        let version = match fs::read(&program) {
            Ok(bytes) => Digest::of(&bytes).to_string(),
            Err(_) => "unknown".to_owned(),
        };
        Some((name, version))
    }
}

/// Whether the processor runs the programs itself. A 64-bit processor runs its 32-bit programs; variants are not
/// distinguished.
fn is_native(here: &Platform, asked: &Platform) -> bool {
    let (here, asked) = (here.architecture.as_str(), asked.architecture.as_str());
    here == asked || [("amd64", "386"), ("arm64", "arm")].contains(&(here, asked))
}

fn find(platform: &Platform, place: &Path) -> std::result::Result<PathBuf, Missing> {
    let Ok(status) = fs::read_to_string(place.join("status")) else {
        return Err(Missing::NotMounted(place.to_owned()));
    };
    if status.trim() != "enabled" {
        return Err(Missing::Off(place.to_owned()));
    }
    let program = Processor::of(platform).ok_or(Missing::NotRegistered)?.executable();
    let (mut found, mut disabled) = (None, None);
    let Ok(files) = fs::read_dir(place) else { return Err(Missing::NotMounted(place.to_owned())) };
    for file in files.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if NO_ENTRIES.contains(&name.as_str()) {
            continue;
        }
        let Some(entry) = fs::read_to_string(file.path()).ok().and_then(|text| Entry::parse(&text)) else {
            continue;
        };
        if !entry.takes(&program) {
            continue;
        }
        match (entry.enabled, entry.flags.contains('F')) {
            (false, _) => disabled = Some(Missing::Disabled(name)),
            // Which of several entries the kernel uses depends on their order, which it does not show; so none may
            // lack the flag.
            (true, false) => return Err(Missing::NotFixed(name)),
            (true, true) => found = Some(entry.interpreter),
        }
    }
    found.ok_or(disabled.unwrap_or(Missing::NotRegistered))
}

/// An entry of the kernel's list.
struct Entry {
    enabled: bool,
    interpreter: PathBuf,
    flags: String,
    offset: usize,
    magic: Vec<u8>,
    mask: Option<Vec<u8>>,
}

impl Entry {
    /// None for an entry that matches by file name, and for an unknown format.
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        Some(Self {
            enabled: text.lines().next() == Some("enabled"),
            interpreter: value("interpreter ")?.into(),
            flags: value("flags:")?.to_owned(),
            offset: value("offset ")?.parse().ok()?,
            magic: hex::decode(value("magic ")?).ok()?,
            mask: value("mask ").map(hex::decode).transpose().ok()?,
        })
    }

    /// Whether the kernel uses this entry for a program that begins with these bytes.
    fn takes(&self, program: &[u8]) -> bool {
        let Some(bytes) = program.get(self.offset..).and_then(|rest| rest.get(..self.magic.len())) else {
            return false;
        };
        let mask = |at: usize| self.mask.as_ref().and_then(|mask| mask.get(at)).copied().unwrap_or(0xff);
        bytes.iter().zip(&self.magic).enumerate().all(|(at, (byte, magic))| (byte ^ magic) & mask(at) == 0)
    }
}

/// A processor's executables (ELF), and its emulator.
struct Processor {
    /// Its name in Go's GOARCH.
    name: &'static str,
    /// The name of its emulator's entry in Debian.
    entry: &'static str,
    /// 1 for 32 bits, 2 for 64.
    class: u8,
    is_little_endian: bool,
    machine: u16,
}

const fn processor(
    name: &'static str,
    entry: &'static str,
    class: u8,
    is_little_endian: bool,
    machine: u16,
) -> Processor {
    Processor { name, entry, class, is_little_endian, machine }
}

const PROCESSORS: &[Processor] = &[
    processor("386", "qemu-i386", 1, true, 3),
    processor("amd64", "qemu-x86_64", 2, true, 62),
    processor("arm", "qemu-arm", 1, true, 40),
    processor("arm64", "qemu-aarch64", 2, true, 183),
    processor("loong64", "qemu-loongarch64", 2, true, 258),
    processor("mips", "qemu-mips", 1, false, 8),
    processor("mips64", "qemu-mips64", 2, false, 8),
    processor("mips64le", "qemu-mips64el", 2, true, 8),
    processor("mipsle", "qemu-mipsel", 1, true, 8),
    processor("ppc64", "qemu-ppc64", 2, false, 21),
    processor("ppc64le", "qemu-ppc64le", 2, true, 21),
    processor("riscv64", "qemu-riscv64", 2, true, 243),
    processor("s390x", "qemu-s390x", 2, false, 22),
];

impl Processor {
    fn of(platform: &Platform) -> Option<&'static Self> {
        PROCESSORS.iter().find(|known| known.name == platform.architecture)
    }

    /// The first bytes of its executables: class, byte order, version, padding, type, machine, version.
    fn executable(&self) -> Vec<u8> {
        let is_little = self.is_little_endian;
        let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class, if is_little { 1 } else { 2 }, 1];
        bytes.resize(16, 0);
        for number in [2, self.machine] {
            bytes.extend(if is_little { number.to_le_bytes() } else { number.to_be_bytes() });
        }
        bytes.extend(if is_little { 1u32.to_le_bytes() } else { 1u32.to_be_bytes() });
        bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As Debian registers it.
    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: PF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
    const PYTHON: &str = "enabled\ninterpreter /usr/bin/python3.11\nflags: \noffset 0\nmagic a70d0d0a\n";
    const BY_NAME: &str = "enabled\ninterpreter /usr/bin/jexec\nflags: \nextension .jar\n";

    fn place(status: &str, entries: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in entries.iter().chain(&[("status", status), ("register", "")]) {
            fs::write(place.path().join(name), text).unwrap();
        }
        place
    }

    fn asked(platform: &str, place: &Path) -> Emulator {
        Emulator::registered(&platform.parse().unwrap(), place)
    }

    #[test]
    fn the_entry_that_takes_its_programs_is_found() {
        let place = place("enabled\n", &[("a", PYTHON), ("b", BY_NAME), ("qemu-aarch64", AARCH64)]);
        let interpreter = Path::new("/usr/libexec/qemu-binfmt/aarch64-binfmt-P");
        let found = asked("linux/arm64", place.path());
        assert_eq!(found, Emulator::Interpreter(interpreter.to_owned()));
        assert!(found.check().is_ok());
        for other in ["linux/arm/v7", "linux/s390x", "linux/riscv64", "linux/ppc64le"] {
            assert!(asked(other, place.path()).check().is_err(), "{other}");
        }
    }

    #[test]
    fn without_an_emulator_the_commands_to_get_one_are_told() {
        let empty = tempfile::tempdir().unwrap();
        let disabled = AARCH64.replace("enabled", "disabled");
        let loose = AARCH64.replace("PF", "P");
        let own = place("enabled\n", &[("qemu-aarch64", AARCH64), ("own", &loose)]);
        let at = empty.path().to_owned();
        for (place, why, command) in [
            (empty, Missing::NotMounted(at), "apt-get install qemu-user-static binfmt-support"),
            (place("enabled\n", &[]), Missing::NotRegistered, "update-binfmts --enable qemu-aarch64"),
            (
                place("enabled\n", &[("q", &disabled)]),
                Missing::Disabled("q".into()),
                "update-binfmts --enable q",
            ),
            (place("enabled\n", &[("q", &loose)]), Missing::NotFixed("q".into()), "echo -1 >"),
            (own, Missing::NotFixed("own".into()), "echo -1 >"),
        ] {
            let missing = asked("linux/arm64", place.path());
            let platform = "linux/arm64".parse().unwrap();
            assert_eq!(missing, Emulator::Missing { platform, why });
            let refused = missing.check().unwrap_err();
            assert_eq!(refused.kind(), Kind::Machine);
            let hints = refused.hint_text().unwrap();
            assert!(hints.contains(command), "{hints}");
            assert!(refused.to_string().contains("linux/arm64"), "{refused}");
        }
        let off = place("disabled\n", &[("q", AARCH64)]);
        assert!(matches!(asked("linux/arm64", off.path()), Emulator::Missing { why: Missing::Off(_), .. }));
    }

    #[test]
    fn a_processor_runs_its_own() {
        let read = |text: &str| text.parse::<Platform>().unwrap();
        assert_eq!(Emulator::of(&Platform::here()), Emulator::Native);
        assert!(is_native(&read("linux/amd64"), &read("linux/amd64/v2")));
        assert!(is_native(&read("linux/amd64"), &read("linux/386")));
        assert!(!is_native(&read("linux/386"), &read("linux/amd64")));
        assert!(!is_native(&read("linux/amd64"), &read("linux/arm64")));
        assert_eq!(Emulator::Native.part(), None);
    }
}
