//! The program target against real programs: what it passes on, what it masks, how it ends.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::*;
use crate::store::scratch::Scratch;

/// While one thread has a program open for writing, another's fork hands the descriptor on, and the program cannot be
/// executed (ETXTBSY). So these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Scene {
    program: Program,
    secret: VariableName,
    environment: EnvironmentName,
    folder: Scratch,
}

impl Scene {
    /// A program whose lines these are, after `#!/bin/sh`.
    fn new(lines: &str) -> Self {
        let folder = Scratch::new();
        let path = folder.write("hook", format!("#!/bin/sh\n{lines}\n"), 0o700);
        Self {
            program: Program { path, timeout: Duration::from_secs(20), needs: Vec::new() },
            secret: VariableName::new("DB_PASSWORD").unwrap(),
            environment: EnvironmentName::new("prod").unwrap(),
            folder,
        }
    }

    fn timeout(mut self, millis: u64) -> Self {
        self.program.timeout = Duration::from_millis(millis);
        self
    }

    fn target(&self) -> CommandTarget<'_> {
        self.with(&[])
    }

    fn with(&self, needs: &[(&str, &str)]) -> CommandTarget<'_> {
        self.try_with(needs).unwrap()
    }

    fn try_with(&self, needs: &[(&str, &str)]) -> Result<CommandTarget<'_>, TargetError> {
        let needs = needs.iter().map(|(name, value)| (VariableName::new(*name).unwrap(), secret(value))).collect();
        CommandTarget::new(&self.program, &self.secret, &self.environment, needs)
    }

    fn out(&self) -> PathBuf {
        self.program.path.with_file_name("out")
    }

    /// What the program wrote beside itself.
    fn written(&self) -> String {
        let bytes = std::fs::File::open(self.out()).map(|mut file| {
            let mut text = String::new();
            io::Read::read_to_string(&mut file, &mut text).unwrap();
            text
        });
        bytes.unwrap_or_default()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

/// Whether a process is there and no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::File::open(format!("/proc/{}/stat", pid.trim())).map(|mut file| {
        let mut text = String::new();
        io::Read::read_to_string(&mut file, &mut text).map(|_| text).unwrap_or_default()
    });
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z")))
}

/// Waits for what another process does in its own time.
fn eventually(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
}

/// The contract of `docs/rotation.md`, to the letter: nothing is missing, nothing is there besides.
#[test]
fn every_step_gets_its_values_and_no_others() {
    let _turn = turn();
    let scene = Scene::new(
        "cd \"${0%/*}\"; tr '\\0' '\\n' </proc/$$/environ | sort >out; tr '\\0' ' ' </proc/$$/cmdline >>out",
    );
    let mut target = scene.with(&[("ADMIN", "canary-admin")]);
    let (current, pending, generated) = (secret("canary-c"), secret("canary-p"), secret("canary-g"));
    let mut check = |step: &str, values: &[&str], run: &mut dyn FnMut(&mut CommandTarget<'_>)| {
        run(&mut target);
        let common = [
            "ADMIN=canary-admin",
            "LANG=C.UTF-8",
            "PATH=/usr/bin:/bin",
            "VOUCHSAFE_ENVIRONMENT=prod",
            "VOUCHSAFE_SECRET=DB_PASSWORD",
        ];
        let mut lines: Vec<String> = common.iter().chain(values).map(ToString::to_string).collect();
        lines.push(format!("VOUCHSAFE_STEP={step}"));
        lines.sort();
        lines.push(format!("/bin/sh {} ", scene.program.path.display()));
        assert_eq!(scene.written(), lines.join("\n"));
    };
    let (of_c, of_p, of_g) =
        ("VOUCHSAFE_CURRENT=canary-c", "VOUCHSAFE_PENDING=canary-p", "VOUCHSAFE_GENERATED=canary-g");
    check("create", &[of_c, of_g], &mut |target| {
        assert_eq!(text(&target.compose(Some(&current), generated.duplicate()).unwrap()), "canary-g");
    });
    check("create", &[of_g], &mut |target| drop(target.compose(None, generated.duplicate()).unwrap()));
    check("apply", &[of_c, of_p], &mut |target| target.apply(Some(&current), &pending).unwrap());
    check("apply", &[of_p], &mut |target| target.apply(None, &pending).unwrap());
    check("verify", &[of_p], &mut |target| target.verify(&pending).unwrap());
    check("retire", &[of_c, "VOUCHSAFE_PREVIOUS=canary-p"], &mut |target| target.retire(&pending, &current).unwrap());
    check("generate", &[], &mut |target| drop(target.generate().err().unwrap()));
    assert!(target.remarks().is_empty());
}

