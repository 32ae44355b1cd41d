//! Disks that are really full, and power that really goes: a small tmpfs, and an ext4 image that is copied while mounted.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::Scene;
use crate::have;
use crate::sealed::{Content, Sealed};
use crate::strace::{baseline, inject, points};

/// A mount, undone when dropped. Made within a scene, so it has to be dropped before that.
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn mount(scene: &Scene, at: &Path, words: &[&str]) -> Result<Self, String> {
        std::fs::create_dir_all(at).unwrap();
        let output = scene.other("mount", words).arg(at).env("PATH", SBIN).output().unwrap();
        if output.status.success() {
            Ok(Self { at: at.to_owned() })
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        umount.arg(&self.at).env("PATH", SBIN).stderr(Stdio::null()).status().unwrap();
    }
}

const SBIN: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Says loudly that this machine does not let us mount.
fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    println!("\nSKIPPED: {test} (mounting: {why})");
}

/// 64 KiB of memory as a disk; says loudly where this machine does not let us.
pub fn mounted_tmpfs(scene: &Scene, at: &Path) -> Option<Mounted> {
    let mounted = Mounted::mount(scene, at, &["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"]);
    mounted.map_err(|why| skip(&why)).ok()
}

/// Fills a file system to its last byte.
pub fn fill(folder: &Path) -> PathBuf {
    use std::io::Write;
    let path = folder.join("filler");
    let mut filler = std::fs::File::create(&path).unwrap();
    let mut count = 0;
    for size in [4096, 512, 1] {
        while let Ok(written) = filler.write(&vec![b'x'; size]) {
            count += written;
        }
    }
    assert!(count > 4096, "it was full before");
    path
}

#[test]
fn no_child_starts_while_the_disk_of_the_log_is_full() {
    if !have(&["mount", "umount"], true) {
        return;
    }
    let scene = Scene::new();
    let disk = scene.path("log");
    let mounted = match Mounted::mount(&scene, &disk, &["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"]) {
        Ok(mounted) => mounted,
        Err(why) => return skip(&why),
    };
    let sealed = Sealed::logging_to(&disk.join("audit.jsonl"), scene, &[("A", "1")]);
    // Dropped before the scene that it lies in, also when the test fails.
    let mount = mounted;
    let marker = sealed.scene.path("marker");
    let touch = ["/usr/bin/touch", "marker"];
    // The log itself fills the disk: some run is the first that does not fit, perhaps in the middle of a record.
    let mut runs = 0;
    loop {
        std::fs::remove_file(&marker).unwrap_or_default();
        let outcome = sealed.run(&touch);
        match outcome.status.code() {
            Some(0) => assert!(marker.exists()),
            Some(123) => break,
            _ => panic!("{}", outcome.transcript()),
        }
        runs += 1;
        assert!(runs < 200, "64 KiB hold no 200 runs");
    }
    assert!(runs > 5, "{runs}");
    for attempt in 0..5 {
        assert!(!marker.exists(), "attempt {attempt}");
        let outcome = sealed.run(&touch).expect_status(123);
        assert!(outcome.err().contains("error[audit]"), "{}", outcome.transcript());
    }
    let before = sealed.content();
    sealed.set("A", "2").expect_status(123);
    assert_eq!(sealed.content(), before, "written without a record");
    assert_eq!(sealed.counts()[0], runs + usize::from(sealed.counts()[0] > runs));

    // Room again, as an administrator makes it: the log moves elsewhere.
    std::fs::rename(disk.join("audit.jsonl"), disk.join("old.jsonl")).unwrap();
    std::fs::copy(disk.join("old.jsonl"), sealed.scene.path("old.jsonl")).unwrap();
    std::fs::remove_file(disk.join("old.jsonl")).unwrap();
    sealed.run(&touch).expect_status(0);
    assert!(marker.exists());
    let verify = ["audit", "verify", "--json", "old.jsonl", "log/audit.jsonl"];
    let outcome = sealed.scene.vouchsafe(&verify);
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_ne!(report["state"], "tampered", "{report:#}");

    // And filled by something else, at any offset of the last page.
    for file in ["log/audit.jsonl", "log/audit.jsonl.head"] {
        std::fs::remove_file(sealed.scene.path(file)).unwrap();
    }
    sealed.run(&touch).expect_status(0);
    let filler = fill(&disk);
    std::fs::remove_file(&marker).unwrap();
    let mut refused = false;
    for _ in 0..10 {
        let status = sealed.run(&touch).status.code();
        refused |= status == Some(123);
        assert_eq!(status == Some(0), marker.exists());
        std::fs::remove_file(&marker).unwrap_or_default();
    }
    assert!(refused);
    std::fs::remove_file(filler).unwrap();
    sealed.run(&touch).expect_status(0);
    sealed.expect_intact("the disk was full");
    drop(mount);
}

