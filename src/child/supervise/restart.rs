//! From one child to the next. The order is what matters:
//!
//! 1. a worker beside the child is granted, fetches and compares; one that fails changes nothing, the child goes on with the
//!    last good values;
//! 2. the release is written down, and that worker waits, ready;
//! 3. the restart is written down, and the old child's group gets TERM, and KILL when its grace is over;
//! 4. when nothing is left of that group, the worker becomes the new child.
//!
//! A child that fails soon after that is started again: with what the stores have then, or with what the one before it had
//! ([`Supervisor::before`]).
//!
//! Whoever asks us to end meanwhile (TERM, INT, QUIT, a real-time signal) calls the restart off: the old child ends, and so
//! do we.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use super::changes::{Chances, Decision, Look};
use super::spawned::Spawned;
use super::worker::{Forked, Task, Worker, spawn};
use super::{Supervisor, Why, complain_if, finish};
use crate::audit::End;
use crate::output;

/// After somebody asked the child to end, it is not started again: a stop takes its time, at most 120 s on ECS. A child that is
/// still there then has understood something else (a JVM prints its threads on QUIT).
const ASKED_TO_END: Duration = Duration::from_secs(130);

/// Before the child that goes back to what was before is started: what made the other one fail has a moment to end.
const BACK_AFTER: Duration = Duration::from_secs(1);

/// Where we are between one child and the next.
pub(super) enum Phase {
    /// The child runs.
    Running,
    /// A worker looks.
    Looking {
        worker: Spawned,
        /// It has told what it has, and heard what follows.
        judged: bool,
        until: Instant,
    },
    /// The child is to end for a worker that waits.
    Stopping {
        /// None if it was killed meanwhile: then another one is made.
        worker: Option<Spawned>,
        /// How the old child ended, once it has.
        ended: Option<End>,
        /// When it is killed; it has been if this is `None`.
        kill_at: Option<Instant>,
        called_off: bool,
    },
    /// The child could not live with a change, and is started again then.
    Pausing { until: Instant, ended: End, task: Task },
}

/// A number from 0 to 1. Without a random generator all look at once, which is no reason not to look.
pub(super) fn chance() -> f64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).unwrap_or_default();
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

