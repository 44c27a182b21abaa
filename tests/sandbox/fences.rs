//! A process that is confined and then tries what an intruder would.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use glint::convert::sandbox::{Bounds, Grants, Policy, confine};
use rustix::process::{Resource, Rlimit};

use crate::lacking::{Fence, process};

type Attempt = fn() -> io::Result<()>;

/// What is tried, and whether it can be done behind both fences, without Landlock and without
/// seccomp. Older kernels have less of Landlock: `?`.
const ATTEMPTS: [(&str, Attempt, &str); 25] = [
    ("read the image", || read("image"), "yyy"),
    (
        "read beside a backing file",
        || read("granted/backing"),
        "yyy",
    ),
    ("make a file in its folder", || write("own/new"), "yyy"),
    (
        "remove a file in its folder",
        || fs::remove_file("own/old"),
        "yyy",
    ),
    ("start a thread", || thread(|| Ok(())), "yyy"),
    ("wake a thread by two sockets", || pair(), "yyy"),
    (
        "count processors",
        || std::thread::available_parallelism().map(drop),
        "yyy",
    ),
    ("read another file", || read("other"), "nyn"),
    ("read it in a thread", || thread(|| read("other")), "nyn"),
    ("read another folder", || fs::read_dir(".").map(drop), "nyn"),
    ("write into the image", || append("image"), "nyn"),
    (
        "write beside a backing file",
        || write("granted/new"),
        "nyn",
    ),
    ("make a file elsewhere", || write("new"), "nyn"),
    (
        "remove a file elsewhere",
        || fs::remove_file("other"),
        "nyn",
    ),
    (
        "rename out of its folder",
        || fs::rename("own/new", "moved"),
        "nn?",
    ),
    ("link a name", || fs::hard_link("image", "own/image"), "nn?"),
    ("link symbolically", || symlink("/", "own/root"), "nnn"),
    ("make a folder", || fs::create_dir("own/folder"), "nnn"),
    (
        "change modes",
        || fs::set_permissions("own", Permissions::from_mode(0o777)),
        "nny",
    ),
    (
        "listen",
        || TcpListener::bind("127.0.0.1:0").map(drop),
        "nn?",
    ),
    (
        "open a UDP socket",
        || UdpSocket::bind("127.0.0.1:0").map(drop),
        "nny",
    ),
    (
        "open a local socket",
        || UnixDatagram::unbound().map(drop),
        "nny",
    ),
    ("signal another process", || signal_parent(), "nn?"),
    ("lift a limit", || lift(), "nny"),
    ("run a program", || run(), "nnn"),
];

fn read(name: &str) -> io::Result<()> {
    fs::read(name).map(drop)
}

fn write(name: &str) -> io::Result<()> {
    File::create_new(name).map(drop)
}

fn append(name: &str) -> io::Result<()> {
    File::options().append(true).open(name).map(drop)
}

fn thread(work: fn() -> io::Result<()>) -> io::Result<()> {
    std::thread::Builder::new().spawn(work)?.join().unwrap()
}

fn pair() -> io::Result<()> {
    let (mut one, mut other) = UnixStream::pair()?;
    one.write_all(b"!")?;
    other.read_exact(&mut [0])
}

fn signal_parent() -> io::Result<()> {
    let parent = rustix::process::getppid().unwrap();
    Ok(rustix::process::test_kill_process(parent)?)
}

