//! What only a whole run can tell, by what its planes and operators have noted: which rights of the installed operator no
//! test has used, whether a canary was ever said, and whether somebody got more than he may.

use clap::Parser;
use poolwright_tests::{Result, attempts, leaks, rights};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Judges the notes of a whole run.
#[derive(Parser, Debug)]
#[command(version)]
struct Arguments {
    /// The file that `POOLWRIGHT_RIGHTS` named.
    rights: PathBuf,
    /// The file that `POOLWRIGHT_LEAKS` named.
    leaks: PathBuf,
    /// The file that `POOLWRIGHT_ATTEMPTS` named.
    attempts: PathBuf,
}

/// A whole run makes more; one that makes fewer has lost the record of some.
const ATTEMPTS_LEAST: usize = 60;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let is_well = rights_are_used(&arguments.rights)?
        & nothing_leaked(&arguments.leaks)?
        & every_attempt_failed(&arguments.attempts)?;
    Ok(if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn rights_are_used(file: &Path) -> Result<bool> {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/install");
    let manifests = ["access.yaml", "secrets-access.yaml"].map(|file| install.join(file));
    let audit = rights::audit(&manifests.each_ref().map(PathBuf::as_path), file)?;
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
    Ok(audit.unused.is_empty() && audit.missing.is_empty() && audit.wildcards == 0)
}

fn nothing_leaked(file: &Path) -> Result<bool> {
    let (leaked, texts, lines) = leaks::found(file)?;
    for one in &leaked {
        println!("leaked: {one}");
    }
    println!("canaries: texts={texts} lines={lines} leaked={}", leaked.len());
    Ok(leaked.is_empty() && lines > 0)
}

fn every_attempt_failed(file: &Path) -> Result<bool> {
    let attempts::Count { tried, worked } = attempts::count(file)?;
    for one in &worked {
        println!("tried and not blocked: {one}");
    }
    println!("attempts: tried={} worked={}", tried.len(), worked.len());
    if tried.len() < ATTEMPTS_LEAST {
        println!("a whole run tries {ATTEMPTS_LEAST} at least");
    }
    Ok(worked.is_empty() && tried.len() >= ATTEMPTS_LEAST)
}
