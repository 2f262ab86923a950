//! The flags `--ask` and `--accept`.

use clap::Args;

use crate::engine::command::Ask;

/// Whether newcomers are asked about.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct AskArgs {
    /// Ask a person about every newcomer
    #[arg(long, conflicts_with = "accept")]
    ask: bool,
    /// Let every bearer of the ticket in
    #[arg(long)]
    accept: bool,
}

impl AskArgs {
    /// What the flags say, if they say anything.
    pub fn given(self) -> Option<Ask> {
        match (self.ask, self.accept) {
            (true, _) => Some(Ask::Always),
            (false, true) => Some(Ask::Never),
            (false, false) => None,
        }
    }

    /// The word in the API.
    pub fn word(self) -> &'static str {
        match self.given().unwrap_or_default() {
            Ask::Auto => "auto",
            Ask::Always => "always",
            Ask::Never => "never",
        }
    }
}
