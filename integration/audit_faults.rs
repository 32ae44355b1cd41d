//! A run whose log fails: whatever call fails or is the last one before a kill, a child that ran has both its records on
//! disk, and where a record is not, no child runs.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use crate::faults::ERRORS;
use crate::have;
use crate::sealed::Sealed;
use crate::strace::{Point, Traced, WRITING, baseline, inject, points, trace};

/// What the log is when the run starts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Log {
    /// It has records.
    Used,
    /// There is none yet.
    Absent,
    /// It was moved away; its head is there.
    Moved,
    /// It ends in the middle of a record.
    Torn,
}

struct Running {
    sealed: Sealed,
    log: Log,
    moved: u32,
}

impl Running {
    fn new(log: Log) -> Self {
        let running = Self { sealed: Sealed::with(&[("A", "1")]), log, moved: 0 };
        running.sealed.run(&["/usr/bin/true"]).expect_status(0);
        running
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sealed.scene.path(name)
    }

    fn prepare(&mut self) {
        let log = self.path("log/audit.jsonl");
        match self.log {
            Log::Used => {}
            Log::Absent => {
                std::fs::remove_dir_all(self.path("log")).unwrap();
                std::fs::create_dir(self.path("log")).unwrap();
            }
            Log::Moved => {
                if self.moved == 10 {
                    // The whole chain is verified each time; a long one would only cost time.
                    std::fs::remove_dir_all(self.path("log")).unwrap();
                    std::fs::create_dir(self.path("log")).unwrap();
                    self.sealed.run(&["/usr/bin/true"]).expect_status(0);
                    self.moved = 0;
                }
                self.moved += 1;
                std::fs::rename(&log, self.path(&format!("log/old-{:04}", self.moved))).unwrap();
            }
            Log::Torn => {
                use std::io::Write;
                let mut log = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
                log.write_all(b"{\"schema\":\"vouchsafe.audit/1\",\"assurance\":\"file\",\"ti").unwrap();
            }
        }
        std::fs::remove_file(self.path("marker")).unwrap_or_default();
    }

    fn command() -> Vec<std::ffi::OsString> {
        Sealed::run_command(&["/usr/bin/touch", "marker"])
    }

    /// Every point of a run that goes well, up to the end of the child.
    fn points(&mut self, names: &[&str]) -> Vec<Point> {
        self.prepare();
        let traced = baseline(&self.sealed.scene, &Self::command(), b"");
        assert_eq!(traced.status.code(), Some(0), "{}", traced.transcript());
        points(&traced, names)
    }

    /// A run with a fault. Whatever happened: a child that ran has both records on disk. Says whether it ran.
    fn strike(&mut self, point: &Point, fault: &str) -> (Traced, bool) {
        self.prepare();
        let [requested, released, _] = self.sealed.counts();
        let traced = inject(&self.sealed.scene, point, fault, &Self::command(), b"");
        let ran = self.path("marker").exists();
        if ran {
            let [requested_now, released_now, _] = self.sealed.counts();
            assert_eq!(
                (requested_now, released_now),
                (requested + 1, released + 1),
                "a child without records: {fault} at {}\n{}",
                point.text,
                traced.transcript()
            );
        }
        (traced, ran)
    }

    /// The next run works, and what the fault left behind does not look like tampering.
    fn recover(&self, when: &str) {
        let outcome = self.sealed.run(&["/usr/bin/true"]);
        assert_eq!(outcome.status.code(), Some(0), "{:?}, after {when}: {}", self.log, outcome.transcript());
        let mut logs: Vec<String> = (1..=self.moved).map(|number| format!("log/old-{number:04}")).collect();
        logs.push("log/audit.jsonl".into());
        let words: Vec<String> = ["audit", "verify", "--json"].map(str::to_owned).into_iter().chain(logs).collect();
        let outcome = self.sealed.scene.vouchsafe(&words);
        let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
        assert_eq!(report["state"], "intact", "{:?}, after {when}: {report:#}", self.log);
        assert_eq!(report["discontinuities"], 0, "{:?}, after {when}: {report:#}", self.log);
    }
}

const LOGS: [Log; 4] = [Log::Used, Log::Absent, Log::Moved, Log::Torn];

#[test]
fn a_run_that_is_killed_anywhere_has_written_down_what_it_did() {
    if !have(&["strace"], true) {
        return;
    }
    let names = [WRITING, &["pread64", "execve", "close", "exit_group", "utimensat"]].concat();
    for log in LOGS {
        let mut running = Running::new(log);
        let points = running.points(&names);
        assert!(points.len() >= 30, "{}", points.len());
        let (mut ran, mut not) = (0, 0);
        for point in points {
            let (traced, did_run) = running.strike(&point, "signal=KILL");
            assert_eq!(traced.status.signal(), Some(9));
            if did_run {
                ran += 1
            } else {
                not += 1
            }
            running.recover(&format!("a kill at {}", point.text));
        }
        assert!(ran >= 1 && not >= 20, "{log:?}: {ran} children ran, {not} did not");
    }
}

