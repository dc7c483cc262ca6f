//! Tests of the lint with small workspaces.

use super::*;

/// A table of the rooms `a`, `b` and `c`; `may` is the third column of each.
fn document(may: [&str; 3], rest: &str) -> String {
    let rows: String =
        ["a", "b", "c"].iter().zip(may).map(|(room, may)| format!("| `{room}` | it | {may} |\n")).collect();
    format!("# Rooms\n\n| room | what it owns | may import |\n| --- | --- | --- |\n{rows}\n{rest}\n")
}

/// Violations in a workspace with these files, each a path in `netwatch/src` and its text.
fn said(document: &str, files: &[(&str, &str)]) -> Vec<String> {
    let workspace = tempfile::tempdir().unwrap();
    fs::write(workspace.path().join(DOCUMENT), document).unwrap();
    for (path, text) in
        [("lib.rs", "mod a;\nmod b;\nmod c;"), ("a.rs", ""), ("b.rs", ""), ("c.rs", "")].iter().chain(files)
    {
        let path = workspace.path().join("netwatch/src").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let (violations, _) = violations(workspace.path()).unwrap();
    violations.iter().map(Violation::to_string).collect()
}

/// `a` may import `b`; nothing else is allowed.
fn a_b() -> String {
    document(["`b`", "-", "-"], "")
}

const A_B: &str = "use crate::b::X;\n";

#[test]
fn what_the_table_allows_is_no_violation() {
    assert_eq!(said(&a_b(), &[("a.rs", A_B)]), [""; 0]);
}

#[test]
fn an_import_that_the_table_does_not_allow_is_one_wherever_it_stands() {
    let forbidden = "room a must not import room c (see ARCHITECTURE.md)";
    for (text, line) in [
        ("use crate::c::X;", 2),
        ("use crate::{b, c};", 2),
        ("use crate::{\n    b::{self, Y},\n    c::{d::{e, f}, g},\n};", 4),
        ("use super::c;", 2),
        ("pub use self::super::c::*;", 2),
        ("mod inline { use super::super::c::X; }", 2),
        ("fn f() -> u32 { 1 + crate::c::one() }", 2),
        ("fn f(x: Vec<crate::c::X>) {}", 2),
        ("fn f() {\n    use crate::c::X as Y;\n}", 3),
        ("fn f() { println!(\"{}\", { crate::c::one() }); }", 2),
        ("use crate as root;\nfn f() { root::c::one() }", 3),
        ("impl netwatch::c::T for u32 {}", 2),
        ("const X: u32 = match 1 { crate::c::ONE => 1, _ => 2 };", 2),
    ] {
        let said = said(&a_b(), &[("a.rs", &format!("{A_B}{text}"))]);
        assert_eq!(said, [format!("netwatch/src/a.rs:{line}: {forbidden}")], "{text}");
    }
}

#[test]
fn what_only_looks_like_an_import_is_none() {
    for text in [
        "// use crate::c::X;",
        "/// See [`crate::c::X`].\nfn f() {}",
        "const X: &str = \"crate::c::X\";",
        "use ::c::X;",
        "use c::X;",
        "pub(in crate::c) fn f() {}",
        "#[cfg(test)]\nmod tests { use crate::c::X; }",
        "#[cfg(test)]\nmod tests;",
        "#[cfg(all(test, unix))]\nfn f() { crate::c::one() }",
        "struct X;\nimpl X {\n    #[cfg(test)]\n    fn f() { crate::c::one() }\n}",
        "#[cfg(test)]\nuse crate::c::X;",
    ] {
        let files = [("a.rs", &*format!("{A_B}{text}")), ("a/tests.rs", "use crate::c::X;")];
        assert_eq!(said(&a_b(), &files), [""; 0], "{text}");
    }
    let outside_tests = format!("{A_B}#[cfg(not(test))]\nuse crate::c::X;");
    assert_eq!(said(&a_b(), &[("a.rs", &outside_tests)]).len(), 1);
}

#[test]
fn a_submodule_with_a_row_has_its_own_permissions() {
    let files = [
        ("a.rs", "mod d;\nmod e;\nuse crate::b::X;"),
        ("a/d.rs", "use crate::c::X;"),
        ("a/e.rs", "use super::super::c::X;"),
    ];
    let document = document(["`b`", "-", "-"], "").replace("| `b` | it", "| `a::d` | it | `c` |\n| `b` | it");
    assert_eq!(
        said(&document, &files),
        ["netwatch/src/a/e.rs:1: room a must not import room c (see ARCHITECTURE.md)"]
    );
}

#[test]
fn a_module_with_a_row_is_imported_by_that_name() {
    let files = [("a.rs", "use crate::b::d::X;"), ("b.rs", "mod d;"), ("b/d.rs", "")];
    let document = a_b().replace("| `c` | it", "| `b::d` | it | - |\n| `c` | it");
    assert_eq!(
        said(&document, &files),
        [
            "ARCHITECTURE.md:5: ARCHITECTURE.md allows a → b, which nothing uses",
            "netwatch/src/a.rs:1: room a must not import room b::d (see ARCHITECTURE.md)"
        ]
    );
}

#[test]
fn a_circle_between_rooms_is_a_violation() {
    let files = [("a.rs", A_B), ("b.rs", "use crate::c;"), ("c.rs", "\nuse crate::a;")];
    assert_eq!(
        said(&document(["`b`", "`c`", "`a`"], ""), &files),
        [
            "netwatch/src/b.rs:1: circle of imports: b → c (netwatch/src/b.rs:1), c → a (netwatch/src/c.rs:2), \
          a → b (netwatch/src/a.rs:1) (see ARCHITECTURE.md)"
        ]
    );
}

#[test]
fn a_circle_between_siblings_is_a_violation() {
    let circle = ["netwatch/src/a/e.rs:1: circle of imports: a::e → a::d (netwatch/src/a/e.rs:1), \
                   a::d → a::e (netwatch/src/a/d.rs:1) (see ARCHITECTURE.md)"];
    let plain = [("a.rs", "mod d;\nmod e;"), ("a/d.rs", "use super::e::X;"), ("a/e.rs", "use super::d;")];
    assert_eq!(said(&document(["-"; 3], ""), &plain), circle);
    // By a re-export of the parent, and by a module in a sibling.
    let hidden = [
        ("a.rs", "mod d;\nmod e;\npub use e::X;"),
        ("a/d.rs", "mod f;\nuse super::X;"),
        ("a/d/f.rs", ""),
        ("a/e.rs", "use crate::a::d::f;"),
    ];
    assert_eq!(said(&document(["-"; 3], ""), &hidden), [circle[0].replace("d.rs:1)", "d.rs:2)")]);
}

#[test]
fn a_parent_and_its_children_are_no_circle() {
    let files = [
        ("a.rs", "mod d;\npub use d::X;\nfn f() { d::f() }"),
        ("a/d.rs", "use super::Y;\nuse super::X;\nuse crate::a;"),
    ];
    assert_eq!(said(&document(["-"; 3], ""), &files), [""; 0]);
}

#[test]
fn a_permission_that_nothing_uses_is_a_violation() {
    assert_eq!(
        said(&document(["`b`, `c`", "-", "-"], ""), &[("a.rs", A_B)]),
        ["ARCHITECTURE.md:5: ARCHITECTURE.md allows a → c, which nothing uses"]
    );
    assert_eq!(said(&document(["everything", "-", "-"], ""), &[]), [""; 0]);
}

#[test]
fn leaf_rooms_are_open_to_all_and_import_only_each_other() {
    let leaves = "Leaf rooms, which every room may import:\n`b`, `c`.";
    let document =
        document(["-", "-", "-"], leaves).replace("| `b` | it | - |\n", "").replace("| `c` | it | - |\n", "");
    assert_eq!(said(&document, &[("a.rs", A_B), ("b.rs", "use crate::c;")]), [""; 0]);
    assert_eq!(
        said(&document, &[("b.rs", "use crate::a;"), ("c.rs", "use crate::b;")]),
        [
            "ARCHITECTURE.md:8: c is a leaf room that nothing imports",
            "netwatch/src/b.rs:1: room b must not import room a (see ARCHITECTURE.md)"
        ]
    );
}

#[test]
fn an_exception_is_an_error_once_it_is_not_needed() {
    let circle = [("a.rs", A_B), ("b.rs", "use crate::a;")];
    let rule = "Known exceptions:\n\n- `b` → `a`: it will be removed.";
    let with = document(["`b`", "-", "-"], rule);
    assert_eq!(said(&with, &circle), [""; 0]);
    let unneeded = "ARCHITECTURE.md:11: b → a breaks no rule any more: remove the exception";
    assert_eq!(said(&with, &[("a.rs", A_B)]), [unneeded]);
    // Allowed, and no circle.
    assert_eq!(said(&document(["-", "`a`", "-"], rule), &[("b.rs", "use crate::a;")]), [unneeded]);
}

#[test]
fn of_two_exceptions_for_one_circle_one_is_not_needed() {
    let circle = [("a.rs", A_B), ("b.rs", "use crate::a;")];
    let rest = "Known exceptions:\n- `a` → `b`: one.\n- `b` → `a`: other.";
    assert_eq!(
        said(&document(["`b`", "`a`", "-"], rest), &circle),
        ["ARCHITECTURE.md:10: a → b breaks no rule any more: remove the exception"]
    );
}

#[test]
fn a_file_that_is_too_long_is_a_violation_in_tests_too() {
    let (too_long, longest) = ("\n".repeat(401), "\n".repeat(400));
    let files = [("a.rs", "#[cfg(test)]\nmod tests;"), ("a/tests.rs", &*too_long), ("b.rs", &longest)];
    let table = document(["-"; 3], "");
    let long = "netwatch/src/a/tests.rs:401: the file has 401 lines, and 400 is the most: split it";
    assert_eq!(said(&table, &files), [long]);
    let excepted = document(["-"; 3], "Known exceptions:\n- `netwatch/src/a/tests.rs`: a table.");
    assert_eq!(said(&excepted, &files), [""; 0]);
    assert_eq!(
        said(&excepted, &[("a/tests.rs", "")]),
        ["ARCHITECTURE.md:10: netwatch/src/a/tests.rs has no more than 400 lines: remove the exception"]
    );
}

#[test]
fn a_path_in_a_document_must_exist() {
    let rest = "See `netwatch/src/a.rs`, `b.rs`,\n`a/`, `a/d.rs` and `e/`.";
    let missing = |path| {
        format!("ARCHITECTURE.md:10: {path} exists neither in the root of the workspace nor in netwatch/src")
    };
    assert_eq!(said(&document(["-"; 3], rest), &[("a/tests.rs", "")]), [missing("a/d.rs"), missing("e/")]);
}

/// Violations about limits in a workspace with this file of limits, page and end-to-end test.
fn said_of_limits(files: &[(&str, &str)]) -> Vec<String> {
    let test = ("../../tests/tests/e2e/far.rs", "#[test]\nfn reaches() {}\nfn helper() {}");
    said(&document(["-"; 3], ""), &[&[test], files].concat())
}

const PAGE: &str = "../../docs/limits.md";

#[test]
fn a_row_of_the_page_without_a_test_is_a_violation() {
    let page = (
        PAGE,
        "| what | - | `far::reaches` |\n| what | 1 | - |\n| what | 1 | the kernel evicts |\n| what | |",
    );
    let missing = |line| {
        format!("docs/limits.md:{line}: this limit has neither a test nor the reason why there is none")
    };
    assert_eq!(said_of_limits(&[page]), [missing(2), missing(4)]);
}

#[test]
fn a_limit_that_the_page_does_not_name_is_a_violation() {
    let limits = ("limits.rs", "/// Test: `far::reaches`.\npub const FILE: usize = 1;");
    let others = ("b.rs", "const MOST_X: u8 = 1;\nfn f() { const Y_MAX: u8 = 1; }\nconst OTHER: u8 = 1;");
    let page = (PAGE, "| a file | `limits.rs` `FILE` |\n`b.rs` `MOST_X`, `netwatch/src/b.rs` `Y_MAX`");
    assert_eq!(said_of_limits(&[limits, others, page]), [""; 0]);
    let unnamed = |file, line, path, name| {
        format!("netwatch/src/{file}:{line}: docs/limits.md does not name this limit: `{path}` `{name}`")
    };
    let missing = [
        unnamed("b.rs", 1, "b.rs", "MOST_X"),
        unnamed("b.rs", 2, "b.rs", "Y_MAX"),
        unnamed("limits.rs", 2, "limits.rs", "FILE"),
    ];
    assert_eq!(said_of_limits(&[limits, others]), missing);
    // The constant of another file, or without its file.
    let page = (PAGE, "`a.rs` `FILE` and `MOST_X`, `b.rs`, `Y_MAX`");
    assert_eq!(said_of_limits(&[limits, others, page])[1..], missing);
}

#[test]
fn limits_of_tests_need_not_be_named() {
    let inline =
        ("b.rs", "#[cfg(test)]\nmod tests { const MOST_X: u8 = 1; }\n#[cfg(test)]\nconst MOST_Y: u8 = 1;");
    let file = ("c/tests.rs", "const MOST_X: u8 = 1;");
    assert_eq!(said_of_limits(&[inline, file, ("c.rs", "#[cfg(test)]\nmod tests;")]), [""; 0]);
}

#[test]
fn a_constant_that_only_the_page_has_is_a_violation() {
    let files = [("b.rs", "static TABLE: u8 = 1;"), (PAGE, "`b.rs` `TABLE`\n`b.rs` `GONE`")];
    assert_eq!(said_of_limits(&files), ["docs/limits.md:2: netwatch/src/b.rs has no constant GONE"]);
}

#[test]
fn a_limit_in_the_file_of_limits_has_a_test() {
    let page = (PAGE, "`limits.rs` `FILE`");
    let said = |text: &str| said_of_limits(&[page, ("limits.rs", text)]);
    let none = "netwatch/src/limits.rs:2: the comment on FILE names no test: `module::tests::name`";
    assert_eq!(said("/// As `Vec::new` and `/proc` have it.\npub const FILE: usize = 1;"), [none]);
    let unknown = "netwatch/src/limits.rs:2: there is no test far::gone";
    assert_eq!(said("/// Test: `far::gone`.\npub const FILE: usize = 1;"), [unknown]);
}

#[test]
fn a_test_that_the_page_names_must_exist() {
    let inside = "#[cfg(test)]\nmod tests {\n    #[test]\n    /// It.\n    fn inside() {}\n}";
    let files = [
        ("b.rs", inside),
        ("c.rs", "#[cfg(test)]\nmod tests;\nmod d;"),
        ("c/tests.rs", "proptest! {\n    #[test]\n    fn any(\n    ) {}\n}"),
        ("c/d/mod.rs", inside),
    ];
    let said = |page: &str| said_of_limits(&[&files[..], &[(PAGE, page)]].concat());
    let real =
        "`far::reaches`, `b::tests::inside`, `c::tests::any`, `c::d::tests::inside`, `tests::`, `X::y`";
    assert_eq!(said(real), [""; 0]);
    for gone in [
        "far::gone",
        "far::helper",
        "near::reaches",
        "b::tests::reaches",
        "b::others::tests::inside",
        "c::d::inside",
        "b::inside",
    ] {
        assert_eq!(said(&format!("\n`{gone}`")), [format!("docs/limits.md:2: there is no test {gone}")]);
    }
}

#[test]
fn a_room_without_a_row_and_a_row_without_a_room_are_violations() {
    let table = document(["-"; 3], "").replace("`c`", "`d`");
    assert_eq!(
        said(&table, &[]),
        [
            "ARCHITECTURE.md:1: the table has no row for the room c",
            "ARCHITECTURE.md:7: there is no room d: remove it"
        ]
    );
}

#[test]
fn a_table_that_cannot_be_read_is_a_violation() {
    let column = "ARCHITECTURE.md:5: the third column is a list of rooms in backticks, `-` or everything";
    for may in ["what it wants", "`b` and `c`", ""] {
        assert!(said(&document([may, "-", "-"], ""), &[]).contains(&column.to_owned()), "{may}");
    }
    let none =
        "ARCHITECTURE.md:1: there is no table of rooms: its header is `| room | what it owns | may import |`";
    assert!(said("no table", &[]).contains(&none.to_owned()));
    let bare = "ARCHITECTURE.md:11: an exception needs a reason: `- `A` → `B`: reason`";
    let rest = "Known exceptions:\n\n- `b` → `a`";
    let files = [("a.rs", A_B), ("b.rs", "use crate::a;")];
    assert_eq!(said(&document(["`b`", "-", "-"], rest), &files), [bare]);
}