#[test]
fn a_store_on_a_full_disk_stays_as_it_is() {
    if !have(&["mount", "umount"], true) {
        return;
    }
    let scene = Scene::new();
    let disk = scene.path("store");
    let mounted = match Mounted::mount(&scene, &disk, &["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"]) {
        Ok(mounted) => mounted,
        Err(why) => return skip(&why),
    };
    let sealed = Sealed::logging_to(&scene.path("log/audit.jsonl"), scene, &[("A", "1"), ("B", "2")]);
    // As above.
    let mount = mounted;
    let before = sealed.content();
    // Too large for what is left: the write is cut short in the middle.
    let outcome = sealed.set("A", &"x".repeat(60_000)).expect_status(122);
    assert!(outcome.err().contains("no space left"), "{}", outcome.transcript());
    assert_eq!((sealed.content(), sealed.leftovers().len()), (before.clone(), 0));
    let filler = fill(&disk);
    sealed.set("A", "2").expect_status(122);
    assert_eq!(sealed.content(), before);
    std::fs::remove_file(filler).unwrap();
    sealed.set("A", "2").expect_status(0);
    assert!(sealed.leftovers().is_empty());
    sealed.expect_intact("the disk was full");
    drop(mount);
}

/// An ext4 file system in a file, with a commit interval long enough that nothing gets there by itself, and without the
/// heuristic by which ext4 syncs for programs that forget to (ext4(5), `noauto_da_alloc`).
struct Image {
    file: PathBuf,
}

impl Image {
    fn make(scene: &Scene) -> Self {
        let file = scene.path("image");
        std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        let words = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "image"];
        assert!(scene.other("mkfs.ext4", &words).env("PATH", SBIN).status().unwrap().success());
        Self { file }
    }

    fn mount(&self, scene: &Scene, at: &Path) -> Result<Mounted, String> {
        Mounted::mount(scene, at, &["-t", "ext4", "-o", "loop,commit=300,noauto_da_alloc", self.file.to_str().unwrap()])
    }

    /// What the disk holds if the power goes now. Each time another file: a mount namespace that another test made meanwhile
    /// holds a copy of the mount, and `mount` refuses a file that is mounted somewhere.
    fn cut(&self, scene: &Scene) -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let file = scene.path(&format!("image.cut.{}", SERIAL.fetch_add(1, Ordering::Relaxed)));
        std::fs::copy(&self.file, &file).unwrap();
        Self { file }
    }
}

impl Drop for Image {
    /// What is mounted stays until it is unmounted (loop(4)).
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).unwrap_or_default();
    }
}

/// Writes out what the last step left, so that only the next one's own syncs count.
fn sync(disk: &Path) {
    rustix::fs::syncfs(std::fs::File::open(disk).unwrap()).unwrap();
}

const POWER: [&str; 4] = ["strace", "mount", "umount", "mkfs.ext4"];

/// A scene in which these folders are on an ext4 image. A sync of one file brings others of its file system along, so the
/// store has to be alone there for its own syncs to be tested.
fn on_ext4(folders: &[&str]) -> Result<(Sealed, Image, Mounted), String> {
    let scene = Scene::new();
    let image = Image::make(&scene);
    let disk = scene.path("disk");
    let mounted = image.mount(&scene, &disk)?;
    for folder in folders {
        std::fs::create_dir(disk.join(folder)).unwrap();
        std::os::unix::fs::symlink(format!("disk/{folder}"), scene.path(folder)).unwrap();
    }
    let sealed = Sealed::with_scene(scene, &[("A", "first"), ("B", "untouched")]);
    sync(&sealed.scene.path("disk"));
    Ok((sealed, image, mounted))
}

