//! Databases that are made here, of both kinds and with every damage, and that of this host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::rpm::Made;
use super::*;

/// A root directory to which files are added.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(path), content).unwrap();
        self
    }

    fn linked(self, path: &str, to: &str) -> Self {
        symlink(to, self.path(path)).unwrap();
        self
    }

    fn merged(self) -> Self {
        fs::create_dir_all(self.path("usr/bin/x").parent().unwrap()).unwrap();
        self.linked("bin", "usr/bin")
            .linked("sbin", "/usr/sbin")
            .linked("usr/sbin", "bin/")
            .linked("lib", "../usr/lib")
    }

    fn dpkg(self, lists: &[(&str, &str)], status: &str) -> Self {
        let with = |root: Self, (name, list): &(&str, &str)| {
            root.with(&format!("var/lib/dpkg/info/{name}.list"), list)
        };
        lists.iter().fold(self, with).with("var/lib/dpkg/status", status)
    }

    fn rpm(self, path: &str, packages: &[Made<'_>]) -> Self {
        let db = rusqlite::Connection::open(self.path(path)).unwrap();
        // As rpm 4.18 creates them.
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);
             CREATE TABLE 'Basenames' (key 'TEXT' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL);
             CREATE INDEX 'Basenames_key_idx' ON 'Basenames'(key ASC);",
        )
        .unwrap();
        for package in packages {
            db.execute("INSERT INTO Packages (blob) VALUES (?1)", [package.blob()]).unwrap();
            let number = db.last_insert_rowid();
            for (index, (_, name, _)) in (0_u32..).zip(package.files) {
                db.execute("INSERT INTO Basenames VALUES (?1, ?2, ?3)", (name, number, index)).unwrap();
            }
        }
        db.close().unwrap();
        self
    }

    fn owners(&self, wanted: &[&str]) -> Answer {
        owners(self.0.path(), &wanted.iter().map(|path| (*path).to_owned()).collect())
    }

    /// The owner of each, as `name version`, or `-` if there is none; and the notes without the path of this root.
    fn reported(&self, wanted: &[&str]) -> (Vec<String>, Vec<String>) {
        let found = self.owners(wanted);
        let owner = |path: &&str| match found.owners.get(*path) {
            Some(owner) => format!("{} {}", owner.name, owner.version.as_deref().unwrap_or("?")),
            None => "-".into(),
        };
        let here = self.0.path().to_str().unwrap();
        let notes = found.notes.iter().map(|note| note.replace(here, "ROOT")).collect();
        (wanted.iter().map(owner).collect(), notes)
    }
}

const STATUS: &str = "Package: ssh\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:9-1\n\n\
    Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 3\n\n\
    Package: wrap\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4\n\n\
    Package: libc\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.36\n";

#[test]
fn dpkg_knows_its_files_by_every_name() {
    let lists = [
        ("ssh", "/.\n/usr\n/usr/bin\n/usr/sbin/sshd\n/bin/agent\n"),
        ("libc:amd64", "/lib/ld.so\n/usr/bin/ldd"),
        ("gone", "/usr/bin/gone\n"),
        ("unknown", "/usr/bin/unknown\n"),
    ];
    let root = Root::new().merged().dpkg(&lists, STATUS);
    let wanted =
        ["/usr/bin/sshd", "/usr/sbin/sshd", "/usr/bin/agent", "/bin/agent", "/usr/bin/ldd", "/usr/lib/ld.so"];
    let (owners, notes) = root.reported(&wanted);
    // The link /lib is not that of a merged /usr.
    assert_eq!(owners, ["ssh 1:9-1", "ssh 1:9-1", "ssh 1:9-1", "ssh 1:9-1", "libc 2.36", "-"]);
    assert_eq!(notes, [""; 0]);
    let wanted = ["/usr/bin/gone", "/usr/bin/unknown", "/usr/bin/none", "/usr/bin", "/tmp/sshd", "", "sshd"];
    let (owners, notes) = root.reported(&wanted);
    assert_eq!(owners, ["-", "-", "-", "ssh 1:9-1", "-", "-", "-"]);
    assert_eq!(notes, [""; 0]);

    let root = Root::new().dpkg(&lists, STATUS);
    let (owners, _) = root.reported(&["/usr/bin/agent", "/bin/agent"]);
    assert_eq!(owners, ["-", "ssh 1:9-1"], "two folders are two");
}

