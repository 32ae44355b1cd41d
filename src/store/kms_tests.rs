//! Tests of what needs no KMS: the encryption context, the stanza, and the vectors of `docs/spec/kms-stanza.md`.

use std::collections::HashSet;

use ::age::x25519;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use super::*;
use crate::policy::sealed_trust::SealedDemand;
use crate::store::scratch::{Scratch, SigningKey, environment, item, no_env, read, secret, service, store_name};
use crate::store::sealed;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn vectors(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/kms").join(name)
}

fn vector() -> Value {
    serde_json::from_slice(&read(&vectors("sealed.json"))).unwrap()
}

fn pairs(value: &Value) -> BTreeMap<String, String> {
    let members = value.as_object().unwrap();
    members.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_context_is_canonical_and_no_two_are_alike() {
    let vectors: Value = serde_json::from_slice(&read(&vectors("context.json"))).unwrap();
    let mut seen = HashSet::new();
    for case in vectors.as_array().unwrap() {
        let of = case["service"].as_str().map(service);
        let made = context_of(&environment(case["environment"].as_str().unwrap()), of.as_ref(), &pairs(&case["own"]));
        assert_eq!(made, pairs(&case["context"]), "{case}");
        assert!(seen.insert(format!("{made:?}")), "{case}");
    }
}

#[test]
fn nothing_of_the_stores_own_context_takes_the_place_of_ours() {
    let own = BTreeMap::from([("vouchsafe:environment".to_owned(), "dev".to_owned())]);
    assert_eq!(context_of(&environment("prod"), None, &own)["vouchsafe:environment"], "prod");
}

#[test]
fn the_vector_opens_in_two_passes_and_with_the_offline_key() {
    let (file, vector) = (read(&vectors("sealed.age")), vector());
    let sealed = SealedBytes::parse(Vouched::of_no_store(&file)).unwrap();
    let Opening::Locked(stanzas) = sealed.open([]).unwrap() else { panic!("opened without a key") };
    let body = STANDARD_NO_PAD.decode(vector["stanza_body"].as_str().unwrap()).unwrap();
    assert_eq!(stanzas, [KmsStanza { key: vector["key"].as_str().unwrap().to_owned(), ciphertext: body }]);
    let file_key: [u8; FILE_KEY] = hex(vector["file_key"].as_str().unwrap()).try_into().unwrap();
    let plaintext = sealed.open_with_file_key(FileKey::new(Box::new(file_key))).unwrap();
    let document = Document::parse(plaintext.expose()).unwrap();
    let (_, version) = document.get(&item("DATABASE_URL"), None, None).unwrap();
    assert_eq!(version.value.expose(), vector["value"].as_str().unwrap().as_bytes());
    let identity: x25519::Identity = vector["identity"].as_str().unwrap().parse().unwrap();
    assert!(matches!(sealed.open([&identity as &dyn ::age::Identity]).unwrap(), Opening::Opened(_)));
    let other = FileKey::new(Box::new([7; FILE_KEY]));
    assert!(sealed.open_with_file_key(other).is_err(), "another file key opens nothing");
}

/// Any blob as the stanza's body: KMS is the only one who knows what is in it.
struct FakeKms(RefCell<Option<[u8; FILE_KEY]>>, Vec<u8>);

impl ::age::Recipient for FakeKms {
    fn wrap_file_key(&self, file_key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), ::age::EncryptError> {
        self.0.replace(Some(*file_key.expose_secret()));
        let stanza = Stanza { tag: KMS_STANZA.into(), args: vec![KEY.into()], body: self.1.clone() };
        Ok((vec![stanza], HashSet::new()))
    }
}

/// Makes the vector anew: `cargo test -- --ignored make_the_vector`.
#[test]
#[ignore = "writes tests/vectors/kms"]
fn make_the_vector() {
    use ::age::secrecy::ExposeSecret as _;
    let identity = x25519::Identity::generate();
    let kms = FakeKms(RefCell::new(None), (0..184).map(|byte| (byte * 7 % 251) as u8).collect());
    let mut document = Document::new(environment("prod"), Some(service("api")));
    document.generation = 1;
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_600);
    document.set(&item("DATABASE_URL"), secret("postgres://vector"), "vector@example", time).unwrap();
    let offline = identity.to_public();
    let recipients: [&dyn ::age::Recipient; 2] = [&kms, &offline];
    let file = sealed::encrypt(&document.to_plaintext(), recipients).unwrap();
    let file_key: String = kms.0.borrow().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let vector = serde_json::json!({
        "key": KEY,
        "context": context_of(&environment("prod"), Some(&service("api")), &BTreeMap::new()),
        "stanza_body": STANDARD_NO_PAD.encode(&kms.1),
        "file_key": file_key,
        "identity": identity.to_string().expose_secret(),
        "value": "postgres://vector",
    });
    std::fs::create_dir_all(vectors("")).unwrap();
    std::fs::write(vectors("sealed.age"), file).unwrap();
    std::fs::write(vectors("sealed.json"), serde_json::to_string_pretty(&vector).unwrap() + "\n").unwrap();
}