#[test]
fn what_was_told_to_be_written_survives_a_power_cut() {
    if !have(&POWER, true) {
        return;
    }
    for folder in ["store", "log"] {
        let (sealed, image, mounted) = match on_ext4(&[folder]) {
            Ok(parts) => parts,
            Err(why) => return skip(&why),
        };
        let at = sealed.scene.path("after");
        // What nobody syncs is lost, or this test could not fail.
        std::fs::write(sealed.scene.path("disk/unsynced"), "x".repeat(9000)).unwrap();
        {
            let _after = image.cut(&sealed.scene).mount(&sealed.scene, &at).unwrap();
            let lost = std::fs::metadata(at.join("unsynced")).map_or(true, |file| file.len() == 0);
            assert!(lost, "the disk syncs by itself");
        }
        for serial in 0..4 {
            let value = format!("value {serial}");
            if folder == "store" {
                sealed.set("A", &value).expect_status(0);
            } else {
                sealed.run(&["/usr/bin/true"]).expect_status(0);
            }
            let _after = image.cut(&sealed.scene).mount(&sealed.scene, &at).unwrap();
            if folder == "store" {
                assert_eq!(sealed.content_of(&at.join("store/store.age")).values["A"], value);
            } else {
                let log = std::fs::read_to_string(at.join("log/audit.jsonl")).unwrap();
                let count = |event: &str| log.lines().filter(|line| line.contains(event)).count();
                assert_eq!((count("access.requested"), count("access.released")), (serial + 1, serial + 1));
                expect_intact_after(&sealed, "a run");
            }
        }
        drop(mounted);
    }
}

/// The log on what is left of the disk.
fn expect_intact_after(sealed: &Sealed, when: &str) {
    let words = ["audit", "verify", "--json", "after/log/audit.jsonl"];
    let report: serde_json::Value = serde_json::from_slice(&sealed.scene.vouchsafe(&words).stdout).unwrap();
    assert_eq!(report["state"], "intact", "{when}: {report:#}");
}

#[test]
fn a_power_cut_at_any_call_of_a_writer_leaves_the_old_or_the_new() {
    if !have(&POWER, true) {
        return;
    }
    for folders in [&["store"][..], &["store", "log"]] {
        let (sealed, image, mounted) = match on_ext4(folders) {
            Ok(parts) => parts,
            Err(why) => return skip(&why),
        };
        let at = sealed.scene.path("after");
        let traced = baseline(&sealed.scene, &Sealed::set_command("A"), b"first");
        let names = ["write", "fsync", "fdatasync", "renameat", "fchmod", "pwrite64", "exit_group"];
        let points = points(&traced, &names);
        assert!(points.len() >= 12, "{}", points.len());
        let (mut old, mut new) = (0, 0);
        for (serial, point) in points.iter().enumerate() {
            let before = sealed.content();
            sync(&sealed.scene.path("disk"));
            let value = format!("value {serial}");
            let mut replaced = Content { generation: before.generation + 1, ..before.clone() };
            replaced.values.insert("A".into(), value.clone());
            inject(&sealed.scene, point, "signal=KILL", &Sealed::set_command("A"), value.as_bytes());
            let _after = image.cut(&sealed.scene).mount(&sealed.scene, &at).unwrap();
            let after = sealed.content_of(&at.join("store/store.age"));
            assert!(after == before || after == replaced, "{}: {after:?}", point.text);
            if folders.contains(&"log") {
                expect_intact_after(&sealed, &point.text);
            }
            if after == replaced { new += 1 } else { old += 1 }
        }
        assert!(old >= 5 && new >= 3, "{old} old, {new} new");
        drop(mounted);
    }
}
