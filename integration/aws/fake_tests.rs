//! The fake itself: that it is as strict as it says. Driven with signed requests over a socket.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::fault::{Action, Bucket, Fault};
use super::fake::http::Request;
use super::fake::sigv4::{Key, sign};
use super::fake::{Fake, REGION, kms, ssm};

/// Status and body of one signed call. Status 0 is a connection that was closed.
fn call(fake: &Fake, target: &str, body: &Value) -> (u16, Value) {
    let key = Key { secret: STATIC_SECRET.into(), token: None, expires: None };
    send(fake, target, body, STATIC_ID, &key, SystemTime::now())
}

fn send(fake: &Fake, target: &str, body: &Value, id: &str, key: &Key, now: SystemTime) -> (u16, Value) {
    let service = if target.starts_with("Trent") { "kms" } else { "ssm" };
    let mut request =
        Request { method: "POST".into(), path: "/".into(), body: body.to_string().into_bytes(), ..Request::default() };
    request.headers.push(("host".into(), format!("127.0.0.1:{}", fake.port())));
    request.headers.push(("content-type".into(), "application/x-amz-json-1.1".into()));
    request.headers.push(("x-amz-target".into(), target.into()));
    sign(&mut request, id, key, REGION, service, now);
    raw(fake, &request)
}

fn raw(fake: &Fake, request: &Request) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", fake.port())).unwrap();
    let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", request.method, request.path);
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", request.body.len()));
    stream.write_all(text.as_bytes()).unwrap();
    stream.write_all(&request.body).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap_or_default();
    let reply = String::from_utf8_lossy(&reply);
    let Some((head, body)) = reply.split_once("\r\n\r\n") else { return (0, Value::Null) };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

fn code(answer: &(u16, Value)) -> &str {
    answer.1["__type"].as_str().unwrap_or("ok")
}

