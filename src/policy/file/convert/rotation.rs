//! `[secrets.NAME.rotate]`, and what must be true between a rotation and the rest of the policy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::generate::generate;
use super::stores::Facts;
use super::values::{Zero, is_plain_absolute};
use super::{Context, effective};
use crate::name::{ItemName, StoreName, VariableName, escape};
use crate::policy::file::raw::{
    ApplyType, At, GenerateType, PendingWord, RawApply, RawGenerate, RawPolicy, RawRotate, RawSecret, Span, StoreType,
};
use crate::policy::model::{
    AgentUse, Apply, Binding, CacheRules, ItemRef, Postgres, Program, Roles, Rotation, Source, Stage,
};

/// NAMEDATALEN - 1. PostgreSQL cuts longer names off, so that two of them may be one role.
const LONGEST_ROLE: usize = 63;

/// Stores know when a version was written by the second.
const WHOLE_SECONDS: Duration = Duration::from_secs(1);

/// How long a program may take for one step, where the policy does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The secret whose rotation is looked at.
pub(super) struct Whose<'f> {
    pub(super) name: &'f At<String>,
    pub(super) raw: &'f RawSecret,
}

pub(super) fn rotation(
    at: &At<RawRotate>,
    whose: &Whose<'_>,
    files: &[RawPolicy],
    facts: &Facts<'_>,
    context: &mut Context<'_>,
) -> Rotation {
    let raw = &at.value;
    let said = whose.raw.store.as_ref().map(At::as_str);
    let kind = said.or(facts.default).and_then(|name| facts.by_name.get(name));
    if let Some(pending) = &raw.pending
        && kind.is_some_and(|fact| fact.kind != StoreType::Ssm)
    {
        context.findings.wrong(pending, "`pending` is for stores of type `ssm`");
    }
    Rotation {
        every: raw.every.as_ref().and_then(|at| context.duration(at, Zero::Refused)),
        generate: generate(raw.generate.as_ref(), whose, files, context),
        apply: raw.apply.as_ref().map_or(Apply::None, |at| apply(at, whose, files, context)),
        pending_separate: raw.pending.as_ref().is_some_and(|at| at.value == PendingWord::Separate),
        retire_after: raw.retire_after.as_ref().and_then(|at| context.duration(at, Zero::Allowed)),
        is_retired_later: false,
    }
}

/// An agent may serve a value for as long after the promotion of the next one as `[cache]` lets it. Until then its target
/// must not forget it, or who starts meanwhile is refused.
pub(super) fn spare_the_agent(secrets: &mut BTreeMap<VariableName, Binding>, agent: AgentUse, cache: &CacheRules) {
    if agent == AgentUse::Forbid {
        return;
    }
    let served = cache.ttl.saturating_add(cache.max_stale);
    if served.is_zero() {
        return;
    }
    for rotation in secrets.values_mut().filter_map(|binding| binding.rotate.as_mut()) {
        if let Some(after) = rotation.retire_after
            && !matches!(rotation.apply, Apply::None)
        {
            rotation.is_retired_later = after < served;
            rotation.retire_after = Some(after.max(served.saturating_add(WHOLE_SECONDS)));
        }
    }
}

fn apply(at: &At<RawApply>, whose: &Whose<'_>, files: &[RawPolicy], context: &mut Context<'_>) -> Apply {
    let raw = &at.value;
    let Some(kind) = &raw.r#type else {
        context.findings.wrong(at, "`apply` has no `type`").hint("type = \"postgres\"   # or \"command\", \"none\"");
        return Apply::None;
    };
    for (field, span, of) in raw.fields_of_types() {
        if let Some(span) = span
            && of != kind.value
        {
            context.findings.wrong_at(span, format!("`{field}` means nothing for `apply` of this type"));
        }
    }
    match kind.value {
        ApplyType::None => Apply::None,
        ApplyType::Command => {
            let parts = (raw.program.as_ref(), raw.timeout.as_ref(), raw.needs.as_ref());
            program("apply", at.span, parts, whose, files, context).map_or(Apply::None, Apply::Command)
        }
        ApplyType::Postgres => postgres(at, whose, files, context).map_or(Apply::None, Apply::Postgres),
    }
}

type ProgramParts<'r> = (Option<&'r At<String>>, Option<&'r At<String>>, Option<&'r At<Vec<At<String>>>>);

