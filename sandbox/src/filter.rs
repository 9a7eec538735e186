//! The filter of system calls that the runtime and all that it starts live under.
//!
//! It knows every call by its number, on each kind of processor whose programs run here, and lets through what
//! `defaults` allows, and what the runtime itself needs to make a container. These last ones are taken away by a second filter,
//! which the runtime lays over the program just before it starts: see `config`. The kernel asks both, so that what comes of it
//! is the list of `defaults`. Were all of it in the second one, the runtime would compile it for ten milliseconds and more at every start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;

use libc::sock_filter;
use syscalls::{aarch64, arm, x86, x86_64};

use crate::{Error, Profile, Result, defaults};

/// A kind of processor, as the kernel and the runtime name it, and the calls that it has.
pub(crate) struct Processor {
    /// The kernel's `AUDIT_ARCH_…`.
    audit: u32,
    /// The runtime's `SCMP_ARCH_…`.
    pub(crate) name: &'static str,
    calls: Calls,
    /// Calls of its own, far above all others.
    own: &'static [u32],
    /// From where on a number means another way in.
    foreign: Option<u32>,
}

/// The calls of a kind of processor.
struct Calls {
    number: fn(&str) -> Option<u32>,
    /// The newest one that is known of.
    last: u32,
}

/// One of the tables, all of which have types of their own.
macro_rules! calls {
    ($table:ident) => {
        Calls {
            number: |name| $table::Sysno::from_str(name).ok().map(|call| call.id().cast_unsigned()),
            last: $table::Sysno::last().id().cast_unsigned(),
        }
    };
}

const X86_64: Processor = Processor {
    audit: 0xC000_003E,
    name: "SCMP_ARCH_X86_64",
    calls: calls!(x86_64),
    own: &[],
    // x32, which is nobody's.
    foreign: Some(0x4000_0000),
};

const X86: Processor =
    Processor { audit: 0x4000_0003, name: "SCMP_ARCH_X86", calls: calls!(x86), own: &[], foreign: None };

const AARCH64: Processor = Processor {
    audit: 0xC000_00B7,
    name: "SCMP_ARCH_AARCH64",
    calls: calls!(aarch64),
    own: &[],
    foreign: None,
};

const ARM: Processor = Processor {
    audit: 0x4000_0028,
    name: "SCMP_ARCH_ARM",
    calls: calls!(arm),
    // `breakpoint`, `cacheflush`, `set_tls`.
    own: &[0xF_0001, 0xF_0002, 0xF_0005],
    foreign: None,
};

/// Whose programs run: this processor's own, and in a build its 32-bit ones. Any other way in kills the caller.
///
/// # Errors
/// [`Error::Invalid`] on a machine whose calls are not known here.
pub(crate) fn processors(profile: Profile) -> Result<&'static [Processor]> {
    let all: &[Processor] = match std::env::consts::ARCH {
        "x86_64" => &[X86_64, X86],
        "aarch64" => &[AARCH64, ARM],
        other => {
            return Err(Error::Invalid {
                what: format!("this machine's processor, {other}"),
                why: "is none whose system calls can be filtered",
            });
        }
    };
    Ok(match profile {
        Profile::Build => all,
        Profile::Algorithm { .. } => &all[..1],
    })
}

/// What is answered to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(u32),
    Kill,
    /// A socket of any family but one.
    Socket,
    /// An execution domain of a short list.
    Personality,
}

/// The filter for a profile, ready for the kernel.
///
/// # Errors
/// See [`processors`].
pub(crate) fn of(profile: Profile) -> Result<&'static [sock_filter]> {
    static BUILD: OnceLock<Vec<sock_filter>> = OnceLock::new();
    static ALGORITHM: OnceLock<Vec<sock_filter>> = OnceLock::new();
    let kept = match profile {
        Profile::Build => &BUILD,
        Profile::Algorithm { .. } => &ALGORITHM,
    };
    let processors = processors(profile)?;
    Ok(kept.get_or_init(|| program(processors)))
}