fn store(folder: &Scratch) -> KmsStore {
    KmsStore {
        // Nobody listens there: a test that reaches for KMS fails, and at once.
        aws: crate::policy::model::AwsAccess { endpoint: Some("http://127.0.0.1:9".into()), ..Default::default() },
        key: KEY.into(),
        path: Some(folder.path("prod.kms.age")),
        recipients: Vec::new(),
        context: BTreeMap::new(),
        identities: Vec::new(),
        min_generation: 0,
    }
}

fn open(store: &KmsStore, wanted: &[Wanted]) -> Result<Vec<Answer>, StoreError> {
    open_guarded(store, wanted, Guard::default())
}

fn open_guarded(store: &KmsStore, wanted: &[Wanted], guard: Guard<'_>) -> Result<Vec<Answer>, StoreError> {
    let (network, notes) = Default::default();
    let access =
        Access { policy: &store.aws, network: &network, env: &no_env, notes: &notes, fallback_region: region_of(KEY) };
    let (name, prod, api) = (store_name(), environment("prod"), service("api"));
    let mut file = KmsFile::new(&name, store, &prod, Some(&api), access, guard);
    file.fetch(wanted, Instant::now() + std::time::Duration::from_secs(5))
}

fn database_url() -> Wanted {
    Wanted::Item { item: item("DATABASE_URL"), version: None, stage: None, plain: false }
}

#[test]
fn an_offline_identity_opens_without_kms() {
    let folder = Scratch::new();
    let mut store = store(&folder);
    folder.write("prod.kms.age", read(&vectors("sealed.age")), 0o644);
    let key = folder.write("key", vector()["identity"].as_str().unwrap(), 0o600);
    store.identities = vec![crate::policy::model::IdentitySource::File(key)];
    let answers = open(&store, &[database_url()]).unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(answers.as_slice(), [Answer::Found(found)] if found.version == Some(1)));
}

#[test]
fn a_stanza_of_another_key_never_goes_to_kms() {
    let folder = Scratch::new();
    let mut store = store(&folder);
    folder.write("prod.kms.age", read(&vectors("sealed.age")), 0o644);
    store.key = KEY.replace("1234abcd", "ffffffff");
    let Err(error) = open(&store, &[database_url()]) else { panic!("opened") };
    let StoreErrorKind::Sealed(error) = error.kind else { panic!("{error}") };
    assert!(matches!(&*error.kind, Kind::OtherKmsKey { found } if found == KEY), "{error}");
}

#[test]
fn nobody_asks_kms_for_a_file_that_nobody_answers_for() {
    let (folder, alice, prod) = (Scratch::new(), SigningKey::new(1), environment("prod"));
    let mut store = store(&folder);
    let path = folder.write("prod.kms.age", read(&vectors("sealed.age")), 0o644);
    let trust = alice.trusted_for("prod");
    let guard = Guard { demand: SealedDemand::of(Some(&trust), &prod), ..Guard::default() };
    let kind = |store: &KmsStore, guard| {
        let Err(error) = open_guarded(store, &[database_url()], guard) else { panic!("opened") };
        let StoreErrorKind::Sealed(error) = error.kind else { panic!("{error}") };
        *error.kind
    };
    assert!(matches!(kind(&store, guard), Kind::Trust(_)));
    // Signed, it is opened, and may still be too old.
    let text = alice.signature(crate::policy::trust::SEALED_NAMESPACE, &read(&path));
    folder.write("prod.kms.age.sig", text, 0o644);
    let key = folder.write("key", vector()["identity"].as_str().unwrap(), 0o600);
    store.identities = vec![crate::policy::model::IdentitySource::File(key)];
    assert!(open_guarded(&store, &[database_url()], guard).is_ok());
    assert!(matches!(kind(&store, Guard { min_generation: 1_000, ..guard }), Kind::Old { least: 1_000, .. }));
}

#[test]
fn without_credentials_nothing_is_asked() {
    let folder = Scratch::new();
    let mut store = store(&folder);
    folder.write("prod.kms.age", read(&vectors("sealed.age")), 0o644);
    store.aws.credential_source = Some(crate::policy::model::CredentialSource::Environment);
    let Err(error) = open(&store, &[database_url()]) else { panic!("opened") };
    let StoreErrorKind::Aws(error) = error.kind else { panic!("{error}") };
    assert_eq!(error.problem, Problem::NoCredentials { tried: vec!["environment"] });
}
