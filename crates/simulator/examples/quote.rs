//! Quotes as the simulated enclave of a name would: reads 64 bytes of report data, writes the quote. For programs that
//! play the device of an enclave in tests (`deploy/gramine/device.py`).
//!
//! `quote PLATFORM-DIRECTORY ENCLAVE-NAME < report-data > quote`

use std::error::Error;
use std::io::{Read as _, Write as _, stdin, stdout};
use std::path::Path;
use std::sync::Arc;

use convelo_simulator::Platform;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, name] = arguments.as_slice() else {
        return Err("usage: quote PLATFORM-DIRECTORY ENCLAVE-NAME < report-data > quote".into());
    };
    let mut report_data = [0; 64];
    stdin().read_exact(&mut report_data)?;
    let enclave = Arc::new(Platform::open(Path::new(directory))?).program(name);
    stdout().write_all(&enclave.quote(&report_data)?)?;
    Ok(())
}
