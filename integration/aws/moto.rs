//! moto: an emulator that others wrote, for breadth; and boto3 beside it, so that what we read was written by somebody else's
//! client, and what we write is read by one.
//!
//! Both live in the venv that `integration/run` makes.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::server::eventually;
use super::scene::{AwsScene, canary};

/// A program of the venv; says loudly what is skipped where it is missing.
pub fn venv(program: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin").join(program);
    if path.exists() {
        return Some(path);
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    println!("\nSKIPPED: {test} (needs {program} in target/venv, which integration/run makes)");
    None
}

/// A running moto_server, ended by its id when dropped.
pub struct Moto {
    child: Child,
    pub endpoint: String,
}

impl Moto {
    pub fn start() -> Option<Self> {
        let program = venv("moto_server")?;
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, endpoint: format!("http://127.0.0.1:{port}") };
        eventually("moto_server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(moto)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// What a script prints that has `ssm` and `kms` clients of boto3 for this endpoint.
pub fn boto3(endpoint: &str, script: &str) -> String {
    let python = venv("python").unwrap();
    let head = format!(
        "import boto3, base64, json, sys\nfrom botocore.config import Config\n\
         config = Config(retries={{'max_attempts': 0}}, connect_timeout=5, read_timeout=10)\n\
         def client(name): return boto3.client(name, endpoint_url='{endpoint}', region_name='eu-west-1', config=config)\n\
         ssm, kms = client('ssm'), client('kms')\n"
    );
    let output = Command::new(python)
        .args(["-c", &(head + script)])
        .env_clear()
        .env("AWS_ACCESS_KEY_ID", STATIC_ID)
        .env("AWS_SECRET_ACCESS_KEY", STATIC_SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A scene whose stores are moto's.
fn scene(moto: &Moto) -> AwsScene {
    let mut scene = AwsScene::new();
    scene.stores = format!("region = \"eu-west-1\"\nendpoint = \"{}\"\n", moto.endpoint);
    scene
}

#[test]
fn vouchsafe_reads_what_boto3_wrote() {
    let Some(moto) = Moto::start() else { return };
    boto3(
        &moto.endpoint,
        "for n in range(23): ssm.put_parameter(Name=f'/test/api/K{n:02}', Value=f'value {n} \u{e9}\\n', Type='SecureString')\n\
         for n in range(3): ssm.put_parameter(Name='/test/api/V', Value=f'v{n}', Type='SecureString', Overwrite=True)\n\
         ssm.label_parameter_version(Name='/test/api/V', ParameterVersion=2, Labels=['vouchsafe-current'])\n\
         for n in range(13): ssm.put_parameter(Name=f'/test/api/f/b{n:02}', Value=f'b{n}', Type='SecureString')\n",
    );
    let names: String = (0..23).map(|number| format!("K{number:02} = {{}}\n")).collect();
    let scene = scene(&moto).secrets(&format!(
        "[secrets]\n{names}LATEST = {{ item = \"V\" }}\nFIRST = {{ item = \"V\", version = 1 }}\n\
         CURRENT = {{ item = \"V\", stage = \"current\" }}\n[[bundles]]\npath = \"f/\"\n"
    ));
    let environment = scene.environment();
    for number in 0..23 {
        assert_eq!(environment[&format!("K{number:02}")], format!("value {number} \u{e9}\n"));
    }
    for number in 0..13 {
        assert_eq!(environment[&format!("B{number:02}")], format!("b{number}"));
    }
    assert_eq!([&environment["LATEST"], &environment["FIRST"], &environment["CURRENT"]], ["v2", "v0", "v1"]);
}

#[test]
fn boto3_reads_what_vouchsafe_wrote() {
    let Some(moto) = Moto::start() else { return };
    let scene = scene(&moto).secrets("[secrets]\nA = {}\n");
    scene.set("A", "first").expect_status(0);
    scene.set("A", "second \u{e9}").expect_status(0);
    let read = boto3(
        &moto.endpoint,
        "p = ssm.get_parameter(Name='/test/api/A', WithDecryption=True)['Parameter']\n\
         print(p['Value'], p['Type'], p['Version'])\n",
    );
    assert_eq!(read, "second \u{e9} SecureString 2");
    let history = scene.vouchsafe(&["history", "A"]).expect_status(0);
    assert!(!history.out().contains("second"), "{}", history.transcript());
    scene.vouchsafe(&["remove", "A"]).expect_status(0);
    scene.fails().expect_status(122);
}

#[test]
fn an_inline_ciphertext_made_by_boto3_and_a_file_sealed_under_its_key() {
    let Some(moto) = Moto::start() else { return };
    let made = boto3(
        &moto.endpoint,
        "key = kms.create_key()['KeyMetadata']['Arn']\n\
         blob = kms.encrypt(KeyId=key, Plaintext=b'canary-of-inline', EncryptionContext={'app': 'x'})['CiphertextBlob']\n\
         print(key, base64.b64encode(blob).decode())\n",
    );
    let (key, blob) = made.split_once(' ').unwrap();
    let scene = scene(&moto).secrets(&format!(
        "[secrets]\nINLINE = {{ store = \"sealed\", ciphertext = \"{blob}\", context = {{ app = \"x\" }} }}\n\
         A = {{ store = \"sealed\" }}\n"
    ));
    let policy = scene.policy();
    let text = std::fs::read_to_string(&policy).unwrap();
    let ours = text.lines().find(|line| line.starts_with("key = ")).unwrap().to_owned();
    let policy = scene.scene.write("moto.toml", text.replace(&ours, &format!("key = \"{key}\"")).as_bytes());
    let policy = policy.display().to_string();
    scene.scene.vouchsafe_reading(&["set", "A", "--policy", &policy], canary("A").as_bytes()).expect_status(0);
    let outcome = scene.scene.vouchsafe(&["run", "--policy", &policy, "--", "printenv", "INLINE", "A"]);
    assert_eq!(outcome.expect_status(0).out(), "canary-of-inline\ncanary-of-A\n");
}
