//! The system calls of a process that reads, copies and computes. Any other fails with `EPERM`.
//!
//! Refused calls fail instead of killing: a C library of tomorrow that tries a new call and has
//! another way then still works, and what an intruder gains is an error number.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::Grants;

/// Calls that are let through whatever their arguments.
const PLAIN: &[c_long] = &[
    // Bytes of open files.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_flock,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    // What files are; names tell no more than that.
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    // Names in folders that may be read (Landlock says which).
    libc::SYS_getdents64,
    // Memory that is not run: `mmap` and `mprotect` stand below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and their waiting; how they begin stands below.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Our own signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    // Waiting for signals and pipes.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
];

/// Older names of some of them, which newer machines never had.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Flags of `open` with which a file is changed or made.
const CHANGING: c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | O_TMPFILE;
/// Its own bit of `O_TMPFILE`, which holds that of directories too.
const O_TMPFILE: c_int = libc::O_TMPFILE & !libc::O_DIRECTORY;
/// Every thread begins with these; a new process has none of the last.
const THREAD: c_int = libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
/// Commands of `fcntl` that concern us alone.
const FCNTL: [c_int; 7] = [
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_SETPIPE_SZ,
    libc::F_GETPIPE_SZ,
];
/// Whether it is a terminal, and how wide.
const IOCTL: [u64; 3] = [libc::TCGETS, libc::TCGETS2, libc::TIOCGWINSZ];

/// Takes the filter upon all threads.
pub(super) fn filter(grants: &Grants<'_>) -> Result<(), String> {
    for program in programs(grants).map_err(|e| e.to_string())? {
        apply_filter_all_threads(&program).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn programs(grants: &Grants<'_>) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    // Its flags lie in memory, where a filter cannot look. Told that there is no such call the C
    // library takes `clone`, which has them in a register.
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let refuse = |errno: c_int| SeccompAction::Errno(errno.unsigned_abs());
    let hiding = SeccompFilter::new(hidden, SeccompAction::Allow, refuse(libc::ENOSYS), arch)?;
    let rules = rules(grants)?;
    let main = SeccompFilter::new(rules, refuse(libc::EPERM), SeccompAction::Allow, arch)?;
    Ok(vec![hiding.try_into()?, main.try_into()?])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(grants: &Grants<'_>) -> Result<Rules, seccompiler::BackendError> {
    // An argument of 32 bits, under a mask, must be a value.
    let masked = |arg, mask: c_int, value: c_int| {
        let mask = Op::MaskedEq(u64::from(mask.cast_unsigned()));
        SeccompCondition::new(arg, Len::Dword, mask, u64::from(value.cast_unsigned()))
    };
    let equals = |arg, value| SeccompCondition::new(arg, Len::Dword, Op::Eq, value);
    let is_null = |arg| SeccompCondition::new(arg, Len::Qword, Op::Eq, 0);
    let one =
        |condition| Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition])?]);
    let any = |arg, values: &[u64]| {
        let rule = |&value| SeccompRule::new(vec![equals(arg, value)?]);
        values.iter().map(rule).collect::<Result<Vec<_>, _>>()
    };

    let mut rules = Rules::new();
    for &call in PLAIN.iter().chain(OLDER) {
        rules.insert(call, Vec::new());
    }
    // The filter below hides it.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_clone, one(masked(0, THREAD, THREAD)?)?);
    rules.insert(libc::SYS_mmap, one(masked(2, libc::PROT_EXEC, 0)?)?);
    rules.insert(libc::SYS_mprotect, one(masked(2, libc::PROT_EXEC, 0)?)?);
    rules.insert(libc::SYS_prlimit64, one(is_null(2)?)?);
    rules.insert(libc::SYS_tgkill, any(0, &[u64::from(std::process::id())])?);
    let name = u64::from(libc::PR_SET_NAME.cast_unsigned());
    rules.insert(libc::SYS_prctl, any(0, &[name])?);
    let fcntl = FCNTL.map(|command| u64::from(command.cast_unsigned()));
    rules.insert(libc::SYS_fcntl, any(1, &fcntl)?);
    rules.insert(libc::SYS_ioctl, any(1, &IOCTL)?);
    // Both ends are ours: how a signal's handler wakes the thread that acts on it.
    let pair = SeccompRule::new(vec![
        equals(0, u64::from(libc::AF_UNIX.cast_unsigned()))?,
        masked(1, 0xf, libc::SOCK_STREAM)?,
    ])?;
    rules.insert(libc::SYS_socketpair, vec![pair]);
    rules.insert(libc::SYS_sendto, one(is_null(4)?)?);
    rules.insert(libc::SYS_recvfrom, one(is_null(4)?)?);
    // Which names, Landlock says.
    if !grants.folders.is_empty() {
        // How names are kept inside a folder; its flags lie in memory, too.
        rules.insert(libc::SYS_openat2, Vec::new());
    }
    if grants.write.is_some() {
        rules.insert(libc::SYS_openat, Vec::new());
        rules.insert(libc::SYS_unlinkat, Vec::new());
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_unlink, Vec::new());
    } else {
        rules.insert(libc::SYS_openat, one(masked(2, CHANGING, libc::O_RDONLY)?)?);
    }
    Ok(rules)
}