/// Lays a filter over this process and all that it will start, for ever. Fails without the right to do so (`CAP_SYS_ADMIN`).
///
/// Only makes one system call, so that it may stand between fork and exec.
pub(crate) fn install(filter: &'static [sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    #[expect(unsafe_code, reason = "no crate at hand wraps this call")]
    // SAFETY: the kernel copies the program, whose instructions live for ever, and does not write to it.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn verdicts(processor: &Processor) -> BTreeMap<u32, Verdict> {
    let numbers = |names: &[&str]| names.iter().filter_map(|name| (processor.calls.number)(name)).collect();
    let allowed: BTreeSet<u32> = numbers(&defaults::ALLOWED_CALLS.concat());
    let runtime: BTreeSet<u32> = numbers(&defaults::RUNTIME_CALLS);
    let declined: BTreeSet<u32> = numbers(&defaults::DECLINED_CALLS);
    let (socket, personality, clone) = (
        (processor.calls.number)("socket"),
        (processor.calls.number)("personality"),
        (processor.calls.number)("clone"),
    );
    let of = |number: u32| match Some(number) {
        it if it == socket => Verdict::Socket,
        it if it == personality => Verdict::Personality,
        // With which flags is the second filter's matter.
        it if it == clone => Verdict::Allow,
        _ if allowed.contains(&number) || runtime.contains(&number) => Verdict::Allow,
        _ if declined.contains(&number) => Verdict::Refuse(defaults::ENOSYS),
        _ => Verdict::Refuse(defaults::EPERM),
    };
    let mut all: BTreeMap<u32, Verdict> =
        (0..=processor.calls.last).map(|number| (number, of(number))).collect();
    // What nobody knows of does not exist, so that programs fall back to what does.
    all.insert(processor.calls.last + 1, Verdict::Refuse(defaults::ENOSYS));
    for own in processor.own {
        all.insert(*own, Verdict::Allow);
        all.entry(own + 1).or_insert(Verdict::Refuse(defaults::ENOSYS));
    }
    all.extend(processor.foreign.map(|from| (from, Verdict::Kill)));
    all
}

