//! How the process's allocator deals with the system.
//!
//! glibc's allocator keeps what was freed below memory that is still in use, in each of its arenas,
//! for as long as the process runs: after a hundred parties their transport buffers would stay for
//! ever, with what was in them. `malloc_trim(3)` gives every whole page of them back, and the system
//! clears a page before anybody sees it again.
//!
//! Of itself it has the system map and unmap each buffer of 128 KiB or more, clear its pages every time, and in
//! all arenas but the first it asks for memory page by page, a call for each; and of the others the end, however
//! large, stays out of reach of `malloc_trim`.

/// Gives all whole pages that the allocator has and nobody uses back to the system. Takes the time of
/// giving them back, and holds each arena while it looks through it: not for a thread that others wait
/// for.
///
/// Does nothing where the allocator is not glibc's.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a number, touches only memory that is free, and takes the allocator's
    // own locks; any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Buffers of up to this size come from the arena.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BUFFER_BYTES: libc::c_int = 1 << 20;

/// So much at the arena's end is kept when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 8 << 20;

/// How much more than is asked for the arena gets from the system at a time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const STEP_BYTES: libc::c_int = 1 << 20;

/// Lets all threads allocate from the first arena, which grows by 1 MiB at a time, and keeps buffers of up to
/// 1 MiB for the next who needs one, until [`give_back`]: for a process whose threads share large buffers and
/// not many small ones. To be called before there are threads.
///
/// Does nothing where the allocator is not glibc's.
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
