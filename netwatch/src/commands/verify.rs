//! `netwatch verify`: verifies that the store has not been altered.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::log;
use super::progress::Bar;
use crate::output::verify::{Newest, Verdict};
use crate::rights;
use crate::store::{self, Ask, Key, Link, Reader, SealFile, StoreError};

/// Options of `verify`.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Path of the store.
    pub store: PathBuf,
    /// What to do with an anchor.
    pub anchor: Anchor,
    /// The verification key for the seals.
    pub key: Option<Key>,
    /// Make a sealing key instead.
    pub new_key: bool,
    /// Print one JSON object.
    pub json: bool,
}

/// An anchor: a link of the hash chain that is kept off this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Verify without one.
    None,
    /// Print the newest link.
    Print,
    /// Verify that this link is in the chain.
    Check(Link),
}

/// Exit status if the store was altered, or the audit has findings.
pub(super) const FOUND: u8 = 3;

/// Verifies the store and prints the result.
///
/// # Errors
/// If the store cannot be read, or `out` fails.
pub fn run(options: &VerifyOptions, out: &mut dyn Write) -> Result<ExitCode> {
    if options.new_key {
        writeln!(out, "{}", *store::new_key(&options.store)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let reader = Reader::open(&options.store)?;
    let seals = options.key.as_ref().map(|_| SealFile::read(&options.store)).transpose()?;
    rights::give_up(&rights::READING, &log::readable(&options.store), None);
    let anchor = match options.anchor {
        Anchor::Print => return print_newest(&reader, options, out),
        Anchor::Check(link) => Some(link),
        Anchor::None => None,
    };
    let key = options.key.as_ref().zip(seals.as_ref());
    let bar = Bar::new("verifying", false)?;
    let checked = store::verify(&reader, Ask { anchor, key }, &mut |progress| bar.watch(progress));
    drop(bar);
    let checked = match checked {
        Err(StoreError::Interrupted) => bail!("interrupted before the end: nothing was verified"),
        other => other?,
    };
    let verdict = Verdict::of(&checked, anchor);
    verdict.write(options.json, out)?;
    Ok(if verdict.holds { ExitCode::SUCCESS } else { FOUND.into() })
}

/// An anchor of a store whose schema was altered would look like a proof.
fn print_newest(reader: &Reader, options: &VerifyOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let checked = store::verify_schema(reader)?;
    if !checked.is_well() {
        Verdict::of(&checked, None).write(options.json, out)?;
        return Ok(FOUND.into());
    }
    let Some((link, batch, ts)) = store::newest(reader)? else {
        anyhow::bail!("the store has no records yet, so there is no link to print");
    };
    let newest = Newest { link, batch, ts };
    if options.json {
        newest.write_json(out)?;
    } else {
        newest.write_text(out)?;
    }
    Ok(ExitCode::SUCCESS)
}
