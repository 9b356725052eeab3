//! Whether a program is what an enclave can bear: one position-independent file that loads nothing else,
//! writes to none of its code, and says nothing about whoever built it.

use std::fmt;

/// What a program for an enclave must not hold, as text.
pub(crate) struct Forbidden {
    /// Where it was built: directories of the builder's.
    pub(crate) directories: Vec<String>,
}

/// Ours that must never be part of it: it makes evidence that proves nothing.
const SIMULATOR: [&str; 2] = ["convelo_simulator", "crates/simulator"];

const X86_64: u16 = 62;
const SHARED_OBJECT: u16 = 3;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const STACK: u32 = 0x6474_e551;

const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;

const NEEDED: u64 = 1;
const TEXT_RELOCATIONS: u64 = 22;
const FLAGS: u64 = 30;
const FLAG_TEXT_RELOCATIONS: u64 = 4;
const FLAGS_1: u64 = 0x6fff_fffb;
const FLAG_1_PIE: u64 = 0x0800_0000;

/// All that is wrong with a program.
pub(crate) fn problems(bytes: &[u8], forbidden: &Forbidden) -> Vec<String> {
    let mut problems = match read(bytes) {
        Ok(program) => program.problems(),
        Err(Unreadable) => return vec!["it is no 64-bit ELF program that can be read".to_owned()],
    };
    for text in SIMULATOR.iter().filter(|text| contains(bytes, text)) {
        problems.push(format!("it holds {text:?}: the simulated platform is a part of it"));
    }
    for directory in forbidden.directories.iter().filter(|text| contains(bytes, text)) {
        problems.push(format!("it holds {directory:?}, a path of whoever built it"));
    }
    problems
}

struct Unreadable;

struct Segment {
    kind: u32,
    flags: u32,
    contents: Vec<u8>,
}

struct Program {
    kind: u16,
    machine: u16,
    segments: Vec<Segment>,
    dynamic: Vec<(u64, u64)>,
}

impl Program {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut must = |holds: bool, problem: &dyn fmt::Display| {
            if !holds {
                problems.push(problem.to_string());
            }
        };
        must(self.machine == X86_64, &"it is not for x86-64");
        let segment = |kind| self.segments.iter().find(|segment| segment.kind == kind);
        let dynamic = |tag| self.dynamic.iter().find(|entry| entry.0 == tag).map(|entry| entry.1);
        must(
            self.kind == SHARED_OBJECT
                && dynamic(FLAGS_1).is_some_and(|flags| flags & FLAG_1_PIE != 0),
            &"it is not position-independent (static-pie)",
        );
        if let Some(interpreter) = segment(INTERPRETER) {
            let name = String::from_utf8_lossy(&interpreter.contents);
            must(
                false,
                &format_args!("it asks for an interpreter: {:?}", name.trim_end_matches('\0')),
            );
        }
        must(dynamic(NEEDED).is_none(), &"it loads libraries");
        let relocations = dynamic(TEXT_RELOCATIONS).is_some()
            || dynamic(FLAGS).is_some_and(|flags| flags & FLAG_TEXT_RELOCATIONS != 0);
        must(!relocations, &"its code is relocated when it is loaded (TEXTREL)");
        must(
            segment(STACK).is_some_and(|stack| stack.flags & EXECUTABLE == 0),
            &"its stack is executable",
        );
        let both = EXECUTABLE | WRITABLE;
        let loaded = self.segments.iter().filter(|segment| segment.kind == LOAD);
        must(
            loaded.clone().count() > 0
                && loaded.clone().all(|segment| segment.flags & both != both),
            &"a part of it is writable and executable",
        );
        problems
    }
}

fn read(bytes: &[u8]) -> Result<Program, Unreadable> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(Unreadable);
    }
    let table = number(bytes, 32, 8)?;
    let size = number(bytes, 54, 2)?;
    let segments = (0..number(bytes, 56, 2)?).map(|index| {
        let at = index.checked_mul(size).and_then(|at| at.checked_add(table)).ok_or(Unreadable)?;
        let field =
            |offset: u64, length| number(bytes, at.checked_add(offset).ok_or(Unreadable)?, length);
        let (kind, flags) = (narrow(field(0, 4)?)?, narrow(field(4, 4)?)?);
        let contents = if matches!(kind, DYNAMIC | INTERPRETER) {
            slice(bytes, field(8, 8)?, field(32, 8)?)?.to_vec()
        } else {
            Vec::new()
        };
        Ok(Segment { kind, flags, contents })
    });
    let segments = segments.collect::<Result<Vec<_>, Unreadable>>()?;
    let entries = segments.iter().filter(|segment| segment.kind == DYNAMIC);
    let entries = entries.flat_map(|segment| segment.contents.chunks_exact(16));
    let pairs = entries.map(|entry| Ok((number(entry, 0, 8)?, number(entry, 8, 8)?)));
    Ok(Program {
        kind: narrow(number(bytes, 16, 2)?)?,
        machine: narrow(number(bytes, 18, 2)?)?,
        dynamic: pairs.collect::<Result<_, Unreadable>>()?,
        segments,
    })
}

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, Unreadable> {
    T::try_from(number).map_err(|_| Unreadable)
}

