//! `[stores]`.

use std::collections::BTreeMap;

use super::aws::{AwsFields, aws};
use super::{Context, effective, pick};
use crate::name::{StoreName, VariableName, escape, is_unprintable};
use crate::policy::file::raw::{At, Format, NameWord, RawPolicy, RawStore, StoreType};
use crate::policy::model::{AgeStore, DocumentFormat, IdentitySource, KmsStore, SsmStore, Store, is_key_arn};

/// What checks of secrets and bundles ask of stores, known also where a store has faults of its own.
pub(super) struct Facts<'f> {
    pub(super) by_name: BTreeMap<&'f str, Fact<'f>>,
    pub(super) default: Option<&'f str>,
}

/// What is known of one store.
pub(super) struct Fact<'f> {
    pub(super) name: StoreName,
    pub(super) kind: StoreType,
    /// The file was made by hand: no versions, stages or times.
    pub(super) by_hand: bool,
    pub(super) has_path: bool,
    pub(super) prefix: &'f str,
    pub(super) names: NameWord,
}

pub(super) fn facts<'f>(files: &'f [RawPolicy], context: &mut Context<'_>) -> Facts<'f> {
    let mut by_name = BTreeMap::new();
    for (index, name, raw) in effective(files, |file| &file.stores) {
        context.findings.file = index;
        let valid = context.noted(name, StoreName::new(name.as_str()));
        let Some(kind) = &raw.r#type else {
            context
                .findings
                .wrong(name, format!("the store `{}` has no `type`", escape(name.as_str())))
                .hint("type = \"age\"   # or \"kms\", \"ssm\"");
            continue;
        };
        let Some(valid) = valid else { continue };
        let fact = Fact {
            name: valid,
            kind: kind.value,
            by_hand: raw.format.as_ref().is_some_and(|at| at.value != Format::Sealed),
            has_path: raw.path.is_some(),
            prefix: raw.prefix.as_ref().map_or("", At::as_str),
            names: raw.names.as_ref().map_or(NameWord::AsWritten, |at| at.value),
        };
        by_name.insert(name.as_str(), fact);
    }

    let default = match pick(files, context.findings, |file| file.store.as_ref()) {
        Some(at) if has_store(files, at.as_str()) => Some(at.as_str()),
        Some(at) => {
            no_such_store(at, files, context);
            None
        }
        None => effective(files, |file| &file.stores)
            .next()
            .map(|(_, name, _)| name.as_str())
            .filter(|_| effective(files, |file| &file.stores).count() == 1),
    };
    Facts { by_name, default }
}

pub(super) fn has_store(files: &[RawPolicy], name: &str) -> bool {
    files.iter().any(|file| file.stores.contains_key(name))
}

pub(super) fn no_such_store(at: &At<String>, files: &[RawPolicy], context: &mut Context<'_>) {
    let known = files.iter().flat_map(|file| file.stores.keys()).map(At::as_str);
    context.findings.wrong(at, format!("there is no store `{}`", escape(at.as_str()))).did_you_mean(at.as_str(), known);
}

pub(super) fn stores(files: &[RawPolicy], is_dev: bool, context: &mut Context<'_>) -> BTreeMap<StoreName, Store> {
    let mut stores = BTreeMap::new();
    for (index, name, raw) in effective(files, |file| &file.stores) {
        context.findings.file = index;
        let Some(kind) = &raw.r#type else { continue };
        for (field, span, types) in raw.fields_of_types() {
            if let Some(span) = span
                && !types.contains(&kind.value)
            {
                context
                    .findings
                    .wrong_at(span, format!("`{field}` means nothing for a store of type `{}`", word(kind.value)));
            }
        }
        let store = match kind.value {
            StoreType::Age => age(name, raw, is_dev, context).map(Store::Age),
            StoreType::Kms => kms(name, raw, context).map(Store::Kms),
            StoreType::Ssm => ssm(raw, context).map(Store::Ssm),
        };
        if let (Ok(name), Some(store)) = (StoreName::new(name.as_str()), store) {
            stores.insert(name, store);
        }
    }
    stores
}

pub(super) fn word(kind: StoreType) -> &'static str {
    match kind {
        StoreType::Age => "age",
        StoreType::Kms => "kms",
        StoreType::Ssm => "ssm",
    }
}

fn age(name: &At<String>, raw: &RawStore, is_dev: bool, context: &mut Context<'_>) -> Option<AgeStore> {
    let path = required(name, "path", raw.path.as_ref(), context).and_then(|at| context.path(at));
    if required(name, "identities", raw.identities.as_ref(), context).is_some_and(|list| list.value.is_empty()) {
        context.findings.wrong(name, "`identities` is empty, so nothing opens the file");
    }
    let format = raw.format.as_ref().map_or(DocumentFormat::Sealed, |at| at.value.into());
    let unbound = raw.unbound.as_ref().is_some_and(|at| at.value);
    match (&raw.format, &raw.unbound) {
        (Some(at), _) if format != DocumentFormat::Sealed && !is_dev && !unbound => {
            context
                .findings
                .wrong(at, "a file of this format is bound to no environment: one from elsewhere would be taken")
                .hint("unbound = true   # in the store, if that is meant; only `dev` needs no word");
        }
        (_, Some(at)) if format == DocumentFormat::Sealed && at.value => {
            context.findings.wrong(at, "`unbound` is only for files made by hand (`format`)");
        }
        _ => {}
    }
    let recipients = recipients(raw, context);
    let recipients_file = raw.recipients_file.as_ref().and_then(|at| context.path(at));
    let identities = identities(raw, context);
    let has_generations = format == DocumentFormat::Sealed;
    let min_generation = min_generation(raw, has_generations, "a file made by hand has no generations", context);
    let is_file_refused = false;
    Some(AgeStore {
        path: path?,
        format,
        unbound,
        recipients,
        recipients_file,
        is_file_refused,
        identities,
        min_generation,
    })
}

