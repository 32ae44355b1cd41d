//! `[secrets]`.

use std::collections::BTreeMap;

use base64::Engine;

use super::rotation::{Whose, rotation};
use super::stores::{Fact, Facts, is_ssm_name, no_such_store, word};
use super::values::Zero;
use super::{Context, effective};
use crate::name::{ItemName, VariableName, escape};
use crate::policy::file::raw::{At, NameWord, PendingWord, RawPolicy, RawSecret, Span, StoreType};
use crate::policy::model::{Binding, ItemRef, OnExpired, Source, Stage};
use crate::policy::reserved::{is_forbidden, is_reserved};
use crate::policy::template::Template;

pub(super) fn secrets(
    files: &[RawPolicy],
    facts: &Facts<'_>,
    context: &mut Context<'_>,
) -> BTreeMap<VariableName, Binding> {
    let mut secrets = BTreeMap::new();
    for (index, name, raw) in effective(files, |file| &file.secrets) {
        context.findings.file = index;
        let Some(variable) = context.noted(name, VariableName::new(name.as_str())) else { continue };
        check_reserved(name, &variable, raw, context);
        let Some(source) = source(name, raw, files, facts, context) else { continue };
        let max_age = raw.max_age.as_ref().and_then(|at| context.duration(at, Zero::Refused));
        if let (Some(at), None) = (&raw.on_expired, &raw.max_age) {
            context.findings.wrong(at, "`on_expired` needs `max_age`");
        }
        let rotate = raw.rotate.as_ref().map(|at| rotation(at, &Whose { name, raw }, files, facts, context));
        let binding = Binding {
            source,
            inject: raw.inject.as_ref().is_none_or(|at| at.value),
            required: raw.required.as_ref().is_none_or(|at| at.value),
            reserved: raw.reserved.as_ref().is_some_and(|at| at.value),
            plain: raw.plain.as_ref().is_some_and(|at| at.value),
            max_age,
            on_expired: raw.on_expired.as_ref().map_or(OnExpired::Warn, |at| at.value.into()),
            rotate,
        };
        secrets.insert(variable, binding);
    }
    check_twins(files, context);
    read_by_stage(&mut secrets);
    secrets
}

/// An item that some binding rotates has an unproven version at times, which no other binding of it may get.
fn read_by_stage(secrets: &mut BTreeMap<VariableName, Binding>) {
    let rotated: Vec<ItemRef> = secrets
        .values()
        .filter(|binding| binding.rotate.is_some())
        .filter_map(|binding| match &binding.source {
            Source::Item(item) if item.stage.is_some() => Some(item.clone()),
            _ => None,
        })
        .collect();
    for binding in secrets.values_mut() {
        if let Source::Item(item) = &mut binding.source
            && item.version.is_none()
            && rotated.iter().any(|one| (&one.store, &one.item) == (&item.store, &item.item))
        {
            item.stage.get_or_insert(Stage::Current);
        }
    }
}

fn is_rotated_apart(raw: &RawSecret) -> bool {
    let pending = raw.rotate.as_ref().and_then(|at| at.value.pending.as_ref());
    pending.is_some_and(|at| at.value == PendingWord::Separate)
}

fn check_reserved(name: &At<String>, variable: &VariableName, raw: &RawSecret, context: &mut Context<'_>) {
    if is_forbidden(variable) {
        context.findings.wrong(name, "names that begin with `VOUCHSAFE_` are vouchsafe's own and reach no child");
    } else if is_reserved(variable) && !raw.reserved.as_ref().is_some_and(|at| at.value) {
        context
            .findings
            .wrong(name, format!("`{variable}` changes how programs load or shells start"))
            .hint(format!("{variable} = {{ reserved = true }}   # if that is meant"));
    }
}

/// Names that differ only in case are one name to a person, and to many programs.
fn check_twins(files: &[RawPolicy], context: &mut Context<'_>) {
    let mut names: Vec<_> = effective(files, |file| &file.secrets).map(|(index, name, _)| (index, name)).collect();
    if !names.iter().any(|(_, name)| name.as_str().bytes().any(|b| b.is_ascii_lowercase())) {
        return;
    }
    names.sort_by_cached_key(|(_, name)| name.as_str().to_ascii_lowercase());
    for pair in names.windows(2) {
        let [(_, first), (index, second)] = pair else { continue };
        if first.as_str().eq_ignore_ascii_case(second.as_str()) {
            context.findings.file = *index;
            let twin = escape(first.as_str());
            context.findings.wrong(second, format!("this name and `{twin}` differ only in case"));
        }
    }
}