#[test]
fn it_starts_with_nothing_of_ours() {
    let _turn = turn();
    let scene = Scene::new(
        // In a subshell, whose redirections the shell itself does not see; no pipe, of which it would hold an end. And it reads
        // its masks itself, since it blocks signals while it starts another program.
        "cd \"${0%/*}\"; { pwd -P >&3; } 3>cwd; (ls /proc/$$/fd >fds); tr '\\n' ' ' <fds >out; readlink /proc/$$/fd/0 >>out; \
         while read -r name mask; do case $name in SigBlk:|SigIgn:) printf '%s\\t%s\\n' \"$name\" \"$mask\";; esac; done \
         </proc/$$/status >>out; awk '{ print ($1 == $5) ($1 == $6) }' /proc/$$/stat >>out",
    );
    // Without CLOEXEC, as a shell hands one on.
    let inherited = rustix::io::fcntl_dupfd_cloexec(std::fs::File::open("/dev/null").unwrap(), 50).unwrap();
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
    scene.target().verify(&secret("x")).unwrap();
    // 10 is where dash keeps the script that it reads.
    let written = scene.written().replace("0 1 10 2", "0 1 2");
    assert_eq!(written, "0 1 2 /dev/null\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n11\n");
    let scene_folder = Scene::new("pwd >\"${0%/*}/out\"");
    scene_folder.target().verify(&secret("x")).unwrap();
    assert_eq!(scene_folder.written(), "/\n");
}

#[test]
fn what_create_prints_is_the_value() {
    let _turn = turn();
    for (lines, value) in [
        (":", Some("generated")),
        ("echo whole", Some("whole")),
        ("printf 'two\\nlines\\n\\n'", Some("two\nlines\n")),
        ("printf '%s' \"$VOUCHSAFE_CURRENT+$VOUCHSAFE_GENERATED\"", Some("current+generated")),
        ("head -c 70000 /dev/zero", None),
        ("echo whole; exit 1", None),
        ("echo whole; kill -9 $$", None),
    ] {
        let scene = Scene::new(lines);
        let composed = scene.target().compose(Some(&secret("current")), secret("generated"));
        assert_eq!(composed.as_ref().map(text).ok().as_deref(), value, "{lines}");
    }
    let scene = Scene::new("[ \"$VOUCHSAFE_STEP\" = generate ] && echo made");
    assert_eq!(text(&scene.target().generate().unwrap()), "made");
    let scene = Scene::new("exit 0");
    assert!(scene.target().generate().err().unwrap().problem.contains("printed no value"));
}

#[test]
fn a_failure_says_what_the_program_said_without_a_value() {
    let _turn = turn();
    let scene = Scene::new(
        "echo \"user $VOUCHSAFE_CURRENT\"; echo \"cut ${VOUCHSAFE_PENDING#????}\" >&2; printf '\\033[31madmin %s\\n' \"$ADMIN\" >&2\n\
         printf '%s' \"$VOUCHSAFE_PENDING\" | base64; exit $((VOUCHSAFE_PENDING_STATUS + 3))",
    );
    let mut target = scene.with(&[("ADMIN", "postgres://root:canary-admin@db/")]);
    let error = target.apply(Some(&secret("canary-current")), &secret("canary-pending")).unwrap_err();
    assert_eq!(error.problem, format!("`{}` failed at the step `apply` (exit status 3)", scene.program.path.display()));
    assert!(!error.is_unsettled && !error.is_busy);
    let remarks = target.remarks().join("\n");
    assert!(remarks.contains("hook: user [masked]\n") && remarks.contains("hook: cut [masked]\n"), "{remarks}");
    assert!(remarks.contains("admin postgres://[masked]") && remarks.contains("\\u{1b}[31m"), "{remarks}");
    for piece in ["canary", "ry-pend", "Y2FuYXJ5", "root"] {
        assert!(!remarks.contains(piece), "{remarks}");
    }
    assert!(target.remarks().is_empty(), "told once");
    // What was to be a value is known to nobody, so it is not shown at all.
    let scene = Scene::new("echo fresh-value; echo why >&2; exit 1");
    let mut target = scene.target();
    target.generate().err().unwrap();
    assert!(target.remarks().concat().ends_with("hook: why"));
    for (lines, words, unsettled) in [
        ("exit 75", ["could not do the step `apply` now", "vouchsafe rotate DB_PASSWORD --resume"], false),
        ("kill -KILL $$", ["ended by signal 9", "`apply`"], true),
        ("exit 255", ["exit status 255", "`apply`"], false),
    ] {
        let scene = Scene::new(lines);
        let error = scene.target().apply(None, &secret("x")).unwrap_err();
        let all = format!("{} {:?}", error.problem, error.hint);
        assert!(words.iter().all(|word| all.contains(word)), "{all}");
        assert_eq!(error.is_unsettled, unsettled, "{lines}");
    }
}

