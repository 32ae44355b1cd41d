//! Two hundred wrappers that start at once (AWS-11).

use std::time::Duration;

use super::fake::fault::Bucket;
use super::scene::{AwsScene, timed};

#[test]
fn two_hundred_wrappers_against_forty_requests_a_second() {
    let scene = AwsScene::numbered(25).deadline("60s");
    scene.fake.world().bucket = Some(Bucket::new(40));
    let (outcomes, took) = timed(|| {
        let mut command = scene.command(&["printenv", "S024"]);
        let children: Vec<_> = (0..200).map(|_| command.spawn().unwrap()).collect();
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect::<Vec<_>>()
    });
    assert!(took < Duration::from_secs(61), "{took:?}");
    let good = outcomes.iter().filter(|output| output.status.success()).count();
    for output in &outcomes {
        let said = String::from_utf8_lossy(&output.stderr);
        // All or nothing: a child that was started has its last value; one that was not says why.
        match output.status.code() {
            Some(0) => assert_eq!(String::from_utf8_lossy(&output.stdout), "canary-of-S024\n"),
            Some(122) => {
                assert!(output.stdout.is_empty() && (said.contains("throttle") || said.contains("deadline")), "{said}")
            }
            other => panic!("{other:?}: {said}"),
        }
        assert!(!said.contains("canary-of"), "{said}");
    }
    let records = scene.fake.records();
    let refused = records.iter().filter(|record| record.outcome == "ThrottlingException").count();
    println!("{good} of 200 in {took:?}, {} requests, {refused} of them throttled", records.len());
    assert_eq!(good, 200, "{refused} throttled in {took:?}");
    assert!(refused > 0, "nobody was throttled");
    // A retry asks for a batch again, never for more than there is.
    assert!(records.iter().all(|record| record.names().len() <= 10));
    assert_eq!(records.iter().filter(|record| record.outcome == "ok").count(), 200 * 3);
}
