//! The reference page of the command line, made from what clap parses by.
//!
//! Flags, values, defaults and variables are clap's own; the text around them says what clap does not know.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use super::{Cli, PLUGIN};

const HEAD: &str = "\
# Command line

<!-- Generated from the definitions in operator/src/cli.rs. Do not edit. -->

One program is the operator and the tool beside it; `poolwright COMMAND --help` prints what stands here. Under the name \
";

const BEHIND_PLUGIN: &str = " on the path it is `kubectl poolwright`. In a cluster the flags of `run` stand in `args` of \
[deploy/install/operator.yaml](../../deploy/install/operator.yaml), behind `run`.

Every command ends with 0 if all went well, with 1 if not, and with 2 if its arguments cannot be used. `lint` ends with \
1 if it found an error; warnings and notes leave it at 0, unless `--strict` is given.
";

const TAIL: &str = "
## Environment

| variable | read by | meaning |
|---|---|---|
| `KUBECONFIG` | `run`, `explain` | The cluster, as for kubectl. Default: `~/.kube/config` if there is one, else the account of the pod. |
| `RUST_LOG` | `run` | The same as `--log-level`, which wins. |
| `KUBERNETES_SERVICE_HOST` | `run` | Kubernetes sets it in every pod: with it the defaults are those of a pod, and [some addresses of brokers are refused](brokers.md#addresses-that-are-refused). |
| `POD_NAME` | `run` | Name under which events are reported, and with which the name in the Lease begins. Default: none, and for the Lease the host's name. |
";

/// The page of all commands.
fn reference() -> String {
    let mut page = format!("{HEAD}`{PLUGIN}`{BEHIND_PLUGIN}");
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands_mut().filter(|one| one.get_name() != "help") {
        let own = |one: &&mut Command| one.get_name() != "help";
        let name = command.get_name().to_owned();
        if command.has_subcommands() {
            for below in command.get_subcommands_mut().filter(own) {
                section(&mut page, &format!("{name} {}", below.get_name()), below);
            }
        } else {
            section(&mut page, &name, command);
        }
    }
    page.push_str(TAIL);
    page
}

fn section(page: &mut String, name: &str, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(page, "\n## {name}\n\n{about}.\n\n```text\n{usage}\n```\n");
    page.push_str("| argument | meaning |\n|---|---|\n");
    let own = |argument: &&Arg| !matches!(argument.get_id().as_str(), "help" | "version");
    for argument in command.get_arguments().filter(own) {
        row(page, argument);
    }
}

fn row(page: &mut String, argument: &Arg) {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut meaning = format!("{}.", help.map(ToString::to_string).unwrap_or_default());
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        let _ = write!(meaning, " One of {}.", values.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(meaning, " Variable: `{}`.", variable.to_string_lossy());
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .filter(|_| argument.get_action().takes_values())
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if !defaults.is_empty() {
        let _ = write!(meaning, " Default: {}.", defaults.join(", "));
    }
    let _ = writeln!(page, "| {} | {meaning} |", form(argument));
}

/// How an argument is written: `-n`, `--namespace NAMESPACE`.
fn form(argument: &Arg) -> String {
    let value = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values());
    let value = value.unwrap_or_default().join(" ");
    let short = argument.get_short().map(|short| format!("`-{short}`"));
    let long = argument
        .get_long()
        .map(|long| format!("`{}`", format!("--{long} {value}").trim_end()));
    match (short, long) {
        (None, None) => format!("`{value}`"),
        (short, long) => short.into_iter().chain(long).collect::<Vec<_>>().join(", "),
    }
}

#[test]
fn the_reference_page_is_what_is_parsed() {
    crate::pages::expect("command-line.md", &reference(), "cli");
}
