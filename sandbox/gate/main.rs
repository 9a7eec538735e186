//! `gate <port> <seconds> <argv…>`: waits until 127.0.0.1:<port> accepts a connection, then becomes argv.
//!
//! It stands in front of an image's own entrypoint, so it can count on nothing in the image: no C library, no loader, no
//! file. It is one static ELF program that speaks to the kernel alone. Exit codes, as env(1) has them: 125 when the
//! port does not answer in time or the arguments are no good, 126 when the program cannot be executed, 127 when
//! there is none. The environment is passed on as it is.
#![no_std]
#![no_main]
#![no_builtins]

use core::arch::{asm, global_asm};

// The kernel puts argc, argv and the environment on the stack; a Rust function cannot see that, so it is handed over.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "mov x0, sp", "bl {main}", "brk #1", main = sym main);

/// Numbers of the system calls.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const NANOSLEEP: usize = 35;
    pub const SOCKET: usize = 41;
    pub const CONNECT: usize = 42;
    pub const SETSOCKOPT: usize = 54;
    pub const EXECVE: usize = 59;
    pub const CLOCK_GETTIME: usize = 228;
    pub const EXIT_GROUP: usize = 231;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const CLOSE: usize = 57;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const NANOSLEEP: usize = 101;
    pub const CLOCK_GETTIME: usize = 113;
    pub const SOCKET: usize = 198;
    pub const CONNECT: usize = 203;
    pub const SETSOCKOPT: usize = 208;
    pub const EXECVE: usize = 221;
}

const LATE: usize = 125;
const NOT_EXECUTABLE: usize = 126;
const NOT_FOUND: usize = 127;

const ENOENT: isize = -2;
const ENOTDIR: isize = -20;

/// Docker's own value for an image that sets none.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The kernel's `PATH_MAX`.
const LONGEST: usize = 4096;

/// The kernel's `timespec` and `timeval`: both are two machine words.
#[repr(C)]
struct Time {
    seconds: i64,
    fraction: i64,
}

/// The kernel's `sockaddr_in`.
#[repr(C)]
struct Address {
    family: u16,
    port: [u8; 2],
    host: [u8; 4],
    padding: [u8; 8],
}

unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: the layout at a program's start is argc, argc pointers, a null, the environment's pointers, a null.
    let (count, argv) = unsafe { (*stack, stack.add(1) as *const *const u8) };
    let environment = unsafe { argv.add(count + 1) };
    if count < 4 {
        fail(b"usage: gate <port> <seconds> <program> [argument...]\n", LATE);
    }
    // SAFETY: indices below argc hold strings that end in a zero byte.
    let (port, seconds) = unsafe { (number_of(text(*argv.add(1))), number_of(text(*argv.add(2)))) };
    match (port, seconds) {
        (Some(port @ 1..=65535), Some(seconds)) => wait(port as u16, seconds as i64),
        _ => fail(b"gate: port and seconds must be numbers\n", LATE),
    }
    unsafe { become_program(argv.add(3), environment) }
}

/// Returns once the port accepts; ends the program when it does not in time.
fn wait(port: u16, seconds: i64) {
    let start = now();
    loop {
        if accepts(port) {
            return;
        }
        let at = now();
        if at.seconds - start.seconds > seconds
            || (at.seconds - start.seconds == seconds && at.fraction >= start.fraction)
        {
            fail(b"gate: the port did not answer in time, so the program was not started\n", LATE);
        }
        let pause = Time { seconds: 0, fraction: 1_000_000 };
        call(number::NANOSLEEP, [&raw const pause as usize, 0, 0, 0, 0]);
    }
}

fn accepts(port: u16) -> bool {
    const AF_INET: usize = 2;
    const STREAM_CLOEXEC: usize = 0o2000001;
    const SOL_SOCKET: usize = 1;
    const SO_SNDTIMEO: usize = 21;
    let socket = call(number::SOCKET, [AF_INET, STREAM_CLOEXEC, 0, 0, 0]);
    if socket < 0 {
        return false;
    }
    let socket = socket as usize;
    // A full backlog would otherwise hold the connection for minutes.
    let most = Time { seconds: 1, fraction: 0 };
    call(number::SETSOCKOPT, [socket, SOL_SOCKET, SO_SNDTIMEO, &raw const most as usize, size_of::<Time>()]);
    let to = Address { family: 2, port: port.to_be_bytes(), host: [127, 0, 0, 1], padding: [0; 8] };
    let answer = call(number::CONNECT, [socket, &raw const to as usize, size_of::<Address>(), 0, 0]);
    call(number::CLOSE, [socket, 0, 0, 0, 0]);
    answer == 0
}

