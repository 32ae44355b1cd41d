//! What a sink of type `file` says about seals and checkpoints.

use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use super::aws::{AwsFields, aws};
use super::stores::is_ssm_name;
use super::values::Zero;
use crate::policy::file::raw::{At, RawAnchor, RawCheckpoints, RawParameter, RawSink};
use crate::policy::model::{Anchor, Checkpoints, Evidence, ParameterAnchor};

pub(super) fn evidence(raw: &RawSink, context: &mut Context<'_>) -> Evidence {
    Evidence {
        auditor: raw.auditor.as_ref().and_then(|at| context.line("auditor", at)),
        checkpoints: raw.checkpoints.as_ref().and_then(|at| checkpoints(at, context)),
    }
}

fn checkpoints(at: &At<RawCheckpoints>, context: &mut Context<'_>) -> Option<Checkpoints> {
    let raw = &at.value;
    let every = match &raw.every {
        None => 1000,
        Some(at) => u64::try_from(at.value).ok().filter(|every| *every > 0).unwrap_or_else(|| {
            context.findings.wrong(at, "`every` is a number of records, 1 or more");
            1
        }),
    };
    let interval = raw.interval.as_ref().and_then(|at| context.duration(at, Zero::Refused));
    let Some(to) = &raw.to else {
        context
            .findings
            .wrong(at, "the checkpoints go nowhere: there is no `to`")
            .hint("to = [\"syslog\"]   # or \"file:PATH\", \"fd:NUMBER\", \"command:PATH\", { type = \"ssm\", name = \"/NAME\" }");
        return None;
    };
    context.not_empty("to", to);
    let to = to.value.iter().filter_map(|at| anchor(at, context)).collect();
    Some(Checkpoints { every, interval: interval.unwrap_or(Duration::from_secs(60)), to })
}

fn anchor(at: &At<RawAnchor>, context: &mut Context<'_>) -> Option<Anchor> {
    let text = match &at.value {
        RawAnchor::Word(text) => text.as_str(),
        RawAnchor::Table(raw) => {
            return parameter(at, raw, context).map(|parameter| Anchor::Parameter(Box::new(parameter)));
        }
    };
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let absolute = || Some(PathBuf::from(rest)).filter(|path| path.is_absolute() && !rest.contains('\0'));
    let found = match kind {
        "command" => absolute().map(Anchor::Command),
        "fd" => rest.parse().ok().filter(|fd| (3..1 << 20).contains(fd)).map(Anchor::Fd),
        "file" => absolute().map(Anchor::File),
        "syslog" if rest.is_empty() && text == kind => Some(Anchor::Syslog("/dev/log".into())),
        "syslog" => absolute().map(Anchor::Syslog),
        _ => None,
    };
    if found.is_none() {
        let finding = context.findings.wrong(
            at,
            "a checkpoint goes to `file:PATH`, `fd:NUMBER` (3 or above), `syslog`, `syslog:SOCKET` or `command:PATH`, each \
             path absolute, or to a table `{ type = \"ssm\", ... }`",
        );
        if kind == "ssm" {
            finding.hint("to = [{ type = \"ssm\", name = \"/audit/{host}\", region = \"eu-west-1\" }]");
        }
    }
    found
}

/// A name from `/` on: with a prefix that depends on where it stands, nobody would find it.
fn parameter(at: &At<RawAnchor>, raw: &RawParameter, context: &mut Context<'_>) -> Option<ParameterAnchor> {
    if raw.r#type.is_none() {
        context.findings.wrong(at, "this place has no `type`").hint("type = \"ssm\"");
    }
    let aws = aws(
        &AwsFields {
            region: raw.region.as_ref(),
            endpoint: raw.endpoint.as_ref(),
            profile: raw.profile.as_ref(),
            role_arn: raw.role_arn.as_ref(),
            account: raw.account.as_ref(),
            credential_source: raw.credential_source.as_ref(),
            in_flight: None,
        },
        context,
    );
    let Some(name) = &raw.name else {
        context.findings.wrong(at, "the parameter has no `name`").hint("name = \"/audit/{host}\"");
        return None;
    };
    let rule = "the name of a parameter for checkpoints begins with `/` and has letters, digits, `.`, `-`, `_` and `/`; \
                `{host}` and `{uid}` are the only words in braces";
    let name = context.checked(name, rule, |text| {
        let plain = text.replace("{host}", "h").replace("{uid}", "0");
        plain.starts_with('/') && !plain.ends_with('/') && is_ssm_name(&plain)
    })?;
    Some(ParameterAnchor { name, aws })
}
