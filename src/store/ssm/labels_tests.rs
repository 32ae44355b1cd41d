//! Tests of labels: tables, and a model of Parameter Store in which commands are cut off at any call.

use proptest::prelude::*;

use super::*;
use crate::store::ssm::mark::Mark;

/// A version with these labels; `!` before the number: written by rotation; `~`: with a mark that is not its own.
fn version(text: &str) -> Past {
    let mut words = text.split_whitespace();
    let number = words.next().unwrap();
    let version: u64 = number.trim_start_matches(['!', '~']).parse().unwrap();
    let mark = number.starts_with('!').then(|| Mark { after: version - 1, purpose: Purpose::Here });
    let is_marked = number.starts_with(['!', '~']);
    let labels = words.map(|word| if word == "other" { word.into() } else { format!("vouchsafe-{word}") });
    Past { version, labels: labels.collect(), mark, is_marked, is_encrypted: true, ..Past::default() }
}

fn history(text: &str) -> Vec<Past> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(version).collect()
}

/// current, pending, previous, foreign; `-` for none.
fn told(past: &[Past]) -> String {
    let seen = look(past);
    let number = |one: Option<&Past>| one.map_or_else(|| "-".to_owned(), |one| one.version.to_string());
    let [current, pending, previous, foreign] = [seen.current, seen.pending, seen.previous, seen.foreign].map(number);
    let unmarked = if seen.is_unmarked { " unmarked" } else { "" };
    format!("{current} {pending} {previous} {foreign}{unmarked}")
}

#[test]
fn which_version_is_which() {
    for (name, past, expected) in [
        ("nothing", "", "- - - - unmarked"),
        ("never rotated", "1, 2, 3 other", "3 - - - unmarked"),
        ("rotated apart", "1, 2 replaced, 3", "3 - - - unmarked"),
        ("adopted", "1, 2 current", "2 - - -"),
        ("created, not labelled", "2 current, !3", "2 3 - -"),
        ("created", "2 current, !3 pending", "2 3 - -"),
        ("created, its mark is not kept", "2 current, 3 pending", "2 3 - -"),
        ("half promoted", "2 current previous, !3 pending", "2 3 - -"),
        ("promoted: what is current is not pending", "2 previous, !3 current pending", "3 - 2 -"),
        ("the next one, not labelled", "2 previous, !3 current pending, !4", "3 4 2 -"),
        ("discarded", "2 current, !3 pending discarded", "2 - - -"),
        ("one discarded before", "2 current, !3, !4 pending discarded", "2 - - -"),
        ("created after a discarded one", "2 current, !3 discarded, !4 pending", "2 4 - -"),
        ("about to roll back", "2 previous, !3 current pending discarded", "3 - 2 -"),
        ("half rolled back", "2 previous current, !3 pending discarded", "2 - - -"),
        ("rolled back", "2 current, !3 pending discarded previous", "2 - 3 -"),
        ("rolled back, then dropped", "2 current, !3 pending discarded", "2 - - -"),
        ("set after a rotation", "2, !3 previous pending, 4 current", "4 - 3 -"),
        ("set twice: what is older is not pending", "2, !3 pending, 4 previous, 5 current", "5 - 4 -"),
        ("another tool wrote", "2 current, 3", "2 - - 3"),
        ("another tool wrote twice", "2 current, 3, 4", "2 - - 4"),
        ("over a pending one", "2 current, !3 pending, 4", "2 3 - 4"),
        ("over one that is not labelled", "2 current, !3, 4", "2 3 - 4"),
        ("with an inherited mark", "2 previous, !3 current pending, ~4", "3 - 2 4"),
        ("a race that was lost: the stranger is told, not ours", "2 current, 3, ~4", "2 - - 3"),
        ("passed over by its label", "2 current, 3 discarded", "2 - - -"),
        ("seen before a rotation began", "2 current, 3, !4 pending", "2 4 - -"),
        ("its label was taken off by hand", "2 previous, 3", "- - 2 3"),
        ("in any order", "!3 pending, 1, 2 current", "2 3 - -"),
    ] {
        assert_eq!(told(&history(past)), expected, "{name}: {past}");
    }
}

