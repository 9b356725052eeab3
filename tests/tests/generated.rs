//! The generated types of both protocols match their `.proto` files.
//!
//! They are kept as files, so that building convelo needs no protobuf compiler and an auditor reads
//! what is built. After a change to a `.proto` file,
//! `UPDATE_FIXTURES=1 cargo test -p convelo-tests --test it generated` rewrites them.

use std::fs;

use tonic_prost_build::{Builder, configure};

use crate::metadata::repository;

#[test]
fn the_wire_of_the_service_is_generated() {
    let shared = ["Chunk", "BitmapChunk", "Member.quote", "Assembled.collaterals"];
    let shared = shared.map(|path| format!(".convelo.join.v1.{path}"));
    let builder = shared.iter().fold(configure(), Builder::bytes);
    compare(builder, "convelo/join/v1/join.proto", "convelo.join.v1.rs", "crates/wire");
}

#[test]
fn the_wire_of_psi_with_sgx_is_generated() {
    compare(configure(), "psi/psi.proto", "psi.rs", "crates/operate");
}

/// Generates the types of a protocol and compares them with those in `home`.
fn compare(builder: Builder, protocol: &str, name: &str, home: &str) {
    let directory = tempfile::tempdir().unwrap();
    let protocols = repository().join("proto");
    let files = protox::compile([protocol], [&protocols]).unwrap();
    builder.skip_debug(["."]).out_dir(directory.path()).compile_fds(files).unwrap();
    let expected = fs::read_to_string(directory.path().join(name)).unwrap();
    let kept = repository().join(home).join("src/generated").join(name);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&kept, expected).unwrap();
        return;
    }
    let found = fs::read_to_string(&kept).unwrap();
    assert!(
        found == expected,
        "{} is not what {protocol} generates; UPDATE_FIXTURES=1 rewrites it",
        kept.display()
    );
}
