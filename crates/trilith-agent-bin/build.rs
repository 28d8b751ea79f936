//! Compiles the agent into `OUT_DIR`, statically.
//!
//! Cargo cannot link one program of a workspace otherwise than the rest, so another cargo is
//! run. Its target directory is its own: the outer one holds the lock of the other. It shares the
//! job server, the lock file and whatever packages there are, so it needs no network where the outer one needs none.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the outer cargo sets for itself and must not reach the inner one.
const NOT_INHERITED: [&str; 8] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_TARGET_DIR",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
];

fn main() -> Result<(), Box<dyn Error>> {
    let own = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = own
        .ancestors()
        .nth(2)
        .ok_or("the workspace is not where it was")?;
    let (out, target) = (PathBuf::from(variable("OUT_DIR")?), variable("TARGET")?);
    for path in [
        "Cargo.lock",
        "Cargo.toml",
        "crates/trilith-agent/Cargo.toml",
        "crates/trilith-agent/src",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    let target_dir = out.join("target");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            "trilith-agent",
            "--profile",
            "agent",
        ])
        // With a target it is the agent alone that is linked so, and no macro.
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .arg("--manifest-path")
        .arg(root.join("Cargo.toml"));
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(root).join("\u{1f}"));
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the agent cannot be compiled: {status}").into());
    }
    let program = target_dir.join(target).join("agent/trilith-agent");
    std::fs::copy(&program, out.join("trilith-agent"))
        .map_err(|error| format!("cannot copy `{}`: {error}", program.display()))?;
    Ok(())
}

/// Returns how the agent is compiled: statically, and without the names of this machine's directories.
fn flags(root: &Path) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.push(format!("--remap-path-prefix={}=/trilith", root.display()));
    let home = std::env::var("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo_home = std::env::var("CARGO_HOME").map(PathBuf::from).or(home);
    if let Ok(home) = cargo_home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    flags
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("`{name}`: {error}"))
}
