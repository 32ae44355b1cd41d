//! `[[grants]]`.

use super::Context;
use crate::name::escape;
use crate::policy::file::diagnostic::place;
use crate::policy::file::raw::{At, RawGrant, RawMatch, RawPolicy, RawTo};
use crate::policy::model::{Audience, GrantRule, Match};
use crate::policy::pattern::Pattern;

pub(super) fn grants(files: &[RawPolicy], context: &mut Context<'_>) -> Vec<GrantRule> {
    let mut rules = Vec::new();
    for (index, file) in files.iter().enumerate() {
        context.findings.file = index;
        let lines = if file.grants.is_empty() { Vec::new() } else { line_ends(index, context) };
        for grant in &file.grants {
            let line = 1 + lines.partition_point(|end| *end < grant.span.start);
            rules.extend(rule(grant, index, line, files, context));
        }
    }
    rules
}

fn line_ends(file: usize, context: &Context<'_>) -> Vec<u32> {
    let text = context.sources.get(file).map_or("", |source| source.text.as_str());
    text.bytes().zip(0..).filter_map(|(byte, offset)| (byte == b'\n').then_some(offset)).collect()
}

fn rule(
    grant: &At<RawGrant>,
    file: usize,
    line: usize,
    files: &[RawPolicy],
    context: &mut Context<'_>,
) -> Option<GrantRule> {
    let raw = &grant.value;
    let path = context.sources.get(file).map(|source| source.path.clone()).unwrap_or_default();
    let secrets = match &raw.secrets {
        Some(list) => {
            context.not_empty("secrets", list);
            list.value.iter().filter_map(|at| secret(at, file, files, context)).collect()
        }
        None => {
            context
                .findings
                .wrong(grant, "the grant names no `secrets`")
                .hint("secrets = [\"DATABASE_URL\", \"DB_*\"]");
            Vec::new()
        }
    };
    let Some(to) = &raw.to else {
        context
            .findings
            .wrong(grant, "the grant does not say to whom (`to`)")
            .hint("to = { users = [\"api\"], commands = [\"/usr/bin/api\"] }   # or to = \"anyone\"");
        return None;
    };
    let to = match &to.value {
        RawTo::Word(word) if word == "anyone" => Audience::Anyone,
        RawTo::Word(word) => {
            context
                .findings
                .wrong(to, format!("`to` is `anyone` or a table, not `{}`", escape(word)))
                .did_you_mean(word, ["anyone"])
                .hint("to = { users = [\"api\"] }");
            return None;
        }
        RawTo::Fields(fields) => Audience::Matching(audience(to, fields, context)),
    };
    let of_commands = matches!(&to, Audience::Matching(fields) if fields.commands.is_some() || fields.sha256.is_some());
    if let Some(claimed) = &raw.claimed
        && claimed.value
        && !of_commands
    {
        context.findings.wrong(claimed, "`claimed` is about `commands` and `sha256`, and this grant has neither");
    }
    let claimed = raw.claimed.as_ref().is_some_and(|at| at.value);
    Some(GrantRule { secrets, to, claimed, place: place(&path, line) })
}

/// A pattern that can match nothing is a slip of the pen. Only a bundle's names, and those that a base hopes for, are
/// unknown here.
fn secret(at: &At<String>, file: usize, files: &[RawPolicy], context: &mut Context<'_>) -> Option<Pattern> {
    let pattern = context.pattern(at)?;
    let names_are_known = files.iter().all(|file| file.bundles.is_empty());
    let hopes = file > 0 && pattern.is_glob();
    if names_are_known && !hopes {
        let matched = if pattern.is_glob() {
            files.iter().flat_map(|file| file.secrets.keys()).any(|name| pattern.matches(name.as_str()))
        } else {
            files.iter().any(|file| file.secrets.contains_key(at.as_str()))
        };
        if !matched {
            let known = files.iter().flat_map(|file| file.secrets.keys()).map(At::as_str);
            context
                .findings
                .wrong(at, format!("`{pattern}` matches no secret of this policy"))
                .did_you_mean(pattern.as_str(), known);
        }
    }
    Some(pattern)
}

fn audience(to: &At<RawTo>, raw: &RawMatch, context: &mut Context<'_>) -> Match {
    if raw.users.is_none() && raw.groups.is_none() && raw.commands.is_none() && raw.sha256.is_none() {
        context.findings.wrong(to, "`to` names nobody").hint("to = \"anyone\"   # if that is meant");
    }
    let users = raw.users.as_ref().map(|list| context.principals("users", list));
    let groups = raw.groups.as_ref().map(|list| context.principals("groups", list));
    let commands = raw.commands.as_ref().map(|list| {
        context.not_empty("commands", list);
        list.value.iter().filter_map(|at| context.command(at)).collect()
    });
    let sha256 = raw.sha256.as_ref().map(|list| {
        context.not_empty("sha256", list);
        list.value.iter().filter_map(|at| digest(at, context)).collect()
    });
    Match { users, groups, commands, sha256 }
}

pub(super) fn digest(at: &At<String>, context: &mut Context<'_>) -> Option<String> {
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    context.checked(at, "a SHA-256 digest is 64 hexadecimal digits", is_digest).map(|text| text.to_ascii_lowercase())
}
