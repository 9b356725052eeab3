//! A process that switches core dumps off leaves none.

#![cfg(target_os = "linux")]

#[test]
fn neither_a_file_nor_a_program_gets_a_dump() {
    convelo_heap::no_core_dumps().expect("the system permits it");
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let values: Vec<_> = line.split_whitespace().rev().skip(1).take(2).collect();
    assert_eq!(values, ["0", "0"], "{line}");
    // SAFETY: with PR_GET_DUMPABLE, prctl takes no pointer.
    assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }, 0);
}