#[test]
fn diverted_file_belongs_to_its_package() {
    let lists = [("ssh", "/bin/x\n/usr/bin/y\n"), ("wrap", "/bin/x\n")];
    let diversions = "/bin/x\n/bin/x.real\nwrap\n/usr/bin/y\n/usr/bin/y.was\n:\n";
    let root = Root::new().merged().dpkg(&lists, STATUS).with("var/lib/dpkg/diversions", diversions);
    let (owners, notes) = root.reported(&["/usr/bin/x", "/usr/bin/x.real", "/usr/bin/y", "/usr/bin/y.was"]);
    assert_eq!(owners, ["wrap 4", "ssh 1:9-1", "-", "ssh 1:9-1"]);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn dpkg_damage_is_reported_and_the_rest_is_read() {
    let root = Root::new().dpkg(&[("ssh", "/usr/bin/sshd\n"), ("wrap", "/usr/bin/x\n")], STATUS);
    fs::remove_file(root.path("var/lib/dpkg/status")).unwrap();
    // A FIFO without a writer, and a link that leads out of a container.
    let fifo = root.path("var/lib/dpkg/info/wrap.list");
    fs::remove_file(&fifo).unwrap();
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "/usr/bin/outside\n").unwrap();
    let to = format!("{}{}", "../".repeat(30), outside.path().to_str().unwrap());
    let root = root.linked("var/lib/dpkg/info/evil.list", &to);
    let big = fs::File::create(root.path("var/lib/dpkg/info/big.list")).unwrap();
    big.set_len(1 << 40).unwrap();
    for n in 0..9 {
        fs::create_dir(root.path(&format!("var/lib/dpkg/info/no{n}.list"))).unwrap();
    }

    let (owners, notes) = root.reported(&["/usr/bin/sshd", "/usr/bin/x", "/usr/bin/outside"]);
    assert_eq!(owners, ["ssh ?", "-", "-"]);
    assert_eq!(notes.len(), 10);
    assert_eq!(notes[0], "cannot read the list big.list of dpkg in ROOT: larger than 32 MiB");
    assert_eq!(notes[7], "cannot read the list no6.list of dpkg in ROOT: not a regular file");
    assert_eq!(notes[8], "cannot read 3 more lists of dpkg in ROOT");
    let status = "cannot read the status of dpkg in ROOT: No such file or directory (os error 2)";
    assert_eq!(notes[9], status);
}

#[test]
fn dpkg_status_over_the_limit_is_reported() {
    let root = Root::new().dpkg(&[("ssh", "/usr/bin/sshd\n")], STATUS);
    let status = fs::File::options().write(true).open(root.path("var/lib/dpkg/status")).unwrap();
    status.set_len(crate::limits::DPKG_STATUS + 1).unwrap();
    let (owners, notes) = root.reported(&["/usr/bin/sshd"]);
    assert_eq!(owners, ["ssh ?"]);
    assert_eq!(notes, ["cannot read the status of dpkg in ROOT: larger than 128 MiB"]);
}

#[test]
fn folder_is_listed_up_to_the_limit() {
    let root = Root::new().with("x", "").with("y", "");
    let folder = Folder::open(root.0.path()).unwrap();
    // The first two entries are the folder itself and the one above it.
    assert!(matches!(folder.names(4), Ok((names, false)) if names.len() == 4));
    assert!(matches!(folder.names(3), Ok((names, true)) if names.len() == 3));
}

#[test]
fn missing_database_is_reported() {
    let root = Root::new();
    assert_eq!(root.reported(&["/x"]).1, ["no dpkg or rpm database in ROOT"]);
    assert_eq!(root.reported(&[]).1, [""; 0]);
    let note = owners(Path::new("/nonexistent"), &HashSet::from(["/x".into()])).notes;
    let expected =
        "cannot read the package databases in /nonexistent: No such file or directory (os error 2)";
    assert_eq!(note, [expected]);
}

fn tiny<'a>(name: &'a str, files: &'a [(&str, &str, u8)]) -> Made<'a> {
    Made { name, epoch: (name == "epoch").then_some(7), files }
}

#[test]
fn rpm_knows_its_files_by_every_name() {
    let packages = [
        tiny("epoch", &[("/usr/sbin/", "sshd", 0), ("/bin/", "x", 0), ("/opt/", "y", 0)]),
        tiny("other", &[("/usr/lib/", "sshd", 0), ("/usr/bin/", "x", 1), ("/opt/", "y", 2)]),
    ];
    for place in ["var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite"] {
        let root = Root::new().merged().rpm(place, &packages);
        let wanted = ["/usr/bin/sshd", "/usr/lib/sshd", "/usr/bin/x", "/opt/y", "/tmp/sshd", "/none"];
        let (owners, notes) = root.reported(&wanted);
        assert_eq!(owners, ["epoch 7:1.2-3", "other 1.2-3", "epoch 7:1.2-3", "epoch 7:1.2-3", "-", "-"]);
        assert_eq!(notes, [""; 0]);
        // No file is created beside it.
        let beside = fs::read_dir(root.path(place).parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1);
        assert_eq!(root.owners(&["/opt/y"]).owners["/opt/y"].manager, "rpm");
    }
}

