//! Raw types to checked types. Every check notes what it finds and goes on, so that one look shows all that is wrong.
//!
//! Files of an `extends` chain are not put together first: a look-up asks them in order, the policy itself before its
//! base, so that every field keeps the file that it stands in and relative paths keep the folder they are relative to.

mod aws;
mod bundles;
mod child;
mod evidence;
mod expected;
mod generate;
mod grants;
mod host;
mod rotation;
mod secrets;
mod stores;
mod values;

use std::collections::BTreeMap;

use super::LoadOptions;
use super::diagnostic::{Findings, SourceText};
use super::raw::{At, RawPolicy, Span};
use crate::name::{EnvironmentName, ServiceName};
use crate::policy::model::Policy;

pub(super) use expected::expectations;
pub(super) use host::host_file;

/// What every check needs: where to note, what the texts are, who reads.
pub(super) struct Context<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) sources: &'a [SourceText],
    pub(super) options: &'a LoadOptions,
}

/// Checks and converts a chain of files, the policy itself first. `None`, if anything is wrong.
pub(super) fn policy(files: &[RawPolicy], digest: String, context: &mut Context<'_>) -> Option<Policy> {
    let environment = headers(files, context);
    let service = service(files, context);
    let serials = files.iter().enumerate().map(|(index, file)| {
        context.findings.file = index;
        serial(file, context.findings)
    });
    let serials = serials.collect();
    let facts = stores::facts(files, context);
    let is_dev = environment.as_ref().is_some_and(|environment| environment.as_str() == "dev");
    let stores = stores::stores(files, is_dev, context);
    let mut secrets = secrets::secrets(files, &facts, context);
    let bundles = bundles::bundles(files, &facts, context);
    rotation::cross_check(files, &mut secrets, context);
    let grants = grants::grants(files, context);
    let child = child::child(files, context);
    let run = child::run(files, context);
    let cache = child::cache(files, context);
    rotation::spare_the_agent(&mut secrets, run.agent, &cache);
    let sinks = child::sinks(files.iter().map(|file| &file.audit), context);
    if !context.findings.is_empty() {
        return None;
    }
    Some(Policy {
        environment: environment?,
        service,
        files: context.sources.iter().map(|source| source.path.clone()).collect(),
        serials,
        digest,
        stores,
        secrets,
        bundles,
        grants,
        child,
        run,
        cache,
        sinks,
    })
}

/// Checks the version of the format; also asked by the parser, before it complains of a field that a later version has.
pub(super) fn version(value: i64, span: Span, findings: &mut Findings) {
    if value != 1 {
        findings
            .wrong_at(span, format!("version {value} of the policy format is not known to this build"))
            .hint("version = 1");
    }
}

fn headers(files: &[RawPolicy], context: &mut Context<'_>) -> Option<EnvironmentName> {
    let mut environment = None;
    for (index, file) in files.iter().enumerate() {
        context.findings.file = index;
        match &file.version {
            Some(at) => version(at.value, at.span, context.findings),
            None => {
                context.findings.wrong_at(Span::default(), "`version` is missing").hint("version = 1");
            }
        }
        let Some(at) = &file.environment else {
            let finding = context.findings.wrong_at(Span::default(), "`environment` is missing");
            finding.hint(if index == 0 {
                "environment = \"prod\"   # or whatever --env is"
            } else {
                "environment = \"*\""
            });
            continue;
        };
        match (index, at.as_str()) {
            (0, "*") => {
                context
                    .findings
                    .wrong(at, "this is a base: it speaks for no environment, so it cannot be used itself")
                    .hint("use a policy that says `extends` of it");
            }
            (0, name) => environment = context.noted(at, EnvironmentName::new(name)),
            (_, "*") => {}
            _ => {
                context
                    .findings
                    .wrong(at, "a policy that is extended is a base, which speaks for no environment of its own")
                    .hint("environment = \"*\"");
            }
        }
    }
    environment
}

/// The serial of one file; 0 where it says none.
fn serial(file: &RawPolicy, findings: &mut Findings) -> u64 {
    let Some(at) = &file.serial else { return 0 };
    u64::try_from(at.value).unwrap_or_else(|_| {
        findings.wrong(at, "a serial counts from 0");
        0
    })
}

fn service(files: &[RawPolicy], context: &mut Context<'_>) -> Option<ServiceName> {
    let mut service = None;
    for (index, file) in files.iter().enumerate() {
        context.findings.file = index;
        let Some(at) = &file.service else { continue };
        if index == 0 {
            service = context.noted(at, ServiceName::new(at.as_str()));
        } else {
            context
                .findings
                .wrong(at, "a base speaks for no service")
                .hint("say `service` in the policy that extends it");
        }
    }
    service
}

/// The entries of a table that count: those of the policy itself, then those of each base that nothing before it has.
fn effective<'f, V: 'f>(
    files: &'f [RawPolicy],
    table: impl Fn(&'f RawPolicy) -> &'f BTreeMap<At<String>, V> + Copy + 'f,
) -> impl Iterator<Item = (usize, &'f At<String>, &'f V)> {
    files.iter().enumerate().flat_map(move |(index, file)| {
        table(file)
            .iter()
            .filter(move |(name, _)| !files.iter().take(index).any(|nearer| table(nearer).contains_key(name.as_str())))
            .map(move |(name, value)| (index, name, value))
    })
}

/// A field that counts: that of the first file that has it, which becomes the file that is being checked.
fn pick<'f, T>(
    files: &'f [RawPolicy],
    findings: &mut Findings,
    field: impl Fn(&'f RawPolicy) -> Option<&'f At<T>>,
) -> Option<&'f At<T>> {
    files.iter().enumerate().find_map(|(index, file)| {
        let at = field(file)?;
        findings.file = index;
        Some(at)
    })
}
