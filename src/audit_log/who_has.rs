//! `vouchsafe audit who-has`: who got a secret, in which version, and which of those processes still run.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::sources::{Selected, Sources, Sum, Unread, complain_of_limits};
use crate::audit::read::{Holder, Holders, Item, Life, Named, Processes, Scope};
use crate::cli;
use crate::error::{Cause, Class, Error, suggest};
use crate::inject::ParentEnv;
use crate::name::{escape, show};
use crate::output;

/// What `vouchsafe audit who-has --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Holding {
    /// The secret.
    name: String,
    /// The one version that was asked for.
    version: Option<u64>,
    /// Only what may hold another version than the current one was asked for.
    stale: bool,
    /// The logs that were read. Their chains were not verified.
    logs: Vec<String>,
    /// Logs that were not read, and why.
    unread: Vec<UnreadLog>,
    /// Records that were read.
    records: u64,
    /// Lines that are no record.
    other_lines: u64,
    /// The items that the name stands for: in each environment one, as a rule.
    items: Vec<ItemEntry>,
}

/// A log that was not read.
#[derive(Debug, Serialize, JsonSchema)]
struct UnreadLog {
    /// Its path.
    path: String,
    /// Why not.
    why: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct ItemEntry {
    /// The environment.
    environment: String,
    /// The store; `null` for a template.
    store: Option<String>,
    /// The item; `null` for a template and for a ciphertext of the policy.
    item: Option<String>,
    /// The version that consumers get now, as far as these logs say.
    current: Option<CurrentEntry>,
    /// Who got it: newest versions first, and of each what runs first.
    holders: Vec<HolderEntry>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CurrentEntry {
    /// The number.
    version: u64,
    /// Since when (RFC 3339).
    since: String,
    /// The event that says so: a write or a rotation, or only a release.
    event: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct HolderEntry {
    /// The version, if the store counts them.
    version: Option<u64>,
    /// It may still run, with another version than the current one.
    stale: bool,
    /// `running`, `gone` or `unknown`.
    state: &'static str,
    /// Why it is unknown: `another host`, `another container`, `no access to tell`.
    why: Option<&'static str>,
    /// The host, as it calls itself.
    host: String,
    /// Real uid.
    uid: u32,
    /// Its name.
    user: Option<String>,
    /// The service.
    service: Option<String>,
    /// The process; where `times` is more than 1, perhaps only the last one.
    pid: u32,
    /// The program; `null` where the value was copied to another store.
    command: Option<String>,
    /// `direct` or `agent`.
    via: &'static str,
    /// How often it was released to this consumer.
    times: u64,
    /// The first time (RFC 3339).
    first: String,
    /// The last time (RFC 3339).
    last: String,
}

/// `vouchsafe audit who-has`.
///
/// # Errors
/// There is no log, or it cannot be read; the policy does not bind the name and no record names it; with `--stale`, no record
/// names it, some process may hold another version than the current one, or a log, or a line, that could say so cannot be read.
pub(super) fn who_has(options: &cli::WhoHas, parent: &ParentEnv) -> Result<(), Error> {
    let Selected { sources, environment, bound } = Sources::select(&options.files, &options.selection, parent)?;
    let scope = Scope {
        environment: environment.clone(),
        service: options.selection.service.as_ref().map(ToString::to_string),
        since: options.since.map(|when| when.instant(SystemTime::now())),
    };
    let mut holders = Holders::new(options.wanted.clone(), scope, Processes::here());
    let sum = sources.read(Holders::EVENTS, |record| holders.record(record))?;
    if let Some(unnamed) = Unnamed::of(options, environment.as_deref(), bound.as_ref(), holders.named()) {
        complain_of_limits(&sum);
        return Err(unnamed.into());
    }
    let mut items = holders.finish();
    if options.stale {
        for item in &mut items {
            let all = std::mem::take(&mut item.holders);
            item.holders = all.into_iter().filter(|holder| item.is_stale(holder)).collect();
        }
    }
    let holding = Holding::new(options, &sum, &items);
    if options.json {
        output::print_json(&holding)?;
    } else {
        output::print(&holding.to_text())?;
        complain_of_limits(&sum);
    }
    match (options.stale, sum.unread.into_iter().next()) {
        (true, Some((path, why))) => Err(Unread { path, why, unknown: "no process is left" }.into()),
        (true, None) => match Stale::of(options, &items) {
            Some(stale) => Err(stale.into()),
            None if sum.damaged > 0 => Err(Damaged { lines: sum.damaged, logs: sum.logs }.into()),
            None => Ok(()),
        },
        (false, _) => Ok(()),
    }
}

impl Holding {
    fn new(options: &cli::WhoHas, sum: &Sum, items: &[Item]) -> Self {
        let unread = |(path, why): &(PathBuf, String)| UnreadLog { path: show(path), why: why.clone() };
        Self {
            name: options.wanted.name.to_string(),
            version: options.wanted.version,
            stale: options.stale,
            logs: sum.logs.iter().map(|path| show(path)).collect(),
            unread: sum.unread.iter().map(unread).collect(),
            records: sum.counts.records,
            other_lines: sum.counts.others,
            items: items.iter().map(ItemEntry::from).collect(),
        }
    }

    fn to_text(&self) -> String {
        let mut out = String::new();
        for item in &self.items {
            if !out.is_empty() {
                out.push('\n');
            }
            let place = match (&item.store, &item.item) {
                (Some(store), Some(name)) => format!("{store}:{name}"),
                (Some(store), None) => format!("{store}: a ciphertext of the policy"),
                (None, _) => "a template: ask for its parts, which have versions".to_owned(),
            };
            let current = item.current.as_ref().map_or_else(
                || "its current version is not known from these logs".to_owned(),
                |current| format!("version {} is current since {} ({})", current.version, current.since, current.event),
            );
            out.push_str(&format!("{} in {} ({place}): {current}\n", self.name, item.environment));
            if !item.holders.is_empty() {
                out.push_str(&output::table(&HEAD, &item.holders.iter().map(HolderEntry::row).collect::<Vec<_>>()));
            }
        }
        let nobody = self.items.iter().all(|item| item.holders.is_empty());
        match (nobody, self.stale) {
            (true, true) => out.push_str("no process is known to hold another version than the current one\n"),
            (true, false) => out.push_str("nobody got it, as far as these logs say\n"),
            (false, _) => {}
        }
        out
    }
}

const HEAD: [&str; 10] = ["VERSION", "STATE", "HOST", "USER", "SERVICE", "PID", "COMMAND", "VIA", "TIMES", "LAST"];

impl HolderEntry {
    fn new(item: &Item, holder: &Holder) -> Self {
        let text = |text: &Option<String>| text.as_deref().map(escape);
        Self {
            version: holder.version,
            stale: item.is_stale(holder),
            state: holder.life.word(),
            why: holder.life.why(),
            host: escape(&holder.host),
            uid: holder.uid,
            user: text(&holder.user),
            service: text(&holder.service),
            pid: holder.pid,
            command: text(&holder.command),
            via: if holder.by_agent { "agent" } else { "direct" },
            times: holder.times,
            first: escape(&holder.first),
            last: escape(&holder.last),
        }
    }

    fn row(&self) -> Vec<String> {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let version = self.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        vec![
            if self.stale { format!("{version} (old)") } else { version },
            self.why.map_or_else(|| self.state.to_owned(), |why| format!("{}: {why}", self.state)),
            self.host.clone(),
            self.user.as_ref().map_or_else(|| self.uid.to_string(), |user| format!("{user} ({})", self.uid)),
            or_dash(&self.service),
            self.pid.to_string(),
            or_dash(&self.command),
            self.via.to_owned(),
            self.times.to_string(),
            self.last.clone(),
        ]
    }
}

impl From<&Item> for ItemEntry {
    fn from(item: &Item) -> Self {
        let some = |text: &String| (!text.is_empty()).then(|| escape(text));
        Self {
            environment: escape(&item.place.environment),
            store: some(&item.place.store),
            item: some(&item.place.item),
            current: item.current.as_ref().map(|current| CurrentEntry {
                version: current.version,
                since: escape(&current.since),
                event: escape(&current.event),
            }),
            holders: item.holders.iter().map(|holder| HolderEntry::new(item, holder)).collect(),
        }
    }
}

/// Some process may hold another version than the current one.
#[derive(Debug)]
struct Stale {
    name: String,
    /// Processes that run.
    running: usize,
    /// Consumers of which nobody here can say whether they do.
    unknown: usize,
    /// The first ones that run.
    pids: Vec<u32>,
    /// The command that looks again.
    again: String,
}

impl Stale {
    fn of(options: &cli::WhoHas, items: &[Item]) -> Option<Self> {
        let stale: Vec<&Holder> =
            items.iter().flat_map(|item| item.holders.iter().filter(|holder| item.is_stale(holder))).collect();
        let running: Vec<u32> =
            stale.iter().filter(|holder| holder.life == Life::Running).map(|holder| holder.pid).collect();
        (!stale.is_empty()).then(|| Self {
            name: options.wanted.name.to_string(),
            again: again(options),
            running: running.len(),
            unknown: stale.len() - running.len(),
            pids: running.into_iter().take(8).collect(),
        })
    }
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.running {
            0 => write!(f, "no process is seen to run with another version of `{name}` than the current one")?,
            1 => write!(f, "1 process runs with another version of `{name}` than the current one")?,
            many => write!(f, "{many} processes run with another version of `{name}` than the current one")?,
        }
        match self.unknown {
            0 => Ok(()),
            1 => write!(f, "; of 1 consumer it cannot be told from here"),
            many => write!(f, "; of {many} consumers it cannot be told from here"),
        }
    }
}

impl Cause for Stale {
    fn class(&self) -> Class {
        Class::Due
    }

    fn hint(&self) -> Option<String> {
        let again = &self.again;
        let pids: Vec<String> = self.pids.iter().map(ToString::to_string).collect();
        Some(match self.pids.is_empty() {
            true => format!("{again}   # where they run; or --since, if they ended long ago"),
            false => format!("ps -fp {}   # restart them, then look again: {again}", pids.join(",")),
        })
    }
}

/// The same question once more.
fn again(options: &cli::WhoHas) -> String {
    let cli::Selection { env, service, policy } = &options.selection;
    let version = options.wanted.version.map(|version| format!("@{version}"));
    let files: String = options.files.iter().map(|path| format!(" {}", show(path))).collect();
    let option = |name: &str, text: Option<String>| text.map(|text| format!(" --{name} {text}")).unwrap_or_default();
    format!(
        "vouchsafe audit who-has {}{}{files} --stale{}{}{}",
        options.wanted.name,
        version.unwrap_or_default(),
        option("env", env.as_ref().map(ToString::to_string)),
        option("service", service.as_ref().map(ToString::to_string)),
        option("policy", policy.as_deref().map(show)),
    )
}

/// No record names the secret, so nothing follows from nobody having it.
#[derive(Debug)]
struct Unnamed {
    name: String,
    /// What was asked for besides: `prod`, `prod/api`.
    place: Option<String>,
    /// Where it is named.
    elsewhere: Vec<String>,
    nearest: Option<String>,
    /// Neither does the policy.
    is_unbound: bool,
}

impl Unnamed {
    /// Where that is an error: nobody is left of what was never there, and a policy that was loaded says what there is.
    fn of(
        options: &cli::WhoHas,
        environment: Option<&str>,
        bound: Option<&BTreeSet<String>>,
        named: &Named,
    ) -> Option<Self> {
        let name = options.wanted.name.to_string();
        let is_unbound = bound.is_some_and(|bound| !bound.contains(&name));
        if named.is_here || !(options.stale || is_unbound) {
            return None;
        }
        let known = named.others.iter().chain(bound.into_iter().flatten());
        let nearest = suggest(&name, known.map(String::as_str)).filter(|near| *near != name).map(escape);
        let service = options.selection.service.as_ref().map(ToString::to_string);
        let place = match (environment, service) {
            (None, None) => None,
            (environment, None) => environment.map(str::to_owned),
            (environment, Some(service)) => Some(format!("{}/{service}", environment.unwrap_or("*"))),
        };
        let elsewhere = named.elsewhere.iter().map(|place| escape(place)).collect();
        Some(Self { name, place, elsewhere, nearest, is_unbound })
    }
}

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_ref().map(|place| format!(" in `{place}`")).unwrap_or_default();
        let policy = if self.is_unbound { ", and the policy does not bind it" } else { "" };
        write!(f, "no record names `{}`{place}{policy}, so nobody can say who has it", self.name)
    }
}

impl Cause for Unnamed {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        match (self.elsewhere.as_slice(), &self.nearest) {
            ([], Some(near)) => Some(format!("did you mean `{near}`?")),
            ([], None) => Some("name the logs in which it is: vouchsafe audit who-has NAME FILE...".into()),
            (places, _) => Some(format!("records name it in {}", places.join(", "))),
        }
    }
}

/// Lines that could tell of a process are no records any more.
#[derive(Debug)]
struct Damaged {
    lines: u64,
    logs: Vec<PathBuf>,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines {
            1 => write!(f, "1 line of the logs is no record")?,
            lines => write!(f, "{lines} lines of the logs are no records")?,
        }
        write!(f, ", so nobody can say that no process is left")
    }
}

impl Cause for Damaged {
    fn class(&self) -> Class {
        Class::Audit
    }

    fn hint(&self) -> Option<String> {
        let logs: Vec<String> = self.logs.iter().map(|path| show(path)).collect();
        Some(format!("vouchsafe audit verify {}   # says which", logs.join(" ")))
    }
}