fn now() -> Time {
    const MONOTONIC: usize = 1;
    let mut time = Time { seconds: 0, fraction: 0 };
    call(number::CLOCK_GETTIME, [MONOTONIC, &raw mut time as usize, 0, 0, 0]);
    time
}

/// `execvp` with the environment's own `PATH`.
unsafe fn become_program(argv: *const *const u8, environment: *const *const u8) -> ! {
    // SAFETY: the caller's pointers are the kernel's own, see `main`.
    let name = unsafe { text(*argv) };
    let mut worst = ENOENT;
    if name.contains(&b'/') {
        worst = call(number::EXECVE, [name.as_ptr() as usize, argv as usize, environment as usize, 0, 0]);
    } else if !name.is_empty() {
        // SAFETY: as above.
        let path = unsafe { variable(environment, b"PATH=") }.unwrap_or(DEFAULT_PATH);
        let mut buffer = [0_u8; LONGEST];
        for directory in path.split(|byte| *byte == b':') {
            if !join(&mut buffer, if directory.is_empty() { b"." } else { directory }, name) {
                continue;
            }
            let error =
                call(number::EXECVE, [buffer.as_ptr() as usize, argv as usize, environment as usize, 0, 0]);
            if error != ENOENT && error != ENOTDIR {
                worst = error;
            }
        }
    }
    match worst {
        ENOENT | ENOTDIR => fail(b"gate: no such program\n", NOT_FOUND),
        _ => fail(b"gate: the program cannot be executed\n", NOT_EXECUTABLE),
    }
}

/// Writes `directory/name` and a zero byte. False when it does not fit.
fn join(buffer: &mut [u8; LONGEST], directory: &[u8], name: &[u8]) -> bool {
    if directory.len() + name.len() + 2 > LONGEST {
        return false;
    }
    let parts = directory.iter().chain(b"/").chain(name).chain(b"\0");
    for (to, from) in buffer.iter_mut().zip(parts) {
        *to = *from;
    }
    true
}

unsafe fn variable(mut environment: *const *const u8, prefix: &[u8]) -> Option<&'static [u8]> {
    // SAFETY: the environment's pointers end in a null, and each is a string that ends in a zero byte.
    unsafe {
        while !(*environment).is_null() {
            if let Some(value) = text(*environment).strip_prefix(prefix) {
                return Some(value);
            }
            environment = environment.add(1);
        }
    }
    None
}

unsafe fn text(start: *const u8) -> &'static [u8] {
    let mut length = 0;
    // SAFETY: the caller's string ends in a zero byte, and lives as long as the program does.
    unsafe {
        while *start.add(length) != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(start, length)
    }
}

/// A decimal number of at most six digits.
fn number_of(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 6 {
        return None;
    }
    digits.iter().try_fold(0_u32, |sum, digit| match digit {
        b'0'..=b'9' => Some(sum * 10 + u32::from(digit - b'0')),
        _ => None,
    })
}

fn fail(message: &[u8], code: usize) -> ! {
    call(number::WRITE, [2, message.as_ptr() as usize, message.len(), 0, 0]);
    loop {
        call(number::EXIT_GROUP, [code, 0, 0, 0, 0]);
    }
}

fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let answer: isize;
    // SAFETY: the kernel's calling convention; every pointer passed in this file is to something that lives until the
    // call returns, and the kernel keeps all registers but those named.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => answer, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack));
    }
    answer
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fail(b"gate: this is a bug of gate\n", NOT_EXECUTABLE)
}

/// The compiler may ask for these by name, and there is no library to have them.
mod memory {
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller's promise.
            unsafe { *to.add(at) = byte as u8 };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        for at in 0..count {
            // SAFETY: the caller's promise.
            unsafe { *to.add(at) = *from.add(at) };
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        for at in 0..count {
            // SAFETY: the caller's promise.
            let (left, right) = unsafe { (*a.add(at), *b.add(at)) };
            if left != right {
                return i32::from(left) - i32::from(right);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { memcmp(a, b, count) }
    }
}

/// The precompiled core library names this for unwinding, which a program that aborts never does.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
