//! `[child]`, `[run]`, `[cache]` and sinks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::evidence::evidence;
use super::values::Zero;
use super::{Context, pick};
use crate::name::{VariableName, escape};
use crate::policy::file::raw::{At, RawAudit, RawInherit, RawPolicy, RawSink, SinkType};
use crate::policy::model::{
    AgentUse, AwsRole, CacheRules, ChildRules, Inherit, OnChange, OnCollision, OnCrash, RunMode, RunRules, Sink,
};
use crate::policy::reserved::{is_forbidden, is_reserved};

pub(super) fn child(files: &[RawPolicy], context: &mut Context<'_>) -> ChildRules {
    let inherit = pick(files, context.findings, |file| file.child.inherit.as_ref());
    let inherit = inherit.map_or(Inherit::All, |at| inherited(at, context));
    let set = match pick(files, context.findings, |file| file.child.set.as_ref()) {
        Some(at) => at.value.iter().filter_map(|(name, value)| set_variable(name, value, files, context)).collect(),
        None => BTreeMap::new(),
    };
    let aws_role = pick(files, context.findings, |file| file.child.aws_role.as_ref());
    let on_collision = pick(files, context.findings, |file| file.child.on_collision.as_ref());
    ChildRules {
        inherit,
        set,
        aws_role: aws_role.map_or(AwsRole::Pass, |at| at.value.into()),
        on_collision: on_collision.map_or(OnCollision::Error, |at| at.value.into()),
    }
}

fn inherited(at: &At<RawInherit>, context: &mut Context<'_>) -> Inherit {
    match &at.value {
        RawInherit::Word(word) if word == "all" => Inherit::All,
        RawInherit::Word(word) if word == "none" => Inherit::None,
        RawInherit::Word(word) => {
            context
                .findings
                .wrong(at, format!("`inherit` is `all`, `none` or a list of names, not `{}`", escape(word)))
                .hint(format!("inherit = [\"{}\"]", escape(word)));
            Inherit::None
        }
        RawInherit::Names(names) => {
            if names.is_empty() {
                context.findings.wrong(at, "`inherit` is empty").hint("inherit = \"none\"");
            }
            Inherit::Names(names.iter().filter_map(|name| context.pattern(name)).collect())
        }
    }
}

fn set_variable(
    name: &At<String>,
    value: &At<String>,
    files: &[RawPolicy],
    context: &mut Context<'_>,
) -> Option<(VariableName, String)> {
    let variable = context.noted(name, VariableName::new(name.as_str()))?;
    let twin =
        files.iter().flat_map(|file| file.secrets.keys()).find(|key| key.as_str().eq_ignore_ascii_case(name.as_str()));
    if is_forbidden(&variable) || is_reserved(&variable) {
        let message = format!("`{variable}` changes how programs load or shells start, so it cannot be set here");
        context.findings.wrong(name, message).hint("let the child inherit it");
    } else if let Some(twin) = twin {
        let message = format!("`{variable}` is a secret of this policy too (`{}`)", escape(twin.as_str()));
        context.findings.wrong(name, message).hint("one name has one source");
    }
    // `() {` is how a function is exported to bash; 128 KiB is the most that the kernel takes for one entry.
    if value.as_str().contains('\0') || value.as_str().starts_with("()") || value.as_str().len() >= 128 * 1024 {
        context.findings.wrong(value, "a value holds no NUL byte, does not begin with `()`, and has less than 128 KiB");
    }
    Some((variable, value.value.clone()))
}

pub(super) fn run(files: &[RawPolicy], context: &mut Context<'_>) -> RunRules {
    let mode = pick(files, context.findings, |file| file.run.mode.as_ref());
    let on_change = pick(files, context.findings, |file| file.run.on_change.as_ref());
    let agent = pick(files, context.findings, |file| file.run.agent.as_ref());
    RunRules {
        agent: agent.map_or(AgentUse::Allow, |at| at.value.into()),
        mode: mode.map_or(RunMode::Exec, |at| at.value.into()),
        deadline: duration(files, context, |file| file.run.deadline.as_ref(), 20, Zero::Refused),
        on_change: on_change.map_or(OnChange::Restart, |at| at.value.into()),
        on_crash: on_crash(files, context),
        grace: duration(files, context, |file| file.run.grace.as_ref(), 10, Zero::Allowed),
        watch: watch(files, context),
    }
}

