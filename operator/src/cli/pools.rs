//! What can be asked of `poolwright pools`, and with which bounds.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use poolwright_api::v1alpha1::AirflowSync;

/// What can be done with Airflow's pools.
#[derive(Clone, Debug, Subcommand)]
pub enum PoolsCommand {
    /// Print Pools for the pools of an Airflow, as YAML.
    Import(ImportArgs),
    /// Print the Pools that have spec.airflow as a file that `airflow pools import` takes.
    Export(ExportArgs),
}

/// Flags of `pools import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// What `airflow pools export FILE` wrote. - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// spec.airflow.secretRef.name of each Pool: the Secret that says where Airflow is and how to
    /// log in
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    pub secret: String,

    /// spec.airflow.sync of each Pool: Apply keeps Airflow's pool as the Pool says, Mirror lets the Pool follow
    #[arg(long, value_name = "DIRECTION", default_value = "Apply", value_parser = PossibleValuesParser::new(["Apply", "Mirror"]).map(|text| direction(&text)))]
    pub sync: AirflowSync,

    /// metadata.namespace of each Pool. Default: none is written, and the Pools go where they are applied
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,

    /// Name of the Pool for one of Airflow's pools, such as `reports_db=reports`; may be repeated. Default: Airflow's name in
    /// lower case, with - for whatever a name in Kubernetes cannot have
    #[arg(long = "name", value_name = "POOL=NAME", value_parser = renamed)]
    pub names: Vec<(String, String)>,
}

/// Flags of `pools export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Manifests with the Pools, as for lint: files, or folders; may be repeated. - is standard input
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true, num_args = 1..)]
    pub files: Vec<PathBuf>,
}

fn direction(text: &str) -> AirflowSync {
    if text == "Mirror" {
        AirflowSync::Mirror
    } else {
        AirflowSync::Apply
    }
}

/// Whether a label of DNS can be so called: what names in Kubernetes are made of.
fn is_label(text: &str) -> bool {
    let character = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(character) && !text.starts_with('-') && !text.ends_with('-')
}

fn object_name(text: &str) -> Result<String, &'static str> {
    if text.len() > 253 || !text.split('.').all(is_label) {
        return Err("is not a name in Kubernetes: lower-case letters, digits, - and .");
    }
    Ok(text.to_owned())
}

fn namespace(text: &str) -> Result<String, &'static str> {
    if text.len() > 63 || !is_label(text) {
        return Err("is not the name of a namespace: at most 63 lower-case letters, digits and -");
    }
    Ok(text.to_owned())
}

/// The last `=` divides: Airflow's names may have it, those of Kubernetes may not.
fn renamed(text: &str) -> Result<(String, String), &'static str> {
    let (pool, name) = text
        .rsplit_once('=')
        .ok_or("is not POOL=NAME, such as reports_db=reports")?;
    Ok((pool.to_owned(), object_name(name)?))
}
