//! What a container may do, as data. The values are Docker's defaults, which the Dockerfiles of the world are written for.

/// Capabilities of a build step. Left out, as Docker does: everything about modules, clocks, mounts, tracing of others,
/// raw disks and the configuration of networks.
pub(crate) const BUILD_CAPABILITIES: [&str; 14] = [
    // Files of any owner: package managers unpack what belongs to others.
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETFCAP",
    // Device nodes; which ones can be opened is the device cgroup's matter.
    "CAP_MKNOD",
    // Becoming somebody else: `su`, `gosu`, the sandboxes of package managers.
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
    // Networking within its own namespace, which leads nowhere.
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
];

/// Files of `/proc` and `/sys` that tell about the machine or its other tenants: covered by nothing.
pub(crate) const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Files of `/proc` by which the machine could be changed.
pub(crate) const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// System calls that are allowed whatever their arguments. Any other answers `EPERM`, or `ENOSYS` when it is newer than
/// every call that is known here, so that programs fall back. `clone`, `socket` and `personality` depend on their arguments.
///
/// Absent on purpose: `mount` and its kin, `unshare`, `setns`, `bpf`, `perf_event_open`, `userfaultfd`, `io_uring_*`,
/// `keyctl`, `add_key`, `request_key`, `kexec_*`, `*_module`, `reboot`, `swapon`, `open_by_handle_at`, `quotactl`, `settimeofday`,
/// `clock_settime`, `acct`, `nfsservctl`, `vhangup`, `iopl`, `ioperm`.
pub(crate) const ALLOWED_CALLS: &[&[&str]] = &[
    FILES, DIRECTORIES, METADATA, DESCRIPTORS, MEMORY, PROCESSES, IDENTITY, SIGNALS, TIME, WAITING, SOCKETS, SHARING,
    MISCELLANY, OTHER_WIDTHS,
];

/// Reading and writing.
const FILES: &[&str] = &[
    "read", "write", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "preadv2", "pwritev2", "lseek",
    "_llseek", "open", "openat", "openat2", "creat", "close", "close_range", "truncate", "ftruncate", "fallocate",
    "fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "readahead", "fadvise64",
    "fadvise64_64", "sendfile", "splice", "tee", "vmsplice", "copy_file_range", "flock", "io_setup", "io_destroy",
    "io_submit", "io_cancel", "io_getevents", "io_pgetevents", "memfd_create", "memfd_secret", "cachestat",
];

/// Names in directories.
const DIRECTORIES: &[&str] = &[
    "mkdir", "mkdirat", "rmdir", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat",
    "rename", "renameat", "renameat2", "mknod", "mknodat", "getdents", "getdents64", "getcwd", "chdir", "fchdir",
    "chroot", "name_to_handle_at", "inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
    "fanotify_mark",
];

/// What is known about a file.
const METADATA: &[&str] = &[
    "stat", "lstat", "fstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2", "chmod",
    "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat", "umask", "utime", "utimes", "futimesat",
    "utimensat", "getxattr", "lgetxattr", "fgetxattr", "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr",
    "flistxattr", "removexattr", "lremovexattr", "fremovexattr",
];

/// Descriptors and pipes.
const DESCRIPTORS: &[&str] = &[
    "dup", "dup2", "dup3", "fcntl", "ioctl", "pipe", "pipe2", "eventfd", "eventfd2", "signalfd", "signalfd4",
    "timerfd_create", "timerfd_settime", "timerfd_gettime", "pidfd_open", "pidfd_send_signal",
];

/// Address space.
const MEMORY: &[&str] = &[
    "brk", "mmap", "munmap", "mremap", "mprotect", "msync", "madvise", "mincore", "mlock", "mlock2", "munlock",
    "mlockall", "munlockall", "membarrier", "pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages",
    "map_shadow_stack", "process_mrelease", "mseal",
];

/// Starting, ending and scheduling.
const PROCESSES: &[&str] = &[
    "execve", "execveat", "exit", "exit_group", "fork", "vfork", "wait4", "waitid", "getpid", "getppid", "gettid",
    "getpgid", "setpgid", "getpgrp", "getsid", "setsid", "prctl", "arch_prctl", "set_tid_address", "set_thread_area",
    "get_thread_area", "set_robust_list", "get_robust_list", "rseq", "sched_yield", "sched_getaffinity",
    "sched_setaffinity", "sched_getattr", "sched_setattr", "sched_getparam", "sched_setparam", "sched_getscheduler",
    "sched_setscheduler", "sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval", "getpriority",
    "setpriority", "ioprio_get", "ioprio_set", "getrlimit", "setrlimit", "prlimit64", "ugetrlimit", "getrusage", "getcpu",
    // Since Linux 4.8 a filter cannot be stepped over by tracing; the kernel allows it among one's own processes.
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp",
];

