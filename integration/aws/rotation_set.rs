//! `set` on a parameter whose readers go by labels: the new version is current at the end, or nothing was written.

use std::time::Duration;

use vouchsafe::store::stages::Stages;

use super::fake::fault::{Action, Fault};
use super::rotator::{ITEM, Rotator, apart, by_label, done, versions};
use super::scene::{AwsScene, canary};

fn scene() -> AwsScene {
    AwsScene::new().secrets("[secrets.A]\nrotate = { every = \"30d\" }\n")
}

fn label(scene: &AwsScene, number: u64, label: &str) {
    scene.fake.world().ssm.seed_label(ITEM, number, &format!("vouchsafe-{label}"));
}

#[test]
fn what_is_set_is_current_and_what_was_is_previous() {
    let scene = scene();
    scene.fake.secure(ITEM, "old");
    // Nobody goes by labels yet: a plain write is enough.
    scene.set("A", "older").expect_status(0);
    assert_eq!(versions(&scene.fake, ITEM), ["1 old", "2 older"]);
    assert_eq!(scene.environment()["A"], "older");
    label(&scene, 2, "current");
    for (number, value) in [(3, "a"), (4, "b")] {
        let outcome = scene.set("A", value).expect_status(0);
        assert_eq!(outcome.out(), format!("A is version {number}\n"));
        assert_eq!(scene.environment()["A"], value);
    }
    assert_eq!(versions(&scene.fake, ITEM), ["1 old", "2 older", "3 a previous", "4 b current"]);
    // After a rotation; the mark of its version is not inherited.
    done(Rotator::new(&scene.fake).rotate(&by_label(), "rotated"));
    scene.set("A", "c").expect_status(0);
    assert_eq!(Rotator::new(&scene.fake).told(&by_label()), "6 - 5");
    assert_eq!(scene.environment()["A"], "c");
    let world = scene.fake.world();
    assert_eq!(world.ssm.parameters[ITEM].versions[5].description, "");
}

#[test]
fn what_is_set_where_rotation_is_apart_needs_one_label_and_no_stage() {
    let scene = scene();
    scene.fake.secure(ITEM, "old");
    let rotator = Rotator::new(&scene.fake);
    done(rotator.rotate(&apart(), "new"));
    scene.set("A", "newer").expect_status(0);
    assert_eq!(versions(&scene.fake, ITEM), ["1 old", "2 new replaced", "3 newer"]);
    assert_eq!(rotator.told(&apart()), "3 - 2");
}

#[test]
fn while_a_version_is_pending_nothing_is_set() {
    for labelled in [true, false] {
        let scene = scene();
        scene.fake.secure(ITEM, "old");
        label(&scene, 1, "current");
        scene.fake.secure(ITEM, "new");
        let version = |scene: &AwsScene, labelled: bool| {
            let mut world = scene.fake.world();
            let version = world.ssm.parameters.get_mut(ITEM).unwrap().versions.last_mut().unwrap();
            match labelled {
                true => drop(version.labels.insert("vouchsafe-pending".into())),
                false => version.description = "[vouchsafe rotate: after version 1]".into(),
            }
        };
        version(&scene, labelled);
        let outcome = scene.set("A", &canary("set")).expect_status(122);
        assert!(outcome.err().contains("version 2 is pending; nothing was written"), "{}", outcome.transcript());
        assert!(outcome.err().contains("vouchsafe rotate NAME --resume   # or --rollback"), "{}", outcome.transcript());
        scene.says_nothing(&outcome);
        assert_eq!((versions(&scene.fake, ITEM).len(), scene.fake.count("PutParameter")), (2, 0));
        assert_eq!(scene.environment()["A"], "old");
    }
}

#[test]
fn a_set_that_is_cut_off_leaves_readers_what_they_had() {
    // It is written, and the right to move labels is missing.
    let scene = scene();
    scene.fake.secure(ITEM, "old");
    label(&scene, 1, "current");
    scene.fake.world().denied_operations.insert("LabelParameterVersion".into());
    let outcome = scene.set("A", &canary("new")).expect_status(124);
    assert!(outcome.err().contains("version 2 of `/test/api/A` was written, but could not be made current"));
    assert!(outcome.err().contains("ssm:LabelParameterVersion"), "{}", outcome.transcript());
    scene.says_nothing(&outcome);
    assert_eq!(scene.scene.audit().pop().unwrap()["outcome"], "unknown");
    assert_eq!(scene.environment()["A"], "old");
    // A rotation tells of it, and does not take it for its own.
    assert!(Rotator::new(&scene.fake).staged(&by_label()).unwrap_err().to_string().contains("a `set` was cut off"));
    // Once more makes it whole.
    scene.fake.world().denied_operations.clear();
    scene.set("A", "newer").expect_status(0);
    assert_eq!(Rotator::new(&scene.fake).told(&by_label()), "3 - 1");
    assert_eq!(scene.environment()["A"], "newer");
}

#[test]
fn the_printed_iam_policy_is_enough_for_labels_too() {
    let scene = scene();
    scene.fake.secure(ITEM, "old");
    label(&scene, 1, "current");
    let printed = scene.vouchsafe(&["check", "--iam=set"]).expect_status(0);
    scene.fake.world().iam = Some(serde_json::from_str(printed.out()).unwrap());
    scene.set("A", "new").expect_status(0);
    assert_eq!(versions(&scene.fake, ITEM), ["1 old previous", "2 new current"]);
}

#[test]
fn answers_that_are_lost_make_one_version_and_its_labels() {
    for operation in ["PutParameter", "LabelParameterVersion", "GetParameterHistory"] {
        for times in [1, 2] {
            for action in [
                || Action::DropAfter,
                || Action::ErrorAfter { status: 500, code: "InternalServerError".into() },
                || Action::ErrorAfter { status: 400, code: "TooManyUpdates".into() },
            ] {
                let scene = scene();
                scene.fake.secure(ITEM, "old");
                label(&scene, 1, "current");
                scene.fake.fault(Fault::on(operation, action()).times(times));
                scene.set("A", "new").expect_status(0);
                assert_eq!(versions(&scene.fake, ITEM), ["1 old previous", "2 new current"], "{operation} {times}");
            }
        }
    }
}

#[test]
fn of_a_set_and_a_rotation_at_once_neither_is_lost() {
    let scene = scene();
    scene.fake.secure(ITEM, "old");
    label(&scene, 1, "current");
    // The value is set after the rotation has made its version, by a command that looked before.
    scene
        .fake
        .fault(Fault::on("PutParameter", Action::Delay(Duration::from_millis(1500))).naming("set by hand").times(1));
    let rotator = Rotator::new(&scene.fake);
    std::thread::scope(|scope| {
        let set = {
            let (scene, policy) = (&scene.scene, scene.policy());
            scope.spawn(move || scene.vouchsafe_reading(&["set", "A", "--policy", &policy], b"set by hand"))
        };
        super::fake::server::eventually("the write", || scene.fake.count("PutParameter") == 1);
        let number = rotator.holding(|store| {
            let secret = super::rotator::secret("rotated");
            done(store.stage_pending(&by_label(), &secret, &super::rotator::author(), rotator.deadline()))
        });
        set.join().unwrap().expect_status(0);
        assert_eq!(number, 2);
    });
    assert_eq!(rotator.current().as_deref(), Some("set by hand"));
    // The version that the rotation made is older than what is current: it is not promoted over it.
    assert_eq!(rotator.told(&by_label()), "3 - 1");
    assert_eq!(done(rotator.rotate(&by_label(), "next")), 4);
    assert_eq!(rotator.told(&by_label()), "4 - 3");
}