#[test]
fn moves_are_in_the_safe_order_and_only_those_that_are_left() {
    let put = |label, version| Move::Put(label, version);
    let (current, previous, discarded) = (Label::Current, Label::Previous, Label::Discarded);
    let promote = |past: &str, number| look(&history(past)).to_promote(number);
    assert_eq!(promote("1 current, !2 pending", 2), Some(vec![put(previous, 1), put(current, 2)]));
    assert_eq!(promote("1 current previous, !2 pending", 2), Some(vec![put(current, 2)]));
    assert_eq!(promote("1 previous, !2 current pending", 2), Some(vec![]));
    assert_eq!(promote("1 current, !2 pending", 3), None);
    assert_eq!(promote("1 current, 2", 2), None, "what another tool wrote is never promoted");
    assert_eq!(promote("1, !2 pending, 3 current", 2), None, "a value was set since");
    assert_eq!(promote("1", 1), None);

    let discard = |past: &str, number| look(&history(past)).to_discard(number);
    let unlabel = |version| Move::Take(vec![Label::Pending], version);
    assert_eq!(discard("1 current, !2 pending", 2), Some(vec![unlabel(2), put(discarded, 2)]));
    assert_eq!(discard("1 current, !2 pending, 3 discarded", 2), Some(vec![unlabel(2)]), "3 needs its label");
    assert_eq!(discard("1 current, !2", 2), Some(vec![put(discarded, 2)]));
    assert_eq!(discard("1 current, !2 pending discarded", 2), Some(vec![]));
    assert_eq!(discard("1 current, !2 discarded, !3 pending", 2), None, "another one is pending");
    assert_eq!(discard("1 previous, !2 current pending", 2), None, "it is current");

    let drop = |past: &str, number| look(&history(past)).to_drop(number);
    assert_eq!(drop("1 previous, 2 current", 1), Some(vec![Move::Take(vec![previous], 1)]));
    assert_eq!(drop("1, 2 current", 1), Some(vec![]));
    assert_eq!(drop("1, 2 previous, 3 current", 1), None);
    assert_eq!(drop("1, 2 current", 2), None);

    let back = |past: &str, number| look(&history(past)).to_roll_back(number);
    let moves = vec![unlabel(2), put(discarded, 2), put(current, 1), put(previous, 2)];
    assert_eq!(back("1 previous, !2 current pending", 1), Some(moves));
    let moves = vec![put(current, 1), put(previous, 2)];
    assert_eq!(back("1 previous, !2 current, 3 discarded", 1), Some(moves), "3 needs its label");
    let forth = vec![put(current, 2), put(previous, 1)];
    assert_eq!(back("1 current, !2 previous discarded", 2), Some(forth), "nothing newer is left behind");
    assert_eq!(back("1 current, !2 discarded", 1), Some(vec![]));
    assert_eq!(back("1 previous, 2 current, !3 pending", 1), None);
    assert_eq!(back("1, 2 current", 1), None);

    assert_eq!(to_set(&history("1"), 2), vec![]);
    assert_eq!(to_set(&history(""), 1), vec![]);
    assert_eq!(to_set(&history("1 previous, 2 current"), 3), vec![put(previous, 2), put(current, 3)]);
    assert_eq!(to_set(&history("1 previous, 2"), 3), vec![put(current, 3)]);
    assert_eq!(to_set(&history("1 replaced, 2"), 3), vec![put(Label::Replaced, 2)]);
}

#[test]
fn a_roll_back_that_was_cut_off_after_its_one_move_is_known_as_done() {
    for (past, expected) in [
        ("2 previous, !3 current pending discarded", false),
        ("2 previous current, !3 pending discarded", true),
        ("2 current, !3 pending discarded previous", false),
        ("2 current previous, !3 pending", false),
        ("2 current", false),
        ("2", false),
    ] {
        assert_eq!(look(&history(past)).is_rolled_back(), expected, "{past}");
    }
}

/// `count` versions from `first` on, with the labels of this one.
fn many(first: u64, count: u64, labelled: &str) -> Vec<Past> {
    let one = version(labelled);
    (first..first + count)
        .map(|number| if number == one.version { one.clone() } else { version(&number.to_string()) })
        .collect()
}

