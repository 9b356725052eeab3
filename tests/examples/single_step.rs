//! Runs a program one instruction at a time on this machine's processor, and prints each instruction's
//! address and the address of each access to memory: what Valgrind's lackey does, for the instructions
//! that Valgrind does not know, AVX-512 among them.
//!
//! `single_step PROGRAM [ARGUMENT]...` prints from the program's first instruction of its own to its end,
//! the loader before it left out:
//!
//! ```text
//! I  555555569af0        an instruction
//!  M 7fffffffe4a8,8      an access of so many bytes
//!  P 7fffffffe4c0,64     one under a mask, or by a vector of indices, of which these are the first
//! ```
//!
//! The address space is not randomised and the environment is empty, so that two runs can be compared.
//! What a `P` touches depends on more than is shown. In libraries there are only `M`: what they do under
//! a mask they do by the length of what they are given.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    match tracer::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracer {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;
    use std::env;
    use std::error::Error;
    use std::ffi::c_void;
    use std::io::{BufWriter, Write};
    use std::process::{Command, Stdio};

    use iced_x86::{
        Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpKind, Register, UsedMemory,
    };
    use nix::libc::user_regs_struct as Registers;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    /// The longest instruction is of 15 bytes; they are read as words.
    const INSTRUCTION_BYTES: usize = 16;

    /// Libraries are above, a program that is not randomised is below.
    const LIBRARIES: u64 = 0x7000_0000_0000;

    pub(super) fn run() -> Result<(), Box<dyn Error>> {
        let program: Vec<String> = env::args().skip(1).collect();
        if program.is_empty() {
            return Err("usage: single_step PROGRAM [ARGUMENT]...".into());
        }
        // It waits for whoever traces it, and becomes setarch, which becomes the program.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "kill -STOP $$; exec /usr/bin/setarch -R \"$@\"", "sh"])
            .args(&program)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let traced = trace(Pid::from_raw(child.id().cast_signed()));
        let _ = child.kill();
        let _ = child.wait();
        traced
    }

    fn trace(pid: Pid) -> Result<(), Box<dyn Error>> {
        waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
        ptrace::seize(pid, Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL)?;
        kill(pid, Signal::SIGCONT)?;
        loop {
            match waitpid(pid, None)? {
                WaitStatus::PtraceEvent(_, Signal::SIGTRAP, nix::libc::PTRACE_EVENT_EXEC)
                    if !is_setarch(pid)? =>
                {
                    break;
                }
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    return Err("the program was not started".into());
                }
                _ => ptrace::cont(pid, None)?,
            }
        }
        steps(pid)
    }

    fn is_setarch(pid: Pid) -> std::io::Result<bool> {
        Ok(std::fs::read_link(format!("/proc/{pid}/exe"))?.ends_with("setarch"))
    }

    fn steps(pid: Pid) -> Result<(), Box<dyn Error>> {
        let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        let mut decoded = HashMap::new();
        let mut begun = false;
        loop {
            let registers = ptrace::getregs(pid)?;
            let own = registers.rip < LIBRARIES;
            begun |= own;
            if begun {
                writeln!(out, "I  {:x}", registers.rip)?;
                let (instruction, accesses) = match decoded.entry(registers.rip) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(decode(pid, registers.rip)?),
                };
                let kind = if own && is_partial(instruction) { 'P' } else { 'M' };
                for access in accesses.iter() {
                    let value = |register, _, _| value_of(&registers, register);
                    let address = access.virtual_address(0, value).ok_or("an unknown register")?;
                    writeln!(out, " {kind} {address:x},{}", access.memory_size().size())?;
                }
            }
            ptrace::step(pid, None)?;
            match waitpid(pid, None)? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
                WaitStatus::Exited(_, 0) if begun => break,
                other => return Err(format!("the program did not end well: {other:?}").into()),
            }
        }
        out.flush()?;
        Ok(())
    }

    fn decode(pid: Pid, at: u64) -> Result<(Instruction, Vec<UsedMemory>), Box<dyn Error>> {
        let mut bytes = [0; INSTRUCTION_BYTES];
        let address = usize::try_from(at)?;
        for (number, word) in bytes.chunks_exact_mut(size_of::<usize>()).enumerate() {
            let from = (address + number * size_of::<usize>()) as *mut c_void;
            // The last word may be behind the end of what is mapped.
            if let Ok(value) = ptrace::read(pid, from) {
                word.copy_from_slice(&value.to_ne_bytes());
            }
        }
        let instruction = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).decode();
        if instruction.is_invalid() {
            return Err(format!("the instruction at {at:x} is not known").into());
        }
        let mut factory = InstructionInfoFactory::new();
        let accesses = factory.info(&instruction).used_memory().to_vec();
        Ok((instruction, accesses))
    }

    /// Whether which bytes of memory are accessed depends on a mask or on a vector.
    fn is_partial(instruction: &Instruction) -> bool {
        let memory =
            (0..instruction.op_count()).any(|at| instruction.op_kind(at) == OpKind::Memory);
        memory && (instruction.has_op_mask() || instruction.is_vsib())
    }

    fn value_of(registers: &Registers, register: Register) -> Option<u64> {
        Some(match register {
            // The bases of flat segments.
            Register::CS | Register::DS | Register::ES | Register::SS => 0,
            Register::FS => registers.fs_base,
            Register::GS => registers.gs_base,
            Register::RAX | Register::EAX => registers.rax,
            Register::RBX | Register::EBX => registers.rbx,
            Register::RCX | Register::ECX => registers.rcx,
            Register::RDX | Register::EDX => registers.rdx,
            Register::RSI | Register::ESI => registers.rsi,
            Register::RDI | Register::EDI => registers.rdi,
            Register::RBP | Register::EBP => registers.rbp,
            Register::RSP | Register::ESP => registers.rsp,
            Register::R8 | Register::R8D => registers.r8,
            Register::R9 | Register::R9D => registers.r9,
            Register::R10 | Register::R10D => registers.r10,
            Register::R11 | Register::R11D => registers.r11,
            Register::R12 | Register::R12D => registers.r12,
            Register::R13 | Register::R13D => registers.r13,
            Register::R14 | Register::R14D => registers.r14,
            Register::R15 | Register::R15D => registers.r15,
            _ => return None,
        })
    }
}
