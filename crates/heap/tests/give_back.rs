//! What `give_back` does to the process, seen as the system sees it.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::fs;

/// Resident memory in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("so does the kernel");
    let kibibytes: usize =
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kibibytes << 10
}

#[test]
fn freed_memory_below_memory_in_use_goes_back() {
    const PIECE: usize = 16 << 10;
    let before = resident();
    let mut pieces: Vec<Vec<u8>> = (0..8192).map(|_| vec![1; PIECE]).collect();
    let last = pieces.pop();
    let most = resident();
    assert!(most > before + 8000 * PIECE, "the pieces are there: {before} to {most}");
    drop(pieces);
    convelo_heap::give_back();
    let after = resident();
    assert!(after < before + 800 * PIECE, "{before} to {most} to {after}");
    assert!(last.is_some_and(|piece| piece.iter().all(|byte| *byte == 1)), "what is used stays");
}
