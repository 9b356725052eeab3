//! What the system does with the process's memory: what it gets back from the allocator, and that it
//! never writes it to a disk as a core dump.
//!
//! glibc's allocator keeps freed memory that lies below memory still in use, in each of its arenas,
//! for as long as the process runs: after a hundred parties, their transport buffers and what was
//! in them would stay forever. `malloc_trim(3)` gives every whole page of them back, and the system
//! clears a page before anybody sees it again.
//!
//! By default, the allocator has the system map and unmap each buffer of 128 KiB or more and clear
//! its pages every time. In all arenas but the first, it asks for memory page by page, with a call
//! for each, and `malloc_trim` cannot reach the end of those arenas, however large it is.

use std::io;

/// Gives all whole pages that the allocator holds and nobody uses back to the system. This takes
/// time, and holds each arena while looking through it, so do not call it on a thread that others
/// wait for.
///
/// Gramine wipes what is given back to it and keeps it for the enclave, whose size is fixed.
///
/// Does nothing if the allocator is not glibc's.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a number, touches only free memory, and takes the allocator's own
    // locks; any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Buffers up to this size come from the arena.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BUFFER_BYTES: libc::c_int = 1 << 20;

/// How much is kept at the arena's end when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 8 << 20;

/// How much more than requested the arena gets from the system at a time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const STEP_BYTES: libc::c_int = 1 << 20;

/// Lets all threads allocate from the first arena, which grows by 1 MiB at a time, and keeps
/// buffers of up to 1 MiB for the next user until [`give_back`]: for a process whose threads share
/// large buffers and few small ones. Call it before there are threads.
///
/// Does nothing if the allocator is not glibc's.
pub fn one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two numbers and changes parameters of the allocator, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, STEP_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, BUFFER_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Whether the system has address space for this process to have `heap` bytes from the allocator and
/// `mapped` bytes besides, in mappings of its own. Where a process cannot give what the allocator has
/// back, as in an enclave whose heap lies in one mapping, the allocator keeps those bytes from now on, and
/// they are in one piece.
///
/// # Errors
/// If one of the two is not to be had.
pub fn claim(heap: usize, mapped: usize) -> io::Result<()> {
    #[cfg(unix)]
    {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping wherever the system likes touches nothing that exists.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let heap = claim_heap(heap);
        // SAFETY: it is the mapping just made, of this length, and nobody else knows it.
        unsafe { libc::munmap(mapping, mapped) };
        if !heap {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
    }
    Ok(())
}

/// Has the allocator take this much from the system, as an arena does and not as a mapping, and free it.
#[cfg(unix)]
fn claim_heap(bytes: usize) -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt changes a parameter of the allocator, under its own lock.
    unsafe {
        libc::mallopt(M_MMAP_MAX, 0);
    }
    // SAFETY: malloc takes any number, and free what malloc returned, once; null is nothing to free.
    let claimed = unsafe {
        let claimed = libc::malloc(bytes);
        // Otherwise a compiler may leave both out.
        let claimed = std::hint::black_box(claimed);
        libc::free(claimed);
        !claimed.is_null()
    };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: as above.
    unsafe {
        libc::mallopt(M_MMAP_MAX, MAPPINGS);
    }
    claimed
}

/// The allocator's parameter for how many buffers have mappings of their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const M_MMAP_MAX: libc::c_int = -4;

/// Its default.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPINGS: libc::c_int = 65536;

/// Keeps the system from dumping this process's memory when it crashes, into a file or to a program that
/// collects dumps. Other processes of the same user cannot read it any longer either (`ptrace`,
/// `/proc/PID/mem`); the superuser can. Programs that this one starts inherit the limit on files.
///
/// # Errors
/// The system's, if it refuses one of the two.
pub fn no_core_dumps() -> io::Result<()> {
    #[cfg(unix)]
    {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: setrlimit reads the structure behind the pointer, which outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // A program that collects dumps gets them whatever the limit is.
    #[cfg(target_os = "linux")]
    // SAFETY: with PR_SET_DUMPABLE, prctl takes one number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