/// To go back to what was before takes a change to go back from, and a supervisor that keeps values. Of what an agent gives,
/// nothing is kept.
fn on_crash(files: &[RawPolicy], context: &mut Context<'_>) -> OnCrash {
    let watch = pick(files, context.findings, |file| file.run.watch.as_ref());
    let on_change = pick(files, context.findings, |file| file.run.on_change.as_ref());
    let agent = pick(files, context.findings, |file| file.run.agent.as_ref());
    // Last, for it is what the findings are about.
    let Some(at) = pick(files, context.findings, |file| file.run.on_crash.as_ref()) else { return OnCrash::Again };
    let on_crash = at.value.into();
    if on_crash == OnCrash::Again {
        return on_crash;
    }
    if watch.is_none() {
        let message = "nobody looks for changes, so there is none to go back from";
        context.findings.wrong(at, message).hint("watch = \"5m\"");
    }
    if on_change.is_some_and(|word| OnChange::from(word.value) == OnChange::Ignore) {
        let message = "with `on_change = \"ignore\"` there is no change to go back from";
        context.findings.wrong(at, message).hint("on_change = \"restart\"");
    }
    if agent.map(|word| AgentUse::from(word.value)) != Some(AgentUse::Forbid) {
        let message = "the supervisor would keep values, and what the agent gives is not kept";
        context.findings.wrong(at, message).hint("agent = \"forbid\"");
    }
    on_crash
}

/// An interval that is meant in minutes and written without thinking must not become an attack on the store.
fn watch(files: &[RawPolicy], context: &mut Context<'_>) -> Option<Duration> {
    let at = pick(files, context.findings, |file| file.run.watch.as_ref())?;
    let every = context.duration(at, Zero::Refused)?;
    if every < Duration::from_millis(100) {
        context.findings.wrong(at, "this is too often: at least `100ms`").hint("watch = \"30s\"");
        return None;
    }
    Some(every)
}

pub(super) fn cache(files: &[RawPolicy], context: &mut Context<'_>) -> CacheRules {
    CacheRules {
        ttl: duration(files, context, |file| file.cache.ttl.as_ref(), 300, Zero::Allowed),
        max_stale: duration(files, context, |file| file.cache.max_stale.as_ref(), 0, Zero::Allowed),
    }
}

fn duration<'f>(
    files: &'f [RawPolicy],
    context: &mut Context<'_>,
    field: impl Fn(&'f RawPolicy) -> Option<&'f At<String>>,
    default: u64,
    zero: Zero,
) -> Duration {
    let at = pick(files, context.findings, field);
    at.and_then(|at| context.duration(at, zero)).unwrap_or_else(|| Duration::from_secs(default))
}

/// The sinks of a chain of files. That there is one at all is for the audit to demand; but a list of nothing but mirrors says
/// that there was to be one.
pub(super) fn sinks<'f>(files: impl Iterator<Item = &'f RawAudit>, context: &mut Context<'_>) -> Vec<Sink> {
    let (mut sinks, mut listed) = (Vec::new(), None);
    for (index, raw) in files.enumerate() {
        context.findings.file = index;
        for at in &raw.sinks {
            listed.get_or_insert((index, at.span));
            sinks.push(sink(at, context));
        }
    }
    // What is wrong with a sink was said; without it nothing is known of the list.
    if let (Some((index, span)), Some(found)) = (listed, sinks.iter().cloned().collect::<Option<Vec<Sink>>>())
        && found.iter().all(Sink::is_mirror)
    {
        context.findings.file = index;
        context
            .findings
            .wrong_at(span, "these sinks are mirrors only, which can drop records, so nothing would be written down")
            .hint("add: [[audit.sinks]] with type = \"file\" and path = \"...\"");
    }
    sinks.into_iter().flatten().collect()
}

