//! Links release binaries without position independence: docs/adr/0007-small-processes.md.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let is_linux_gnu = std::env::var("TARGET").is_ok_and(|target| target.ends_with("linux-gnu"));
    if is_release && is_linux_gnu {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