/// It ignores TERM, has a child that does too, and both hold the pipes open.
#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let _turn = turn();
    let scene = Scene::new(
        "trap '' TERM; cd \"${0%/*}\"; sh -c 'trap \"\" TERM; echo $$ >child; while :; do sleep 1; done' & echo $$ >out; while :; do sleep 1; done",
    )
    .timeout(300);
    let start = Instant::now();
    let mut target = scene.target();
    let error = target.apply(None, &secret("x")).unwrap_err();
    assert!(
        error.problem.contains("did not end the step `apply` within 300ms") && error.is_unsettled,
        "{}",
        error.problem
    );
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(!is_alive(&scene.written()));
    let child = scene.program.path.with_file_name("child");
    let mut pid = String::new();
    io::Read::read_to_string(&mut std::fs::File::open(child).unwrap(), &mut pid).unwrap();
    eventually(|| !is_alive(&pid));
    // One that ends when it is told to has its time to clean up.
    let scene =
        Scene::new("trap 'echo clean >\"${0%/*}/out\"; exit 0' TERM; while :; do sleep 0.05; done").timeout(200);
    assert!(scene.target().verify(&secret("x")).unwrap_err().problem.contains("within 200ms"));
    assert_eq!(scene.written(), "clean\n");
}

#[test]
fn what_a_program_leaves_behind_does_not_keep_us() {
    let _turn = turn();
    let scene = Scene::new("sleep 1000 & echo $! >\"${0%/*}/out\"; echo value");
    let start = Instant::now();
    assert_eq!(text(&scene.target().compose(None, secret("x")).unwrap()), "value");
    assert!(start.elapsed() < Duration::from_secs(5));
    eventually(|| !is_alive(&scene.written()));
    // One that left the group is out of reach, and still does not keep us.
    let scene = Scene::new(
        "setsid sh -c 'echo $$ >\"${1%/*}/out.new\"; mv \"${1%/*}/out.new\" \"${1%/*}/out\"; exec sleep 1000' - \"$0\" & while [ ! -e \"${0%/*}/out\" ]; do sleep 0.01; done; echo value",
    );
    let start = Instant::now();
    assert_eq!(text(&scene.target().compose(None, secret("x")).unwrap()), "value");
    assert!(start.elapsed() < Duration::from_secs(5));
    let pid = rustix::process::Pid::from_raw(scene.written().trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_flood_is_neither_kept_nor_waited_for() {
    let _turn = turn();
    let scene =
        Scene::new("head -c 10000000 /dev/zero | tr '\\0' 'a'; head -c 10000000 /dev/zero | tr '\\0' '\\n' >&2");
    scene.target().verify(&secret("x")).unwrap();
    let scene = Scene::new("yes line; exit 1").timeout(300);
    let mut target = scene.target();
    let start = Instant::now();
    target.verify(&secret("value")).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(8));
    assert_eq!(target.remarks().len(), 20);
}

#[test]
fn a_program_that_others_could_have_written_gets_nothing() {
    let _turn = turn();
    let scene = Scene::new("echo ran >\"${0%/*}/out\"");
    let refused = |scene: &Scene, path: PathBuf, word: &str| {
        let program = Program { path, ..scene.program.clone() };
        let made = CommandTarget::new(&program, &scene.secret, &scene.environment, Vec::new());
        let error = made.and_then(|mut target| target.verify(&secret("x"))).unwrap_err();
        assert!(error.problem.contains(word), "{}", error.problem);
        assert_eq!(scene.written(), "");
    };
    let path = scene.program.path.clone();
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for bad in [0o777, 0o702] {
        mode(&path, bad);
        refused(&scene, path.clone(), "can be written by others");
    }
    mode(&path, 0o600);
    refused(&scene, path.clone(), "permission denied");
    mode(&path, 0o700);
    let folder = path.parent().unwrap().to_owned();
    mode(&folder, 0o777);
    refused(&scene, path.clone(), "can be written by others");
    mode(&folder, 0o700);
    std::fs::create_dir(folder.join("sub")).unwrap();
    refused(&scene, folder.join("sub"), "no regular file");
    refused(&scene, folder.join("absent"), "no such file");
    refused(&scene, "hook".into(), "no absolute path");
    refused(&scene, scene.folder.write("data", "neither", 0o700), "exec format error");
    refused(&scene, scene.folder.write("lost", "#!/nowhere/sh\n", 0o700), "no such file");
    // Swapped between two steps.
    let mut target = scene.target();
    mode(&path, 0o777);
    assert!(target.verify(&secret("x")).unwrap_err().problem.contains("written by others"));
    mode(&path, 0o700);
    target.verify(&secret("x")).unwrap();
    assert_eq!(scene.written(), "ran\n");
}

#[test]
fn names_and_values_that_an_environment_cannot_have() {
    let _turn = turn();
    let scene = Scene::new("echo ran >\"${0%/*}/out\"");
    for name in ["PATH", "LANG", "VOUCHSAFE_CURRENT", "VOUCHSAFE_X"] {
        assert!(scene.try_with(&[(name, "x")]).is_err_and(|error| error.problem.contains(name)));
    }
    let error = scene.target().verify(&secret("a\0b")).unwrap_err();
    assert!(error.problem.contains("NUL") && error.problem.contains("VOUCHSAFE_PENDING"));
    let error = scene.target().verify(&Secret::new(vec![b'a'; 200_000])).unwrap_err();
    assert!(error.problem.contains("argument list too long"), "{}", error.problem);
    assert_eq!(scene.written(), "");
}
