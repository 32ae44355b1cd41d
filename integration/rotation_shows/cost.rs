//! What a hundred rotations cost: time, and calls against the least possible (docs/spec/ssm-stages.md, section 7).

use std::collections::BTreeMap;
use std::time::Duration;

use super::place;
use crate::aws::scene::{AwsScene, canary, numbers, timed};
use crate::harness::Scene;

const COUNT: usize = 100;

#[test]
fn a_hundred_parameters_cost_as_many_calls_as_is_written() {
    let names = numbers(COUNT);
    let bindings: String = names.iter().map(|name| format!("{name} = {{ rotate = {{}} }}\n")).collect();
    let aws = AwsScene::new().secrets(&format!("[secrets]\n{bindings}"));
    for name in &names {
        aws.fake.secure(&format!("/test/api/{name}"), &canary(name));
    }
    let latency = Duration::from_millis(5);
    aws.fake.world().latency = latency;
    // One look, one write and three labels for each, where nothing is to be read; we look again before the write and before
    // the promotion. The first time: a label on what is there, after a look.
    for (what, [looks, labels], least) in [("the first time", [4, 4], 6), ("again", [3, 3], 5)] {
        aws.fake.forget();
        let (outcome, time) = timed(|| aws.vouchsafe(&["rotate", "--all"]));
        outcome.expect_status(0);
        let mut calls = BTreeMap::new();
        for record in aws.fake.records() {
            *calls.entry(record.target).or_insert(0) += 1;
        }
        let sum: usize = calls.values().sum();
        println!(
            "ssm, {COUNT} parameters {what}: {time:.1?}, {sum} calls of {latency:?} and more; least {}",
            least * COUNT + 3
        );
        // The right to all of them: a look, a claim, and another one that gives it back.
        let expected = [
            ("GetParameter", 1),
            ("GetParameterHistory", looks * COUNT),
            ("LabelParameterVersion", labels * COUNT),
            ("PutParameter", COUNT + 2),
        ];
        // Where it takes longer than half of its time, the right is renewed: two calls for each 2.5 minutes.
        if time < Duration::from_secs(120) {
            assert_eq!(calls, expected.map(|(name, count)| (name.to_owned(), count)).into());
        }
    }
    assert!(names.iter().all(|name| aws.versions(name).len() == 3));
}

#[test]
fn a_hundred_items_of_one_file() {
    let names = numbers(COUNT);
    let bindings: String = names.iter().map(|name| format!("{name} = {{ rotate = {{}} }}\n")).collect();
    let scene = Scene::sealed(&[]).and(&bindings);
    // The file has to be there; the other items are made by their first rotation.
    scene.verb_reading(&["set", "S000"], canary("S000").as_bytes()).expect_status(0);
    let place = place(&scene);
    for what in ["the first time", "again"] {
        let (outcome, time) = timed(|| place.succeeds(&["rotate", "--all", "--json"]));
        let steps = String::from_utf8(outcome.stdout).unwrap();
        assert_eq!(steps.lines().filter(|line| line.contains("\"step\":\"promote\"")).count(), COUNT);
        println!("age, {COUNT} items of one file {what}: {time:.1?}, {} steps", steps.lines().count());
    }
}
