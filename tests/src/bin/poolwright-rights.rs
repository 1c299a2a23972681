//! Says which rights of the installed operator no test has used, by what the planes of a whole run have noted.

use clap::Parser;
use poolwright_tests::{Result, rights};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compares the rights in deploy/install with those that were used.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The file to which the planes have written, which `POOLWRIGHT_RIGHTS` named.
    file: PathBuf,
}

fn main() -> Result<ExitCode> {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install");
    let manifests = ["access.yaml", "secrets-access.yaml"].map(|file| install.join(file));
    let manifests = manifests.each_ref().map(PathBuf::as_path);
    let audit = rights::audit(&manifests, &Arguments::parse().file)?;
    for right in &audit.unused {
        println!("granted and never used: {right}");
    }
    for right in &audit.missing {
        println!("asked for and not granted: {right}");
    }
    println!(
        "rights: granted={} unused={} missing={} wildcards={}",
        audit.granted.len(),
        audit.unused.len(),
        audit.missing.len(),
        audit.wildcards
    );
    let is_well = audit.unused.is_empty() && audit.missing.is_empty() && audit.wildcards == 0;
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
