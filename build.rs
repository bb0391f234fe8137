//! How the release binary is linked, so that little of it is ever read into memory.
//!
//! Never needed for it to work: where a linker does not know how, it is left out.

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=tools/hot/sections.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let linker = env::var("RUSTC_LINKER").unwrap_or_default();
    let names = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default() + &linker;
    let knows = !names.contains("mold") && !names.contains("zig");
    if !knows || !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // Called by rustc itself, or by a compiler that passes on what begins so.
    let prefix = if linker.ends_with("rust-lld") { "" } else { "-Wl," };
    // What runs first and most lies side by side: the kernel reads 64 KiB around each page that is
    // touched, and scattered functions would bring in most of the binary.
    // Relative to where cargo has it linked, so that a folder which was moved builds on.
    println!("cargo::rustc-link-arg-bin=ebbtide={prefix}--script=tools/hot/sections.ld");
    // Half a megabyte of relocations in a few kilobytes.
    if is("CARGO_CFG_TARGET_ENV", "musl") || has_relr() {
        println!("cargo::rustc-link-arg-bin=ebbtide={prefix}-zpack-relative-relocs");
    }
}

/// Whether the C library of this machine, for which the binary is then, reads packed relocations:
/// glibc does since 2.36.
fn has_relr() -> bool {
    let is_here = env::var("HOST").ok() == env::var("TARGET").ok();
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let told = told.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = told.ok().and_then(|text| {
        let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.split('.').next()?.parse::<u32>().ok()?))
    });
    is_here && version >= Some((2, 36))
}