fn put(fake: &Fake, name: &str, value: &str, more: Value) -> (u16, Value) {
    let mut body = json!({ "Name": name, "Value": value, "Type": "SecureString" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call(fake, "AmazonSSM.PutParameter", &body)
}

#[test]
fn a_signature_is_verified() {
    let fake = Fake::start();
    fake.secure("/a", "1");
    let body = json!({ "Name": "/a" });
    let good = Key { secret: STATIC_SECRET.into(), token: None, expires: None };
    let now = SystemTime::now();
    let ask = |id: &str, key: &Key, now| code(&send(&fake, "AmazonSSM.GetParameter", &body, id, key, now)).to_owned();
    assert_eq!(ask(STATIC_ID, &good, now), "ok");
    assert_eq!(ask("AKIANOBODY", &good, now), "UnrecognizedClientException");
    assert_eq!(ask(STATIC_ID, &Key { secret: "x".into(), ..good.clone() }, now), "InvalidSignatureException");
    assert_eq!(ask(STATIC_ID, &good, now - Duration::from_secs(400)), "InvalidSignatureException");
    assert_eq!(ask(STATIC_ID, &good, now + Duration::from_secs(400)), "InvalidSignatureException");
    assert_eq!(ask(STATIC_ID, &Key { token: Some("t".into()), ..good.clone() }, now), "UnrecognizedClientException");
    let expired = Key { secret: "s".into(), token: Some("t".into()), expires: Some(now) };
    fake.world().credentials.keys.insert("ASIAOLD".into(), expired.clone());
    assert_eq!(ask("ASIAOLD", &expired, now), "ExpiredTokenException");
    assert_eq!(ask("ASIAOLD", &Key { token: None, ..expired }, now), "UnrecognizedClientException");
    // A body that was changed on the way.
    let mut request = Request { method: "POST".into(), path: "/".into(), body: b"{}".to_vec(), ..Request::default() };
    request.headers.push(("host".into(), "x".into()));
    request.headers.push(("x-amz-target".into(), "AmazonSSM.GetParameter".into()));
    sign(&mut request, STATIC_ID, &good, REGION, "ssm", now);
    request.body = br#"{"Name":"/a"}"#.to_vec();
    assert_eq!(code(&raw(&fake, &request)), "InvalidSignatureException");
    request.headers.retain(|(name, _)| name != "authorization");
    assert_eq!(code(&raw(&fake, &request)), "MissingAuthenticationTokenException");
}

#[test]
fn a_write_is_judged_by_name_value_tier_type_and_key() {
    let fake = Fake::start();
    let long = "x".repeat(4097);
    let deep = format!("/{}", ["a"; 16].join("/"));
    for (name, value, more, expected) in [
        ("/a b", "v", json!({}), "ValidationException"),
        ("/a$", "v", json!({}), "ValidationException"),
        ("/a//b", "v", json!({}), "ValidationException"),
        ("/a/", "v", json!({}), "ValidationException"),
        ("a/b", "v", json!({}), "ValidationException"),
        (deep.as_str(), "v", json!({}), "HierarchyLevelLimitExceededException"),
        ("AWSx", "v", json!({}), "ValidationException"),
        ("/ok", "", json!({}), "ValidationException"),
        ("/ok", "{{ssm:x}}", json!({}), "ValidationException"),
        ("/ok", long.as_str(), json!({}), "ValidationException"),
        ("/ok", "v", json!({ "KeyId": "alias/none" }), "InvalidKeyId"),
        ("/ok", "v", json!({ "Type": "Secret" }), "UnsupportedParameterType"),
        ("/ok", "v", json!({}), "ok"),
        ("/ok", "v", json!({}), "ParameterAlreadyExists"),
        ("/ok", "v", json!({ "Overwrite": true, "Type": "String" }), "HierarchyTypeMismatchException"),
        ("/ok", long.as_str(), json!({ "Overwrite": true, "Tier": "Advanced" }), "ok"),
        ("/ok", "v", json!({ "Overwrite": true, "Tier": "Standard" }), "ValidationException"),
        ("/auto", long.as_str(), json!({ "Tier": "Intelligent-Tiering" }), "ok"),
    ] {
        assert_eq!(code(&put(&fake, name, value, more)), expected, "{name} {}", value.len());
    }
    let key = fake.key();
    fake.world().kms.keys.get_mut(&key).unwrap().state = "Disabled";
    assert_eq!(code(&put(&fake, "/k", "v", json!({ "KeyId": key }))), "InvalidKeyId");
}

#[test]
fn reads_map_selectors_and_arns_and_decrypt_only_when_told() {
    let fake = Fake::start();
    fake.secure("/b", "one").secure("/b", "two").secure("/a", "three");
    fake.world().ssm.seed_label("/b", 1, "vouchsafe-current");
    let read = |names: &[&str], decrypt: bool| {
        let body = json!({ "Names": names, "WithDecryption": decrypt });
        call(&fake, "AmazonSSM.GetParameters", &body).1
    };
    let arn = format!("{}:1", ssm::arn_of("/b"));
    let answer = read(&["/b", "/b:vouchsafe-current", "/b:7", "/a", "/none", &arn], true);
    let shown: Vec<_> = answer["Parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (&p["Name"], &p["Selector"], &p["Value"]))
        .map(|(name, selector, value)| {
            format!("{}{}={}", name.as_str().unwrap(), selector.as_str().unwrap_or(""), value.as_str().unwrap())
        })
        .collect();
    assert_eq!(shown, ["/a=three", "/b=two", "/b:1=one", "/b:vouchsafe-current=one"]);
    assert_eq!(answer["InvalidParameters"], json!(["/b:7", "/none"]));
    assert!(!read(&["/a"], false).to_string().contains("three"));
    assert_eq!(read(&[], true)["__type"], "ValidationException");
    assert_eq!(read(&["/a", "/a"], true)["__type"], "ValidationException");
    let eleven: Vec<_> = (0..11).map(|n| format!("/n{n}")).collect();
    assert_eq!(read(&eleven.iter().map(String::as_str).collect::<Vec<_>>(), true)["__type"], "ValidationException");
    let default = fake.world().kms.aliases["alias/aws/ssm"].clone();
    fake.world().kms.keys.get_mut(&default).unwrap().state = "Disabled";
    assert_eq!(read(&["/a"], true)["__type"], "InvalidKeyId");
    fake.world().denied.insert("/a".into());
    assert_eq!(read(&["/b", "/a"], true)["__type"], "AccessDeniedException");
}

#[test]
fn pages_may_be_short_or_empty_and_tokens_are_checked() {
    let fake = Fake::start();
    for n in 0..13 {
        fake.secure(&format!("/p/{n:02}"), "v");
    }
    fake.secure("/p/deep/x", "v").secure("/pq/x", "v");
    fake.world().ssm.pages = vec![4, 0, 9, 0];
    let (mut sizes, mut token) = (Vec::new(), Value::Null);
    loop {
        let body = json!({ "Path": "/p", "NextToken": token });
        let answer = call(&fake, "AmazonSSM.GetParametersByPath", &body).1;
        sizes.push(answer["Parameters"].as_array().unwrap().len());
        token = answer["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(sizes, [4, 0, 9, 0]);
    let body = json!({ "Path": "/p", "NextToken": "made up" });
    assert_eq!(code(&call(&fake, "AmazonSSM.GetParametersByPath", &body)), "InvalidNextToken");
    assert_eq!(code(&call(&fake, "AmazonSSM.GetParametersByPath", &json!({ "Path": "p" }))), "ValidationException");
}

#[test]
fn labels_and_the_version_cap() {
    let fake = Fake::start();
    fake.secure("/l", "0");
    let label = |labels: Value, version: u64| {
        let body = json!({ "Name": "/l", "Labels": labels, "ParameterVersion": version });
        call(&fake, "AmazonSSM.LabelParameterVersion", &body)
    };
    let answer = label(json!(["AWSCURRENT", "SsmX", "1st", "current"]), 1);
    assert_eq!(answer.1["InvalidLabels"], json!(["AWSCURRENT", "SsmX", "1st"]));
    assert_eq!(code(&label(json!(["x"]), 9)), "ParameterVersionNotFound");
    for n in 1..100 {
        fake.secure("/l", &n.to_string());
    }
    assert_eq!(code(&put(&fake, "/l", "v", json!({ "Overwrite": true }))), "ParameterMaxVersionLimitExceeded");
    label(json!(["current"]), 50);
    assert_eq!(put(&fake, "/l", "v", json!({ "Overwrite": true })).1["Version"], 101);
    let history = call(&fake, "AmazonSSM.GetParameterHistory", &json!({ "Name": "/l", "MaxResults": 50 })).1;
    assert_eq!(history["Parameters"][0]["Version"], 2);
    assert_eq!(history["Parameters"][48]["Labels"], json!(["current"]));
    assert!(history["NextToken"].is_string());
    let eleven: Vec<_> = (0..11).map(|n| format!("/n{n}")).collect();
    assert_eq!(code(&call(&fake, "AmazonSSM.DeleteParameters", &json!({ "Names": eleven }))), "ValidationException");
}

#[test]
fn labels_move_and_are_limited() {
    let fake = Fake::start();
    fake.secure("/l", "1").secure("/l", "2");
    let label = |labels: Value, version: Value| {
        let body = json!({ "Name": "/l", "Labels": labels, "ParameterVersion": version });
        call(&fake, "AmazonSSM.LabelParameterVersion", &body)
    };
    let on = |number: usize| -> Vec<String> {
        fake.world().ssm.parameters["/l"].versions[number - 1].labels.iter().cloned().collect()
    };
    assert_eq!(label(json!(["a"]), json!(1)).1, json!({ "InvalidLabels": [], "ParameterVersion": 1 }));
    assert_eq!(label(json!(["a"]), Value::Null).1["ParameterVersion"], 2, "the newest, where none is named");
    assert_eq!((on(1), on(2)), (vec![], vec!["a".to_owned()]));
    let eleven: Vec<_> = (0..11).map(|number| format!("l{number}")).collect();
    assert_eq!(code(&label(json!(eleven), json!(1))), "ValidationException");
    label(json!(eleven[..10]), json!(1));
    assert_eq!(code(&label(json!(["a"]), json!(1))), "ParameterVersionLabelLimitExceeded");
    assert_eq!(label(json!(["l0"]), json!(1)).0, 200, "it has that one");
    assert_eq!(on(2), ["a"]);
    assert_eq!(code(&label(json!(["x".repeat(101)]), json!(1))), "ValidationException");
    assert_eq!(code(&label(json!([]), json!(1))), "ValidationException");
    let unlabel = |labels: Value, version: u64| {
        let body = json!({ "Name": "/l", "Labels": labels, "ParameterVersion": version });
        call(&fake, "AmazonSSM.UnlabelParameterVersion", &body)
    };
    assert_eq!(unlabel(json!(["a", "l1"]), 2).1, json!({ "RemovedLabels": ["a"], "InvalidLabels": ["l1"] }));
    assert_eq!(code(&unlabel(json!(["a"]), 3)), "ParameterVersionNotFound");
    let body = json!({ "Name": "/none", "Labels": ["a"], "ParameterVersion": 1 });
    assert_eq!(code(&call(&fake, "AmazonSSM.LabelParameterVersion", &body)), "ParameterNotFound");
    assert_eq!(code(&call(&fake, "AmazonSSM.UnlabelParameterVersion", &body)), "ParameterNotFound");
    // Two changes of one parameter at once, of whichever kind.
    fake.world().write_time = Duration::from_millis(300);
    let codes: Vec<String> = std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| code(&label(json!(["b"]), json!(2))).to_owned()),
            scope.spawn(|| code(&unlabel(json!(["l2"]), 1)).to_owned()),
            scope.spawn(|| code(&put(&fake, "/l", "v", json!({ "Overwrite": true }))).to_owned()),
        ];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(codes.iter().any(|code| code == "TooManyUpdates") && codes.iter().any(|code| code == "ok"), "{codes:?}");
}

#[test]
fn a_description_is_kept_or_not_and_a_name_rests_after_its_removal() {
    let fake = Fake::start();
    let described = || {
        let history = call(&fake, "AmazonSSM.GetParameterHistory", &json!({ "Name": "/d" })).1;
        history["Parameters"].as_array().unwrap().last().unwrap()["Description"].clone()
    };
    put(&fake, "/d", "v", json!({ "Description": "mine" }));
    assert_eq!(described(), "mine");
    put(&fake, "/d", "w", json!({ "Overwrite": true }));
    assert_eq!(described(), "mine");
    fake.world().ssm.drops_descriptions = true;
    put(&fake, "/d", "x", json!({ "Overwrite": true }));
    assert_eq!(described(), Value::Null);
    let long = json!({ "Overwrite": true, "Description": "x".repeat(1025) });
    assert_eq!(code(&put(&fake, "/d", "y", long)), "ValidationException");
    call(&fake, "AmazonSSM.DeleteParameter", &json!({ "Name": "/d" }));
    assert_eq!(code(&put(&fake, "/d", "z", json!({}))), "ValidationException");
    *fake.world().ssm.removed.get_mut("/d").unwrap() -= Duration::from_secs(31);
    assert_eq!(code(&put(&fake, "/d", "z", json!({}))), "ok");
}

#[test]
fn kms_judges_key_context_state_and_usage() {
    let fake = Fake::start();
    let (key, other) = (fake.key(), fake.key());
    let encrypt = |more: Value| {
        let mut body = json!({ "KeyId": key, "Plaintext": "c2VjcmV0", "EncryptionContext": { "a": "b" } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(&fake, "TrentService.Encrypt", &body)
    };
    let blob = encrypt(json!({})).1["CiphertextBlob"].clone();
    let decrypt = |key: &str, context: Value| {
        let body = json!({ "CiphertextBlob": blob, "KeyId": key, "EncryptionContext": context });
        call(&fake, "TrentService.Decrypt", &body)
    };
    assert_eq!(decrypt(&kms::arn_of(&key), json!({ "a": "b" })).1["Plaintext"], "c2VjcmV0");
    // Where moto takes one for the other.
    assert_eq!(code(&decrypt(&key, json!({ "ab": "" }))), "InvalidCiphertextException");
    assert_eq!(code(&decrypt(&key, json!({}))), "InvalidCiphertextException");
    assert_eq!(code(&decrypt(&other, json!({ "a": "b" }))), "IncorrectKeyException");
    assert_eq!(code(&decrypt("alias/none", json!({ "a": "b" }))), "NotFoundException");
    assert_eq!(code(&encrypt(json!({ "GrantTokens": ["x"] }))), "InvalidGrantTokenException");
    assert_eq!(code(&encrypt(json!({ "DryRun": true }))), "DryRunOperationException");
    let body = json!({ "CiphertextBlob": blob, "SourceKeyId": other, "DestinationKeyId": key,
        "SourceEncryptionContext": { "a": "b" } });
    assert_eq!(code(&call(&fake, "TrentService.ReEncrypt", &body)), "IncorrectKeyException");
    for (state, expected) in [
        ("Disabled", "DisabledException"),
        ("PendingDeletion", "KMSInvalidStateException"),
        ("PendingImport", "KMSInvalidStateException"),
    ] {
        fake.world().kms.keys.get_mut(&key).unwrap().state = state;
        assert_eq!(code(&decrypt(&key, json!({ "a": "b" }))), expected);
        assert_eq!(code(&encrypt(json!({}))), expected);
    }
    fake.world().kms.keys.get_mut(&key).unwrap().state = "Enabled";
    fake.world().kms.keys.get_mut(&key).unwrap().usage = "SIGN_VERIFY";
    assert_eq!(code(&encrypt(json!({}))), "InvalidKeyUsageException");
}

#[test]
fn faults_happen_when_and_as_often_as_scripted() {
    let fake = Fake::start();
    let versions = || fake.world().ssm.parameters.get("/f").map_or(0, |parameter| parameter.versions.len());
    let write = || put(&fake, "/f", "v", json!({ "Overwrite": true }));
    fake.fault(Fault::on("PutParameter", Action::DropBefore).skip(1).times(1));
    assert_eq!((write().0, versions()), (200, 1));
    assert_eq!((write().0, versions()), (0, 1));
    assert_eq!((write().0, versions()), (200, 2));
    fake.forget().fault(Fault::on("PutParameter", Action::DropAfter).times(1));
    assert_eq!((write().0, versions()), (0, 3));
    let after = Action::ErrorAfter { status: 500, code: "InternalServerError".into() };
    fake.forget().fault(Fault::on("PutParameter", after).times(1));
    assert_eq!((write().0, versions()), (500, 4));
    fake.forget().fault(Fault::on("*", Action::Page(503)).naming("/g"));
    assert_eq!(put(&fake, "/g", "v", json!({})).0, 503);
    assert_eq!(write().0, 200);
    fake.forget().world().bucket = Some(Bucket::new(2));
    let answers: Vec<_> = (0..4).map(|_| code(&write()).to_owned()).collect();
    assert_eq!(answers, ["ok", "ok", "ThrottlingException", "ThrottlingException"]);
}

#[test]
fn writes_that_overlap_collide() {
    let fake = Fake::start();
    fake.world().write_time = Duration::from_millis(300);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| put(&fake, "/w", "v", json!({ "Overwrite": true })).0)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let good = answers.iter().filter(|status| **status == 200).count();
    assert_eq!(fake.world().ssm.parameters["/w"].versions.len(), good);
    assert!(fake.records().iter().any(|record| record.outcome == "TooManyUpdates"));
}
