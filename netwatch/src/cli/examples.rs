//! Examples of each command, for `--help` and the manual pages. A test parses them all.

pub(super) const LIST: &str = "Examples:
  netwatch list -natup
  netwatch list --port 22 --origin remote
  netwatch list --filter 'process:curl !port:53'";

pub(super) const WATCH: &str = "Examples:
  netwatch watch --process curl
  netwatch watch --origin remote --json
  netwatch watch --filter 'origin:local !port:53,443'";

pub(super) const TOP: &str = "Examples:
  netwatch top
  netwatch top --store ./netwatch.db";

pub(super) const RECORD: &str = "Examples:
  netwatch record
  netwatch record --store ./netwatch.db --retain 7d --detect default";

pub(super) const LOG: &str = "Examples:
  netwatch log --since 5m
  netwatch log --since yesterday --remote 192.0.2.0/24 --event open
  netwatch log --json --process sshd";

pub(super) const SERVE: &str = "Examples:
  netwatch serve
  netwatch serve --store ./netwatch.db";

pub(super) const VERIFY: &str = "Examples:
  netwatch verify
  netwatch verify --store ./netwatch.db";

pub(super) const TRACE: &str = "Examples:
  netwatch trace :8443
  netwatch trace pid:4711
  netwatch trace 192.0.2.7";

pub(super) const AUDIT: &str = "Examples:
  netwatch audit
  netwatch audit --json";

pub(super) const DOCTOR: &str = "Examples:
  netwatch doctor
  netwatch doctor --json";

pub(super) const RULES: &str = "Examples:
  netwatch rules check rules/
  netwatch rules check --against /var/lib/netwatch/netwatch.db rules/";

pub(super) const FLEET: &str = "Examples:
  netwatch fleet setup http://clickhouse:8123
  netwatch fleet hosts --server http://clickhouse:8123
  netwatch fleet log --server http://clickhouse:8123 --host 'web*' --since 1h
  netwatch fleet trace db1::5432 --server http://clickhouse:8123";

pub(super) const COMPLETIONS: &str = "Examples:
  netwatch completions bash > /etc/bash_completion.d/netwatch";

pub(super) const MAN: &str = "Examples:
  netwatch man > netwatch.1
  netwatch man record > netwatch-record.1";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::{Cli, parse};

    /// The words of a line, as a shell reads its quotes.
    fn words(line: &str) -> Vec<std::ffi::OsString> {
        let parts = line
            .split('\'')
            .enumerate()
            .map(|(n, part)| if n % 2 == 1 { vec![part] } else { part.split_whitespace().collect() });
        parts.flatten().take_while(|word| *word != ">").map(Into::into).collect()
    }

    #[test]
    fn every_command_has_examples_and_they_are_right() {
        let shown = Cli::command();
        for command in shown.get_subcommands().filter(|command| !command.is_hide_set()) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let start = format!("  netwatch {}", command.get_name());
            let lines: Vec<_> = text.lines().skip(1).collect();
            assert!(!lines.is_empty(), "{} has none", command.get_name());
            for line in lines {
                assert!(line.starts_with(&start), "{line}");
                // Tests may have no terminal.
                if let Err(error) = parse(words(line)) {
                    assert!(error.to_string().contains("top needs a terminal"), "{line}: {error}");
                }
            }
        }
    }
}