/// Whom a process acts as.
const IDENTITY: &[&str] = &[
    "getuid", "geteuid", "getresuid", "getgid", "getegid", "getresgid", "getgroups", "setuid", "setreuid", "setresuid",
    "setgid", "setregid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capget", "capset", "seccomp",
    "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
];

/// Signals.
const SIGNALS: &[&str] = &[
    "kill", "tkill", "tgkill", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "pause", "restart_syscall", "alarm",
];

/// Reading clocks, never setting them.
const TIME: &[&str] = &[
    "time", "times", "gettimeofday", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "adjtimex",
    "clock_adjtime", "getitimer", "setitimer", "timer_create", "timer_delete", "timer_settime", "timer_gettime",
    "timer_getoverrun",
];

/// Waiting for several things.
const WAITING: &[&str] = &[
    "select", "_newselect", "pselect6", "poll", "ppoll", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
    "epoll_wait", "epoll_wait_old", "epoll_pwait", "epoll_pwait2", "futex", "futex_waitv", "futex_wait", "futex_wake",
    "futex_requeue",
];

/// Sockets; `socket` itself is under [`SOCKET`].
const SOCKETS: &[&str] = &[
    "socketpair", "socketcall", "bind", "listen", "accept", "accept4", "connect", "shutdown", "getsockname", "getpeername",
    "getsockopt", "setsockopt", "send", "sendto", "sendmsg", "sendmmsg", "recv", "recvfrom", "recvmsg", "recvmmsg",
];

/// System V and POSIX shared memory, semaphores and queues; they live in the container's own IPC namespace.
const SHARING: &[&str] = &[
    "ipc", "shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv",
    "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
];

/// Asking about the machine, and randomness.
const MISCELLANY: &[&str] = &["uname", "sysinfo", "getrandom", "modify_ldt"];

/// The same calls as 32-bit programs and other processors name them.
const OTHER_WIDTHS: &[&str] = &[
    "arm_fadvise64_64", "arm_sync_file_range", "chown32", "fchown32", "lchown32",
    "clock_getres_time64", "clock_gettime64", "clock_nanosleep_time64", "fcntl64", "fstat64", "fstatat64", "fstatfs64",
    "ftruncate64", "futex_time64", "getegid32", "geteuid32", "getgid32", "getgroups32", "getresgid32", "getresuid32",
    "getuid32", "io_pgetevents_time64", "lstat64", "mmap2", "mq_timedreceive_time64", "mq_timedsend_time64", "nice",
    "oldfstat", "ppoll_time64", "pselect6_time64", "recvmmsg_time64", "rt_sigtimedwait_time64",
    "sched_rr_get_interval_time64", "semtimedop_time64", "sendfile64", "setfsgid32", "setfsuid32", "setgid32",
    "setgroups32", "setregid32", "setresgid32", "setresuid32", "setreuid32", "setuid32", "sigprocmask", "sigreturn",
    "stat64", "statfs64", "timer_gettime64", "timer_settime64", "timerfd_gettime64", "timerfd_settime64", "truncate64",
    "utimensat_time64", "waitpid",
];

/// What the runtime needs to make a container, and the program in it must not have. All are older than the oldest
/// runtime, whose library of filters has to know their names to take them away.
pub(crate) const RUNTIME_CALLS: [&str; 10] = [
    "mount", "umount", "umount2", "pivot_root", "unshare", "setns", "sethostname", "setdomainname", "keyctl", "bpf",
];

/// What answers as on a kernel that does not have it yet, to the runtime as well: `clone3` keeps its flags in memory, where a
/// filter cannot read them, and the C libraries use `clone` then. The others are a second way to mount.
pub(crate) const DECLINED_CALLS: [&str; 9] = [
    "clone3", "open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
];

/// `clone` may start processes and threads but no namespace: `CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}`, each a flag.
pub(crate) const CLONE_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// The answer to a call that is not there.
pub(crate) const ENOSYS: u32 = 38;

/// The answer to every call that is not allowed.
pub(crate) const EPERM: u32 = 1;

/// The execution domains that `personality` may choose: Linux, 32-bit Linux, both without the version hidden
/// (`UNAME26`), and asking.
pub(crate) const PERSONALITIES: [u32; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// `socket` of any family but this one: `AF_VSOCK` would speak to the hypervisor, past every namespace.
pub(crate) const AF_VSOCK: u32 = 40;
