//! Freed memory goes back to the system.
//!
//! glibc's allocator keeps what was freed below memory that is still in use, in each of its arenas,
//! for as long as the process runs: after a hundred parties their transport buffers would stay for
//! ever, with what was in them. `malloc_trim(3)` gives every whole page of them back, and the system
//! clears a page before anybody sees it again.

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
