//! A program of the operator's, one run for each step; `docs/rotation.md` is its contract.
//!
//! [`crate::program`] runs it; [`mask`] takes any value out of what it said.
//!
//! Values are in its environment and nowhere else, each one only in the steps that need it. Nobody else can have written
//! the program. What it prints is a value (`create`), or shown to a person once it failed, masked; never recorded.

pub mod mask;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use self::mask::Masks;
use crate::checked_file::{check_program, plain_io};
use crate::name::{EnvironmentName, VariableName, show};
use crate::policy::model::Program;
use crate::program::{self, Ended, How, MAX_OUTPUT};
use crate::rotate::target::{Target, TargetError};
use crate::secret::Secret;
use crate::sys::Strings;

/// `EX_TEMPFAIL` of sysexits.h: it may work later.
const TRY_LATER: i32 = 75;

/// What a program is told besides values.
pub struct CommandTarget<'a> {
    program: &'a Program,
    secret: &'a VariableName,
    environment: &'a EnvironmentName,
    needs: Vec<(VariableName, Secret)>,
    remarks: Vec<String>,
}

/// A step, by its word in `VOUCHSAFE_STEP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Apply,
    Create,
    Generate,
    Retire,
    Verify,
}

impl Step {
    fn word(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Create => "create",
            Self::Generate => "generate",
            Self::Retire => "retire",
            Self::Verify => "verify",
        }
    }

    /// Its standard output is a value, or was to be one.
    fn prints_a_value(self) -> bool {
        matches!(self, Self::Create | Self::Generate)
    }

    /// Whoever is cut off in it may have changed the target.
    fn changes(self) -> bool {
        matches!(self, Self::Apply | Self::Retire)
    }
}

impl<'a> CommandTarget<'a> {
    /// `secret` is the binding that is rotated; `needs` are the values that the policy says the program needs.
    ///
    /// # Errors
    /// Others could have written the program, or a needed binding has a name that means something to it already.
    pub fn new(
        program: &'a Program,
        secret: &'a VariableName,
        environment: &'a EnvironmentName,
        needs: Vec<(VariableName, Secret)>,
    ) -> Result<Self, TargetError> {
        check(&program.path)?;
        let taken =
            |name: &&VariableName| matches!(name.as_str(), "PATH" | "LANG") || name.as_str().starts_with("VOUCHSAFE_");
        if let Some(name) = needs.iter().map(|(name, _)| name).find(taken) {
            return Err(TargetError::new(format!(
                "`{name}` cannot be handed to a program: the name has a meaning there"
            )));
        }
        Ok(Self { program, secret, environment, needs, remarks: Vec::new() })
    }

    /// What the program prints in a step `generate`: a new value, for `generate = { type = "command" }`.
    ///
    /// # Errors
    /// It fails, or prints nothing.
    pub fn generate(&mut self) -> Result<Secret, TargetError> {
        match self.step(Step::Generate, &[])? {
            Some(value) => Ok(value),
            None => Err(TargetError::new(format!("`{}` printed no value", show(&self.program.path)))),
        }
    }

    /// One run. What it printed, if that is a value.
    fn step(&mut self, step: Step, values: &[(&str, &Secret)]) -> Result<Option<Secret>, TargetError> {
        let path = &self.program.path;
        // Each time: a rotation can take long.
        check(path)?;
        let name =
            CString::new(path.as_os_str().as_bytes()).map_err(|_| TargetError::new("the program's path has a NUL"))?;
        let mut argv = Strings::default();
        argv.push(&[path.as_os_str().as_bytes()]);
        let envp = self.environment_of(step, values)?;
        let ended = program::run(&name, &argv, &envp, self.program.timeout);
        drop(envp);
        let ended = ended.map_err(|error| {
            let shown = show(path);
            let refusal = TargetError::new(format!("`{shown}` cannot be run: {}", plain_io(&error)));
            match error.kind() {
                io::ErrorKind::PermissionDenied => refusal.hinting(format!("chmod u+x {shown}")),
                io::ErrorKind::NotFound => refusal.hinting("a script begins with #! and an interpreter that exists"),
                _ => refusal,
            }
        })?;
        if ended.how != How::Exited(0) {
            return Err(self.failed(step, values, &ended));
        }
        if !step.prints_a_value() {
            return Ok(None);
        }
        if ended.stdout.is_cut {
            return Err(TargetError::new(format!("`{}` printed more than {MAX_OUTPUT} bytes as a value", show(path))));
        }
        let mut value = ended.stdout.bytes;
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        Ok((!value.is_empty()).then(|| Secret::new(std::mem::take(&mut *value))))
    }

