//! Texts for packages that are generated from the command line: shell completions and manual pages.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::{Man, roff::Roff};

use super::Cli;

/// `netwatch completions`
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// Shell that they are for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// `netwatch man`
#[derive(Args)]
pub(super) struct ManArgs {
    /// Command that the page is about; without it, netwatch itself
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
    /// Print the names of all pages, each with its command
    #[arg(long, conflicts_with = "command")]
    list: bool,
}

/// The exit statuses of all commands.
const STATUSES: [(&str, &str); 4] = [
    ("0", "Done: also on SIGINT and SIGTERM, a closed pipe, and a search that found nothing."),
    ("1", "Failed at run time. One line on stderr says why."),
    ("2", "Wrong usage."),
    ("3", "Done, and audit or verify found something."),
];

impl CompletionsArgs {
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "netwatch", &mut text);
        text
    }
}

impl ManArgs {
    /// The page as roff(7).
    ///
    /// # Errors
    /// If there is no such command.
    pub(super) fn text(&self) -> Result<Vec<u8>> {
        let mut all = Cli::command();
        all.build();
        if self.list {
            let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
            let line = |name: &str| format!("netwatch-{name}.1 {name}\n");
            let lines = shown.map(|command| line(command.get_name()));
            return Ok(std::iter::once("netwatch.1\n".to_owned())
                .chain(lines)
                .collect::<String>()
                .into_bytes());
        }
        let command = match &self.command {
            None => all,
            Some(name) => {
                let found = all
                    .get_subcommands()
                    .find(|command| command.get_name() == name && !command.is_hide_set());
                let names = || {
                    let shown = all.get_subcommands().filter(|command| !command.is_hide_set());
                    shown.map(Command::get_name).collect::<Vec<_>>().join(", ")
                };
                let found =
                    found.cloned().with_context(|| format!("no command `{name}`: one of {}", names()))?;
                // Owned, since clap keeps names for the lifetime of the program.
                let title: &'static str = format!("netwatch-{name}").leak();
                found.name(title)
            }
        };
        Ok(page(&command)?)
    }
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = command.get_after_help() {
        let mut section = Roff::default();
        section.control("SH", ["EXAMPLES"]);
        section.control("nf", []);
        for line in examples.to_string().lines().skip(1) {
            section.text([line.trim_start().into()]);
        }
        section.control("fi", []);
        section.to_writer(&mut text)?;
    }
    let mut statuses = Roff::default();
    statuses.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in STATUSES {
        statuses.control("TP", []);
        statuses.text([clap_mangen::roff::bold(status)]);
        statuses.text([meaning.into()]);
    }
    statuses.to_writer(&mut text)?;
    text.flush()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_hidden_ones_have_none() {
        let all = Cli::command();
        for command in all.get_subcommands() {
            let args = ManArgs { command: Some(command.get_name().to_owned()), list: false };
            assert_eq!(args.text().is_err(), command.is_hide_set(), "{}", command.get_name());
        }
        let page = String::from_utf8(ManArgs { command: None, list: false }.text().unwrap()).unwrap();
        let pages = String::from_utf8(ManArgs { command: None, list: true }.text().unwrap()).unwrap();
        assert!(
            pages.starts_with("netwatch.1\nnetwatch-list.1 list\n") && !pages.contains("generate"),
            "{pages}"
        );
        for part in [".TH netwatch 1", ".SH NAME", "EXIT STATUS", "verify found something"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let unknown =
            ManArgs { command: Some("top-secret".into()), list: false }.text().unwrap_err().to_string();
        assert!(unknown.contains("one of list, watch"), "{unknown}");
    }
}