#[test]
fn room_is_made_of_what_means_nothing_and_nothing_else() {
    let with_current = |mut past: Vec<Past>| {
        past.last_mut().unwrap().labels.push("vouchsafe-current".into());
        past
    };
    let room = |past: Vec<Past>| to_make_room(&past);
    assert_eq!(room(with_current(many(1, 99, "1 other"))), Ok(vec![]), "the hundredth has room");
    assert_eq!(room(with_current(many(1, 100, "2 other"))), Ok(vec![]), "the oldest has no label");
    assert_eq!(room(with_current(many(2, 100, "2 other"))), Err(Full::Versions));
    for stale in ["discarded", "pending", "replaced"] {
        let take = vec![Move::Take(history(&format!("2 {stale}"))[0].ours(), 2)];
        assert_eq!(room(with_current(many(2, 100, &format!("2 {stale}")))), Ok(take), "{stale}");
    }
    assert_eq!(room(with_current(many(2, 100, "2 pending other"))), Err(Full::Versions), "not ours alone");
    assert_eq!(room(with_current(many(2, 100, "2 previous"))), Err(Full::Versions));
    assert_eq!(room(many(2, 100, "2 current")), Err(Full::Versions));
    assert_eq!(room(many(2, 100, "2 replaced")), Err(Full::Versions), "it is what a roll back goes to");
    let mut ten = version("1 current");
    ten.labels.extend((0..9).map(|number| format!("other{number}")));
    assert_eq!(to_make_room(std::slice::from_ref(&ten)), Err(Full::Labels));
    ten.labels.pop();
    assert_eq!(to_make_room(&[ten]), Ok(vec![]));
}

impl Past {
    fn ours(&self) -> Vec<Label> {
        Label::ALL.into_iter().filter(|label| self.has(*label)).collect()
    }
}

/// A command, as somebody gives it.
#[derive(Debug, Clone, Copy)]
enum Command {
    Rotate,
    Abandon,
    RollBack,
    Retire,
    Set,
    OtherTool,
    /// The label that the error about another tool's version names.
    PassOver,
}

/// A model of one parameter, and what is known of its versions besides.
struct Model {
    past: Vec<Past>,
    /// Versions that a reader may get.
    proven: Vec<u64>,
    /// Versions that rotations wrote.
    written: usize,
    /// Versions that were discarded to the end.
    abandoned: Vec<u64>,
    /// Calls until the command is cut off.
    left: usize,
}

/// The command was cut off.
struct Cut;

impl Model {
    fn new() -> Self {
        Self { past: vec![version("1")], proven: vec![1], written: 0, abandoned: Vec::new(), left: usize::MAX }
    }

    fn newest(&self) -> u64 {
        self.past.last().map_or(0, |one| one.version)
    }

    /// What a reader of the stage `current` gets.
    fn read(&self) -> Option<u64> {
        let label = |one: &&Past| one.labels.iter().any(|label| label == "vouchsafe-current");
        let by_label: Vec<u64> = self.past.iter().filter(label).map(|one| one.version).collect();
        assert!(by_label.len() <= 1, "{}", self.text());
        by_label.first().copied().or_else(|| look(&self.past).current.map(|one| one.version))
    }