/// The fields of a table of type `command`.
pub(super) fn program(
    table: &str,
    span: Span,
    (path, timeout, needs): ProgramParts<'_>,
    whose: &Whose<'_>,
    files: &[RawPolicy],
    context: &mut Context<'_>,
) -> Option<Program> {
    let timeout = timeout.and_then(|at| context.duration(at, Zero::Refused)).unwrap_or(DEFAULT_TIMEOUT);
    let mut names = Vec::new();
    for at in needs.iter().flat_map(|at| &at.value) {
        let Some(name) = means(at, whose, files, context) else { continue };
        if names.contains(&name) {
            context.findings.wrong(at, format!("`{name}` stands here twice"));
        }
        names.push(name);
    }
    let Some(path) = path else {
        context
            .findings
            .wrong_at(span, format!("`{table}` of type `command` has no `program`"))
            .hint("program = \"/usr/local/libexec/...\"");
        return None;
    };
    let rule = "the program is an absolute path without `.` and `..`";
    let path = context.checked(path, rule, is_plain_absolute)?;
    Some(Program { path: PathBuf::from(path), timeout, needs: names })
}

fn postgres(at: &At<RawApply>, whose: &Whose<'_>, files: &[RawPolicy], context: &mut Context<'_>) -> Option<Postgres> {
    let raw = &at.value;
    let admin = raw.admin.as_ref().and_then(|at| means(at, whose, files, context));
    if raw.admin.is_none() {
        context
            .findings
            .wrong(at, "`apply` of type `postgres` has no `admin`")
            .hint("admin = \"ADMIN_URL\"   # a secret: the connection URL of who may alter the role");
    }
    let roles = match (&raw.role, &raw.roles) {
        (Some(role), None) => self::role(role, context).map(Roles::Single),
        (None, Some(list)) => two_roles(list, context),
        (Some(_), Some(list)) => {
            context
                .findings
                .wrong(list, "`apply` has `role` or `roles`, not both")
                .hint("`role`: one, whose password changes; `roles`: two that take turns, and both work");
            None
        }
        (None, None) => {
            context
                .findings
                .wrong(at, "`apply` of type `postgres` has neither `role` nor `roles`")
                .hint("role = \"api\"   # or roles = [\"api_a\", \"api_b\"], which take turns");
            None
        }
    };
    let rule = "`check` is one SQL query on one line, without `;`, at most 2048 bytes";
    let is_query = |text: &str| is_line(text, 2048) && !text.contains(';');
    let check = raw.check.as_ref().map(|at| context.checked(at, rule, is_query));
    Some(Postgres { admin: admin?, roles: roles?, check: check.flatten() })
}

fn two_roles(list: &At<Vec<At<String>>>, context: &mut Context<'_>) -> Option<Roles> {
    let [first, second] = list.value.as_slice() else {
        context.findings.wrong(list, "`roles` are two, which take turns").hint("roles = [\"api_a\", \"api_b\"]");
        return None;
    };
    if first == second {
        context
            .findings
            .wrong(second, "the two roles are one")
            .hint("roles = [\"api_a\", \"api_b\"]   # one role alone is `role = \"api\"`");
        return None;
    }
    let (first, second) = (role(first, context), role(second, context));
    Some(Roles::Alternating(first?, second?))
}

fn role(at: &At<String>, context: &mut Context<'_>) -> Option<String> {
    let rule = format!("a role is one line of text, not empty, at most {LONGEST_ROLE} bytes");
    context.checked(at, &rule, |text| is_line(text, LONGEST_ROLE))
}

fn is_line(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.chars().any(crate::name::is_unprintable) && text.trim() == text
}

/// The name of a secret that a rotation needs: one of this policy, and not the one that is rotated.
fn means(at: &At<String>, whose: &Whose<'_>, files: &[RawPolicy], context: &mut Context<'_>) -> Option<VariableName> {
    if at == whose.name {
        own_means(at, whose.name.as_str(), None, context);
        return None;
    }
    if !files.iter().any(|file| file.secrets.contains_key(at.as_str())) {
        let known = files.iter().flat_map(|file| file.secrets.keys()).map(At::as_str);
        let known = known.filter(|name| *name != whose.name.as_str());
        let name = escape(at.as_str());
        let finding = context.findings.wrong(at, format!("`{name}` is no secret of this policy"));
        if !finding.did_you_mean(at.as_str(), known).has_suggestion() {
            finding.hint(format!("{name} = {{ inject = false }}   # in [secrets]: fetched to rotate, for no child"));
        }
        return None;
    }
    context.noted(at, VariableName::new(at.as_str()))
}

/// Whoever changes a credential must not depend on it: halfway through, neither the old nor the new one need work.
fn own_means(at: &At<String>, rotated: &str, part: Option<&str>, context: &mut Context<'_>) {
    let name = escape(at.as_str());
    let message = match part {
        None => format!("`{name}` is the value that is rotated: it is no means of its own rotation"),
        Some(part) if part == at.as_str() => {
            format!(
                "`{name}` is the item of `{}`, which is rotated: it is no means of its own rotation",
                escape(rotated)
            )
        }
        Some(part) => format!(
            "`{name}` is made of `{}`, whose value is rotated: it is no means of its own rotation",
            escape(part)
        ),
    };
    context.findings.wrong(at, message).hint("name the secret of another account, which may change this one");
}

