//! The story: one function for each command, each a list of named steps.
//!
//! [`run`] dispatches; [`run_command`] is what the project exists for, and [`grant_and_exec`] its heart. What looks without changing is in
//! [`crate::inspect`], what writes values in [`crate::change`]; both start from the same [`Setting`].

use std::convert::Infallible;
use std::ffi::OsString;
use std::time::{Instant, SystemTime};

use rustix::process::DumpableBehavior;

use crate::agent::{self, client};
use crate::audit::{AuditError, Auditor, Event, Outcome, SecretNote};
use crate::child::command::Command;
use crate::child::exec::exec;
use crate::child::supervise::{Next, Told, Worker, supervise};
use crate::cli;
use crate::error::{Cause, Class, Error};
use crate::inject::{Limits, ParentEnv, inject, injected};
use crate::name::VariableName;
use crate::policy::eval::{Denial, Request, Verdict, evaluate};
use crate::policy::model::RunMode;
use crate::resolve::{Resolved, resolve};
use crate::setting::{Setting, load_host_file};
use crate::{audit_log, caller, change, explain, init, inspect, lint, manual, output, rekey, rotate, sys};

mod refused;

/// Does what the command line says.
///
/// # Errors
/// Whatever keeps it from being done, with class and hint.
pub fn run(command: cli::Command) -> Result<(), Error> {
    refuse_borrowed_rights()?;
    stay_out_of_cores()?;
    sys::outlive_file_size_limit();
    let parent = ParentEnv::of_this_process();
    match command {
        cli::Command::Run(options) => match run_command(options, &parent)? {},
        cli::Command::Check(options) => inspect::check(&options, &parent),
        cli::Command::Explain(options) => explain::explain(&options, &parent),
        cli::Command::List(options) => inspect::list(&options, &parent),
        cli::Command::History(options) => inspect::history(&options, &parent),
        cli::Command::Set(options) => change::set(&options, &parent),
        cli::Command::Remove(options) => change::remove(&options, &parent),
        cli::Command::Rekey(options) => rekey::rekey(&options, &parent),
        cli::Command::Copy(options) => change::copy(&options, &parent),
        cli::Command::Rotate(options) => rotate::rotate(&options, &parent),
        cli::Command::Init(options) => init::init(&options, &parent),
        cli::Command::Agent(cli::agent::Agent { command: Some(command), .. }) => agent::ask::ask(&command, &parent),
        cli::Command::Agent(cli::agent::Agent { command: None, serve }) => agent::server::serve(&serve, &parent),
        cli::Command::Audit(command) => audit_log::audit(&command, &parent),
        cli::Command::Policy(command) => lint::policy(&command, &parent),
        cli::Command::Completions { shell } => output::print(&manual::completions(shell)),
        cli::Command::Man => output::print(&manual::manual()),
    }
}

/// `vouchsafe run`: grants the command its secrets and becomes it. Returns only an error.
///
/// # Errors
/// The command was not found, the policy does not grant, a record could not be written, a value is not to be had, or the
/// kernel refused the exec. In each case the command was not started.
fn run_command(options: cli::Run, parent: &ParentEnv) -> Result<Infallible, Error> {
    let host = load_host_file()?;
    let passed_over = match client::choose(&options, parent, &host) {
        Ok(client::Way::Agent(socket)) => return client::run(options, parent, &host, &socket),
        Ok(client::Way::Direct { passed_over }) => passed_over,
        Err(why) => return Err(refused::by_host(&host, &options, parent, why)),
    };
    let started = Instant::now();
    sys::keep_freed_memory();
    sys::end_on_signals();
    let setting = Setting::load(&options.selection, parent)?;
    setting.refuse_what_only_the_agent_gives().map_err(|why| refused::by_policy(&setting, &options, parent, why))?;
    if options.supervise || setting.policy.run.mode == RunMode::Supervise {
        let command = find_command(options.command.clone(), &setting, parent)?;
        return run_supervised(&setting, &command, options, parent, passed_over.as_deref());
    }
    let command = find_command(options.command, &setting, parent)?;
    grant_and_exec(
        &setting,
        &command,
        options.only,
        parent,
        started,
        Start { worker: None, passed_over: passed_over.as_deref() },
    )
}

