//! The agent and users who are not it: what the kernel says of them decides, and nothing else.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use crate::agent_scene::Agent;
use crate::harness::{Scene, VOUCHSAFE};
use crate::{copy_program, have};

const API: u32 = 54_321;
const OTHER: u32 = 54_322;
const GROUP: u32 = 54_400;

/// A scene that everybody may enter, where nobody but root can read the store's identity.
fn scene(grants: &str) -> Scene {
    let scene = Scene::with(&[("A", "hunter2"), ("B", "correct horse")]).grants(grants);
    std::fs::set_permissions(scene.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    copy_program(VOUCHSAFE, &scene.path("vouchsafe"));
    scene
}

/// `vouchsafe run --agent` as another user, with these groups.
fn run_as(scene: &Scene, uid: u32, groups: &[u32], words: &[&str]) -> (Option<i32>, String, String) {
    let binary = scene.path("vouchsafe");
    let id = uid.to_string();
    let groups = groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let groups = if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={groups}") };
    let through = format!("--agent={}", scene.path("agent.sock").display());
    let mut line =
        vec!["--reuid", &id, "--regid", &id, &groups, binary.to_str().unwrap(), "run", &through, "-e", "test"];
    line.extend(words);
    let output = scene.other("setpriv", &line).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_user_with_no_means_gets_what_is_his_and_no_more() {
    if !have(&["setpriv"], true) {
        return;
    }
    let scene = scene(&format!(
        "[[grants]]\nsecrets = [\"A\"]\nto = {{ users = [{API}] }}\n[[grants]]\nsecrets = [\"B\"]\nto = {{ groups = [{GROUP}] }}\n"
    ));
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{API}, {OTHER}]\n"), &[]);
    assert_eq!(std::fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777, 0o666);
    let one = run_as(&scene, API, &[], &["--only", "A", "--", "printenv", "A"]);
    assert_eq!((one.0, one.1.as_str()), (Some(0), "hunter2\n"), "{}", one.2);
    assert_eq!(run_as(&scene, API, &[], &["--", "env"]).0, Some(120), "B is not his");
    let both = run_as(&scene, API, &[GROUP], &["--", "printenv", "B"]);
    assert_eq!((both.0, both.1.as_str()), (Some(0), "correct horse\n"), "{}", both.2);
    assert_eq!(run_as(&scene, OTHER, &[], &["--", "env"]).0, Some(120));
    let record = agent.audit().into_iter().rev().find(|record| record["event"] == "access.released").unwrap();
    assert_eq!((record["actor"]["uid"].as_u64(), &record["actor"]["agent"]["uid"]), (Some(API.into()), &0.into()));
    assert_eq!(record["actor"]["groups"], serde_json::json!([API, GROUP]));
    assert_eq!(record["assurance"], "agent");
    agent.end();
}

#[test]
fn an_open_socket_lets_nobody_in() {
    if !have(&["setpriv"], true) {
        return;
    }
    // Everything is granted to anyone, the file's rights are everybody's: the host file alone says no.
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n");
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{API}]\n"), &[]);
    assert_eq!(run_as(&scene, API, &[], &["--", "printenv", "A"]).1, "hunter2\n");
    let refused = run_as(&scene, OTHER, &[], &["--", "env"]);
    assert_eq!((refused.0, refused.1.as_str()), (Some(120), ""), "{}", refused.2);
    let last = agent.audit().pop().unwrap();
    assert_eq!(last["reason"], "the host file does not let this user connect");
    assert_eq!(last["actor"]["uid"], OTHER);
    for verb in ["status", "flush"] {
        let id = API.to_string();
        let binary = scene.path("vouchsafe");
        let socket = agent.socket();
        let line =
            ["--reuid", &id, "--regid", &id, "--clear-groups", binary.to_str().unwrap(), "agent", verb, "--socket"];
        let output = scene.other("setpriv", &[&line[..], &[socket.to_str().unwrap()]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(120), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // Who would empty the cache is written down; who only looks is not.
    let records = agent.audit();
    let [.., before, last] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(before["event"], "access.denied");
    assert_eq!((&last["event"], &last["outcome"]), (&"agent.flushed".into(), &"denied".into()));
    assert_eq!(last["actor"]["uid"], API);
    // Without anybody listed, even the file is closed.
    drop(agent);
    let agent = Agent::start(&scene);
    assert_eq!(std::fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(run_as(&scene, API, &[], &["--", "env"]).0, Some(122));
}

/// A host that demands the agent: who goes by it is in the log of the host, or hears that he is not.
#[test]
fn who_goes_by_a_demanded_agent_is_written_down() {
    if !have(&["setpriv", "unshare", "mount"], true) {
        return;
    }
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n");
    scene.write_policy();
    std::fs::create_dir(scene.path("logs")).unwrap();
    for name in ["passwd", "group"] {
        scene.write(&format!("etc/{name}"), &std::fs::read(format!("/etc/{name}")).unwrap());
    }
    let run = |log: &str, words: &str| {
        let log = scene.path(log).display().to_string();
        let host = format!("agent.require = true\n[[audit.sinks]]\ntype = \"file\"\npath = \"{log}\"\nsync = false\n");
        scene.write("etc/vouchsafe/host.toml", host.as_bytes());
        let script = format!(
            "mount --bind etc /etc && exec setpriv --reuid {API} --regid {API} --clear-groups ./vouchsafe {words} -- no-such"
        );
        let output = scene.other("unshare", &["-m", "sh", "-c", &script]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    chown(scene.path("logs"), Some(API), Some(API)).unwrap();
    // Without a policy that he can read; with one; with one that he chooses.
    for words in [
        "run --no-agent --env prod --only A",
        "run --policy policy.toml --only A",
        "run --no-agent --policy policy.toml --only A",
    ] {
        assert_eq!(run("logs/{uid}.jsonl", words).0, Some(120), "{words}");
    }
    let text = std::fs::read_to_string(scene.path(&format!("logs/{API}.jsonl"))).unwrap();
    let records: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 3, "{text}");
    for (record, environment) in records.iter().zip(["prod", "test", "test"]) {
        assert_eq!((&record["event"], &record["environment"]), (&"access.denied".into(), &environment.into()));
        assert_eq!((&record["actor"]["uid"], &record["secrets"][0]["name"]), (&API.into(), &"A".into()));
        assert!(record["reason"].as_str().unwrap().contains("through the agent"), "{record}");
    }
    // The log of the host is the agent's alone: both are said.
    let (status, said) = run("agent.jsonl", "run --no-agent --env prod");
    assert_eq!(status, Some(123), "{said}");
    assert!(
        said.contains("demands that secrets come through the agent; and that this was refused could not"),
        "{said}"
    );
    assert!(said.contains("vouchsafe run --agent"), "{said}");
}

#[test]
fn who_takes_the_agents_place_is_told_nothing() {
    if !have(&["setpriv", "python3"], true) {
        return;
    }
    let scene = scene("");
    let socket = scene.path("agent.sock");
    std::fs::create_dir(scene.path("theirs")).unwrap();
    chown(scene.path("theirs"), Some(OTHER), Some(OTHER)).unwrap();
    let socket = socket.with_file_name("theirs").join("agent.sock");
    let id = OTHER.to_string();
    let listens = format!(
        "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.bind({:?})\ns.listen()\nprint('ready',flush=True)\n\
         c,_=s.accept()\nsys.stdout.write(repr(c.recv(100)))\n",
        socket.to_str().unwrap()
    );
    let line = ["--reuid", &id, "--regid", &id, "--clear-groups", "python3", "-c", &listens];
    let mut squatter = scene.other("setpriv", &line).stdout(Stdio::piped()).spawn().unwrap();
    let mut heard = squatter.stdout.take().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut heard, &mut ready).unwrap();
    let through = format!("--agent={}", socket.display());
    let refused = scene.vouchsafe(&["run", &through, "-e", "test", "--", "env"]).expect_status(120);
    assert!(refused.err().contains(&format!("is served by uid {OTHER}, who is not the agent")), "{}", refused.err());
    squatter.wait().unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut heard, &mut rest).unwrap();
    assert_eq!(rest, "b''", "something was sent");
}

/// One user holds as many connections open as there are; another one gets an answer all the same.
#[test]
fn one_user_cannot_lock_the_others_out() {
    if !have(&["setpriv", "python3"], true) {
        return;
    }
    let scene = scene("[[grants]]\nsecrets = [\"*\"]\nto = \"anyone\"\n");
    let agent = Agent::start_with(&scene, &format!("[agent]\nusers = [{API}, {OTHER}]\n"), &[]);
    let mut crowd = half_open(&scene, OTHER, 2000);
    let served = run_as(&scene, API, &[], &["--", "printenv", "A"]);
    assert_eq!((served.0, served.1.as_str()), (Some(0), "hunter2\n"), "{}", served.2);
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
    UnixStream::connect(agent.socket()).unwrap();
    agent.end();
}

/// A process of another user that opens connections, says a byte on each, and holds them until its input ends.
pub fn half_open(scene: &Scene, uid: u32, count: u32) -> Child {
    let program = format!(
        "import resource,socket,sys\nresource.setrlimit(resource.RLIMIT_NOFILE,(4096,4096))\nheld=[]\n\
         for _ in range({count}):\n s=socket.socket(socket.AF_UNIX)\n s.connect({:?})\n held.append(s)\n \
         try: s.send(b'\\0')\n except OSError: pass\nprint('ready',flush=True)\nsys.stdin.read()\n",
        scene.path("agent.sock").to_str().unwrap()
    );
    let id = uid.to_string();
    let line = ["--reuid", &id, "--regid", &id, "--clear-groups", "python3", "-c", &program];
    let mut command = scene.other("setpriv", &line);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    child
}
