//! `poolwright pools`: Pools from the pools of an Airflow, and back.
//!
//! Reads files and prints; asks neither Airflow nor a cluster. Prints everything or nothing: half a set of pools would be
//! applied as if it were all of them.

mod export;
pub mod file;
mod import;

use std::io::{self, Write};

use crate::cli::{PoolsArgs, PoolsCommand};
use file::FileError;

/// Why nothing is printed.
#[derive(Debug, thiserror::Error)]
pub enum PoolsError {
    /// A file cannot be read.
    #[error("{0}: {1}")]
    Read(String, #[source] io::Error),
    /// The manifests cannot be read; in the words of `lint`, with their places.
    #[error("{0}")]
    Manifests(#[source] io::Error),
    /// Airflow's file is of another form.
    #[error("{0}: {1}")]
    File(String, #[source] FileError),
    /// A manifest would be refused; what `lint` says.
    #[error("{0}")]
    Refused(String),
    /// Nothing of the name becomes a name in Kubernetes.
    #[error(
        "{0}: no Pool can be named after pool {1:?}: say how it should be called, with --name '{1}=NAME'"
    )]
    NoName(String, String),
    /// Two pools would become one Pool.
    #[error(
        "{file}: pools {first:?} and {second:?} would both become Pool {name:?}: say how one of them should be called, \
         with --name '{second}=NAME'"
    )]
    SameName {
        /// The file.
        file: String,
        /// The pool that has the name.
        first: String,
        /// The other.
        second: String,
        /// The name of both.
        name: String,
    },
    /// `--name` is about a pool that is not there, or twice about one.
    #[error("{0}: --name {1:?} {2}")]
    Renamed(String, String, &'static str),
    /// A Pool takes no such description.
    #[error(
        "{file}: pool {pool:?}: description has {characters} characters, a Pool takes 1024: shorten it in Airflow"
    )]
    Description {
        /// The file.
        file: String,
        /// The pool.
        pool: String,
        /// How long it is.
        characters: usize,
    },
    /// Two Pools stand for one of Airflow's.
    #[error(
        "Pool {second:?} ({at}) is pool {pool:?} of Airflow, as Pool {first:?} ({before}) is: export the manifests of one \
         Airflow at a time, or remove one of them"
    )]
    Twice {
        /// Airflow's pool.
        pool: String,
        /// The Pool that was read first.
        first: String,
        /// Where it is.
        before: String,
        /// The other.
        second: String,
        /// Where that is.
        at: String,
    },
    /// It cannot be put into words.
    #[error("cannot write the manifests: {0}")]
    Yaml(String),
    /// Nobody takes the answer.
    #[error("cannot write the answer: {0}")]
    Write(#[from] io::Error),
}

/// Prints what is asked for.
///
/// # Errors
///
/// [`PoolsError`]; then nothing was printed, unless the output itself failed.
pub fn run(args: &PoolsArgs, output: &mut impl Write) -> Result<(), PoolsError> {
    let text = match &args.what {
        PoolsCommand::Import(args) => import::run(args)?,
        PoolsCommand::Export(args) => export::run(args)?,
    };
    output.write_all(text.as_bytes())?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests;