/// `vouchsafe run --supervise`: the same, in a process of its own, which this one stays with. It is made before anything is
/// fetched, so nothing secret ever is in this one.
fn run_supervised(
    setting: &Setting<'_>,
    command: &Command,
    options: cli::Run,
    parent: &ParentEnv,
    passed_over: Option<&str>,
) -> Result<Infallible, Error> {
    let caller = caller::of_this_process(setting.policy.names_groups());
    let auditor = setting.open_auditor(&caller, Some(command))?;
    let worker = supervise(Box::new(auditor), &setting.policy.run, None, parent.get("NOTIFY_SOCKET"))?;
    let started = Instant::now();
    let parent = worker.hand_on(parent);
    if worker.is_later() {
        // What was looked at is from before; a grant may have been taken back since.
        let setting = Setting::load(&options.selection, &parent)?;
        let refused = |why| refused::by_policy(&setting, &options, &parent, why);
        setting.refuse_what_only_the_agent_gives().map_err(refused)?;
        let command = find_command(options.command, &setting, &parent)?;
        let start = Start { worker: Some(worker), passed_over };
        return grant_and_exec(&setting, &command, options.only, &parent, started, start);
    }
    grant_and_exec(setting, command, options.only, &parent, started, Start { worker: Some(worker), passed_over })
}

/// How a command comes to be started.
struct Start<'p> {
    /// Under a supervisor.
    worker: Option<Worker>,
    /// An agent that is there and was passed over.
    passed_over: Option<&'p str>,
}

/// Finds the command before anything is fetched: a typo costs no API call.
fn find_command(words: Vec<OsString>, setting: &Setting<'_>, parent: &ParentEnv) -> Result<Command, Error> {
    let mut command = Command::look_up(words, parent.get("PATH"))?;
    if setting.policy.pins_digests() {
        command.take_digest()?;
    }
    Ok(command)
}

/// Asks, writes down, fetches, writes down, and becomes the command.
fn grant_and_exec(
    setting: &Setting<'_>,
    command: &Command,
    only: Option<Vec<VariableName>>,
    parent: &ParentEnv,
    started: Instant,
    start: Start<'_>,
) -> Result<Infallible, Error> {
    let Start { mut worker, passed_over } = start;
    let request = Request {
        caller: caller::of_this_process(setting.policy.names_groups()),
        command: Some(command.facts()),
        only,
        claimed: false,
    };

    let mut auditor = setting.open_auditor(&request.caller, Some(command))?;
    if let Some(remark) = passed_over {
        auditor.remark(remark.to_owned());
    }
    let grant = match evaluate(&setting.policy, &request) {
        Verdict::Granted(grant) => grant,
        Verdict::Denied(denial) => return Err(denied(&mut auditor, denial)),
    };
    let pin = grant.pin();
    if let Err(error) = command.check_pin(pin) {
        return Err(failed(&mut auditor, Event::AccessDenied, Outcome::Denied, error.into()));
    }
    let before = match worker.as_mut().map_or(Ok(None), Worker::before) {
        Ok(before) => before,
        Err(error) => return Err(failed(&mut auditor, Event::AccessFailed, Outcome::Failed, error.into())),
    };
    if before.is_some() {
        auditor.remark("what ran before the change, kept by the supervisor; no store is asked".to_owned());
    }
    let permit = auditor.request(grant)?;

    let deadline = started + setting.policy.run.deadline;
    let resolved = match before {
        Some(before) => Resolved::of_before(&permit.into_grant(), before).map_err(Error::from),
        None => resolve(permit, &mut |name| setting.open_store(name), deadline, SystemTime::now()),
    };
    let prepared = resolved.and_then(|resolved| {
        // Only now it is known what was used.
        let own = setting.own_means();
        let limits = Limits { stack: stack_limit() };
        let rules = &setting.policy.child;
        let environment = inject(parent, rules, &own, &resolved, command.argv(), limits)?;
        Ok((environment, resolved))
    });
    auditor.note_request_ids(setting.aws.take_request_ids());
    let (environment, resolved) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            let (event, outcome) = match error.class() {
                Class::Denied => (Event::AccessDenied, Outcome::Denied),
                _ => (Event::AccessFailed, Outcome::Failed),
            };
            return Err(failed(&mut auditor, event, outcome, error));
        }
    };
    let told = Told::of(auditor.access());
    let next = worker.as_mut().map(|worker| worker.has_fetched(injected(&resolved, &environment), told)).transpose();
    let next = match next {
        Ok(next) => next,
        Err(error) => return Err(failed(&mut auditor, Event::AccessFailed, Outcome::Failed, error.into())),
    };
    // The values are in the environment block now; no second copy outlives this line.
    let yielded = |note: &SecretNote| environment.yielded().iter().any(|name| name.as_str() == note.name);
    let notes: Vec<SecretNote> = resolved
        .into_notes()
        .into_iter()
        .map(|note| SecretNote { is_withheld: note.is_withheld || yielded(&note), ..note })
        .collect();
    if let Some(Next::Done(why)) = next {
        auditor.record(Event::AccessCompared, Outcome::Succeeded, Some(why), &notes)?;
        sys::exit_now(0);
    }
    let released = match auditor.release(environment, &notes) {
        Ok(released) => released,
        Err(error) => {
            // One sink may have taken the release before another failed: whoever reads it is told that nothing came of it.
            let reason = error.to_string();
            auditor.record(Event::AccessUnused, Outcome::Failed, Some(&reason), &notes).unwrap_or_default();
            return Err(error.into());
        }
    };

    if worker.as_mut().is_some_and(|worker| !worker.may_execute()) {
        let why = "the supervisor did not let it start";
        auditor.record(Event::AccessUnused, Outcome::Failed, Some(why), &notes)?;
        sys::exit_now(0);
    }
    let error = exec(command, pin, released);
    if let Some(worker) = &mut worker {
        worker.did_not_execute();
    }
    Err(failed(&mut auditor, Event::AccessUnused, Outcome::Failed, error.into()))
}