/// For each kind of processor, from the highest number down: the first one that is not above the call's decides.
fn program(processors: &[Processor]) -> Vec<sock_filter> {
    let mut program = vec![op(LOAD, ARCHITECTURE)];
    for processor in processors {
        let mut block = vec![op(LOAD, NUMBER)];
        let mut pieces: Vec<(u32, Verdict)> = verdicts(processor).into_iter().collect();
        pieces.dedup_by_key(|(_, verdict)| *verdict);
        for (from, verdict) in pieces.iter().rev() {
            let answer = answer(*verdict);
            if *from > 0 {
                block.push(jump(AT_LEAST, *from, 0, answer.len() as u8));
            }
            block.extend(answer);
        }
        program.push(jump(EQUAL, processor.audit, 1, 0));
        program.push(op(SKIP, block.len() as u32));
        program.extend(block);
    }
    program.push(op(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

fn answer(verdict: Verdict) -> Vec<sock_filter> {
    let allow = op(RETURN, libc::SECCOMP_RET_ALLOW);
    let refuse = |error: u32| op(RETURN, libc::SECCOMP_RET_ERRNO | error);
    match verdict {
        Verdict::Allow => vec![allow],
        Verdict::Refuse(error) => vec![refuse(error)],
        Verdict::Kill => vec![op(RETURN, libc::SECCOMP_RET_KILL_PROCESS)],
        // The kernel takes both arguments as 32 bits, whatever stands above them.
        Verdict::Socket => {
            let family = defaults::AF_VSOCK;
            vec![op(LOAD, FIRST_ARGUMENT), jump(EQUAL, family, 0, 1), refuse(defaults::EPERM), allow]
        }
        Verdict::Personality => {
            let domains = defaults::PERSONALITIES;
            let mut all = vec![op(LOAD, FIRST_ARGUMENT)];
            all.extend(
                domains
                    .iter()
                    .zip((1..=domains.len() as u8).rev())
                    .map(|(it, over)| jump(EQUAL, *it, over, 0)),
            );
            all.extend([refuse(defaults::EPERM), allow]);
            all
        }
    }
}

// Offsets in the kernel's `seccomp_data`, on machines that store the low half first, as all do that are known here.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const SKIP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const fn op(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const KILLED: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | defaults::EPERM;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | defaults::ENOSYS;

    /// What the kernel would say, by the kernel's rules for such programs.
    fn ask(program: &[sock_filter], audit: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let mut to = |holds: bool| at += usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                LOAD => {
                    value = match k {
                        NUMBER => number,
                        ARCHITECTURE => audit,
                        FIRST_ARGUMENT => argument,
                        other => panic!("loads from {other}"),
                    }
                }
                EQUAL => to(value == k),
                AT_LEAST => to(value >= k),
                SKIP => at += k as usize,
                RETURN => return k,
                other => panic!("{other}"),
            }
        }
    }

    fn all() -> [&'static Processor; 4] {
        [&X86_64, &X86, &AARCH64, &ARM]
    }

    #[test]
    fn every_call_of_every_processor_is_answered_as_the_lists_have_it() {
        let (allowed, runtime, declined) =
            (defaults::ALLOWED_CALLS.concat(), defaults::RUNTIME_CALLS, defaults::DECLINED_CALLS);
        for pair in [[X86_64, X86], [AARCH64, ARM]] {
            let program = program(&pair);
            assert!(program.len() < 4096, "the kernel takes no more");
            for processor in &pair {
                let named = |names: &[&str], number| {
                    names.iter().any(|name| (processor.calls.number)(name) == Some(number))
                };
                for number in 0..=processor.calls.last {
                    let wanted = match number {
                        _ if named(&["socket", "personality", "clone"], number) => ALLOWED,
                        _ if named(&allowed, number) || named(&runtime, number) => ALLOWED,
                        _ if named(&declined, number) => ENOSYS,
                        _ => EPERM,
                    };
                    assert_eq!(
                        ask(&program, processor.audit, number, 0),
                        wanted,
                        "{} {number}",
                        processor.name
                    );
                }
                for number in [
                    processor.calls.last + 1,
                    processor.calls.last + 2,
                    0xE_FFFF,
                    0xF_0003,
                    0xF_0004,
                    0xF_0006,
                    0xF_0007,
                ] {
                    assert_eq!(ask(&program, processor.audit, number, 0), ENOSYS, "{number:#x}");
                }
                for number in processor.own {
                    assert_eq!(ask(&program, processor.audit, *number, 0), ALLOWED);
                }
                let call = |name: &str| (processor.calls.number)(name).unwrap();
                let argument = |name, value| ask(&program, processor.audit, call(name), value);
                for (family, wanted) in
                    [(1, ALLOWED), (16, ALLOWED), (39, ALLOWED), (40, EPERM), (41, ALLOWED)]
                {
                    assert_eq!(argument("socket", family), wanted);
                }
                for domain in [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF] {
                    assert_eq!(argument("personality", domain), ALLOWED);
                }
                for domain in [1, 7, 9, 0x4_0000, 0xFFFF_FFFE] {
                    assert_eq!(argument("personality", domain), EPERM);
                }
            }
            // x32 is a flag in the number; what is on no list of processors has no say at all.
            let x32 = if pair[0].foreign.is_some() { KILLED } else { ENOSYS };
            assert_eq!(ask(&program, pair[0].audit, 0x4000_0000, 0), x32);
            assert_eq!(ask(&program, 0x8000_0016, 1, 0), KILLED);
        }
        let one = program(&[X86_64]);
        assert_eq!(ask(&one, X86.audit, 4, 0), KILLED);
    }

    #[test]
    fn the_lists_name_calls_that_exist_and_none_stands_in_two() {
        let lists =
            [&defaults::ALLOWED_CALLS.concat()[..], &defaults::RUNTIME_CALLS, &defaults::DECLINED_CALLS];
        let mut seen = BTreeSet::new();
        for name in lists.concat() {
            let is_known = all().iter().any(|processor| (processor.calls.number)(name).is_some());
            assert!(is_known, "no processor has {name}");
            assert!(seen.insert(name), "{name} stands there twice");
        }
        for name in ["socket", "personality", "clone"] {
            assert!(!seen.contains(name), "{name} depends on its arguments");
        }
    }
}