#[test]
fn a_run_whose_log_fails_does_not_start_its_child() {
    if !have(&["strace"], true) {
        return;
    }
    let names = [WRITING, &["pread64", "fstat", "newfstatat", "lstat"]].concat();
    for log in LOGS {
        let mut running = Running::new(log);
        let points = running.points(&names);
        let of_the_log: Vec<Point> =
            points.into_iter().filter(|point| point.text.contains("/log/") || point.text.contains("/log>")).collect();
        assert!(of_the_log.len() >= 15, "{log:?}: {}", of_the_log.len());
        for call in ["write", "pwrite64", "fdatasync", "flock", "open"] {
            assert!(of_the_log.iter().any(|point| point.name == call), "{log:?}: no {call}");
        }
        let mut refused = 0;
        for point in &of_the_log {
            // All of them once; where only the way to the log differs, what a disk says and what a signal does.
            let errors = if log == Log::Used { &ERRORS[..] } else { &["ENOSPC", "EINTR"] };
            for error in errors {
                let when = format!("{error} at {} {} {}", point.name, point.ordinal, point.text);
                let (traced, ran) = running.strike(point, &format!("error={error}"));
                let status = traced.status.code();
                // The lock ends with the process, too; a signal in between is no failure; an unknown name of the log is
                // opened anew.
                let may_go_on = point.text.contains("LOCK_UN") || *error == "EINTR" || point.text.contains("NOFOLLOW)");
                match (status, ran) {
                    (Some(123), false) => refused += 1,
                    (Some(0), true) if may_go_on => {}
                    _ => panic!("{log:?}: {when}: {status:?}, the child ran: {ran}\n{}", traced.transcript()),
                }
                running.recover(&when);
            }
        }
        assert!(refused >= 15, "{log:?}: {refused} runs were refused");
    }
}

#[test]
fn a_run_whose_other_calls_fail_is_recorded_or_refused() {
    if !have(&["strace"], true) {
        return;
    }
    let mut running = Running::new(Log::Used);
    let names = [
        "open",
        "openat",
        "read",
        "fstat",
        "newfstatat",
        "statx",
        "access",
        "readlink",
        "getcwd",
        "prctl",
        "fcntl",
        "getgroups",
        "mmap",
        "execve",
    ];
    let points = running.points(&names);
    assert!(points.len() >= 60, "{}", points.len());
    let child_at = points.iter().position(|point| point.name == "execve").unwrap();
    let (mut refused, mut went_on) = (0, 0);
    for (at, point) in points.iter().enumerate().take(child_at + 1) {
        for error in ["EIO", "EACCES", "ENOMEM"] {
            let (traced, ran) = running.strike(point, &format!("error={error}"));
            let status =
                traced.status.code().unwrap_or_else(|| panic!("{error} at {}\n{}", point.text, traced.transcript()));
            assert_eq!(ran, status == 0, "{error} at {}\n{}", point.text, traced.transcript());
            let ours = [120, 121, 122, 123, 124, 125, 126, 127];
            assert!(ran || ours.contains(&status), "{error} at {}: {status}\n{}", point.text, traced.transcript());
            let stderr = String::from_utf8_lossy(&traced.stderr);
            assert!(!stderr.contains("internal error"), "{error} at {}: {stderr}", point.text);
            if ran {
                went_on += 1
            } else {
                refused += 1
            }
            if at == child_at {
                assert_eq!(status, 126);
                assert_eq!(running.sealed.records().last().unwrap()["event"], "access.unused");
            }
        }
        running.recover(&point.text);
    }
    assert!(refused >= 50 && went_on >= 20, "{refused} refused, {went_on} went on");
}

#[test]
fn a_log_that_stays_broken_refuses_until_it_is_mended() {
    if !have(&["strace"], true) {
        return;
    }
    let mut running = Running::new(Log::Used);
    for rule in [
        "inject=fdatasync:error=EIO",
        "inject=flock:error=ENOLCK",
        "inject=flock:error=EAGAIN",
        "inject=pwrite64:error=ENOSPC",
        "inject=fdatasync:error=EIO:when=2+",
        "inject=write:retval=0",
    ] {
        running.prepare();
        let log = std::fs::metadata(running.path("log/audit.jsonl")).unwrap().len();
        let traced = trace(&running.sealed.scene, &["-y", "-e", rule], &Running::command(), b"");
        assert!(traced.calls.iter().any(|call| call.mentions("(INJECTED)")), "{rule}");
        assert_eq!(traced.status.code(), Some(123), "{rule}\n{}", traced.transcript());
        assert!(!running.path("marker").exists(), "{rule}");
        assert!(std::fs::metadata(running.path("log/audit.jsonl")).unwrap().len() >= log, "{rule}: the log shrank");
        running.recover(rule);
    }
}

#[test]
fn after_a_failed_sync_the_log_is_not_written_again() {
    if !have(&["strace"], true) {
        return;
    }
    let mut running = Running::new(Log::Used);
    running.prepare();
    let rules = ["-y", "-e", "inject=fdatasync:error=EIO:when=1"];
    let traced = trace(&running.sealed.scene, &rules, &Running::command(), b"");
    assert_eq!(traced.status.code(), Some(123), "{}", traced.transcript());
    let failed = traced.position("fdatasync", |call| call.name == "fdatasync");
    let after = &traced.calls[failed + 1..];
    let writes = after.iter().filter(|call| call.name.contains("write") && call.mentions("/log/")).count();
    assert_eq!(writes, 0, "{}", traced.transcript());
}

#[test]
fn a_record_cut_short_by_the_file_size_limit_refuses_and_is_quarantined() {
    if !have(&["prlimit"], true) {
        return;
    }
    let mut running = Running::new(Log::Used);
    for beyond in [0, 1, 300, 1000] {
        running.prepare();
        let log = std::fs::metadata(running.path("log/audit.jsonl")).unwrap().len();
        let mut words = vec![format!("--fsize={}", log + beyond), "--".into()];
        words.extend(Running::command().into_iter().map(|word| word.into_string().unwrap()));
        let output = running.sealed.scene.other("prlimit", &words).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(123), "{beyond}: {:?} {told}", output.status);
        assert!(!running.path("marker").exists(), "{beyond}");
        running.recover(&format!("{beyond} bytes of room"));
    }
    assert_eq!(running.sealed.verify()["quarantined"], 3);
}
