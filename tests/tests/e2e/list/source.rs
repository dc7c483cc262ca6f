//! `netwatch list --source`: the kernel's iterators and `/proc`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde_json::Value;
use tests::{binary, in_fresh_netns, kernel, skip, stranger_s_copy, until};

use super::objects::Rows;
use super::scene::one_of_each;

/// The first kernel where iterators can read cookies (`kernel/trace/bpf_trace.c`, bpf_get_socket_ptr_cookie).
const COOKIES_IN_ITERATORS: (u32, u32) = (5, 12);

/// `--source iter` gives the iterators or a one-line error; the default falls back to `/proc`.
#[test]
fn iterators_need_privileges() {
    let (_directory, copy) = stranger_s_copy(&binary(), "netwatch");
    let run = |source: &str| tests::output(Command::new(&copy).args(["list", "--source", source]).uid(65534));
    let refused = run("iter");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("CAP_BPF") && said.contains("root"), "{said}");
    assert!(run("best").status.success());
}

/// The iterators and `/proc` with sock_diag give the same rows, field by field.
#[test]
fn both_sources_give_the_same_rows() {
    if !Command::new(binary()).args(["list", "--source", "iter"]).output().unwrap().status.success() {
        assert!(kernel() < COOKIES_IN_ITERATORS, "{:?} should have the iterators", kernel());
        skip("list::source::both_sources_give_the_same_rows", "before 5.12 iterators cannot ask for cookies");
        return;
    }
    in_fresh_netns(|| {
        let _scene = one_of_each();
        let rows = |source| {
            let mut rows = Rows::take(&["--source", source]).0;
            rows.iter_mut().for_each(without_starts);
            rows.sort_by_key(Value::to_string);
            rows
        };
        let mut last = (Vec::new(), Vec::new());
        until("sockets hold still", || {
            last = (rows("iter"), rows("proc"));
            last.0 == last.1
        });
        assert!(last.0.len() > 10, "too little to compare: {last:#?}");
    });
}

/// Two readings of the clocks differ by some nanoseconds, and so do start times as times of day. Only the iterators
/// give exact starts in keys.
fn without_starts(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("start");
            if let Some(key) = fields.get_mut("key") {
                *key = crate::keys::coarse(key).into();
            }
            fields.values_mut().for_each(without_starts);
        }
        Value::Array(items) => items.iter_mut().for_each(without_starts),
        _ => {}
    }
}