fn slice(bytes: &[u8], at: u64, length: u64) -> Result<&[u8], Unreadable> {
    let at: usize = narrow(at)?;
    let end = at.checked_add(narrow(length)?).ok_or(Unreadable)?;
    bytes.get(at..end).ok_or(Unreadable)
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: u64, length: u64) -> Result<u64, Unreadable> {
    let digits = slice(bytes, at, length)?.iter().rev();
    Ok(digits.fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of a header, segments and a dynamic section, and nothing to run.
    struct Made {
        kind: u16,
        machine: u16,
        segments: Vec<(u32, u32)>,
        dynamic: Vec<(u64, u64)>,
        tail: Vec<u8>,
    }

    /// What holds.
    fn good() -> Made {
        Made {
            kind: SHARED_OBJECT,
            machine: X86_64,
            segments: vec![(LOAD, 4), (LOAD, 5), (LOAD, 6), (DYNAMIC, 6), (STACK, 6)],
            dynamic: vec![(FLAGS, 8), (FLAGS_1, 1 | FLAG_1_PIE), (0, 0)],
            tail: b"/convelo/crates/service/src/main.rs /cargo/registry".to_vec(),
        }
    }

    impl Made {
        fn bytes(&self) -> Vec<u8> {
            let table = 64;
            let behind = table + 56 * self.segments.len() as u64;
            let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
            bytes.resize(16, 0);
            bytes.extend(self.kind.to_le_bytes());
            bytes.extend(self.machine.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            bytes.extend(u64::to_le_bytes(table));
            bytes.resize(54, 0);
            bytes.extend(56_u16.to_le_bytes());
            bytes.extend(u16::try_from(self.segments.len()).unwrap().to_le_bytes());
            bytes.resize(64, 0);
            let dynamic = 16 * self.dynamic.len() as u64;
            for &(kind, flags) in &self.segments {
                let (at, length) = match kind {
                    DYNAMIC => (behind, dynamic),
                    INTERPRETER => (behind + dynamic, 8),
                    _ => (0, 0),
                };
                bytes.extend(kind.to_le_bytes());
                bytes.extend(flags.to_le_bytes());
                for field in [at, at, at, length, length, 8] {
                    bytes.extend(field.to_le_bytes());
                }
            }
            for &(tag, value) in &self.dynamic {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(value.to_le_bytes());
            }
            bytes.extend(&self.tail);
            bytes
        }
    }

    fn said(made: &Made) -> Vec<String> {
        let directories = vec!["/home/builder/".to_owned()];
        problems(&made.bytes(), &Forbidden { directories })
    }

    #[test]
    fn a_static_position_independent_program_holds() {
        assert_eq!(said(&good()), Vec::<String>::new());
    }

    /// The words that must be said of a program, and what breaks it.
    type Fault<'f> = (&'static str, &'f dyn Fn(&mut Made));

    #[test]
    fn each_fault_is_found_alone() {
        let segment = |made: &mut Made, kind, flags| made.segments.push((kind, flags));
        let faults: [Fault<'_>; 11] = [
            ("not for x86-64", &|made| made.machine = 183),
            ("not position-independent", &|made| made.kind = 2),
            ("not position-independent", &|made| made.dynamic[1].1 = 1),
            ("interpreter: \"/lib/ld.\"", &|made| {
                segment(made, INTERPRETER, 4);
                made.tail = b"/lib/ld.so".to_vec();
            }),
            ("loads libraries", &|made| made.dynamic.push((NEEDED, 1))),
            ("TEXTREL", &|made| made.dynamic.push((TEXT_RELOCATIONS, 0))),
            ("TEXTREL", &|made| made.dynamic[0].1 |= FLAG_TEXT_RELOCATIONS),
            ("stack is executable", &|made| made.segments[4].1 |= EXECUTABLE),
            ("writable and executable", &|made| segment(made, LOAD, 7)),
            ("the simulated platform", &|made| made.tail = b"_ZN17convelo_simulator".to_vec()),
            ("a path of whoever built it", &|made| made.tail = b"/home/builder/x.rs".to_vec()),
        ];
        for (words, break_it) in faults {
            let mut made = good();
            break_it(&mut made);
            let said = said(&made);
            assert_eq!(said.len(), 1, "{words}: {said:?}");
            assert!(said[0].contains(words), "{words}: {said:?}");
        }
        let mut made = good();
        made.segments.retain(|segment| segment.0 != STACK);
        assert_eq!(said(&made), ["its stack is executable"]);
    }

    #[test]
    fn no_part_of_a_program_can_be_read_as_one() {
        let bytes = good().bytes();
        let text = good().tail.len();
        for length in 0..bytes.len() - text {
            let said = problems(&bytes[..length], &Forbidden { directories: Vec::new() });
            assert!(!said.is_empty(), "{length}");
        }
    }

    /// This test is a program of the toolchain's default form.
    #[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
    #[test]
    fn an_ordinary_program_asks_for_an_interpreter_and_libraries() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let said = problems(&bytes, &Forbidden { directories: Vec::new() });
        assert!(said.iter().any(|problem| problem.contains("ld-linux-x86-64.so.2")), "{said:?}");
        assert!(said.iter().any(|problem| problem == "it loads libraries"), "{said:?}");
    }
}
