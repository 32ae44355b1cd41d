//! From the words of a policy to what does the work: the target that takes a value, and what makes a new one.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::apply::command::CommandTarget;
use super::apply::postgres::PostgresTarget;
use super::generate::generate;
use super::means::Means;
use super::stuck::Failure;
use super::target::{NoTarget, Target};
use crate::error::Error;
use crate::name::{StoreName, VariableName};
use crate::policy::model::{Apply, Generate, Policy, Program, Rotation, Store};
use crate::secret::Secret;
use crate::setting::Setting;
use crate::store::ssm::names::lock_of;

/// The target of the rotation of `name`.
///
/// # Errors
/// A binding that it needs was not read; the program or the connection would not be safe.
pub(super) fn target<'s>(
    setting: &'s Setting<'_>,
    name: &'s VariableName,
    rotation: &'s Rotation,
    means: &Means,
) -> Result<Box<dyn Target + 's>, Error> {
    match &rotation.apply {
        Apply::None => Ok(Box::new(NoTarget)),
        Apply::Command(program) => Ok(Box::new(command(setting, name, program, means)?)),
        Apply::Postgres(postgres) => {
            let admin = means.get(&postgres.admin).ok_or(Failure::NotCovered)?.duplicate();
            Ok(Box::new(PostgresTarget::new(postgres, admin, &setting.host.network, setting.deadline())?))
        }
    }
}

/// Where the right to rotate a store lies: the same for two stores of one place.
pub(super) fn right_of(policy: &Policy, name: &StoreName) -> Option<PathBuf> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match policy.stores.get(name)? {
        Store::Age(store) => Some(real(&store.path)),
        Store::Kms(store) => store.path.as_deref().map(real),
        // In two accounts it is not the same one; then it is given back too soon, and taken again.
        Store::Ssm(store) => Some(PathBuf::from(format!("ssm:{}", lock_of(&store.prefix)))),
    }
}

/// A new value for `name`; its public half, if it has one, goes to `public`.
///
/// # Errors
/// The kernel gives no randomness; the program fails.
pub(super) fn new_value(
    setting: &Setting<'_>,
    name: &VariableName,
    rotation: &Rotation,
    means: &Means,
    public: &RefCell<Option<String>>,
) -> Result<Secret, Error> {
    match &rotation.generate {
        Generate::Random(what) => {
            let generated = generate(what)?;
            public.replace(generated.public);
            Ok(generated.value)
        }
        Generate::Command(program) => {
            let mut target = command(setting, name, program, means)?;
            let made = target.generate();
            remark(&mut target);
            Ok(made?)
        }
    }
}

/// Tells the one who rotates what a target had to say.
pub(super) fn remark(target: &mut dyn Target) {
    for line in target.remarks() {
        // Standard error may be gone; the rotation goes on.
        crate::output::complain(&format!("vouchsafe: {line}\n")).unwrap_or_default();
    }
}

fn command<'s>(
    setting: &'s Setting<'_>,
    name: &'s VariableName,
    program: &'s Program,
    means: &Means,
) -> Result<CommandTarget<'s>, Error> {
    let needs = program.needs.iter().map(|need| {
        let value = means.get(need).ok_or(Failure::NotCovered)?;
        Ok((need.clone(), value.duplicate()))
    });
    let needs = needs.collect::<Result<Vec<_>, Failure>>()?;
    Ok(CommandTarget::new(program, name, &setting.policy.environment, needs)?)
}
