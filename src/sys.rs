//! The only place with `unsafe`, here and in the modules below: what has no safe binding, and what must run before Rust's own
//! start-up.
//!
//! - [`Wiping`]: the global allocator. What it frees is zero first, whoever held it: our buffers, serde's, age's, the AWS
//!   SDK's. Per-type wiping cannot reach copies that a library made.
//! - [`note_start_state`]: runs from `.init_array`. Rust's runtime opens `/dev/null` on closed descriptors 0-2 and ignores
//!   SIGPIPE before `main`; a child must get both as we got them, so they are noted before that and put back before exec.
//! - [`end_on_signals`]: while secrets are fetched, TERM, INT, HUP and QUIT end the wrapper, also as PID 1, where the kernel
//!   drops a signal that has no handler (`kill(2)`, notes). [`note_signals`]: a rotation ends between two steps instead.
//! - [`locked`]: memory that is neither swapped nor dumped; [`peer`]: who is at the other end of a socket;
//! - [`execve`], [`execveat`], [`spawn`]: `std::process::Command` resets SIGPIPE, mangles odd entries and prints values in its
//!   `Debug`; and it would leave a program of the operator's the signals that we ignore and the descriptors that we have.
#![allow(unsafe_code)]

pub mod locked;
pub mod peer;
pub mod process;
pub mod signal;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::{CStr, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

use rustix::process::Pid;

/// An allocator that wipes what it frees.
#[derive(Debug)]
pub struct Wiping;

// SAFETY: every call is handed to `System` with the layout it was given, except `realloc`, which is composed of `alloc`,
// a copy of the smaller of both sizes between two live, distinct blocks, and `dealloc`; so the contract of `GlobalAlloc`
// holds because `System` keeps it. Wiping writes only within a block that is still allocated.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is `System`'s.
        out_of_memory_if_null(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is `System`'s.
        out_of_memory_if_null(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` is a live allocation of `layout.size()` bytes. `explicit_bzero` is not optimised away.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // System's realloc may move the block and free the old one unwiped; so it is never used.
        // SAFETY: the caller guarantees that `new_size`, rounded up to the alignment, does not overflow `isize`.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: `new_layout` has a size other than zero by the caller's contract; both blocks are live and distinct.
        unsafe {
            let new = self.alloc(new_layout);
            std::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
            self.dealloc(block, layout);
            new
        }
    }
}

/// Lets freed memory be used again instead of being handed back: with glibc's defaults each buffer over 128 KiB is mapped,
/// faulted in page by page and unmapped for itself (mallopt(3)). The process is short-lived, so there is nothing to save.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets parameters of the allocator; values that it does not know are refused and change nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 * 1024 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024 * 1024);
        libc::mallopt(libc::M_TOP_PAD, 256 * 1024);
    }
}

/// No memory is an error of ours with our status, not an abort with a core.
fn out_of_memory_if_null(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        const MESSAGE: &[u8] = b"vouchsafe: error[internal]: out of memory\n";
        // SAFETY: writes a constant and ends the process; nothing is allocated.
        unsafe {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(125);
        }
    }
    block
}

/// Bit n: descriptor n was closed when the process started.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);
/// SIGPIPE was ignored when the process started.
static SIGPIPE_IGNORED_AT_START: AtomicBool = AtomicBool::new(false);

// SAFETY: a function pointer of the type that the loader calls from `.init_array` (System V ABI, "Initialization and
// Termination Functions"; glibc passes argc, argv and envp, which C lets the callee ignore).
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_START_STATE: extern "C" fn() = note_start_state;

/// Notes what Rust's start-up is about to change. Runs before `main`, so only system calls and atomics.
extern "C" fn note_start_state() {
    for fd in 0..3 {
        // SAFETY: F_GETFD looks at a number; a closed one is the answer wanted.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            CLOSED_AT_START.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
    let ignored = disposition(libc::SIGPIPE) == libc::SIG_IGN;
    SIGPIPE_IGNORED_AT_START.store(ignored, Ordering::Relaxed);
}

/// Whether descriptor 0, 1 or 2 was closed when the process started.
#[must_use]
pub fn was_closed_at_start(fd: i32) -> bool {
    (0..3).contains(&fd) && CLOSED_AT_START.load(Ordering::Relaxed) & (1 << fd) != 0
}

/// Whether a descriptor was open when the process started: what is opened since then is closed by exec, each one.
#[must_use]
pub fn is_inherited(fd: i32) -> bool {
    // SAFETY: F_GETFD looks at a number; a closed one answers -1.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC == 0
}

/// Calls `exec` with what Rust's start-up and we changed put back: the dispositions of SIGPIPE and SIGCHLD, and the closed ones
/// of descriptors 0-2.
/// Those are marked to be closed by the exec instead of closed here, so that after a failed exec no file of ours can be
/// opened under the number of a standard stream.
fn with_start_state(exec: impl FnOnce()) -> io::Error {
    for fd in 0..3 {
        if was_closed_at_start(fd) {
            // SAFETY: what is open there is the /dev/null of Rust's start-up.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    let handler = if SIGPIPE_IGNORED_AT_START.load(Ordering::Relaxed) { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: sets a disposition that needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, handler) };
    signal::hand_on_children();
    exec();
    let error = io::Error::last_os_error();
    // We are still here, and what is written from now on must fail as an error.
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    error
}

/// The disposition of a signal.
fn disposition(signal: c_int) -> libc::sighandler_t {
    // SAFETY: a zeroed sigaction is valid to be written to; a null second argument only asks.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action);
        action.sa_sigaction
    }
}

/// Makes TERM, INT, HUP and QUIT end the process with 128+n.
///
/// Only a default disposition is replaced: exec resets a handler to the default, so an ignored signal would lose its
/// ignore. A handled one cannot be, since handlers do not survive the exec that started us.
pub fn end_on_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        handle_if_default(signal, exit_by_signal);
    }
}

/// The first signal that [`note_signals`] noted; 0 for none.
static NOTED_SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Makes TERM, INT, HUP and QUIT wait for [`noted_signal`] to be asked: for what must not be ended between two of its steps.
pub fn note_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        handle_if_default(signal, note_signal);
    }
}

/// The first signal that came since [`note_signals`].
#[must_use]
pub fn noted_signal() -> Option<i32> {
    Some(NOTED_SIGNAL.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

extern "C" fn note_signal(signal: c_int) {
    // The first one stays. An atomic without a lock is async-signal-safe (signal-safety(7)).
    NOTED_SIGNAL.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed).ok();
}

/// Makes a file over its size limit an error of the write (EFBIG) instead of a death by SIGXFSZ, which would leave a
/// temporary file behind and tell nobody why. A handler, not an ignore: exec takes it away again.
pub fn outlive_file_size_limit() {
    handle_if_default(libc::SIGXFSZ, do_nothing);
}

fn handle_if_default(signal: c_int, handler: extern "C" fn(c_int)) {
    if disposition(signal) == libc::SIG_DFL {
        // SAFETY: every handler is async-signal-safe: one calls `_exit`, one sets an atomic, one does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as libc::sighandler_t;
            // A call under way goes on: what the signal interrupts is for the handler alone to say.
            action.sa_flags = libc::SA_RESTART;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

extern "C" fn exit_by_signal(signal: c_int) {
    // SAFETY: `_exit` is async-signal-safe (signal-safety(7)).
    unsafe { libc::_exit(128 + signal) }
}

extern "C" fn do_nothing(_signal: c_int) {}

/// Ends the process at once: no destructors, no buffers flushed.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// Whether the kernel started us with more rights than the caller has: set-uid, set-gid, file capabilities (getauxval(3)).
#[must_use]
pub fn is_privileged_start() -> bool {
    // SAFETY: reads one word of the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Strings for the kernel: NUL-terminated, one after the other, and the array of pointers to them.
#[derive(Default)]
pub struct Strings {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Strings {
    /// Room for `count` strings of `size` bytes in all, NULs included, so that neither buffer grows.
    #[must_use]
    pub fn with_capacity(count: usize, size: usize) -> Self {
        Self { bytes: Vec::with_capacity(size), starts: Vec::with_capacity(count) }
    }

    /// Appends one string, made of `pieces`, none of which may hold a NUL: a string would end there.
    pub fn push(&mut self, pieces: &[&[u8]]) {
        debug_assert!(pieces.iter().all(|piece| !piece.contains(&0)), "checked by inject");
        self.starts.push(self.bytes.len());
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        self.bytes.push(0);
    }

    /// The strings, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain(std::iter::once(self.bytes.len()));
        self.starts.iter().zip(ends).filter_map(|(start, end)| self.bytes.get(*start..end.saturating_sub(1)))
    }

    /// How many strings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Bytes of all strings, NULs included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn pointers(&self) -> Vec<*const c_char> {
        let base = self.bytes.as_ptr();
        // `wrapping_add`: each start is within the buffer, so no pointer leaves it.
        let mut pointers: Vec<_> = self.starts.iter().map(|start| base.wrapping_add(*start).cast()).collect();
        pointers.push(std::ptr::null());
        pointers
    }
}

/// Replaces the process. Returns only the error that kept it from doing so.
#[must_use]
pub fn execve(path: &CStr, argv: &Strings, envp: &Strings) -> io::Error {
    let (argv, envp) = (argv.pointers(), envp.pointers());
    // SAFETY: `path` and every pointer are NUL-terminated strings that outlive the call; both arrays end with null.
    with_start_state(|| unsafe {
        libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
    })
}

/// Replaces the process by the program behind an open descriptor: exactly the file that was looked at.
#[must_use]
pub fn execveat(program: BorrowedFd<'_>, argv: &Strings, envp: &Strings) -> io::Error {
    let (argv, envp) = (argv.pointers(), envp.pointers());
    // SAFETY: as for `execve`; with AT_EMPTY_PATH the descriptor itself is what is executed (execveat(2)).
    with_start_state(|| unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    })
}

/// A program to be started: everything that the kernel is told, built before the fork.
pub struct Program<'a> {
    /// Its path.
    pub path: &'a CStr,
    /// Its arguments, its own name first.
    pub argv: &'a Strings,
    /// Its whole environment.
    pub envp: &'a Strings,
    /// What become its descriptors 0, 1 and 2. All others are closed.
    pub streams: [BorrowedFd<'a>; 3],
}

/// Starts a program in a session and process group of its own, in `/`, with no signal blocked or ignored, and with no
/// descriptor but its three. It is killed when the thread that started it ends. Answers its process id; the caller reaps it.
///
/// # Errors
/// There is no process, or it could not execute the program.
pub fn spawn(program: &Program<'_>) -> io::Result<Pid> {
    let (argv, envp) = (program.argv.pointers(), program.envp.pointers());
    let [stdin, stdout, stderr] = program.streams.map(|stream| stream.as_raw_fd());
    // The child's errno comes through it; a successful exec closes it.
    let (report, child_report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child_report_fd = child_report.as_raw_fd();
    signal::heed_children();
    // SAFETY: takes no arguments.
    let parent = unsafe { libc::getpid() };
    // SAFETY: between fork and exec the child calls only what is async-signal-safe (signal-safety(7), and bare system
    // calls), on memory that was there before: another thread may have held the allocator's lock.
    let pid = unsafe { libc::fork() };
    if pid == -1 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: as above. Every pointer is NUL-terminated and lives in the copied memory; both arrays end with null.
        unsafe {
            let is_ready = become_program(parent, [stdin, stdout, stderr]);
            if is_ready {
                libc::execve(program.path.as_ptr(), argv.as_ptr(), envp.as_ptr());
            }
            let errno = *libc::__errno_location();
            // Nobody is left who could be told, if this fails.
            libc::write(child_report_fd, (&raw const errno).cast(), size_of::<c_int>());
            libc::_exit(127);
        }
    }
    drop(child_report);
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::Other)?;
    let mut errno = [0_u8; size_of::<c_int>()];
    match io::Read::read_exact(&mut std::fs::File::from(report), &mut errno) {
        Ok(()) => {
            // It has ended already, so this does not wait.
            rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            Err(io::Error::from_raw_os_error(c_int::from_ne_bytes(errno)))
        }
        Err(_) => Ok(pid),
    }
}

/// How many signals the kernel has (signal(7)).
const SIGNALS: c_long = 64;

/// What happens in the child before its exec.
///
/// # Safety
/// Only between fork and exec: descriptors of the whole process go.
unsafe fn become_program(parent: libc::pid_t, streams: [c_int; 3]) -> bool {
    // SAFETY: system calls and their thin wrappers on numbers and on memory of this frame.
    unsafe {
        // First of all, so that no parent dies unnoticed; and it may have died before.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 || libc::getppid() != parent || libc::setsid() == -1
        {
            return false;
        }
        // Out of the way of 0, 1 and 2 first: one may be another's number.
        let mut moved = [0; 3];
        for (to, from) in moved.iter_mut().zip(streams) {
            *to = libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 3);
            if *to == -1 {
                return false;
            }
        }
        for (number, from) in (0..).zip(moved) {
            if libc::dup2(from, number) == -1 {
                return false;
            }
        }
        // Marked, not closed: the report goes through one of them. An old kernel is asked one by one.
        if libc::syscall(libc::SYS_close_range, 3, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC) == -1 {
            let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 1 << 20);
            for fd in 3..c_int::try_from(limit).unwrap_or(1024) {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        // The kernel's own structures, all zero: SIG_DFL and an empty mask. libc keeps its hands on two signals that may be
        // ignored as well as others. KILL and STOP cannot be changed, and need not.
        let zero = [0_u64; 4];
        for signal in 1..=SIGNALS {
            libc::syscall(libc::SYS_rt_sigaction, signal, zero.as_ptr(), std::ptr::null::<u64>(), SIGNALS / 8);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, zero.as_ptr(), std::ptr::null::<u64>(), SIGNALS / 8);
        libc::chdir(c"/".as_ptr()) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_freed_is_wiped() {
        let layout = Layout::from_size_align(4096, 1).unwrap();
        // SAFETY: reads a block after `dealloc` only through a second, live allocation that reuses it, if one does.
        unsafe {
            let block = Wiping.alloc(layout);
            std::ptr::write_bytes(block, 0xa5, 4096);
            Wiping.dealloc(block, layout);
            let again = System.alloc(layout);
            // The allocator's own bookkeeping takes the first words of a freed block.
            let left = (64..4096).filter(|offset| again.add(*offset).read() == 0xa5).count();
            System.dealloc(again, layout);
            assert_eq!(left, 0, "bytes survived dealloc");
        }
    }

    #[test]
    fn growing_keeps_the_content_and_wipes_the_old_block() {
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: as above; the old block is never touched again.
        unsafe {
            let block = Wiping.alloc(layout);
            std::ptr::write_bytes(block, 0x5a, 64);
            let grown = Wiping.realloc(block, layout, 4096);
            assert!((0..64).all(|offset| grown.add(offset).read() == 0x5a));
            Wiping.dealloc(grown, Layout::from_size_align(4096, 8).unwrap());
        }
    }

    #[test]
    fn strings_are_laid_out_for_the_kernel() {
        let mut strings = Strings::with_capacity(2, 9);
        strings.push(&[b"A", b"=", b"1"]);
        strings.push(&[b"", b""]);
        strings.push(&[b"BC=d"]);
        assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"A=1"[..], b"", b"BC=d"]);
        assert_eq!((strings.len(), strings.size()), (3, 10));
        let pointers = strings.pointers();
        assert_eq!(pointers.len(), 4);
        assert!(pointers[3].is_null());
        // SAFETY: the third pointer is to a NUL-terminated string within the buffer.
        assert_eq!(unsafe { CStr::from_ptr(pointers[2]) }.to_bytes(), b"BC=d");
    }

    /// What a program gets that is started where signals are blocked and ignored.
    #[test]
    fn a_program_starts_with_no_signal_blocked_or_ignored() {
        let mut argv = Strings::default();
        [&b"/bin/grep"[..], b"-E", b"Sig(Blk|Ign)", b"/proc/self/status"].iter().for_each(|word| argv.push(&[word]));
        let null = std::fs::File::open("/dev/null").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // SAFETY: blocks and ignores signals that nobody sends here, and puts both back.
        let spawned = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, &raw mut before);
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            let (argv, envp) = (&argv, &Strings::default());
            let spawned = spawn(&Program {
                path: c"/bin/grep",
                argv,
                envp,
                streams: [null.as_fd(), write.as_fd(), write.as_fd()],
            });
            libc::signal(libc::SIGUSR2, libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
            spawned
        };
        drop(write);
        let mut said = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(read), &mut said).unwrap();
        rustix::process::waitpid(Some(spawned.unwrap()), rustix::process::WaitOptions::empty()).unwrap();
        let zero = "0000000000000000";
        assert_eq!(said, format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\n"));
    }
}