fn kms(name: &At<String>, raw: &RawStore, context: &mut Context<'_>) -> Option<KmsStore> {
    let rule = "`key` is the ARN of a key: arn:aws:kms:REGION:ACCOUNT:key/ID";
    let key = required(name, "key", raw.key.as_ref(), context).and_then(|at| context.checked(at, rule, is_key_arn));
    let path = raw.path.as_ref().and_then(|at| context.path(at));
    let mut pairs = BTreeMap::new();
    for (key, value) in raw.context.iter().flat_map(|at| &at.value) {
        if key.as_str().is_empty() || key.as_str().starts_with("vouchsafe:") || key.as_str().starts_with("aws:") {
            context
                .findings
                .wrong(key, "a key of the context is not empty and does not begin with `vouchsafe:` or `aws:`");
        }
        pairs.insert(key.value.clone(), value.value.clone());
    }
    let (aws, recipients, identities) =
        (aws(&fields(raw), context), recipients(raw, context), identities(raw, context));
    let min_generation = min_generation(raw, path.is_some(), "without a `path` there are no generations", context);
    Some(KmsStore { aws, key: key?, path, recipients, context: pairs, identities, min_generation })
}

fn min_generation(raw: &RawStore, has_generations: bool, otherwise: &str, context: &mut Context<'_>) -> u64 {
    let Some(at) = &raw.min_generation else { return 0 };
    if !has_generations {
        context.findings.wrong(at, otherwise);
    }
    u64::try_from(at.value).unwrap_or_else(|_| {
        context.findings.wrong(at, "a generation counts from 0");
        0
    })
}

fn ssm(raw: &RawStore, context: &mut Context<'_>) -> Option<SsmStore> {
    let rule = "a prefix ends in `/`, `.`, `-` or `_`, begins with `/` if it holds one, and has only letters, digits and those";
    let prefix = match &raw.prefix {
        Some(at) => context.checked(at, rule, |text| is_ssm_name(text) && text.ends_with(['/', '.', '-', '_'])),
        None => Some(String::new()),
    };
    let key = raw.key.as_ref().and_then(|at| context.line("key", at));
    let aws = aws(&fields(raw), context);
    Some(SsmStore { aws, prefix: prefix?, key })
}

/// What Parameter Store takes as a name: with a `/` in it, it begins with one.
pub(super) fn is_ssm_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte))
        && !name.contains("//")
        && (name.starts_with('/') || !name.contains('/'))
}

fn fields(raw: &RawStore) -> AwsFields<'_> {
    AwsFields {
        region: raw.region.as_ref(),
        endpoint: raw.endpoint.as_ref(),
        profile: raw.profile.as_ref(),
        role_arn: raw.role_arn.as_ref(),
        account: raw.account.as_ref(),
        credential_source: raw.credential_source.as_ref(),
        in_flight: raw.in_flight.as_ref(),
    }
}

fn recipients(raw: &RawStore, context: &mut Context<'_>) -> Vec<String> {
    let list = raw.recipients.iter().flat_map(|at| &at.value);
    let rule = "a recipient is the public key, `age1...`";
    list.filter_map(|at| {
        // Refused by shape, so that nobody's private key is passed on as a recipient and printed in a later message.
        context.checked(at, rule, |text| {
            !text.to_ascii_uppercase().starts_with("AGE-") && !text.is_empty() && !text.chars().any(is_unprintable)
        })
    })
    .collect()
}

fn identities(raw: &RawStore, context: &mut Context<'_>) -> Vec<IdentitySource> {
    let list = raw.identities.iter().flat_map(|at| &at.value);
    list.filter_map(|at| identity(at, context)).collect()
}

fn identity(at: &At<String>, context: &mut Context<'_>) -> Option<IdentitySource> {
    let text = at.as_str();
    if text.to_ascii_uppercase().starts_with("AGE-") {
        context
            .findings
            .wrong(at, "a private key stands in the policy: take it for known, and make a new one")
            .hint("identities = [\"file:/etc/vouchsafe/prod.key\"]   # where the key is, not the key");
        return None;
    }
    match text.split_once(':') {
        Some(("credential", name)) => {
            let good = !name.is_empty()
                && name.len() <= 255
                && !matches!(name, "." | "..")
                && !name.contains(|c: char| c == '/' || c == ':' || is_unprintable(c));
            if !good {
                context.findings.wrong(at, "the name of a credential is one component of a path");
                return None;
            }
            Some(IdentitySource::Credential(name.to_owned()))
        }
        Some(("env", name)) => context.noted(at, VariableName::new(name)).map(IdentitySource::Env),
        Some(("file", path)) => {
            let path = At { value: path.to_owned(), span: at.span };
            context.path(&path).map(IdentitySource::File)
        }
        _ => {
            context.findings.wrong(at, "an identity is written `file:PATH`, `env:NAME` or `credential:NAME`");
            None
        }
    }
}

fn required<'r, T>(
    name: &At<String>,
    field: &str,
    value: Option<&'r At<T>>,
    context: &mut Context<'_>,
) -> Option<&'r At<T>> {
    if value.is_none() {
        context.findings.wrong(name, format!("the store `{}` has no `{field}`", escape(name.as_str())));
    }
    value
}