fn source(
    name: &At<String>,
    raw: &RawSecret,
    files: &[RawPolicy],
    facts: &Facts<'_>,
    context: &mut Context<'_>,
) -> Option<Source> {
    match (&raw.ciphertext, &raw.template) {
        (Some(ciphertext), Some(_)) => {
            context.findings.wrong(ciphertext, "a secret has a `ciphertext` or a `template`, not both");
            None
        }
        (Some(ciphertext), None) => inline(name, ciphertext, raw, files, facts, context),
        (None, Some(text)) => template(text, raw, files, context),
        (None, None) => {
            if let Some(at) = &raw.context {
                context.findings.wrong(at, "`context` needs `ciphertext`; that of a sealed file stands in its store");
            }
            item(name, raw, files, facts, context).map(Source::Item)
        }
    }
}

fn template(text: &At<String>, raw: &RawSecret, files: &[RawPolicy], context: &mut Context<'_>) -> Option<Source> {
    let of_stores = [
        ("store", raw.store.as_ref().map(|at| at.span)),
        ("field", raw.field.as_ref().map(|at| at.span)),
        ("context", raw.context.as_ref().map(|at| at.span)),
    ];
    refuse(raw.fields_of_items().into_iter().chain(of_stores), "a template", context);
    let template = context.noted(text, Template::parse(text.as_str()))?;
    for part in template.references() {
        match files.iter().find_map(|file| file.secrets.get(part.as_str())) {
            None => {
                let known = files.iter().flat_map(|file| file.secrets.keys()).map(At::as_str);
                context
                    .findings
                    .wrong(text, format!("the template refers to `{part}`, which is no secret of this policy"))
                    .did_you_mean(part.as_str(), known);
            }
            Some(other) if other.template.is_some() => {
                context
                    .findings
                    .wrong(text, format!("the template refers to the template `{part}`: templates do not nest"));
            }
            Some(_) => {}
        }
    }
    Some(Source::Template(template))
}

fn inline(
    name: &At<String>,
    text: &At<String>,
    raw: &RawSecret,
    files: &[RawPolicy],
    facts: &Facts<'_>,
    context: &mut Context<'_>,
) -> Option<Source> {
    refuse(raw.fields_of_items(), "a `ciphertext`", context);
    let fact = store_of(name, raw.store.as_ref(), files, facts, context)?;
    if fact.kind != StoreType::Kms {
        let at = raw.store.as_ref().map_or(name.span, |at| at.span);
        context.findings.wrong_at(at, "a `ciphertext` needs a store of type `kms`");
    }
    // 6,144 bytes is the most that KMS takes.
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.as_str());
    let ciphertext = decoded.ok().filter(|blob| !blob.is_empty() && blob.len() <= 6144);
    if ciphertext.is_none() {
        context
            .findings
            .wrong(text, "`ciphertext` is not base64 (RFC 4648 section 4, one line) of at most 6144 bytes")
            .hint("aws kms encrypt ... --query CiphertextBlob --output text");
    }
    let pairs =
        raw.context.iter().flat_map(|at| &at.value).map(|(key, value)| (key.value.clone(), value.value.clone()));
    let pairs = pairs.collect();
    let field = raw.field.as_ref().and_then(|at| context.pointer(at));
    Some(Source::Ciphertext { store: fact.name.clone(), ciphertext: ciphertext?, context: pairs, field })
}

