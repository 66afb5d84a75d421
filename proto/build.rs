//! Compiles the contracts with protox: no protoc on the building machine.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["model", "state", "agent", "net", "server", "route"]
        .map(|name| format!("skep/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=skep");
    let descriptors = protox::compile(&files, [Path::new(".")])?;
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .codec_path("crate::codec::Lean")
        // Sorted maps: the same state must always encode to the same bytes.
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