#[test]
fn rpm_damage_is_reported() {
    let place = "var/lib/rpm/rpmdb.sqlite";
    let good = Root::new().rpm(place, &[tiny("good", &[("/bin/", "x", 0)])]);
    let content = fs::read(good.path(place)).unwrap();
    let reported = |root: Root| root.reported(&["/bin/x"]);
    let note =
        |why: &str| (vec!["-".to_owned()], vec![format!("cannot read the rpm database in ROOT: {why}")]);

    assert_eq!(reported(Root::new().with(place, "")), note("not an SQLite database"));
    assert_eq!(reported(Root::new().with(place, [7; 4096])), note("not an SQLite database"));
    for (name, format) in [("Packages", "Berkeley DB"), ("Packages.db", "ndb")] {
        let (owners, notes) = reported(Root::new().with(&format!("var/lib/rpm/{name}"), "x"));
        let format = format!("the rpm database in ROOT has an unsupported format ({format})");
        assert_eq!((owners, notes), (vec!["-".to_owned()], vec![format]));
    }
    let big = Root::new().with(place, &content);
    fs::File::options().write(true).open(big.path(place)).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(reported(big), note("larger than 192 MiB"));

    let (_, notes) = reported(Root::new().with(place, &content[..5000]));
    assert!(
        notes[0].starts_with("cannot read the rpm database in ROOT: the database is damaged"),
        "{notes:?}"
    );
    let (owners, notes) = reported(Root::new().with(place, &content).with(&format!("{place}-wal"), "x"));
    assert_eq!(owners, ["good 1.2-3"]);
    assert_eq!(notes, ["the rpm database in ROOT is being written to: the newest changes are not seen"]);
}

#[test]
fn a_database_that_is_a_program_is_not_run() {
    let place = "var/lib/rpm/rpmdb.sqlite";
    let make = |sql: &str| {
        let root = Root::new();
        rusqlite::Connection::open(root.path(place)).unwrap().execute_batch(sql).unwrap();
        root.reported(&["/bin/x"])
    };
    let endless =
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i FROM n) SELECT i AS hnum, i AS key FROM n";
    let (_, notes) =
        make(&format!("CREATE TABLE Packages (hnum, blob); CREATE VIEW Basenames AS {endless};"));
    assert_eq!(notes, ["cannot read the rpm database in ROOT: no table Basenames"]);
    let (_, notes) =
        make("CREATE TABLE Packages (hnum, blob); CREATE VIRTUAL TABLE Basenames USING fts5(key, hnum);");
    assert_eq!(notes, ["cannot read the rpm database in ROOT: no table Basenames"]);

    let (_, notes) = make(
        "CREATE TABLE Packages (hnum, blob); CREATE TABLE [a\x1b[2J] (b); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE' WHERE name LIKE 'a%'",
    );
    assert!(notes[0].contains("the database is damaged") && notes[0].contains("\\x1b[2J"), "{notes:?}");

    let (_, notes) = make(
        "CREATE TABLE Packages (hnum, blob); CREATE TABLE Basenames (key, hnum);
         INSERT INTO Basenames VALUES ('x', 1), ('x', 2); INSERT INTO Packages VALUES (1, 'text'), (2, x'ff');",
    );
    assert_eq!(notes, ["the rpm database in ROOT has 2 packages with invalid headers"]);
}

#[test]
fn both_databases_are_asked() {
    let root = Root::new()
        .dpkg(&[("ssh", "/usr/bin/x\n")], STATUS)
        .rpm("var/lib/rpm/rpmdb.sqlite", &[tiny("tiny", &[("/usr/bin/", "x", 0), ("/usr/bin/", "y", 0)])]);
    assert_eq!(root.reported(&["/usr/bin/x", "/usr/bin/y"]).0, ["ssh 1:9-1", "tiny 1.2-3"]);
}

#[test]
fn database_of_this_host_names_the_package_of_dpkg() {
    let Ok(dpkg) = fs::canonicalize("/usr/bin/dpkg") else {
        eprintln!("SKIPPED: there is no dpkg on this host");
        return;
    };
    let dpkg = dpkg.to_str().unwrap().to_owned();
    let found = owners(Path::new("/"), &HashSet::from([dpkg.clone()]));
    let owner = &found.owners[&dpkg];
    assert_eq!((owner.name.as_str(), owner.manager), ("dpkg", "dpkg"), "{:?}", found.notes);
    assert!(owner.version.is_some());
}

#[test]
fn links_that_lead_in_a_circle_end() {
    let root = Root::new().linked("bin", "sbin").linked("sbin", "bin");
    let aliases = Aliases::of(&Folder::open(root.0.path()).unwrap());
    // Three times: to sbin, to bin, and to sbin.
    assert_eq!(aliases.resolve("/bin/x"), "/sbin/x");
    let usual = Root::new().merged();
    let aliases = Aliases::of(&Folder::open(usual.0.path()).unwrap());
    assert_eq!(aliases.resolve("/sbin/x"), "/usr/bin/x");
}