impl Supervisor {
    /// Does what is due. Returns in a new worker.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Worker> {
        if self.settles_at().is_some_and(|at| now >= at) {
            self.before = None;
        }
        match &mut self.phase {
            Phase::Running => {
                if self.changes.is_some() {
                    self.child.listen();
                }
                self.tend(now);
                if self.look_at().is_some_and(|at| now >= at) {
                    return self.look(now);
                }
            }
            Phase::Looking { worker, judged, until } => {
                worker.listen();
                if now >= *until {
                    kill_process(worker.pid, Signal::KILL).unwrap_or_default();
                    *until = now + self.patience;
                } else if let (false, Some(digest)) = (*judged, worker.digest()) {
                    *judged = true;
                    let current = self.child.digest().unwrap_or(digest);
                    if current == digest {
                        // The agent may have another word for it by now.
                        self.child.rename(worker);
                    }
                    let is_unfit = self.unfit == Some(digest);
                    if !is_unfit {
                        self.unfit = None;
                    }
                    // What is not to be tried again is as good as no change.
                    let seen = Look::Seen(if is_unfit { current } else { digest });
                    let decision = self.changes.as_mut().map(|it| it.judge(seen, current, now));
                    match decision {
                        Some(Decision::Restart) => worker.changed(),
                        Some(Decision::LookAgain) => worker.look_again(),
                        Some(Decision::Keep) | None if is_unfit => worker.of_no_use(),
                        Some(Decision::Keep) | None => worker.nothing_new(),
                    }
                } else if worker.is_ready() {
                    self.stop_child(now);
                }
            }
            Phase::Stopping { kill_at, ended, .. } => {
                if kill_at.is_some_and(|at| now >= at) {
                    *kill_at = None;
                    let child_is_there = ended.is_none();
                    self.kill_child(Signal::KILL, child_is_there);
                }
                if self.is_old_group_gone() {
                    self.start_next(now);
                }
            }
            Phase::Pausing { until, .. } => {
                if now >= *until {
                    return self.start_again(now);
                }
            }
        }
        None
    }

    /// Whether a look makes sense: the child runs, and with what is known.
    pub(super) fn may_look(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.child.is_silent && self.child.digest().is_some()
    }

    fn tend(&mut self, now: Instant) {
        if !self.may_look() {
            return;
        }
        if let (Some(changes), Some(set)) = (&mut self.changes, self.child.set()) {
            changes.tend(set, now);
        }
    }

    fn tend_at(&self) -> Option<Instant> {
        self.changes.as_ref().filter(|_| self.may_look())?.tend_at()
    }

    fn look_at(&self) -> Option<Instant> {
        let due = self.changes.as_ref().filter(|_| self.may_look())?.due()?;
        Some(self.left_alone_until.map_or(due, |until| until.max(due)))
    }

    /// When something is to be done without anything having happened.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running => [self.look_at(), self.tend_at(), self.settles_at()].into_iter().flatten().min(),
            Phase::Looking { until, .. } => Some(self.settles_at().map_or(*until, |at| at.min(*until))),
            Phase::Pausing { until, .. } => Some(*until),
            // What is left of the group may have another parent than us; nobody tells us when it ends.
            Phase::Stopping { ended: Some(_), .. } => Some(Instant::now() + Duration::from_millis(20)),
            Phase::Stopping { kill_at, .. } => *kill_at,
        }
    }

    /// Who may say something next.
    pub(super) fn channel(&self) -> Option<&UnixStream> {
        let speaker = match &self.phase {
            Phase::Running => Some(&self.child).filter(|_| self.changes.is_some()),
            Phase::Looking { worker, .. } => Some(worker),
            Phase::Stopping { .. } | Phase::Pausing { .. } => None,
        };
        speaker.filter(|speaker| !speaker.is_silent).map(|speaker| &speaker.channel)
    }

    fn look(&mut self, now: Instant) -> Option<Worker> {
        let has = self.child.told()?;
        match self.fork(Task::Look(has)) {
            Some(Forked::Worker(worker)) => return Some(*worker),
            Some(Forked::Supervisor(worker)) => {
                self.phase = Phase::Looking { worker, judged: false, until: now + self.patience };
            }
            None => self.look_failed(now),
        }
        None
    }

    /// When what the child before had is of no use any more. While a child is about to end or to begin, it may be.
    fn settles_at(&self) -> Option<Instant> {
        let is_there = matches!(self.phase, Phase::Running | Phase::Looking { .. });
        self.chances.settles_at().filter(|_| is_there && self.before.is_some())
    }

    /// No process: as bad as a store that does not answer.
    fn fork(&self, task: Task) -> Option<Forked> {
        spawn(self.mask, &self.terminal, task, &self.key, self.keeps).ok()
    }

    fn look_failed(&mut self, now: Instant) {
        if let (Some(changes), Some(current)) = (&mut self.changes, self.child.digest()) {
            changes.judge(Look::Failed, current, now);
        }
    }

    /// Some other process below us has ended: the worker that looks, perhaps.
    pub(super) fn on_end_of_another(&mut self, pid: Pid) {
        match &mut self.phase {
            Phase::Looking { worker, judged, .. } if worker.pid == pid => {
                worker.listen();
                // It had not looked, or was to be the next child and could not: in both cases the store or the audit failed.
                let failed = !*judged || worker.is_to_go_on();
                self.phase = Phase::Running;
                if failed {
                    self.look_failed(Instant::now());
                }
            }
            Phase::Stopping { worker, .. } if worker.as_ref().is_some_and(|worker| worker.pid == pid) => *worker = None,
            _ => {}
        }
    }

    /// Everything is ready for the next child.
    fn stop_child(&mut self, now: Instant) {
        let Phase::Looking { worker, .. } = std::mem::replace(&mut self.phase, Phase::Running) else { return };
        let Some(access) = worker.access() else { return };
        let written = self.book.restarting(&access, Why::Changed);
        if written.is_err() {
            // No record, no restart; the worker ends when its channel does.
            complain_if(written);
            self.look_failed(now);
            return;
        }
        // While there is no child, the service manager is to watch us.
        self.manager.main_process_is(self.own);
        let kill_at = Some(now + self.grace);
        self.phase = Phase::Stopping { worker: Some(worker), ended: None, kill_at, called_off: false };
        self.kill_child(Signal::TERM, true);
        // One that is stopped could not hear it.
        self.kill_child(Signal::CONT, true);
    }

    fn kill_child(&self, signal: Signal, child_is_there: bool) {
        match self.terminal.group_of(self.child.pid) {
            Some(group) => kill_process_group(group, signal).unwrap_or_default(),
            None if child_is_there => kill_process(self.child.pid, signal).unwrap_or_default(),
            None => {}
        }
    }

    pub(super) fn is_child_gone(&self) -> bool {
        matches!(self.phase, Phase::Stopping { ended: Some(_), .. } | Phase::Pausing { .. })
    }

    /// envconsul #177: a new child beside a rest of the old one finds its port taken.
    fn is_old_group_gone(&self) -> bool {
        self.is_child_gone()
            && self.terminal.group_of(self.child.pid).is_none_or(|group| test_kill_process_group(group).is_err())
    }

    /// Somebody wants all of this to end.
    pub(super) fn call_off(&mut self) {
        match &mut self.phase {
            Phase::Stopping { ended: Some(ended), .. } | Phase::Pausing { ended, .. } => finish(*ended),
            Phase::Stopping { called_off, kill_at, .. } => {
                *called_off = true;
                // From here on it is not ours to say how long it may take.
                *kill_at = None;
            }
            Phase::Running | Phase::Looking { .. } => {
                // A worker that looks ends when its channel does.
                self.phase = Phase::Running;
                self.chances = Chances::default();
                self.before = None;
                self.left_alone_until = Some(Instant::now() + ASKED_TO_END);
            }
        }
    }

    /// The child has ended; whether there will be another.
    pub(super) fn is_followed_by_another(&mut self, end: End, was_executed: bool) -> bool {
        if let Phase::Stopping { ended, called_off, .. } = &mut self.phase {
            *ended = Some(end);
            return !*called_off;
        }
        let now = Instant::now();
        let failed = end != End::Status(0) && was_executed;
        let (task, why, pause) = if failed && self.before.is_some() && self.chances.is_settling(now) {
            (Task::Back, Why::Back, BACK_AFTER)
        } else {
            let Some(pause) = self.chances.next(!failed, now) else { return false };
            (Task::Again, self.chances.why(), pause)
        };
        let Some(access) = self.child.access() else { return false };
        let written = self.book.restarting(&access, why);
        let is_written = written.is_ok();
        complain_if(written);
        if is_written {
            if task == Task::Back {
                drop(output::complain(&format!("vouchsafe: the command failed: {}\n", why.text())));
                self.unfit = self.child.digest();
                self.child.kept = None;
            }
            self.manager.main_process_is(self.own);
            // A worker that looks ends when its channel does.
            self.phase = Phase::Pausing { until: now + pause, ended: end, task };
        }
        is_written
    }

    /// Nothing is left of the old child.
    fn start_next(&mut self, now: Instant) {
        let Phase::Stopping { worker, ended: Some(ended), .. } = std::mem::replace(&mut self.phase, Phase::Running)
        else {
            return;
        };
        // Else what this child had is not known to be fit to go back to: it was not there for long enough.
        if self.before.is_none() {
            self.before = self.child.kept.take();
        }
        self.chances.changed(now);
        if let Some(changes) = &mut self.changes {
            changes.restarted(now);
        }
        let Some(mut worker) = worker else {
            self.phase = Phase::Pausing { until: now, ended, task: Task::Again };
            return;
        };
        self.manager.main_process_is(worker.pid);
        self.terminal.hand_over(worker.pid);
        worker.start();
        self.child = worker;
    }

    /// Another chance.
    fn start_again(&mut self, now: Instant) -> Option<Worker> {
        let Phase::Pausing { ended, task, .. } = self.phase else { return None };
        let goes_back = task == Task::Back;
        if goes_back && !self.before.as_mut().is_some_and(|before| before.hand_on(true)) {
            finish(ended);
        }
        match self.fork(task) {
            Some(Forked::Worker(mut worker)) => {
                worker.before = self.before.take();
                return Some(*worker);
            }
            Some(Forked::Supervisor(mut child)) => {
                if goes_back {
                    // That one has proven that it can be lived with; there is nothing before it.
                    let before = self.before.take();
                    child.kept = before.and_then(|mut before| before.hand_on(false).then_some(before));
                    self.chances = Chances::default();
                } else {
                    self.chances.started(now);
                }
                self.manager.main_process_is(child.pid);
                self.terminal.hand_over(child.pid);
                self.child = child;
                self.phase = Phase::Running;
            }
            None => finish(ended),
        }
        None
    }
}
