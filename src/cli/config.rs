//! Settings: flag, environment, user file, default, in this order. The only place that reads the environment.
#![expect(clippy::disallowed_methods, reason = "settings come through here")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::Global;
use crate::cli::error::CliError;
use crate::cli::values;
use crate::engine::error::Code;
use crate::node::folder::EnvPaths;

/// What of the environment is used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) config_home: Option<PathBuf>,
    pub(crate) state_home: Option<PathBuf>,
    pub(crate) runtime_dir: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) shell: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) ticket: Option<String>,
    pub(crate) log: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) term: Option<String>,
    pub(crate) colorterm: Option<String>,
    pub(crate) no_color: bool,
    pub(crate) inside: bool,
    /// The session whose shell this runs in.
    pub(crate) session: Option<String>,
    /// Typed text at which the full screen panics, to see in the lab that the terminal is put back.
    #[cfg(feature = "lab")]
    pub(crate) panic_on: Option<String>,
}

impl Environment {
    /// Reads the variables.
    pub(crate) fn read() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        Self {
            config_home: path("XDG_CONFIG_HOME"),
            state_home: path("XDG_STATE_HOME"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            home: path("HOME"),
            shell: text("SHELL"),
            user: text("USER").or_else(|| text("LOGNAME")),
            name: text("COLLAB_P2P_NAME"),
            // What is no text is no ticket either, but something was given.
            ticket: std::env::var_os("COLLAB_P2P_TICKET")
                .filter(|value| !value.is_empty())
                .map(|value| value.to_string_lossy().into_owned()),
            log: text("COLLAB_P2P_LOG"),
            path: text("PATH"),
            term: text("TERM"),
            colorterm: text("COLORTERM"),
            no_color: text("NO_COLOR").is_some() || text("CLICOLOR").as_deref() == Some("0"),
            inside: text("COLLAB_P2P").as_deref() == Some("1"),
            session: text("COLLAB_P2P_SESSION"),
            #[cfg(feature = "lab")]
            panic_on: text("COLLAB_P2P_LAB_PANIC"),
        }
    }

    /// Where folders go.
    pub(crate) fn paths(&self) -> EnvPaths {
        EnvPaths {
            state_home: self.state_home.clone(),
            runtime_dir: self.runtime_dir.clone(),
            home: self.home.clone(),
            temp: std::env::temp_dir(),
        }
    }
}

/// The configuration file, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct File {
    pub(crate) identity: Identity,
    pub(crate) share: Share,
    pub(crate) terminal: Terminal,
    pub(crate) network: Network,
    pub(crate) log: Log,
}

/// Who one is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Identity {
    pub(crate) name: String,
}

/// How one shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Share {
    pub(crate) role: String,
    pub(crate) ask: String,
    pub(crate) control: String,
    pub(crate) expires: String,
}

/// The terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Terminal {
    pub(crate) shell: String,
    pub(crate) prefix: String,
}

/// The network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    pub(crate) listen: Vec<String>,
    pub(crate) mdns: bool,
    pub(crate) lan_only: bool,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) dir: String,
}

impl Default for Share {
    fn default() -> Self {
        let text = str::to_owned;
        Self {
            role: text("viewer"),
            ask: text("auto"),
            control: text("ask"),
            expires: text("24h"),
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            shell: String::new(),
            prefix: "C-]".to_owned(),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            mdns: true,
            lan_only: false,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            dir: String::new(),
        }
    }
}

/// Settings and where they came from.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) file: File,
    /// Where the file is, or would be.
    pub(crate) path: Option<PathBuf>,
    /// Keys that the file sets, as `table.key`.
    pub(crate) set: Vec<String>,
    /// What is odd in the file, for stderr.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// Reads the file that flag, environment or custom name; none is fine unless it was named.
    ///
    /// # Errors
    /// The named file cannot be read, or a value cannot be used.
    pub(crate) fn load(global: &Global, env: &Environment) -> Result<Self, CliError> {
        let named = global.config.clone();
        let path = named.clone().or_else(|| default_path(env));
        let text = match &path {
            Some(path) => read(path, named.is_some())?,
            None => None,
        };
        let Some(text) = text else {
            return Ok(Self {
                file: File::default(),
                path,
                set: Vec::new(),
                warnings: Vec::new(),
            });
        };
        let broken = |error: &dyn std::fmt::Display| {
            let place = path
                .as_deref()
                .unwrap_or_else(|| Path::new(""))
                .display()
                .to_string();
            CliError::new(Code::ConfigBroken, format!("{place}: {error}"))
        };
        let at_line = |error: &toml::de::Error| broken(&on_one_line(&text, error));
        let table: toml::Table = text.parse().map_err(|error| at_line(&error))?;
        let file: File = toml::from_str(&text).map_err(|error| at_line(&error))?;
        check(&file).map_err(|(key, error)| match line_of(&text, key) {
            Some(line) => broken(&format!("line {line}: {error}")),
            None => broken(&error),
        })?;
        let (set, warnings) = survey(&table);
        Ok(Self {
            file,
            path,
            set,
            warnings,
        })
    }

    /// Every setting with its value and origin: `file` or `default`.
    pub(crate) fn listed(&self) -> BTreeMap<String, (toml::Value, &'static str)> {
        let mut listed = BTreeMap::new();
        let table = toml::Table::try_from(&self.file).unwrap_or_default();
        for (section, values) in table {
            let Some(values) = values.as_table() else {
                continue;
            };
            for (key, value) in values {
                let name = format!("{section}.{key}");
                let origin = if self.set.contains(&name) {
                    "file"
                } else {
                    "default"
                };
                listed.insert(name, (value.clone(), origin));
            }
        }
        listed
    }
}

