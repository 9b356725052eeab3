//! Compiles the wire of Intel's "PSI with SGX" without `protoc`: `protox` is a protobuf compiler in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/psi");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = protox::compile(["psi.proto"], [&root])?;
    tonic_prost_build::configure().skip_debug(["."]).compile_fds(files)?;
    Ok(())
}
