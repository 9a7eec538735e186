//! `probe <64|32> <number> <argument>…`: makes one system call, as a 64-bit or as a 32-bit program would, and prints the kernel's answer.
//! Static, without a C library, so that it runs in any root.
#![no_std]
#![no_main]
#![no_builtins]

use core::arch::{asm, global_asm};

global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym main);

const WRITE: usize = 1;
const EXIT_GROUP: usize = 231;

unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: at a program's start the stack holds argc, then as many pointers to strings that end in a zero byte.
    let (count, argv) = unsafe { (*stack, stack.add(1) as *const *const u8) };
    let word = |at: usize| if at < count { unsafe { number(*argv.add(at)) } } else { 0 };
    let arguments = [word(3), word(4), word(5)];
    let answer = match word(1) {
        32 => call_32(word(2), arguments),
        _ => call_64(word(2), arguments),
    };
    print(answer);
    call_64(EXIT_GROUP, [0; 3]);
    loop {}
}

fn call_64(number: usize, [a, b, c]: [usize; 3]) -> isize {
    let answer: isize;
    // SAFETY: as the kernel wants it; what the call does is the test's business.
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") 0, in("r8") 0,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer
}

fn call_32(number: usize, [a, b, c]: [usize; 3]) -> isize {
    let answer: usize;
    // SAFETY: as above; the compiler keeps rbx for itself.
    unsafe {
        asm!("push rbx", "mov rbx, {a}", "int 0x80", "pop rbx", a = in(reg) a, inlateout("rax") number => answer, in("rcx") b,
            in("rdx") c, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _);
    }
    answer as u32 as i32 as isize
}

unsafe fn number(mut text: *const u8) -> usize {
    let mut sum = 0_usize;
    // SAFETY: the caller's string ends in a zero byte.
    unsafe {
        while *text != 0 {
            sum = sum.wrapping_mul(10).wrapping_add((*text - b'0') as usize);
            text = text.add(1);
        }
    }
    sum
}

fn print(answer: isize) {
    let mut line = [0_u8; 24];
    let mut at = line.len() - 1;
    line[at] = b'\n';
    let mut left = answer.unsigned_abs();
    loop {
        at -= 1;
        line[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if answer < 0 {
        at -= 1;
        line[at] = b'-';
    }
    call_64(WRITE, [1, line[at..].as_ptr() as usize, line.len() - at]);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        call_64(EXIT_GROUP, [99, 0, 0]);
    }
}

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
