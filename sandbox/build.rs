//! Compiles `gate/main.rs` into the static program that `sandbox::gate` carries.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "gate/main.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let gate = PathBuf::from(env::var("OUT_DIR")?).join("gate");
    let mut rustc = Command::new(env::var("RUSTC")?);
    rustc.args([SOURCE, "--crate-name", "gate", "--crate-type", "bin", "--edition", "2024"]);
    rustc.args(["--target", &env::var("TARGET")?, "-o"]).arg(&gate);
    for option in
        ["panic=abort", "opt-level=s", "strip=symbols", "relocation-model=static", "codegen-units=1"]
    {
        rustc.args(["-C", option]);
    }
    // No start files, no C library, no loader, and no build id, so that the same source gives the same bytes.
    for option in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        rustc.args(["-C", &format!("link-arg={option}")]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let ended = rustc.status()?;
    if !ended.success() {
        return Err(format!("compiling {SOURCE}: {ended}").into());
    }
    Ok(())
}
