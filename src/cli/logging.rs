//! The log: a file under the state folder, 0600, rolled at 10 MB; never the screen.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::nodes::folders;
use crate::engine::error::Code;

/// A log file is rolled when it would pass this size.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// The file that is written.
const LOG_FILE: &str = "collab-p2p.log";
/// The one before it.
const LOG_FILE_BEFORE: &str = "collab-p2p.log.1";

/// Starts the log. A log that cannot be written is no reason not to start.
pub(crate) fn start(context: &Context) {
    let Ok(folder) = folder(context) else { return };
    let Ok(rolled) = Rolled::open(&folder) else {
        return;
    };
    let filter = context
        .env
        .log
        .clone()
        .unwrap_or_else(|| level(context).to_owned());
    let Ok(filter) = EnvFilter::try_new(filter) else {
        return;
    };
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Mutex::new(rolled))
        .try_init();
    if let Err(error) = started {
        context.output.say(&format!("no log is written: {error}"));
    }
}

/// A failure that no other code describes, with the place of the log.
pub(crate) fn pointed_at(context: &Context, error: CliError) -> CliError {
    if error.code != Code::Failure || error.help.is_some() {
        return error;
    }
    let configured = Some(&context.config.file.log.dir).filter(|dir| !dir.is_empty());
    let folder = match (configured, folders(context)) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Ok(folders)) => folders.state().join("log"),
        (None, Err(_)) => return error,
    };
    let log = folder.join(LOG_FILE);
    error.with_help(format!(
        "run the command again with -v and read {}",
        log.display()
    ))
}

fn folder(context: &Context) -> Result<PathBuf, CliError> {
    if !context.config.file.log.dir.is_empty() {
        return Ok(PathBuf::from(&context.config.file.log.dir));
    }
    let folders = folders(context)?;
    folders
        .log()
        .map_err(|error| CliError::new(error.code(), error.to_string()))
}

/// Our own parts at the level asked for, libraries at warnings.
fn level(context: &Context) -> &'static str {
    match (
        context.global.verbose,
        context.config.file.log.level.as_str(),
    ) {
        (2.., _) | (_, "trace") => "warn,collab_p2p=trace",
        (1, _) | (_, "debug") => "warn,collab_p2p=debug",
        (_, "warn") => "warn",
        (_, "error") => "error",
        _ => "warn,collab_p2p=info",
    }
}

/// A file that moves aside when it is full.
#[derive(Debug)]
struct Rolled {
    folder: PathBuf,
    file: File,
    bytes: u64,
}

impl Rolled {
    fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(LOG_FILE);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            folder: folder.to_owned(),
            file,
            bytes,
        })
    }
}

impl Write for Rolled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.bytes.saturating_add(length) > LOG_BYTES_MAX {
            let (now, before) = (
                self.folder.join(LOG_FILE),
                self.folder.join(LOG_FILE_BEFORE),
            );
            std::fs::rename(now, before)?;
            *self = Self::open(&self.folder)?;
        }
        let written = self.file.write(bytes)?;
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(written).unwrap_or(0));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
