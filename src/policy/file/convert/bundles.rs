//! `[[bundles]]`.

use super::Context;
use super::secrets::store_of;
use super::stores::{Fact, Facts, is_ssm_name, word};
use crate::policy::file::raw::{At, RawBundle, RawPolicy, StoreType};
use crate::policy::model::{Bundle, NameStyle};

pub(super) fn bundles(files: &[RawPolicy], facts: &Facts<'_>, context: &mut Context<'_>) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for (index, file) in files.iter().enumerate() {
        context.findings.file = index;
        bundles.extend(file.bundles.iter().filter_map(|at| bundle(at, files, facts, context)));
    }
    bundles
}

fn bundle(at: &At<RawBundle>, files: &[RawPolicy], facts: &Facts<'_>, context: &mut Context<'_>) -> Option<Bundle> {
    let raw = &at.value;
    let here = At { value: "this bundle".to_owned(), span: at.span };
    let fact = store_of(&here, raw.store.as_ref(), files, facts, context)?;
    if fact.kind == StoreType::Kms && !fact.has_path {
        context.findings.wrong(at, format!("the store `{}` has no `path`, so it holds no items", fact.name));
    }
    if let Some(plain) = &raw.plain
        && fact.kind != StoreType::Ssm
    {
        context.findings.wrong(plain, format!("`plain` means nothing for a store of type `{}`", word(fact.kind)));
    }
    let at_least = raw.at_least.as_ref().map_or(Some(1), |at| {
        let number = u32::try_from(at.value).ok();
        if number.is_none() {
            context.findings.wrong(at, "`at_least` is a number from 0");
        }
        number
    });
    let path = bundle_path(at, raw.path.as_ref(), fact, context);
    Some(Bundle {
        store: fact.name.clone(),
        path: path?,
        recursive: raw.recursive.as_ref().is_some_and(|at| at.value),
        names: raw.names.as_ref().map_or(NameStyle::UpperSnake, |at| at.value.into()),
        at_least: at_least?,
        plain: raw.plain.as_ref().is_some_and(|at| at.value),
    })
}

/// Whole segments: `features` never takes `features-old/x` with it.
fn bundle_path(
    bundle: &At<RawBundle>,
    path: Option<&At<String>>,
    fact: &Fact<'_>,
    context: &mut Context<'_>,
) -> Option<String> {
    let text = path.map_or("", At::as_str);
    let mut full = if text.starts_with('/') { text.to_owned() } else { format!("{}{text}", fact.prefix) };
    if !text.is_empty() && !full.ends_with('/') {
        full.push('/');
    }
    let segments_are_plain =
        full.trim_start_matches('/').split_terminator('/').all(|segment| !matches!(segment, "" | "." | ".."));
    let wrong = if !segments_are_plain || full.starts_with("//") || full.chars().any(crate::name::is_unprintable) {
        "a path of a bundle is whole segments, without `.`, `..` or empty ones"
    } else if fact.kind != StoreType::Ssm {
        return Some(full);
    } else if full.is_empty() || full == "/" {
        "a bundle of a store of type `ssm` needs a `path` or a `prefix`: the whole Parameter Store is no bundle"
    } else if !is_ssm_name(&full) || !full.starts_with('/') || !full.ends_with('/') {
        "with the store's prefix this is no path of Parameter Store: it begins with `/`, and has only letters, digits, `.`, `-`, `_`"
    } else {
        return Some(full);
    };
    context.findings.wrong_at(path.map_or(bundle.span, |at| at.span), wrong);
    None
}
