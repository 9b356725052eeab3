//! Compiles the service's protocol without `protoc`: `protox` is a protobuf compiler in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.join("convelo").display());
    let files = protox::compile(["convelo/join/v1/join.proto"], [&root])?;
    tonic_prost_build::configure()
        .bytes(".convelo.join.v1.Chunk")
        .bytes(".convelo.join.v1.BitmapChunk")
        .skip_debug(["."])
        .compile_fds(files)?;
    Ok(())
}
