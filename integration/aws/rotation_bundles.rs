//! What readers get while a parameter is rotated: bundles, other bindings, histories that change while they are read.

use serde_json::json;

use super::fake::fault::{Action, Fault};
use super::rotator::{ITEM, Rotator, apart, author, by_label, done, secret};
use super::scene::AwsScene;

use vouchsafe::store::stages::Stages;

const BUNDLE: &str = "[secrets]\nDB = { item = \"A\", rotate = { every = \"30d\" PENDING } }\n\
                      [[bundles]]\npath = \"PATH\"\nrecursive = RECURSIVE\n";

fn scene(separate: bool, path: &str, recursive: bool) -> AwsScene {
    let pending = if separate { ", pending = \"separate\"" } else { "" };
    let text = BUNDLE.replace(" PENDING", pending).replace("PATH", path).replace("RECURSIVE", &recursive.to_string());
    let scene = AwsScene::new().secrets(&text);
    scene.fake.secure(ITEM, "old").secure("/test/api/B", "b");
    scene
}

#[test]
fn a_bundle_never_delivers_what_is_pending() {
    for (path, recursive) in [("", false), ("", true), ("/test/", true)] {
        for (separate, item) in [(false, by_label()), (true, apart())] {
            let scene = scene(separate, path, recursive);
            let rotator = Rotator::new(&scene.fake);
            let name = |name: &str| if path.is_empty() { name.to_owned() } else { format!("API_{name}") };
            let check = |state: &str, value: &str| {
                let environment = scene.environment();
                let place = format!("{state}, {item:?}, {path:?} {recursive}");
                assert_eq!(
                    (&environment["DB"], &environment[&name("A")]),
                    (&value.to_owned(), &value.to_owned()),
                    "{place}"
                );
                assert_eq!(environment[&name("B")], "b");
                let is_ours = |key: &&String| key.contains("PENDING") || key.contains("ROTATION");
                assert_eq!(environment.keys().find(is_ours), None, "{place}");
            };
            check("before", "old");
            rotator.holding(|store| {
                check("held", "old");
                let number = done(store.stage_pending(&item, &secret("new"), &author(), rotator.deadline()));
                check("created", "old");
                done(store.discard_pending(&item, number, rotator.deadline()));
                check("discarded", "old");
                let number = done(store.stage_pending(&item, &secret("new"), &author(), rotator.deadline()));
                done(store.promote(&item, number, &author(), rotator.deadline()));
                check("promoted", "new");
                let previous = done(store.staged(&item, rotator.deadline())).previous.unwrap().number;
                done(store.roll_back(&item, previous, &author(), rotator.deadline()));
                check("rolled back", "old");
            });
            let listed = scene.vouchsafe(&["list"]).expect_status(0);
            assert!(!listed.out().contains("rotation") && !listed.out().contains("pending"), "{}", listed.out());
        }
    }
}

#[test]
fn a_parameter_of_a_bundle_of_which_no_version_is_current_stops_the_run() {
    let scene = scene(false, "", false)
        .secrets("[secrets]\nDB = { item = \"A\", stage = \"current\", required = false }\n[[bundles]]\n");
    scene.fake.world().ssm.seed_label(ITEM, 1, "vouchsafe-pending");
    let outcome = scene.fails().expect_status(122);
    assert!(outcome.err().contains("none of them is current"), "{}", outcome.transcript());
    assert!(outcome.err().contains("aws ssm label-parameter-version --name /test/api/A"), "{}", outcome.transcript());
}

#[test]
fn another_binding_of_a_rotated_item_reads_its_stage_too() {
    let scene = AwsScene::new().secrets(
        "[secrets]\nDB = { item = \"A\", rotate = {} }\nALSO = { item = \"A\" }\nFIRST = { item = \"A\", version = 1 }\n",
    );
    scene.fake.secure(ITEM, "old");
    let rotator = Rotator::new(&scene.fake);
    rotator.holding(|store| done(store.stage_pending(&by_label(), &secret("new"), &author(), rotator.deadline())));
    let environment = scene.environment();
    assert_eq!([&environment["DB"], &environment["ALSO"], &environment["FIRST"]], ["old"; 3]);
    // One call for both, where the label is there.
    scene.fake.forget();
    scene.environment();
    assert_eq!(scene.fake.count("GetParameters"), 2, "a stage and a version of one name");
    assert_eq!(scene.fake.count("GetParameterHistory"), 0);
}

/// Hides what a label read would find: it was asked a moment before the label was put there.
fn before_the_label(scene: &AwsScene, times: usize) {
    let hide = |body: &mut serde_json::Value| {
        *body = json!({ "Parameters": [], "InvalidParameters": [format!("{ITEM}:vouchsafe-current")] });
    };
    scene.fake.fault(Fault::on("GetParameters", Action::Rewrite(Box::new(hide))).times(times));
}

#[test]
fn a_rotation_that_begins_while_a_reader_looks_changes_nothing_for_it() {
    let scene = AwsScene::new().secrets("[secrets]\nA = { stage = \"current\" }\n");
    scene.fake.secure(ITEM, "old");
    let rotator = Rotator::new(&scene.fake);
    rotator.holding(|store| done(store.stage_pending(&by_label(), &secret("new"), &author(), rotator.deadline())));
    before_the_label(&scene, 1);
    assert_eq!(scene.environment()["A"], "old");
    // Made, and not labelled yet; the newest of two pages, of which the first is from before.
    let scene = AwsScene::new().secrets("[secrets]\nA = { stage = \"current\" }\n");
    for number in 1..=50 {
        scene.fake.secure(ITEM, &format!("v{number}"));
    }
    scene.fake.world().ssm.seed_label(ITEM, 50, "vouchsafe-current");
    scene.fake.secure(ITEM, "pending");
    let unlabel = |body: &mut serde_json::Value| {
        for version in body["Parameters"].as_array_mut().unwrap() {
            version["Labels"] = json!([]);
        }
    };
    before_the_label(&scene, 1);
    scene.fake.fault(Fault::on("GetParameterHistory", Action::Rewrite(Box::new(unlabel))).times(1));
    assert_eq!(scene.environment()["A"], "v50");
    assert_eq!(scene.fake.count("GetParameterHistory"), 2, "in two pages");
}

#[test]
fn an_item_that_is_called_like_one_of_ours_is_an_item() {
    // Nothing here is rotated apart, so `.pending` is part of a name like any other.
    let scene = AwsScene::new().secrets("[secrets]\n[[bundles]]\n");
    scene.fake.secure("/test/api/jobs", "1").secure("/test/api/jobs.pending", "2");
    let environment = scene.environment();
    assert_eq!([&environment["JOBS"], &environment["JOBS_PENDING"]], ["1", "2"]);
}
