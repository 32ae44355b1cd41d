//! What a hundred rotations cost: time, and calls against the least possible (docs/spec/ssm-stages.md, section 7).

use std::collections::BTreeMap;
use std::time::Duration;

use super::{document, place};
use crate::aws::scene::{AwsScene, canary, numbers, timed};
use crate::harness::Scene;

const COUNT: usize = 100;
const LATENCY: Duration = Duration::from_millis(5);

/// Rotates `count` parameters, each `LATENCY` a call: the calls of each kind.
fn rotate(count: usize, is_adopted: bool) {
    let names = numbers(count);
    let bindings: String = names.iter().map(|name| format!("{name} = {{ rotate = {{}} }}\n")).collect();
    let aws = AwsScene::new().secrets(&format!("[secrets]\n{bindings}"));
    for name in &names {
        let path = format!("/test/api/{name}");
        aws.fake.secure(&path, &canary(name));
        if is_adopted {
            aws.fake.world().ssm.seed_label(&path, 1, "vouchsafe-current");
        }
    }
    aws.fake.world().latency = LATENCY;
    let (outcome, time) = timed(|| aws.vouchsafe(&["rotate", "--all"]));
    outcome.expect_status(0);
    assert!(names.iter().all(|name| aws.versions(name).len() == 2));
    let mut calls = BTreeMap::new();
    for record in aws.fake.records() {
        *calls.entry(record.target).or_insert(0) += 1;
    }
    let sum: usize = calls.values().sum();
    // One look, one write and three labels for each, where nothing is to be read; the first time one label more.
    let least = count * if is_adopted { 5 } else { 6 } + 3;
    let what = if is_adopted { "again" } else { "for the first time" };
    println!(
        "ssm: {count} parameters {what} in {time:.1?}, {sum} calls of {LATENCY:?}, where {least} would be the least"
    );
    // We look again before the adoption, the write, and the promotion. The right to all of them is a look, a claim, and
    // another one that gives it back; where it takes half of its time it is renewed, which is not counted here.
    let first = usize::from(!is_adopted);
    let expected = [
        ("GetParameter", 1),
        ("GetParameterHistory", (3 + first) * count),
        ("LabelParameterVersion", (3 + first) * count),
        ("PutParameter", count + 2),
    ];
    if time < Duration::from_secs(120) {
        assert_eq!(calls, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}

#[test]
fn a_hundred_parameters_cost_as_many_calls_as_is_written() {
    rotate(COUNT, true);
    rotate(10, false);
}

#[test]
fn a_hundred_items_of_one_file() {
    let names = numbers(COUNT);
    let bindings: String = names.iter().map(|name| format!("{name} = {{ rotate = {{}} }}\n")).collect();
    let scene = Scene::sealed(&[]).and(&bindings);
    let place = place(&scene);
    // The first item is written by us, the others are like it.
    scene.verb_reading(&["set", "S000"], canary("S000").as_bytes()).expect_status(0);
    let mut content = document(&scene);
    let item = content["items"]["S000"].clone();
    for name in &names {
        content["items"][name] = item.clone();
    }
    let recipient: age::x25519::Recipient = scene.recipient().parse().unwrap();
    scene.write_mode("sealed.age", &age::encrypt(&recipient, content.to_string().as_bytes()).unwrap(), 0o600);
    let generation = content["generation"].as_u64().unwrap();
    let (_, time) = timed(|| place.succeeds(&["rotate", "--all"]));
    let content = document(&scene);
    assert!(names.iter().all(|name| content["items"][name]["current"]["number"] == 2));
    let generations = content["generation"].as_u64().unwrap() - generation;
    println!("age: {COUNT} items of one file in {time:.1?}, {generations} writes of it");
    assert_eq!(generations, 2 * u64::try_from(COUNT).unwrap(), "one to create, one to promote");
}
