//! Finds shells that take their commands from a process with a network connection and give their output back to it,
//! over pipes, a terminal or UNIX sockets. Pure: from the descriptors of processes.

use std::collections::VecDeque;

use crate::hash::{Map, Set};
use crate::limits;
use crate::model::StreamKind;

/// A descriptor that leads to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Thread group id.
    pub pid: u32,
    /// Number of the descriptor.
    pub fd: u32,
    /// What it is.
    pub to: To,
    /// It is open for reading.
    pub reads: bool,
    /// It is open for writing.
    pub writes: bool,
}

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// A pipe or FIFO: device and inode number.
    Pipe(u64, u64),
    /// A pseudoterminal: the device number of its devpts, and its number there.
    Terminal(u64, u32),
    /// The master side of a pseudoterminal, likewise; in which devpts may be unknown.
    Master(Option<u64>, u32),
    /// A UNIX socket: its inode number, and that of its other end.
    Unix(u64, Option<u64>),
}

impl To {
    /// What the other end may be.
    fn others(self) -> impl Iterator<Item = Self> {
        let (one, another) = match self {
            Self::Pipe(..) => (Some(self), None),
            Self::Terminal(at, number) => {
                (Some(Self::Master(Some(at), number)), Some(Self::Master(None, number)))
            }
            Self::Unix(inode, Some(peer)) => (Some(Self::Unix(peer, Some(inode))), None),
            Self::Master(..) | Self::Unix(_, None) => (None, None),
        };
        one.into_iter().chain(another)
    }

    const fn kind(self) -> StreamKind {
        match self {
            Self::Pipe(..) => StreamKind::Pipe,
            Self::Terminal(..) | Self::Master(..) => StreamKind::Terminal,
            Self::Unix(..) => StreamKind::Unix,
        }
    }
}

/// A shell that another process steers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Pid of the shell.
    pub shell: u32,
    /// Pid of the process with a connection, from which its input comes and to which its output goes.
    pub holder: u32,
    /// Pids of the processes between them on the way of the input, from the shell to the holder.
    pub between: Vec<u32>,
    /// What its standard input is.
    pub kind: StreamKind,
}

/// Finds what steers each of `shells`. `ends`: of all processes; `holds`: whether a process has a network connection.
#[must_use]
pub fn find(shells: &[u32], ends: &[End], holds: impl Fn(u32) -> bool) -> Vec<Relayed> {
    let ways = Ways::of(ends);
    let relayed = |&shell: &u32| {
        let own = ways.by_pid.get(&shell)?;
        let standard = |fd: u32| own.iter().find(|end| end.fd == fd);
        let input = standard(0)?;
        let sources = ways.follow(**input, Direction::Input, &holds);
        let sinks: Vec<_> = [1, 2]
            .into_iter()
            .filter_map(standard)
            .flat_map(|output| ways.follow(**output, Direction::Output, &holds))
            .collect();
        let both = sources.into_iter().find(|(holder, _)| sinks.iter().any(|(sink, _)| sink == holder));
        let (holder, between) = both?;
        Some(Relayed { shell, holder, between, kind: input.to.kind() })
    };
    shells.iter().filter_map(relayed).collect()
}

/// The way that data goes, seen from the shell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Input,
    Output,
}

/// Descriptors by process, and by what they are.
struct Ways<'a> {
    by_pid: Map<u32, Vec<&'a End>>,
    by_end: Map<To, Vec<&'a End>>,
}

impl<'a> Ways<'a> {
    fn of(ends: &'a [End]) -> Self {
        let (mut by_pid, mut by_end): (Map<u32, Vec<_>>, Map<To, Vec<_>>) = (Map::default(), Map::default());
        for end in ends {
            by_pid.entry(end.pid).or_default().push(end);
            by_end.entry(end.to).or_default().push(end);
        }
        Self { by_pid, by_end }
    }