fn denied(auditor: &mut Auditor, denial: Denial) -> Error {
    let (Denial::NotGranted { names, .. } | Denial::Unknown { names, .. }) = &denial;
    let named = |name: &VariableName| SecretNote { name: name.to_string(), ..SecretNote::default() };
    let secrets: Vec<SecretNote> = names.iter().map(named).collect();
    let reason = denial.to_string();
    recorded(auditor.record(Event::AccessDenied, Outcome::Denied, Some(&reason), &secrets), denial.into())
}

/// Writes down why there was no access. If even that fails, that is what the user hears: an unwritten denial is worse.
fn failed(auditor: &mut Auditor, event: Event, outcome: Outcome, error: Error) -> Error {
    let reason = error.to_string();
    recorded(auditor.record(event, outcome, Some(&reason), &[]), error)
}

fn recorded(written: Result<(), AuditError>, error: Error) -> Error {
    match written {
        Ok(()) => error,
        Err(unwritten) => unwritten.into(),
    }
}

/// The wrapper holds its caller's rights and no more; a set-uid copy would lend its own to whoever starts it.
fn refuse_borrowed_rights() -> Result<(), Error> {
    let borrowed = rustix::process::getuid() != rustix::process::geteuid()
        || rustix::process::getgid() != rustix::process::getegid()
        || sys::is_privileged_start();
    if borrowed { Err(StartError::BorrowedRights.into()) } else { Ok(()) }
}

/// Before the first secret byte: no core, no ptrace by the same uid. Ends at exec, so the child is not touched (prctl(2)).
fn stay_out_of_cores() -> Result<(), Error> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|_| StartError::Dumpable.into())
}

fn stack_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Stack).current
}

/// The process is in no state to hold secrets.
#[derive(Debug)]
enum StartError {
    BorrowedRights,
    Dumpable,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BorrowedRights => write!(f, "vouchsafe does not run set-uid, set-gid or with file capabilities"),
            Self::Dumpable => write!(f, "the kernel does not let vouchsafe keep its memory out of core dumps"),
        }
    }
}

impl Cause for StartError {
    fn class(&self) -> Class {
        match self {
            Self::BorrowedRights => Class::Denied,
            Self::Dumpable => Class::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::BorrowedRights => {
                Some("chmod u-s,g-s \"$(command -v vouchsafe)\"; setcap -r \"$(command -v vouchsafe)\"".into())
            }
            Self::Dumpable => None,
        }
    }
}
