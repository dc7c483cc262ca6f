//! What of a filter the server can decide. It may give more rows than pass, never fewer: the filter itself is applied to
//! the events.

use std::net::IpAddr;

use globset::GlobMatcher;

use super::dialect::{Dialect, quoted};
use crate::filter::{Condition, Filter, Protos};

/// Conditions on rows of `ends`; empty: none.
#[must_use]
pub(super) fn on_ends(filter: &Filter, dialect: Dialect) -> Vec<String> {
    let mut all = Vec::new();
    let mut any = |terms: Option<Vec<String>>, is_of_process: bool| {
        let Some(mut terms) = terms else { return };
        // Earlier events of a row may differ from its last state, which the columns have.
        terms.push("odd != ''".into());
        if is_of_process {
            terms.push("(isNotNull(listener_process) AND listener_process != ifNull(process, 0))".into());
        }
        all.push(format!("({})", terms.join(" OR ")));
    };
    any(
        filter.one_of(|one| match one {
            Condition::Port(port) => Some(format!("local_port = {port} OR remote_port = {port}")),
            _ => None,
        }),
        false,
    );
    for (column, is_local) in [("local_ip", true), ("remote_ip", false)] {
        any(
            filter.one_of(|one| match (one, is_local) {
                (Condition::Local(pattern), true) | (Condition::Remote(pattern), false) => {
                    Some(format!("{column} = {}", address(pattern.address()?, dialect)))
                }
                _ => None,
            }),
            false,
        );
    }
    any(
        filter.one_of(|one| match one {
            Condition::Name(glob) => {
                Some(format!("match(remote_host, {0}) OR match(local_host, {0})", pattern(glob)))
            }
            _ => None,
        }),
        false,
    );
    any(
        filter.one_of(|one| match one {
            Condition::Proto(Protos::One(proto)) => Some(format!("proto = {}", quoted(proto.name()))),
            Condition::Proto(Protos::Raw) => {
                Some("proto IN ('icmp', 'icmpv6') OR proto LIKE 'raw:%'".to_owned())
            }
            _ => None,
        }),
        false,
    );
    any(
        filter.one_of(|one| match one {
            Condition::Event(kind) => Some(format!("events LIKE '%{}+%'", kind.name())),
            _ => None,
        }),
        false,
    );
    any(
        filter.one_of(|one| match one {
            Condition::Pid(pid) => Some(format!("pid = {pid}")),
            Condition::User(uid) => Some(format!("uid = {uid}")),
            Condition::Process(glob) => Some(format!("match(comm, {0}) OR match(exe, {0})", pattern(glob))),
            _ => None,
        }),
        true,
    );
    all
}

/// An address as the server has it.
#[must_use]
pub(super) fn address(ip: IpAddr, dialect: Dialect) -> String {
    let ip = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    match dialect {
        Dialect::Modern => format!("toIPv6({})", quoted(&ip.to_string())),
        Dialect::Old => format!("IPv6StringToNum({})", quoted(&ip.to_string())),
    }
}

/// A glob as a regular expression of RE2, which knows no `(?-u)`.
#[must_use]
pub(super) fn pattern(glob: &GlobMatcher) -> String {
    let regex = glob.glob().regex();
    quoted(regex.strip_prefix("(?-u)").unwrap_or(regex))
}