    fn environment_of(&self, step: Step, values: &[(&str, &Secret)]) -> Result<Strings, TargetError> {
        let needs = self.needs.iter().map(|(name, value)| (name.as_str(), value));
        let mut values = values.iter().copied().chain(needs);
        if let Some((name, _)) = values.clone().find(|(_, value)| value.expose().contains(&0)) {
            return Err(TargetError::new(format!(
                "a value with a NUL cannot be handed over in the environment, as `{name}`"
            )));
        }
        let plain = [
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("VOUCHSAFE_STEP", step.word()),
            ("VOUCHSAFE_SECRET", self.secret.as_str()),
            ("VOUCHSAFE_ENVIRONMENT", self.environment.as_str()),
        ];
        let size: usize = plain.iter().map(|(name, text)| name.len() + text.len() + 2).sum();
        let of_values: usize = values.clone().map(|(name, value)| name.len() + value.expose().len() + 2).sum();
        let mut envp = Strings::with_capacity(plain.len() + values.clone().count(), size + of_values);
        for (name, text) in plain {
            envp.push(&[name.as_bytes(), b"=", text.as_bytes()]);
        }
        values.by_ref().for_each(|(name, value)| envp.push(&[name.as_bytes(), b"=", value.expose()]));
        Ok(envp)
    }

    /// The failure; and what the program said about it, for a person.
    fn failed(&mut self, step: Step, values: &[(&str, &Secret)], ended: &Ended) -> TargetError {
        let path = show(&self.program.path);
        let masks = Masks::of(values.iter().map(|(_, value)| *value).chain(self.needs.iter().map(|(_, value)| value)));
        // What was to be a new value is known to nobody, so nothing could mask it.
        let said = if step.prints_a_value() { Vec::new() } else { masks.lines(&ended.stdout.bytes) };
        let said = said.into_iter().chain(masks.lines(&ended.stderr.bytes));
        self.remarks.extend(said.map(|line| format!("{path}: {line}")));
        let word = step.word();
        match ended.how {
            How::Exited(TRY_LATER) => {
                let name = self.secret;
                TargetError::new(format!("`{path}` could not do the step `{word}` now (exit status {TRY_LATER})"))
                    .hinting(format!("later: vouchsafe rotate {name} --resume"))
            }
            How::Exited(status) => {
                let error = TargetError::new(format!("`{path}` failed at the step `{word}` (exit status {status})"));
                TargetError { is_refusal: step == Step::Verify, ..error }
            }
            How::Signaled(signal) => {
                let error = TargetError::new(format!("`{path}` was ended by signal {signal} in the step `{word}`"));
                TargetError { is_unsettled: step.changes(), ..error }
            }
            How::TimedOut => {
                let limit = humantime::format_duration(self.program.timeout);
                let problem = format!("`{path}` did not end the step `{word}` within {limit} and was killed");
                let error =
                    TargetError::new(problem).hinting("apply = { ..., timeout = \"2m\" }   # if it needs longer");
                TargetError { is_unsettled: step.changes(), ..error }
            }
        }
    }
}

/// Nobody else can have written what is going to get values.
fn check(path: &Path) -> Result<(), TargetError> {
    let unsafe_file = |error: crate::checked_file::FileError| {
        let refusal = TargetError::new(format!("the program is refused: {error}"));
        match error.hint() {
            Some(hint) => refusal.hinting(hint),
            None => refusal,
        }
    };
    if !path.is_absolute() {
        return Err(TargetError::new(format!("the program `{}` is no absolute path", show(path))));
    }
    check_program(path).map_err(unsafe_file)?;
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        Ok(())
    } else {
        Err(TargetError::new(format!("the program `{}` is no regular file", show(path))))
    }
}

const CURRENT: &str = "VOUCHSAFE_CURRENT";
const GENERATED: &str = "VOUCHSAFE_GENERATED";
const PENDING: &str = "VOUCHSAFE_PENDING";
const PREVIOUS: &str = "VOUCHSAFE_PREVIOUS";

impl Target for CommandTarget<'_> {
    /// A program that prints nothing wants the generated value as it is.
    fn compose(&mut self, current: Option<&Secret>, generated: Secret) -> Result<Secret, TargetError> {
        let values: Vec<_> =
            current.map(|current| (CURRENT, current)).into_iter().chain([(GENERATED, &generated)]).collect();
        let printed = self.step(Step::Create, &values)?;
        drop(values);
        Ok(printed.unwrap_or(generated))
    }

    fn apply(&mut self, current: Option<&Secret>, pending: &Secret) -> Result<(), TargetError> {
        let values: Vec<_> =
            current.map(|current| (CURRENT, current)).into_iter().chain([(PENDING, pending)]).collect();
        self.step(Step::Apply, &values).map(drop)
    }

    fn verify(&mut self, value: &Secret) -> Result<(), TargetError> {
        self.step(Step::Verify, &[(PENDING, value)]).map(drop)
    }

    fn retire(&mut self, previous: &Secret, current: &Secret) -> Result<(), TargetError> {
        self.step(Step::Retire, &[(PREVIOUS, previous), (CURRENT, current)]).map(drop)
    }

    fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }
}

#[cfg(test)]
mod tests;
