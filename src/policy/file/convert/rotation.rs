//! `[secrets.NAME.rotate]`.

use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use super::stores::Facts;
use super::values::{Zero, is_plain_absolute};
use crate::name::{VariableName, escape};
use crate::policy::file::raw::{
    ApplyType, At, PendingWord, RawApply, RawGenerate, RawPolicy, RawRotate, RawSecret, StoreType,
};
use crate::policy::model::{Alphabet, Apply, Generate, Password, Postgres, Program, Roles, Rotation};

pub(super) fn rotation(
    at: &At<RawRotate>,
    secret: &RawSecret,
    files: &[RawPolicy],
    facts: &Facts<'_>,
    context: &mut Context<'_>,
) -> Rotation {
    let raw = &at.value;
    let kind = secret.store.as_ref().map(At::as_str).or(facts.default).and_then(|name| facts.by_name.get(name));
    if let Some(pending) = &raw.pending
        && kind.is_some_and(|fact| fact.kind != StoreType::Ssm)
    {
        context.findings.wrong(pending, "`pending` is for stores of type `ssm`");
    }
    Rotation {
        every: raw.every.as_ref().and_then(|at| context.duration(at, Zero::Refused)),
        generate: generate(raw.generate.as_ref(), context),
        apply: raw.apply.as_ref().map_or(Apply::None, |at| apply(at, files, context)),
        pending_separate: raw.pending.as_ref().is_some_and(|at| at.value == PendingWord::Separate),
        retire_after: None,
    }
}

fn generate(at: Option<&At<RawGenerate>>, context: &mut Context<'_>) -> Generate {
    let length = at.and_then(|at| at.value.length.as_ref()).map_or(40, |at| match usize::try_from(at.value) {
        Ok(length @ 16..=4096) => length,
        _ => {
            context.findings.wrong(at, "a generated value has 16 to 4096 characters");
            40
        }
    });
    let alphabet = at.and_then(|at| at.value.alphabet.as_ref()).map_or(Alphabet::UrlSafe, |at| at.value.into());
    Generate::Password(Password { length, alphabet, exclude: Vec::new(), require: Vec::new() })
}

fn apply(at: &At<RawApply>, files: &[RawPolicy], context: &mut Context<'_>) -> Apply {
    let raw = &at.value;
    let Some(kind) = &raw.r#type else {
        context.findings.wrong(at, "`apply` has no `type`").hint("type = \"postgres\"   # or \"command\", \"none\"");
        return Apply::None;
    };
    let fields = [
        ("program", raw.program.as_ref().map(|at| at.span), ApplyType::Command),
        ("timeout", raw.timeout.as_ref().map(|at| at.span), ApplyType::Command),
        ("admin", raw.admin.as_ref().map(|at| at.span), ApplyType::Postgres),
        ("role", raw.role.as_ref().map(|at| at.span), ApplyType::Postgres),
    ];
    for (field, span, of) in fields {
        if let Some(span) = span
            && of != kind.value
        {
            context.findings.wrong_at(span, format!("`{field}` means nothing for `apply` of this type"));
        }
    }
    match kind.value {
        ApplyType::None => Apply::None,
        ApplyType::Command => {
            let timeout = raw.timeout.as_ref().and_then(|at| context.duration(at, Zero::Refused));
            let program = raw.program.as_ref().and_then(|at| {
                context.checked(at, "the program is an absolute path without `.` and `..`", is_plain_absolute)
            });
            if raw.program.is_none() {
                context.findings.wrong(at, "`apply` of type `command` has no `program`");
            }
            program.map_or(Apply::None, |program| {
                Apply::Command(Program {
                    path: PathBuf::from(program),
                    timeout: timeout.unwrap_or(Duration::from_secs(30)),
                    needs: Vec::new(),
                })
            })
        }
        ApplyType::Postgres => {
            let (Some(admin), Some(role)) = (&raw.admin, &raw.role) else {
                context.findings.wrong(at, "`apply` of type `postgres` has `admin` and `role`");
                return Apply::None;
            };
            if !files.iter().any(|file| file.secrets.contains_key(admin.as_str())) {
                let known = files.iter().flat_map(|file| file.secrets.keys()).map(At::as_str);
                context
                    .findings
                    .wrong(admin, format!("`{}` is no secret of this policy", escape(admin.as_str())))
                    .did_you_mean(admin.as_str(), known);
            }
            let role = context.line("role", role);
            let admin = context.noted(admin, VariableName::new(admin.as_str()));
            admin.zip(role).map_or(Apply::None, |(admin, role)| {
                Apply::Postgres(Postgres { admin, roles: Roles::Single(role), check: None })
            })
        }
    }
}