fn default_path(env: &Environment) -> Option<PathBuf> {
    let absolute = env.config_home.clone().filter(|path| path.is_absolute());
    let base = absolute.or_else(|| env.home.as_ref().map(|home| home.join(".config")))?;
    Some(base.join("collab-p2p/config.toml"))
}

fn read(path: &Path, named: bool) -> Result<Option<String>, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(None),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            Err(CliError::new(Code::ConfigBroken, message))
        }
    }
}

/// Where in the file and what, without the picture of the line that the library would draw.
fn on_one_line(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count().saturating_add(1));
    let what = error.message().lines().collect::<Vec<_>>().join(", ");
    match line {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

/// The line that sets a key, as far as it is written in the usual form under its table's head.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.split_once('.')?;
    let mut here = "";
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if let Some(head) = line.strip_prefix('[') {
            here = head.split(']').next().unwrap_or_default().trim();
        } else if here == section && line.split('=').next().map(str::trim) == Some(name) {
            return Some(number);
        }
    }
    None
}

/// Checks the values that have a form of their own; the key and what is wrong with its value.
fn check(file: &File) -> Result<(), (&'static str, String)> {
    one_of("share.role", &file.share.role, &["viewer", "editor"])?;
    one_of("share.ask", &file.share.ask, &["auto", "always", "never"])?;
    one_of("share.control", &file.share.control, &["ask", "auto"])?;
    values::expiry(&file.share.expires).map_err(|error| wrong("share.expires", &error))?;
    let prefix = file.terminal.prefix.parse::<crate::ui::Prefix>();
    prefix.map_err(|error| wrong("terminal.prefix", &error))?;
    for addr in &file.network.listen {
        addr.parse::<crate::engine::address::Addr>()
            .map_err(|error| wrong("network.listen", &error))?;
    }
    one_of(
        "log.level",
        &file.log.level,
        &["error", "warn", "info", "debug", "trace"],
    )
}

fn wrong(key: &'static str, error: &dyn std::fmt::Display) -> (&'static str, String) {
    (key, format!("{key}: {error}"))
}

fn one_of(key: &'static str, value: &str, known: &[&str]) -> Result<(), (&'static str, String)> {
    if known.contains(&value) {
        return Ok(());
    }
    let known = known.join(", ");
    Err((key, format!("{key} is `{value}`, expected one of {known}")))
}

/// The keys that are set, and a warning with a suggestion for each unknown one.
fn survey(table: &toml::Table) -> (Vec<String>, Vec<String>) {
    let known: Vec<String> = toml::Table::try_from(File::default())
        .unwrap_or_default()
        .iter()
        .flat_map(|(section, values)| {
            let keys = values.as_table().into_iter().flat_map(toml::Table::keys);
            keys.map(move |key| format!("{section}.{key}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let (mut set, mut warnings) = (Vec::new(), Vec::new());
    for (section, values) in table {
        let keys: Vec<String> = match values.as_table() {
            Some(values) => values
                .keys()
                .map(|key| format!("{section}.{key}"))
                .collect(),
            None => vec![section.clone()],
        };
        for key in keys {
            if known.contains(&key) {
                set.push(key);
            } else {
                warnings.push(unknown(&key, &known));
            }
        }
    }
    (set, warnings)
}

fn unknown(key: &str, known: &[String]) -> String {
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(key, known), known))
        .min();
    match near {
        Some((distance, near)) if distance <= 3 => {
            format!("unknown setting `{key}`; did you mean `{near}`?")
        }
        Some(_) | None => format!("unknown setting `{key}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_setting_is_named_with_the_nearest_known_one() {
        let table: toml::Table = "[network]\nmdsn = false\n[share]\nrole = \"viewer\""
            .parse()
            .unwrap();

        let (set, warnings) = survey(&table);

        assert_eq!(set, ["share.role"]);
        assert_eq!(
            warnings,
            ["unknown setting `network.mdsn`; did you mean `network.mdns`?"]
        );
    }

    #[test]
    fn the_line_of_a_setting_is_found_under_its_own_table() {
        let text = "# role = 1\n[terminal]\nrole = 2\n [share] # mine\n\n role= \"king\"";

        assert_eq!(line_of(text, "share.role"), Some(6));
        assert_eq!(line_of(text, "terminal.role"), Some(3));
        assert_eq!(line_of(text, "share.ask"), None);
    }

    #[test]
    fn values_that_cannot_be_used_are_refused() {
        for text in [
            "[share]\nrole = \"king\"",
            "[share]\nexpires = \"soon\"",
            "[terminal]\nprefix = \"C-c\"",
            "[terminal]\nprefix = \"C-h\"",
            "[network]\nlisten = [\"here\"]",
        ] {
            let file: File = toml::from_str(text).unwrap();
            assert!(check(&file).is_err(), "{text}");
        }
        assert_eq!(check(&File::default()), Ok(()));
    }
}