    fn text(&self) -> String {
        let one = |one: &Past| format!("{}{} {:?}", if one.mark.is_some() { "!" } else { "" }, one.version, one.labels);
        self.past.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// One call; what must hold after it holds.
    fn call(&mut self, change: impl FnOnce(&mut Vec<Past>)) -> Result<(), Cut> {
        self.left = self.left.checked_sub(1).ok_or(Cut)?;
        let before = self.read();
        change(&mut self.past);
        let after = self.read();
        assert!(after.is_some_and(|one| self.proven.contains(&one)), "{before:?} -> {after:?}: {}", self.text());
        let pending = look(&self.past).pending.map(|one| one.version);
        assert!(!pending.is_some_and(|one| self.abandoned.contains(&one)), "pending again: {}", self.text());
        Ok(())
    }

    fn put(&mut self, mark: bool) -> Result<u64, Cut> {
        let number = self.newest() + 1;
        let text = format!("{}{number}", if mark { "!" } else { "" });
        self.call(|past| past.push(version(&text)))?;
        Ok(number)
    }

    fn moves(&mut self, moves: &[Move]) -> Result<(), Cut> {
        for one in moves {
            self.call(|past| {
                // As the service does it, written once more: a label is on one version.
                let (names, version, is_put): (Vec<&str>, u64, bool) = match one {
                    Move::Put(label, version) => (vec![label.word()], *version, true),
                    Move::Take(labels, version) => (labels.iter().map(|label| label.word()).collect(), *version, false),
                };
                assert!(past.iter().any(|one| one.version == version), "{one:?}");
                for have in past.iter_mut().filter(|have| is_put || have.version == version) {
                    have.labels.retain(|label| !names.contains(&label.as_str()));
                }
                if is_put {
                    let target = past.iter_mut().find(|have| have.version == version).unwrap();
                    target.labels.extend(names.iter().map(|name| (*name).to_owned()));
                }
            })?;
        }
        Ok(())
    }

    /// What the story does, with the store's own planning.
    fn run(&mut self, command: Command) -> Result<(), Cut> {
        let past = self.past.clone();
        let seen = look(&past);
        match command {
            Command::OtherTool => {
                let number = self.newest() + 1;
                // Where nobody goes by labels, its word counts.
                if seen.is_unmarked {
                    self.proven.push(number);
                }
                self.put(false)?;
            }
            Command::Set => {
                if seen.pending.is_some() {
                    return Ok(());
                }
                self.proven.push(self.newest() + 1);
                let number = self.put(false)?;
                self.moves(&to_set(&past, number))?;
            }
            Command::PassOver => {
                if let Some(foreign) = seen.foreign {
                    self.moves(&[Move::Put(Label::Discarded, foreign.version)])?;
                }
            }
            _ if seen.foreign.is_some() => {}
            Command::Rotate => {
                let number = match seen.pending {
                    Some(pending) => pending.version,
                    None => {
                        self.moves(&seen.to_adopt())?;
                        let number = self.put(true)?;
                        self.written += 1;
                        self.moves(&[Move::Put(Label::Pending, number)])?;
                        number
                    }
                };
                self.proven.push(number);
                let moves = look(&self.past).to_promote(number).unwrap();
                self.moves(&moves)?;
            }
            Command::Abandon => {
                if let Some(pending) = seen.pending {
                    self.moves(&seen.to_discard(pending.version).unwrap())?;
                    self.abandoned.push(pending.version);
                }
            }
            Command::RollBack => {
                if let (Some(previous), None) = (seen.previous, seen.pending) {
                    self.moves(&seen.to_roll_back(previous.version).unwrap())?;
                }
            }
            Command::Retire => {
                if let Some(previous) = seen.previous {
                    self.moves(&seen.to_drop(previous.version).unwrap())?;
                }
            }
        }
        Ok(())
    }
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => Just(Command::Rotate),
        2 => Just(Command::Abandon),
        2 => Just(Command::RollBack),
        2 => Just(Command::Retire),
        2 => Just(Command::Set),
        1 => Just(Command::OtherTool),
        1 => Just(Command::PassOver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Every call of every command keeps a proven version current, wherever the commands before it were cut off. A rotation
    /// that is begun again goes on with the version that is there.
    #[test]
    fn a_proven_version_is_current_whatever_is_cut_off(
        commands in prop::collection::vec((command(), prop_oneof![Just(usize::MAX), 0usize..6]), 1..25)
    ) {
        let mut model = Model::new();
        for (command, left) in commands {
            model.left = left;
            let was_pending = look(&model.past).pending.map(|one| one.version);
            let was_current = model.read();
            let (foreign, written) = (look(&model.past).foreign.is_some(), model.written);
            let is_cut = model.run(command).is_err();
            model.left = usize::MAX;
            let after = look(&model.past);
            match command {
                Command::Rotate if !foreign => {
                    prop_assert!(model.written <= written + usize::from(was_pending.is_none()));
                    // Never without the way back, not even between two calls.
                    if model.read() != was_current {
                        prop_assert_eq!(after.previous.map(|one| one.version), was_current);
                    }
                    // Once more, to the end: the one version that was begun is the one that is current.
                    let begun = model.written > written || was_pending.is_some();
                    let number = model.newest();
                    let current = after.current.map(|one| one.version);
                    if is_cut && begun && after.pending.is_some() {
                        prop_assert!(model.run(Command::Rotate).is_ok());
                        prop_assert_eq!(model.newest(), number, "no second version");
                        let end = look(&model.past);
                        prop_assert_eq!(end.pending.map(|one| one.version), None);
                        prop_assert_eq!(end.previous.map(|one| one.version), current);
                    }
                }
                Command::Abandon if !is_cut && !foreign => prop_assert!(after.pending.is_none()),
                Command::Retire if !is_cut && !foreign => prop_assert!(after.previous.is_none()),
                Command::PassOver => {
                    prop_assert_eq!(model.read(), was_current);
                    prop_assert!(after.pending.is_none() || after.pending.map(|one| one.version) == was_pending);
                }
                Command::OtherTool if !is_cut && !after.is_unmarked => {
                    prop_assert_eq!(after.foreign.map(|one| one.version), Some(model.newest()));
                }
                Command::Set if !is_cut && was_pending.is_none() => {
                    prop_assert_eq!(model.read(), Some(model.newest()));
                    prop_assert!(after.foreign.is_none());
                }
                _ => {}
            }
        }
    }
}
