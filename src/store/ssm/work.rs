//! One operation of a rotation on one parameter.
//!
//! Every operation looks at the history, plans its moves by [`labels`] or [`apart`], and carries them out in that order. So it
//! may be ended between any two calls and begun again, by anyone; `docs/spec/ssm-stages.md` says why each state is safe.

use super::apart::{self, Plan};
use super::labels::{self, Label};
use super::mark::{Mark, Purpose, describe};
use super::names::{Key, Selector};
use super::read::{self, Past};
use super::relabel::{Relabel, Right};
use super::write::{self, Base, Order};
use super::{Fault, Refusal, fetch, note, usable};
use crate::policy::model::Stage;
use crate::secret::Secret;
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, AwsError, Problem};
use crate::store::aws::retry::concurrently;
use crate::store::stages::{Staged, StagedItem};
use crate::store::{Answer, Fetched, Wanted};

/// One operation on one item.
pub(super) struct Work<'w, 'a> {
    pub(super) calls: &'w Calls<'a>,
    pub(super) item: &'w StagedItem,
    /// Where its unproven version lies, if apart.
    pub(super) apart: String,
    pub(super) key: Option<&'w str>,
    pub(super) right: Option<Right>,
}

impl<'w, 'a> Work<'w, 'a> {
    fn name(&self) -> &'w str {
        self.item.item.as_str()
    }

    fn moved(&self, found: String) -> Fault {
        Fault::Moved(self.item.item.clone(), found)
    }

    /// What every write needs: a right that has not ended.
    fn right(&self) -> Result<&Right, Refusal> {
        self.right.as_ref().filter(|right| right.is_open()).ok_or(Refusal::RightEnded)
    }

    fn relabel<'s>(&'s self, name: &'s str) -> Guarded<'s, 'a> {
        Guarded { work: self, name }
    }

    /// The history, in which at least this version shows: a read may be behind the write for a moment.
    async fn past(&self, number: u64) -> Result<Vec<Past>, AwsError> {
        for failures in 1.. {
            let past = read::past(self.calls, self.name()).await?;
            let shows = past.iter().any(|one| one.version >= number);
            if shows || past.is_empty() || self.calls.pause(&Problem::ServerFault, failures).await.is_none() {
                return Ok(past);
            }
        }
        Ok(Vec::new())
    }

    /// The histories of the item and of the parameter apart.
    async fn both(&self) -> Result<(Vec<Past>, Vec<Past>), AwsError> {
        let names = [self.name(), &self.apart];
        let mut pasts = concurrently(2, names.map(|name| read::past(self.calls, name))).await?;
        let apart = pasts.pop().unwrap_or_default();
        Ok((pasts.pop().unwrap_or_default(), apart))
    }

    pub(super) async fn staged(&self) -> Result<Staged, Fault> {
        let stage = |one: Option<&Past>, stage| one.map(|one| note(one, Some(stage)));
        if self.item.pending_separate {
            let (past, apart) = self.both().await?;
            let seen = apart::look(&past, &apart);
            self.refuse_foreign_apart(&seen)?;
            if past.is_empty() {
                return Ok(Staged::default());
            }
            return Ok(Staged {
                current: stage(seen.current, Stage::Current),
                pending: stage(seen.pending, Stage::Pending),
                previous: stage(seen.previous, Stage::Previous),
                is_unmarked: seen.by_label.is_some(),
                is_rolled_back: seen.is_rolled_back(),
            });
        }
        let past = read::past(self.calls, self.name()).await?;
        let seen = labels::look(&past);
        self.refuse_foreign(&seen)?;
        Ok(Staged {
            current: stage(seen.current, Stage::Current),
            pending: stage(seen.pending, Stage::Pending),
            previous: stage(seen.previous, Stage::Previous),
            is_unmarked: seen.is_unmarked && seen.newest.is_some(),
            is_rolled_back: seen.is_rolled_back(),
        })
    }

    /// What another tool wrote is neither promoted nor passed over in silence.
    fn refuse_foreign(&self, seen: &labels::Seen<'_>) -> Result<(), Refusal> {
        let name = || self.name().to_owned();
        match (seen.current, seen.foreign) {
            (Some(current), Some(foreign)) => {
                Err(Refusal::Foreign { name: name(), number: foreign.version, current: current.version })
            }
            (None, _) if !seen.is_unmarked => Err(Refusal::NoneIsCurrent(name())),
            _ => Ok(()),
        }
    }

    fn refuse_foreign_apart(&self, seen: &apart::Seen<'_>) -> Result<(), Refusal> {
        if let Some(foreign) = seen.foreign {
            return Err(Refusal::ForeignApart(self.apart.clone(), foreign.version));
        }
        if seen.to_adopt().is_none() {
            return Err(Refusal::ByLabel(self.name().to_owned()));
        }
        Ok(())
    }

    pub(super) async fn read(&self, stage: Stage) -> Result<Option<Fetched>, Fault> {
        let seen = match (stage, self.item.pending_separate) {
            (Stage::Current, separate) => {
                // As every other reader reads it.
                let stage = (!separate).then_some(stage);
                let (item, version, plain) = (self.item.item.clone(), None, false);
                let answer = fetch(self.calls, &[Wanted::Item { item, version, stage, plain }]).await?.pop();
                return Ok(match answer {
                    Some(Answer::Found(found)) => Some(Fetched { stage: Some(Stage::Current), ..found }),
                    _ => None,
                });
            }
            (Stage::Pending, true) => {
                let (past, apart) = self.both().await?;
                apart::look(&past, &apart).pending.map(|one| one.version)
            }
            (Stage::Previous, true) => {
                let past = read::past(self.calls, self.name()).await?;
                apart::look(&past, &[]).previous.map(|one| one.version)
            }
            (Stage::Pending, false) => {
                let past = read::past(self.calls, self.name()).await?;
                let pending = labels::look(&past).pending;
                if let Some(orphan) = pending.filter(|one| !one.has(Label::Pending)) {
                    // A target may know the value as soon as it was handed out; from then on it must not be lost.
                    self.relabel(self.name()).all(&[labels::Move::Put(Label::Pending, orphan.version)]).await?;
                }
                pending.map(|one| one.version)
            }
            (Stage::Previous, false) => {
                let past = read::past(self.calls, self.name()).await?;
                labels::look(&past).previous.map(|one| one.version)
            }
        };
        let Some(number) = seen else { return Ok(None) };
        let is_apart = self.item.pending_separate && stage == Stage::Pending;
        let name = if is_apart { &self.apart } else { self.name() };
        self.value(name, number, stage).await
    }

    /// The value of a version.
    async fn value(&self, name: &str, number: u64, stage: Stage) -> Result<Option<Fetched>, Fault> {
        let key = Key { name: name.to_owned(), selector: Selector::Version(number) };
        let got = read::get_parameter(self.calls, &key).await?;
        Ok(got.map(|got| usable(&self.item.item, &got, Some(stage), false)).transpose()?)
    }

    pub(super) async fn adopt(&self) -> Result<(), Fault> {
        let past = read::past(self.calls, self.name()).await?;
        let moves = match self.item.pending_separate {
            false => labels::look(&past).to_adopt(),
            true => {
                let moves = apart::look(&past, &[]).to_adopt();
                moves.ok_or_else(|| Refusal::ByLabel(self.name().to_owned()))?
            }
        };
        self.relabel(self.name()).all(&moves).await
    }

    pub(super) async fn create(&self, value: &Secret) -> Result<u64, Fault> {
        let order = self.order(self.name(), value);
        write::check(self.calls, &order)?;
        let right = self.right()?;
        let past = read::past(self.calls, self.name()).await?;
        self.refuse_absent(&past)?;
        write::refuse_plain(self.name(), &past)?;
        let seen = labels::look(&past);
        self.refuse_foreign(&seen)?;
        if seen.pending.is_some() {
            return Err(self.moved(seen.found()));
        }
        let relabel = Relabel { calls: self.calls, right: Some(right), name: self.name() };
        let adopt = seen.to_adopt();
        let mut adopted = past.clone();
        labels::apply(&mut adopted, &adopt);
        relabel.all(&adopt).await?;
        write::make_room(&relabel, &adopted).await?;
        let number = self.write(&order, &past, Purpose::Here).await?;
        relabel.all(&[labels::Move::Put(Label::Pending, number)]).await?;
        Ok(number)
    }

    pub(super) async fn promote(&self, number: u64) -> Result<u64, Fault> {
        let past = self.past(number).await?;
        let seen = labels::look(&past);
        let moves = seen.to_promote(number).ok_or_else(|| self.moved(seen.found()))?;
        if moves.is_empty() {
            return Ok(number);
        }
        self.refuse_foreign(&seen)?;
        if seen.pending.is_some_and(|pending| !pending.is_encrypted) {
            return Err(Refusal::Downgraded(self.name().to_owned()).into());
        }
        self.relabel(self.name()).all(&moves).await?;
        Ok(number)
    }

    pub(super) async fn discard(&self, number: u64) -> Result<(), Fault> {
        if self.item.pending_separate {
            let (past, apart) = self.both().await?;
            let seen = apart::look(&past, &apart);
            let moves = seen.to_discard(number).ok_or_else(|| self.moved(seen.found()))?;
            return self.relabel(&self.apart).all(&moves).await;
        }
        let past = self.past(number).await?;
        let seen = labels::look(&past);
        let moves = seen.to_discard(number).ok_or_else(|| self.moved(seen.found()))?;
        self.relabel(self.name()).all(&moves).await
    }

    pub(super) async fn drop_previous(&self, number: u64) -> Result<(), Fault> {
        let past = self.past(number).await?;
        let (moves, found) = if self.item.pending_separate {
            let seen = apart::look(&past, &[]);
            (seen.to_drop(number), seen.found())
        } else {
            let seen = labels::look(&past);
            (seen.to_drop(number), seen.found())
        };
        self.relabel(self.name()).all(&moves.ok_or_else(|| self.moved(found))?).await
    }

    pub(super) async fn roll_back(&self, number: u64) -> Result<u64, Fault> {
        let past = self.past(number).await?;
        let seen = labels::look(&past);
        let moves = seen.to_roll_back(number).ok_or_else(|| self.moved(seen.found()))?;
        self.relabel(self.name()).all(&moves).await?;
        Ok(number)
    }

    pub(super) async fn create_apart(&self, value: &Secret) -> Result<u64, Fault> {
        let order = self.order(&self.apart, value);
        write::check(self.calls, &order)?;
        let right = self.right()?;
        let (past, apart) = self.both().await?;
        self.refuse_absent(&past)?;
        write::refuse_plain(&self.apart, &apart)?;
        let seen = apart::look(&past, &apart);
        self.refuse_foreign_apart(&seen)?;
        if seen.pending.is_some() {
            return Err(self.moved(seen.found()));
        }
        self.relabel(self.name()).all(&seen.to_adopt().unwrap_or_default()).await?;
        let relabel = Relabel { calls: self.calls, right: Some(right), name: &self.apart };
        write::make_room(&relabel, &apart).await?;
        self.write(&order, &apart, Purpose::Apart(Base::of(&past).number)).await
    }

    pub(super) async fn promote_apart(&self, number: u64) -> Result<u64, Fault> {
        let (past, apart) = self.both().await?;
        let seen = apart::look(&past, &apart);
        let (moves, mark) = match seen.to_promote(number).ok_or_else(|| self.moved(seen.found()))? {
            Plan::Done(current) => return Ok(current),
            Plan::Write(moves, mark) => (moves, mark),
        };
        self.refuse_foreign_apart(&seen)?;
        if seen.by_label.is_some() {
            return Err(Refusal::ByLabel(self.name().to_owned()).into());
        }
        let pending = self.value(&self.apart, number, Stage::Pending).await?;
        let pending = pending.ok_or_else(|| self.moved(seen.found()))?;
        self.relabel(self.name()).all(&moves).await?;
        self.write_over(&pending.value, past, &moves, mark).await
    }

    pub(super) async fn roll_back_apart(&self, number: u64) -> Result<u64, Fault> {
        let (past, apart) = self.both().await?;
        let seen = apart::look(&past, &apart);
        let mark = match seen.to_roll_back(number).ok_or_else(|| self.moved(seen.found()))? {
            Plan::Done(current) => {
                self.relabel(self.name()).all(&seen.after_roll_back(number)).await?;
                return Ok(current);
            }
            Plan::Write(_, mark) => mark,
        };
        let previous = self.value(self.name(), number, Stage::Previous).await?;
        let previous = previous.ok_or_else(|| self.moved(seen.found()))?;
        let current = self.write_over(&previous.value, past, &[], mark).await?;
        self.relabel(self.name()).all(&[labels::Move::Put(Label::Replaced, mark.after)]).await?;
        Ok(current)
    }

    /// A new version of the item itself, where the newest is current. `done` are the moves since `past`.
    async fn write_over(
        &self,
        value: &Secret,
        mut past: Vec<Past>,
        done: &[labels::Move],
        mark: Mark,
    ) -> Result<u64, Fault> {
        labels::apply(&mut past, done);
        let right = self.right()?;
        let order = self.order(self.name(), value);
        write::refuse_plain(self.name(), &past)?;
        write::make_room(&Relabel { calls: self.calls, right: Some(right), name: self.name() }, &past).await?;
        let number = self.write(&order, &past, mark.purpose).await?;
        // Consumers have it already.
        write::verify_type(self.calls, self.name(), number).await?;
        Ok(number)
    }

    /// One new version, marked with what it is for.
    async fn write(&self, order: &Order<'_>, past: &[Past], purpose: Purpose) -> Result<u64, Fault> {
        let base = Base::of(past);
        let text = apart::newest(past).map(|one| one.text.as_str()).unwrap_or_default();
        let description = describe(text, Mark { after: base.number, purpose });
        let number = write::write(self.calls, order, base, Some(&description), Some(self.right()?)).await?;
        match number {
            Some(number) if Some(number) == base.number.checked_add(1) => Ok(number),
            // Its mark does not count then, and nothing is made of it.
            Some(number) => {
                Err(self.moved(format!("version {number} was to be the one after version {}", base.number)))
            }
            None => Err(self.moved("it came into being".into())),
        }
    }

    fn order<'o>(&'o self, name: &'o str, value: &'o Secret) -> Order<'o> {
        Order { name, value, key: self.key, only_if_absent: false }
    }

    /// There is nothing to rotate, and a first version that is pending would be what readers without stages get.
    fn refuse_absent(&self, past: &[Past]) -> Result<(), AwsError> {
        let asked = Asked { action: "ssm:GetParameterHistory", resource: self.name().to_owned() };
        if past.is_empty() { Err(Problem::Absent.of(&asked)) } else { Ok(()) }
    }
}

/// Moves that need a right, if there is any to make.
struct Guarded<'s, 'a> {
    work: &'s Work<'s, 'a>,
    name: &'s str,
}

impl Guarded<'_, '_> {
    async fn all(&self, moves: &[labels::Move]) -> Result<(), Fault> {
        if moves.is_empty() {
            return Ok(());
        }
        let right = Some(self.work.right()?);
        Relabel { calls: self.work.calls, right, name: self.name }.all(moves).await
    }
}