fn sink(at: &At<RawSink>, context: &mut Context<'_>) -> Option<Sink> {
    let raw = &at.value;
    let Some(kind) = &raw.r#type else {
        context.findings.wrong(at, "the sink has no `type`").hint("type = \"file\"   # or \"stderr\", \"fd\"");
        return None;
    };
    let fields: [(_, _, &[SinkType]); 5] = [
        ("path", raw.path.as_ref().map(|at| at.span), &[SinkType::File, SinkType::Syslog, SinkType::Journald]),
        ("sync", raw.sync.as_ref().map(|at| at.span), &[SinkType::File]),
        ("auditor", raw.auditor.as_ref().map(|at| at.span), &[SinkType::File]),
        ("checkpoints", raw.checkpoints.as_ref().map(|at| at.span), &[SinkType::File]),
        ("fd", raw.fd.as_ref().map(|at| at.span), &[SinkType::Fd]),
    ];
    for (field, span, of) in fields {
        if let Some(span) = span
            && !of.contains(&kind.value)
        {
            context.findings.wrong_at(span, format!("`{field}` means nothing for a sink of this type"));
        }
    }
    match kind.value {
        SinkType::File => file_sink(at, context),
        SinkType::Stderr => Some(Sink::Stderr),
        SinkType::Fd => {
            let fd = raw.fd.as_ref().and_then(|at| i32::try_from(at.value).ok()).filter(|fd| (3..1 << 20).contains(fd));
            if fd.is_none() {
                let span = raw.fd.as_ref().map_or(at.span, |at| at.span);
                context
                    .findings
                    .wrong_at(span, "a sink of type `fd` has the number of a descriptor (`fd`), 3 or above")
                    .hint("type = \"stderr\"   # for standard error; standard output is the child's");
            }
            fd.map(Sink::Fd)
        }
        SinkType::Journald => local_socket(at, "/run/systemd/journal/socket", context).map(Sink::Journald),
        SinkType::Syslog => local_socket(at, "/dev/log", context).map(Sink::Syslog),
    }
}

/// Where the daemon of a mirror listens. Whether it does is not for now: a mirror never refuses anything.
fn local_socket(at: &At<RawSink>, usual: &str, context: &mut Context<'_>) -> Option<PathBuf> {
    let Some(path) = &at.value.path else { return Some(usual.into()) };
    // 108 bytes with the NUL: unix(7).
    let is_fit = path.as_str().starts_with('/') && path.as_str().len() < 108 && !path.as_str().contains('\0');
    if !is_fit {
        context
            .findings
            .wrong(path, "the socket of a mirror is an absolute path of at most 107 bytes")
            .hint(format!("path = \"{usual}\"   # which is what it is without `path`"));
    }
    is_fit.then(|| path.as_str().into())
}

fn file_sink(at: &At<RawSink>, context: &mut Context<'_>) -> Option<Sink> {
    let Some(path) = &at.value.path else {
        context.findings.wrong(at, "a sink of type `file` needs a `path`");
        return None;
    };
    if path.as_str().replace("{uid}", "").contains(['{', '}']) {
        context.findings.wrong(path, "`{uid}` is the only word in braces that a path of a sink may have");
    }
    if path.as_str().ends_with('/') {
        context.findings.wrong(path, "the path of a sink is a file, not a folder");
    }
    let joined = context.path(path)?;
    let Ok(path) = joined.into_os_string().into_string() else {
        context.findings.wrong(path, "with the policy's own folder, this path is not UTF-8");
        return None;
    };
    let evidence = evidence(&at.value, context);
    Some(Sink::File { path, sync: at.value.sync.as_ref().is_none_or(|at| at.value), evidence })
}