    /// The processes with a connection from which a stream comes, or to which it goes, the nearest first, each with
    /// those between. Only over pipes and UNIX sockets a way goes on: a process such as `cat` passes on what it reads,
    /// but who has the master side of a terminal is who steers it.
    fn follow(&self, from: End, direction: Direction, holds: &impl Fn(u32) -> bool) -> Vec<(u32, Vec<u32>)> {
        let mut found = Vec::new();
        let mut seen = Set::default();
        seen.insert(from.pid);
        let mut open = VecDeque::from([(from, Vec::new())]);
        while let Some((end, between)) = open.pop_front() {
            let others = end.to.others().filter_map(|other| self.by_end.get(&other));
            for other in others.flatten() {
                let fits = match direction {
                    Direction::Input => other.writes,
                    Direction::Output => other.reads,
                };
                if !fits || seen.len() > limits::MOST_RELAYS || !seen.insert(other.pid) {
                    continue;
                }
                if holds(other.pid) {
                    found.push((other.pid, between.clone()));
                    continue;
                }
                let on = self.by_pid.get(&other.pid).into_iter().flatten().filter(|on| {
                    let same_way = match direction {
                        Direction::Input => on.reads,
                        Direction::Output => on.writes,
                    };
                    same_way && matches!(on.to, To::Pipe(..) | To::Unix(..)) && on.to != other.to
                });
                if !matches!(other.to, To::Master(..)) {
                    let way = [&between[..], &[other.pid]].concat();
                    open.extend(on.map(|on| (**on, way.clone())));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(pid: u32, fd: u32, to: To, mode: &str) -> End {
        End { pid, fd, to, reads: mode.contains('r'), writes: mode.contains('w') }
    }

    const SHELL: u32 = 10;
    const NC: u32 = 11;
    const CAT: u32 = 12;

    fn steered(ends: &[End], holder: u32) -> Option<Vec<u32>> {
        let found = find(&[SHELL], ends, |pid| pid == holder);
        assert!(found.iter().all(|relayed| (relayed.shell, relayed.holder) == (SHELL, holder)));
        found.into_iter().next().map(|relayed| relayed.between)
    }

    #[test]
    fn terminal_and_pair_of_sockets_and_pipes() {
        let terminal = [
            end(SHELL, 0, To::Terminal(5, 3), "rw"),
            end(SHELL, 1, To::Terminal(5, 3), "rw"),
            end(NC, 5, To::Master(Some(5), 3), "rw"),
        ];
        assert_eq!(steered(&terminal, NC), Some(vec![]));
        assert_eq!(steered(&terminal, CAT), None, "the other process has the connection");
        let [input, output, master] = terminal;
        let elsewhere = [input, output, End { to: To::Master(Some(6), 3), ..master }];
        assert_eq!(steered(&elsewhere, NC), None, "the same number in another container");
        let unknown = [input, output, End { to: To::Master(None, 3), ..master }];
        assert_eq!(steered(&unknown, NC), Some(vec![]));
        let pair = [
            end(SHELL, 0, To::Unix(7, Some(8)), "rw"),
            end(SHELL, 1, To::Unix(7, Some(8)), "rw"),
            end(NC, 5, To::Unix(8, Some(7)), "rw"),
        ];
        assert_eq!(steered(&pair, NC), Some(vec![]));
        let pipes = [
            end(SHELL, 0, To::Pipe(1, 7), "r"),
            end(SHELL, 1, To::Pipe(1, 8), "w"),
            end(NC, 5, To::Pipe(1, 7), "w"),
            end(NC, 6, To::Pipe(1, 8), "r"),
        ];
        assert_eq!(steered(&pipes, NC), Some(vec![]));
        assert_eq!(steered(&pipes[..3], NC), None, "its output goes nowhere");
        let wrong_way = [pipes[0], pipes[1], end(NC, 5, To::Pipe(1, 7), "r"), pipes[3]];
        assert_eq!(steered(&wrong_way, NC), None, "both read");
    }

    #[test]
    fn fifo_through_cat() {
        let fifo = [
            end(SHELL, 0, To::Pipe(1, 7), "r"),
            end(CAT, 1, To::Pipe(1, 7), "w"),
            end(CAT, 3, To::Pipe(2, 99), "r"),
            end(NC, 1, To::Pipe(2, 99), "w"),
            end(SHELL, 1, To::Pipe(1, 8), "w"),
            end(NC, 0, To::Pipe(1, 8), "r"),
        ];
        assert_eq!(steered(&fifo, NC), Some(vec![CAT]));
        // A script whose output somebody sends away is not steered by that.
        assert_eq!(steered(&[fifo[0], fifo[1], fifo[4], fifo[5]], NC), None);
    }

    #[test]
    fn terminal_is_not_followed_beyond_its_master() {
        let editor = [
            end(SHELL, 0, To::Terminal(5, 3), "rw"),
            end(SHELL, 1, To::Terminal(5, 3), "rw"),
            end(CAT, 5, To::Master(Some(5), 3), "rw"),
            end(CAT, 0, To::Pipe(1, 7), "r"),
            end(CAT, 1, To::Pipe(1, 8), "w"),
            end(NC, 5, To::Pipe(1, 7), "w"),
            end(NC, 6, To::Pipe(1, 8), "r"),
        ];
        assert_eq!(steered(&editor, NC), None);
    }

    #[test]
    fn number_of_processes_on_the_way_is_bounded() {
        let chain: Vec<End> = (0..10_000)
            .flat_map(|n| {
                [
                    end(100 + n, 0, To::Pipe(1, n.into()), "r"),
                    end(100 + n, 1, To::Pipe(1, (n + 1).into()), "w"),
                ]
            })
            .collect();
        assert_eq!(find(&[10_099], &chain, |pid| pid == 100), []);
    }
}