fn item(
    name: &At<String>,
    raw: &RawSecret,
    files: &[RawPolicy],
    facts: &Facts<'_>,
    context: &mut Context<'_>,
) -> Option<ItemRef> {
    let fact = store_of(name, raw.store.as_ref(), files, facts, context)?;
    if fact.kind == StoreType::Kms && !fact.has_path {
        context.findings.wrong(name, format!("the store `{}` has no `path`: it opens only a `ciphertext`", fact.name));
    }
    if let Some(at) = &raw.plain
        && fact.kind != StoreType::Ssm
    {
        context.findings.wrong(at, format!("`plain` means nothing for a store of type `{}`", word(fact.kind)));
    }
    if fact.by_hand {
        let only_documents = raw.fields_of_items().into_iter().filter(|(field, _)| !matches!(*field, "item" | "plain"));
        refuse(only_documents, "an item of a file made by hand, which keeps no versions or times,", context);
    }
    let rotates = raw.rotate.is_some();
    let version = raw.version.as_ref().and_then(|at| {
        if rotates {
            context.findings.wrong(at, "a secret that rotates is read at its current stage, not at a fixed `version`");
        } else if raw.stage.is_some() {
            context.findings.wrong(at, "a secret is read at a `version` or at a `stage`, not at both");
        }
        let version = u64::try_from(at.value).ok().filter(|version| *version > 0);
        if version.is_none() {
            context.findings.wrong(at, "versions count from 1");
        }
        version
    });
    let stage = match (&raw.stage, rotates) {
        (Some(at), true) if Stage::from(at.value) != Stage::Current => {
            context.findings.wrong(at, "a secret that rotates is read at the stage `current`");
            None
        }
        // Where an unproven version lies apart, the newest one is current, for readers of stages too.
        (_, true) if is_rotated_apart(raw) => None,
        (Some(at), _) => Some(at.value.into()),
        (None, true) => Some(Stage::Current),
        (None, false) => None,
    };
    let field = raw.field.as_ref().and_then(|at| context.pointer(at));
    let item = item_name(name, raw.item.as_ref(), fact, context)?;
    Some(ItemRef { store: fact.name.clone(), item, version, stage, field })
}

fn item_name(
    name: &At<String>,
    item: Option<&At<String>>,
    fact: &Fact<'_>,
    context: &mut Context<'_>,
) -> Option<ItemName> {
    let at = item.unwrap_or(name);
    let text = match item {
        Some(at) => at.value.clone(),
        None => written(name.as_str(), fact.names),
    };
    let is_arn = text.starts_with("arn:");
    let absolute = text.starts_with('/') || is_arn;
    let full = if absolute || fact.prefix.is_empty() { text } else { format!("{}{text}", fact.prefix) };
    // A `:` would be taken as a selector of version or label behind the policy's back.
    let good = match fact.kind {
        StoreType::Ssm if is_arn => is_parameter_arn(&full),
        StoreType::Ssm => is_ssm_name(&full),
        StoreType::Age | StoreType::Kms => true,
    };
    if !good {
        let message = format!(
            "`{}` is not the name of a parameter: letters, digits, `.`, `-`, `_` and `/`, and with a `/` it begins with one",
            escape(&full)
        );
        context.findings.wrong(at, message).hint("a version or a label has fields of its own: `version`, `stage`");
        return None;
    }
    context.noted(at, ItemName::new(full))
}

fn is_parameter_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let service = parts.nth(2);
    let resource = parts.nth(2);
    service == Some("ssm")
        && resource.and_then(|r| r.strip_prefix("parameter/")).is_some_and(|n| is_ssm_name(&format!("/{n}")))
}

/// How a store of this style writes the name of a variable.
fn written(variable: &str, style: NameWord) -> String {
    match style {
        NameWord::AsWritten => variable.to_owned(),
        NameWord::LowerKebab => variable.to_ascii_lowercase().replace('_', "-"),
        NameWord::LowerSnake => variable.to_ascii_lowercase(),
        NameWord::UpperSnake => variable.to_ascii_uppercase(),
    }
}

pub(super) fn store_of<'a>(
    name: &At<String>,
    said: Option<&At<String>>,
    files: &[RawPolicy],
    facts: &'a Facts<'_>,
    context: &mut Context<'_>,
) -> Option<&'a Fact<'a>> {
    let Some(wanted) = said.map(At::as_str).or(facts.default) else {
        // A default that does not exist has been noted where it stands.
        if files.iter().all(|file| file.store.is_none()) {
            context
                .findings
                .wrong(name, format!("`{}` names no store, and there is no default", escape(name.as_str())))
                .hint("store = \"...\"   # here, or at the top of the policy for all");
        }
        return None;
    };
    let fact = facts.by_name.get(wanted);
    if let (None, Some(at)) = (fact, said)
        && !super::stores::has_store(files, wanted)
    {
        no_such_store(at, files, context);
    }
    fact
}

fn refuse(fields: impl IntoIterator<Item = (&'static str, Option<Span>)>, whom: &str, context: &mut Context<'_>) {
    for (field, span) in fields {
        if let Some(span) = span {
            context.findings.wrong_at(span, format!("{whom} has no `{field}`"));
        }
    }
}