/// What is to be seen only of the whole: two rotations of one item, means that are rotated by themselves, bindings
/// that would read an unproven version. A binding without `version` and `stage` to an item that another one rotates is read at
/// the stage `current`, so that nobody gets a pending value by the policy that makes it.
pub(super) fn cross_check(
    files: &[RawPolicy],
    secrets: &mut BTreeMap<VariableName, Binding>,
    context: &mut Context<'_>,
) {
    let mut rotated: BTreeMap<(StoreName, ItemName), Rotated> = BTreeMap::new();
    for (index, name, raw) in effective(files, |file| &file.secrets) {
        let Some(at) = &raw.rotate else { continue };
        let Some((variable, binding)) = bound(secrets, name) else { continue };
        let (Source::Item(item), Some(rotation)) = (&binding.source, &binding.rotate) else { continue };
        context.findings.file = index;
        let here = Rotated { variable: variable.clone(), separate: rotation.pending_separate };
        if let Some(first) = rotated.get(&(item.store.clone(), item.item.clone())) {
            let message = format!("this is the item that `{}` rotates already", first.variable);
            context.findings.wrong(at, message).hint("take `rotate` out of one of them: both get the new value");
            continue;
        }
        for means in means_of(&at.value) {
            depends(means, variable, item, secrets, context);
        }
        rotated.insert((item.store.clone(), item.item.clone()), here);
    }
    for (index, name, _) in effective(files, |file| &file.secrets) {
        let Some(Source::Item(item)) = bound(secrets, name).map(|(_, binding)| &binding.source) else { continue };
        let Some(base) = item.item.as_str().strip_suffix(".pending") else { continue };
        let base = ItemName::new(base).ok().and_then(|base| rotated.get(&(item.store.clone(), base)));
        if let Some(base) = base.filter(|base| base.separate) {
            context.findings.file = index;
            let message = format!("here the rotation of `{}` keeps what is not proven yet", base.variable);
            context.findings.wrong(name, message);
        }
    }
    for binding in secrets.values_mut() {
        if let Source::Item(item) = &mut binding.source
            && item.version.is_none()
            // What lies apart is never on the item itself, so its newest version is the current one.
            && rotated.get(&(item.store.clone(), item.item.clone())).is_some_and(|rotated| !rotated.separate)
        {
            item.stage.get_or_insert(Stage::Current);
        }
    }
}

/// An item that is rotated.
struct Rotated {
    variable: VariableName,
    separate: bool,
}

fn means_of(raw: &RawRotate) -> impl Iterator<Item = &At<String>> {
    let applies = raw.apply.iter().flat_map(|at| at.value.means());
    let is_command =
        |at: &&At<RawGenerate>| at.value.r#type.as_ref().is_some_and(|kind| kind.value == GenerateType::Command);
    let generates = raw.generate.iter().filter(is_command).flat_map(|at| at.value.needs.iter());
    applies.chain(generates.flat_map(|at| &at.value))
}

/// Whether `means` is the rotated item under another name, or a template with it inside.
fn depends(
    means: &At<String>,
    variable: &VariableName,
    rotated: &ItemRef,
    secrets: &BTreeMap<VariableName, Binding>,
    context: &mut Context<'_>,
) {
    let Some((name, binding)) = bound(secrets, means) else { return };
    let is_same = |name: &VariableName| match secrets.get(name).map(|binding| &binding.source) {
        // Another field of the item may be another credential.
        Some(Source::Item(item)) => {
            item.store == rotated.store
                && item.item == rotated.item
                && (item.field == rotated.field || item.field.is_none() || rotated.field.is_none())
        }
        _ => false,
    };
    let through = match &binding.source {
        Source::Template(template) => template.references().find(|part| is_same(part)),
        Source::Ciphertext { .. } | Source::Item(_) => Some(name).filter(|name| is_same(name)),
    };
    // Under its own name it has been noted.
    if let Some(part) = through.filter(|_| name != variable) {
        own_means(means, variable.as_str(), Some(part.as_str()), context);
    }
}

fn bound<'s>(
    secrets: &'s BTreeMap<VariableName, Binding>,
    name: &At<String>,
) -> Option<(&'s VariableName, &'s Binding)> {
    VariableName::new(name.as_str()).ok().and_then(|name| secrets.get_key_value(&name))
}
