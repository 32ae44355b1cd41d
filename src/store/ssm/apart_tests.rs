//! Tests of rotation apart: tables, and a model of both parameters in which commands are cut off at any call.

use proptest::prelude::*;

use super::*;

/// `3 replaced`; `4 from 2`; `5 again 3`; `2 for 7`, of the parameter apart; `2 plain`: not ours.
fn version(text: &str) -> Past {
    let words: Vec<&str> = text.split_whitespace().collect();
    let version: u64 = words[0].parse().unwrap();
    let number = |word: &str| words.iter().position(|one| *one == word).map(|at| words[at + 1].parse::<u64>().unwrap());
    let purpose = number("for").map(Purpose::Apart);
    let purpose = purpose.or_else(|| number("from").map(Purpose::Promoted));
    let purpose = purpose.or_else(|| number("again").map(Purpose::Again));
    let labels = ["current", "pending", "previous", "discarded", "replaced"];
    let labels = labels.into_iter().filter(|label| words.contains(label));
    Past {
        version,
        labels: labels.map(|label| format!("vouchsafe-{label}")).collect(),
        mark: purpose.map(|purpose| Mark { after: version - 1, purpose }),
        is_encrypted: true,
        ..Past::default()
    }
}

fn history(text: &str) -> Vec<Past> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(version).collect()
}

