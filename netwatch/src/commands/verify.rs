//! `netwatch verify`: whether the store is what was written.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::output::verify::{Newest, Verdict};
use crate::store::{self, Link, Reader};

/// What to check.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The database.
    pub store: PathBuf,
    /// Against what.
    pub anchor: Anchor,
    /// One object instead of a sentence.
    pub json: bool,
}

/// What to do with a link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Nothing.
    None,
    /// The newest is printed.
    Print,
    /// This one has to be there.
    Check(Link),
}

/// Something was found.
pub(super) const FOUND: u8 = 3;

/// Checks, and prints what was found.
///
/// # Errors
/// Where the store cannot be read, or `out` fails.
pub fn run(options: &VerifyOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let reader = Reader::open(&options.store)?;
    let anchor = match options.anchor {
        Anchor::Print => return print_newest(&reader, options, out),
        Anchor::Check(link) => Some(link),
        Anchor::None => None,
    };
    let checked = store::verify(&reader, anchor)?;
    let verdict = Verdict::of(&checked, anchor);
    if options.json {
        verdict.write_json(out)?;
    } else {
        verdict.write_text(out)?;
    }
    Ok(if verdict.holds { ExitCode::SUCCESS } else { FOUND.into() })
}

fn print_newest(reader: &Reader, options: &VerifyOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let Some((link, batch, ts)) = store::newest(reader)? else {
        anyhow::bail!("nothing was recorded yet: there is no link to keep");
    };
    let newest = Newest { link, batch, ts };
    if options.json {
        newest.write_json(out)?;
    } else {
        newest.write_text(out)?;
    }
    Ok(ExitCode::SUCCESS)
}
