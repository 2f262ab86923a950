//! `config`, `completions` and `man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Subcommand};
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::{Cli, Context};
use crate::engine::error::Code;

/// Show and check the configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// List all settings
    List {
        /// Also say where each comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check the configuration file
    Check,
    /// Print where the configuration file is, or would be
    Path,
}

/// Print completions for a shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Write manual pages into a folder.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder, made if it is missing
    dir: PathBuf,
}

/// Runs one of the verbs.
pub(crate) fn config(context: &Context, args: &ConfigArgs) -> Result<i32, CliError> {
    match args.verb {
        ConfigVerb::List { origin } => list(context, origin),
        ConfigVerb::Check => {
            context
                .config
                .warnings
                .iter()
                .for_each(|warning| context.output.say(warning));
            if context.config.warnings.is_empty() {
                context.output.say("the configuration is fine");
            }
        }
        ConfigVerb::Path => {
            let path = context.config.path.as_ref().ok_or_else(|| {
                CliError::new(
                    Code::ConfigBroken,
                    "neither XDG_CONFIG_HOME nor HOME is set",
                )
            })?;
            context.output.line(&path.display().to_string());
        }
    }
    Ok(0)
}

fn list(context: &Context, origin: bool) {
    let listed = context.config.listed();
    if context.output.json {
        let all: serde_json::Map<String, serde_json::Value> = listed
            .into_iter()
            .map(|(key, (value, from))| (key, json!({"value": value, "origin": from})))
            .collect();
        context.output.value(&serde_json::Value::Object(all));
        return;
    }
    for (key, (value, from)) in listed {
        let from = if origin {
            format!("  # {from}")
        } else {
            String::new()
        };
        context.output.line(&format!("{key} = {value}{from}"));
    }
}

/// Prints completions.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<i32, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "collab-p2p", &mut script);
    use std::io::Write;
    let printed = std::io::stdout().write_all(&script);
    printed.map_err(|error| CliError::new(Code::Failure, error.to_string()))?;
    Ok(0)
}

/// Writes the manual pages.
pub(crate) fn man(args: &ManArgs) -> Result<i32, CliError> {
    let failed = |error: std::io::Error| {
        let message = format!("{} cannot be written: {error}", args.dir.display());
        CliError::new(Code::Failure, message)
    };
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(failed)?;
    Ok(0)
}