fn lift() -> io::Result<()> {
    let limit = Rlimit {
        current: Some(32),
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
}

/// First as a child, then in our place: both would need it.
fn run() -> io::Result<()> {
    match Command::new("/bin/true").spawn() {
        Ok(_) => Ok(()),
        Err(_) => Err(Command::new("/bin/true").exec()),
    }
}

/// The process: confined as `policy` says, it tries all and tells what came of it.
pub(crate) fn attempt(policy: &str) {
    let policy = match policy {
        "on" => Policy::On,
        "auto" => Policy::Auto,
        _ => Policy::Off,
    };
    let grants = Grants {
        files: vec![Path::new("image"), Path::new("missing")],
        folders: vec![Path::new("granted")],
        write: Some(Path::new("own")),
    };
    match confine(policy, &grants) {
        Err(missing) => return eprintln!("\nrefused: {missing}"),
        Ok(Some(missing)) => eprintln!("\nmissing: {missing}"),
        Ok(None) => eprintln!("\nmissing: nothing"),
    }
    for (what, attempt, _) in ATTEMPTS {
        match attempt() {
            Ok(()) => eprintln!("{what}: done"),
            Err(e) => match e.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices => {
                    eprintln!("{what}: denied");
                }
                _ => eprintln!("{what}: {e:?}"),
            },
        }
    }
}

/// A room with files to go for, and what a process in it told.
fn tell(policy: &str, lacks: &[Fence]) -> Vec<String> {
    let room = tempfile::tempdir().unwrap();
    for folder in ["granted", "own"] {
        fs::create_dir(room.path().join(folder)).unwrap();
    }
    for file in ["image", "other", "granted/backing", "own/old"] {
        fs::write(room.path().join(file), file).unwrap();
    }
    let out = process(policy, lacks).current_dir(&room).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stderr).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn assert_told(lines: &[String], missing: &str, kernel: usize) {
    assert!(
        lines.iter().any(|line| line == missing),
        "{missing} in {lines:#?}"
    );
    for (what, _, can) in ATTEMPTS {
        let expected = match can.as_bytes()[kernel] {
            b'y' => format!("{what}: done"),
            b'n' => format!("{what}: denied"),
            _ => continue,
        };
        assert!(lines.contains(&expected), "{expected} in {lines:#?}");
    }
}

#[test]
fn only_what_was_granted_is_left() {
    let lines = tell("auto", &[]);
    let missing = lines.iter().find(|line| line.starts_with("missing: "));
    let missing = missing.unwrap_or_else(|| panic!("{lines:#?}"));
    let kernel = match (
        missing.contains("no Landlock"),
        missing.contains("no seccomp"),
    ) {
        (false, false) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (true, true) => return eprintln!("skipped: this kernel has no fence at all: {missing}"),
    };
    assert_told(&lines, missing, kernel);
}

#[test]
fn each_fence_stands_without_the_other_and_says_so() {
    let without = tell("auto", &[Fence::Landlock]);
    assert_told(&without, "missing: no Landlock (not in this kernel)", 1);
    let without = tell("auto", &[Fence::Seccomp]);
    let missing =
        "missing: no seccomp (Error calling `seccomp`: Function not implemented (os error 38))";
    assert_told(&without, missing, 2);
}

#[test]
fn who_insists_does_not_go_on_without_a_fence() {
    for fence in [Fence::Landlock, Fence::Seccomp] {
        let lines = tell("on", &[fence]);
        let refused = format!("refused: no {fence:?}").to_lowercase();
        let is_refused = |line: &String| line.to_lowercase().starts_with(&refused);
        assert!(lines.iter().any(is_refused), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("read the image")));
    }
}

#[test]
fn nothing_is_denied_where_nothing_was_asked_for() {
    let lines = tell("off", &[]);
    for what in ["read another file", "listen", "run a program"] {
        assert!(lines.contains(&format!("{what}: done")), "{lines:#?}");
    }
}

#[test]
fn limits_only_become_stricter() {
    // In a process of its own: limits are for good.
    let before = rustix::process::getrlimit(Resource::Core);
    let bounds = Bounds {
        open_files: Some(u64::MAX - 1),
        ..Bounds::default()
    };
    let files = rustix::process::getrlimit(Resource::Nofile);
    bounds.take().unwrap();
    let after = rustix::process::getrlimit(Resource::Nofile);
    assert_eq!(
        (files.current, files.maximum),
        (after.current, after.maximum)
    );
    assert!(before.current >= rustix::process::getrlimit(Resource::Core).current);
}