#[test]
fn which_version_is_which() {
    for (name, past, apart, expected) in [
        ("nothing", "", "", "- - - -"),
        ("never rotated", "1, 2", "", "2 - - -"),
        ("created", "1, 2", "1 for 2", "2 1 - -"),
        ("half promoted", "1, 2 replaced", "1 for 2", "2 1 - -"),
        ("promoted", "1, 2 replaced, 3 from 1", "1 for 2", "3 - 2 -"),
        ("the next one", "1, 2 replaced, 3 from 1", "1 for 2, 2 for 3", "3 2 2 -"),
        ("discarded", "1, 2", "1 for 2 discarded", "2 - - -"),
        ("another tool wrote: it is current, and the pending one still there", "1, 2, 3", "1 for 2", "3 1 - -"),
        ("promoted, then set", "1, 2, 3 replaced from 1, 4", "1 for 2", "4 - 3 -"),
        ("promoted so long ago that nothing shows it", "4, 5, 6", "1 for 2", "6 - - -"),
        ("removed and made anew", "1", "1 for 2", "1 - - -"),
        ("half rolled back", "1, 2 replaced, 3 from 1, 4 again 2", "1 for 2", "4 - 2 -"),
        ("rolled back", "1, 2, 3 replaced from 1, 4 again 2", "1 for 2", "4 - 3 -"),
        ("somebody else's", "1, 2", "1", "2 - - 1"),
        ("somebody else's, over ours", "1, 2", "1 for 2, 2", "2 - - 2"),
        ("somebody else's, passed over", "1, 2", "1 discarded", "2 - - -"),
    ] {
        let (past, apart) = (history(past), history(apart));
        let seen = look(&past, &apart);
        let number = |one: Option<&Past>| one.map_or_else(|| "-".to_owned(), |one| one.version.to_string());
        let told = [seen.current, seen.pending, seen.previous, seen.foreign].map(number).join(" ");
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn nothing_is_written_over_what_came_meanwhile() {
    let promote = |past: &str, apart: &str, number| look(&history(past), &history(apart)).to_promote(number);
    let mark = Mark { after: 2, purpose: Purpose::Promoted(1) };
    let label = vec![Move::Put(Label::Replaced, 2)];
    assert_eq!(promote("1, 2", "1 for 2", 1), Some(Plan::Write(label, mark)));
    assert_eq!(promote("1, 2 replaced", "1 for 2", 1), Some(Plan::Write(vec![], mark)));
    assert_eq!(promote("1, 2 replaced, 3 from 1", "1 for 2", 1), Some(Plan::Done(3)));
    assert_eq!(promote("1, 2, 3", "1 for 2", 1), None, "another tool wrote version 3");
    assert_eq!(promote("1, 2", "1 for 2 discarded", 1), None);
    assert_eq!(promote("1, 2", "1 for 2", 2), None);

    let back = |past: &str, apart: &str, number| look(&history(past), &history(apart)).to_roll_back(number);
    let mark = Mark { after: 3, purpose: Purpose::Again(2) };
    assert_eq!(back("2 replaced, 3 from 1", "1 for 2", 2), Some(Plan::Write(vec![], mark)));
    assert_eq!(back("2 replaced, 3 from 1, 4 again 2", "1 for 2", 2), Some(Plan::Done(4)));
    assert_eq!(back("2 replaced, 3 from 1", "1 for 2, 2 for 3", 2), None, "one is pending");
    assert_eq!(back("1, 2 replaced, 3", "", 1), None);
    let after = |past: &str, number| look(&history(past), &[]).after_roll_back(number);
    assert_eq!(after("2 replaced, 3 from 1, 4 again 2", 2), [Move::Put(Label::Replaced, 3)]);
    assert_eq!(after("2, 3 replaced from 1, 4 again 2", 2), []);
}

/// Its number is higher than that of the version it came after, so the numbers do not say it.
#[test]
fn what_was_rolled_back_is_known_until_something_comes_after_it() {
    for (past, expected) in [
        ("2 replaced, 3 from 1", false),
        ("2 replaced, 3 from 1, 4 again 2", false),
        ("2, 3 replaced from 1, 4 again 2", true),
        ("2, 3 replaced from 1, 4 again 2, 5", false),
        ("2, 3 from 1, 4 replaced again 2, 5", false),
        ("2, 3 from 1, 4 again 2", false),
        ("1, 2", false),
    ] {
        assert_eq!(look(&history(past), &[]).is_rolled_back(), expected, "{past}");
    }
}

#[test]
fn labels_of_stages_go_and_current_goes_last() {
    let adopt = |past: &str| look(&history(past), &[]).to_adopt();
    assert_eq!(adopt("1, 2 replaced, 3"), Some(vec![]));
    let moves = vec![
        Move::Put(Label::Replaced, 1),
        Move::Take(vec![Label::Pending], 2),
        Move::Take(vec![Label::Previous], 1),
        Move::Take(vec![Label::Current], 2),
    ];
    assert_eq!(adopt("1 previous, 2 current pending"), Some(moves));
    assert_eq!(adopt("1 current, 2 pending"), None, "a rotation by labels is under way");
    assert_eq!(adopt("1 current, 2"), None, "another tool wrote");
    assert_eq!(adopt("1 current, 2 previous discarded"), None, "rolled back");
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
}

/// A model of both parameters. A value is the number of the secret that was made.
#[derive(Default)]
struct Model {
    past: Vec<Past>,
    values: Vec<u64>,
    apart: Vec<Past>,
    apart_values: Vec<u64>,
    proven: Vec<u64>,
    made: u64,
    left: usize,
}

struct Cut;

impl Model {
    fn step(&mut self) -> Result<(), Cut> {
        self.left = self.left.checked_sub(1).ok_or(Cut)?;
        Ok(())
    }

    fn check(&self) {
        assert_eq!(self.past.len(), self.values.len());
        assert!(self.proven.contains(self.values.last().unwrap()), "readers get an unproven value");
    }

    fn put(&mut self, purpose: Option<Purpose>, value: u64) -> Result<(), Cut> {
        self.step()?;
        let number = self.past.len() as u64 + 1;
        let mark = purpose.map(|purpose| Mark { after: number - 1, purpose });
        self.past.push(Past { mark, ..version(&number.to_string()) });
        self.values.push(value);
        self.check();
        Ok(())
    }

    fn moves(&mut self, moves: &[Move], apart: bool) -> Result<(), Cut> {
        for one in moves {
            self.step()?;
            let past = if apart { &mut self.apart } else { &mut self.past };
            labels::apply(past, std::slice::from_ref(one));
            self.check();
        }
        Ok(())
    }

    fn fresh(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn run(&mut self, command: Command) -> Result<(), Cut> {
        let (past, apart) = (self.past.clone(), self.apart.clone());
        let seen = look(&past, &apart);
        match command {
            Command::OtherTool | Command::Set => {
                let value = self.fresh();
                self.proven.push(value);
                self.put(None, value)?;
                if matches!(command, Command::Set) {
                    self.moves(&labels::to_set(&past, self.past.len() as u64), false)?;
                }
            }
            Command::Rotate => {
                if seen.pending.is_none() {
                    let value = self.fresh();
                    self.step()?;
                    let number = self.apart.len() as u64 + 1;
                    let mark = Mark { after: number - 1, purpose: Purpose::Apart(self.past.len() as u64) };
                    self.apart.push(Past { mark: Some(mark), ..version(&number.to_string()) });
                    self.apart_values.push(value);
                    self.check();
                }
                let (past, apart) = (self.past.clone(), self.apart.clone());
                let seen = look(&past, &apart);
                let number = seen.pending.unwrap().version;
                let value = self.apart_values[number as usize - 1];
                if let Some(Plan::Write(moves, mark)) = seen.to_promote(number) {
                    self.proven.push(value);
                    self.moves(&moves, false)?;
                    assert_eq!(mark.after, self.past.len() as u64);
                    self.put(Some(mark.purpose), value)?;
                }
            }
            Command::Abandon => {
                if let Some(pending) = seen.pending {
                    self.moves(&seen.to_discard(pending.version).unwrap(), true)?;
                }
            }
            Command::RollBack => {
                let Some(previous) = seen.previous.map(|one| one.version) else { return Ok(()) };
                match seen.to_roll_back(previous) {
                    Some(Plan::Write(moves, mark)) => {
                        self.moves(&moves, false)?;
                        let value = self.values[previous as usize - 1];
                        self.put(Some(mark.purpose), value)?;
                        self.moves(&[Move::Put(Label::Replaced, mark.after)], false)?;
                    }
                    Some(Plan::Done(_)) => self.moves(&seen.after_roll_back(previous), false)?,
                    None => {}
                }
            }
            Command::Retire => {
                if let Some(previous) = seen.previous {
                    self.moves(&seen.to_drop(previous.version).unwrap(), false)?;
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
        1 => Just(Command::Retire),
        1 => Just(Command::Set),
        1 => Just(Command::OtherTool),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_version_is_proven_whatever_is_cut_off(
        commands in prop::collection::vec((command(), prop_oneof![Just(usize::MAX), 0usize..4]), 1..25)
    ) {
        let mut model = Model { left: usize::MAX, ..Model::default() };
        prop_assert!(model.run(Command::Set).is_ok());
        for (command, left) in commands {
            model.left = left;
            let (versions, pending) = (model.past.len(), look(&model.past, &model.apart).pending.is_some());
            let current = model.past.len() as u64;
            let is_cut = model.run(command).is_err();
            model.left = usize::MAX;
            prop_assert!(model.past.len() <= versions + 1);
            match command {
                Command::Rotate if is_cut && !pending && !model.apart.is_empty() => {
                    let (apart, begun) = (model.apart.len(), look(&model.past, &model.apart).pending.is_some());
                    if begun {
                        prop_assert!(model.run(Command::Rotate).is_ok());
                        prop_assert_eq!((model.past.len(), model.apart.len()), (versions + 1, apart));
                        let seen = look(&model.past, &model.apart);
                        prop_assert!(seen.pending.is_none());
                        prop_assert_eq!(seen.previous.map(|one| one.version), Some(current));
                    }
                }
                Command::RollBack if is_cut && model.past.len() > versions => {
                    prop_assert!(model.run(Command::RollBack).is_ok());
                    prop_assert_eq!(model.past.len(), versions + 1, "not forth again");
                    let seen = look(&model.past, &model.apart);
                    prop_assert!(seen.is_rolled_back(), "nor by another command");
                    prop_assert_eq!(seen.previous.map(|one| one.version), Some(current));
                }
                Command::Abandon if !is_cut => {
                    prop_assert!(look(&model.past, &model.apart).pending.is_none());
                }
                _ => {}
            }
        }
    }
}
