//! What a chain cannot say of itself: its seals, its clock, and whether it is the one that was attested elsewhere.

use std::time::Duration;

use super::line::Line;
use super::report::FindingKind;
use super::{Start, Verifier};
use crate::audit::chain::{StreamId, Tail};
use crate::audit::event::Event;

/// How much earlier than the one before a record may say that it was written.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

impl Verifier<'_> {
    /// Looks at one record, of a log that is one chain or of a collected stream. `is_new`: it is no repetition.
    pub(super) fn check_beyond(&mut self, bytes: &[u8], tail: &Tail, line: &Line<'_>, is_chained: bool, is_new: bool) {
        // A sealed chain is one whatever its records call themselves.
        let is_sealed = self.means.seals.as_ref().is_some_and(|seals| seals.is_for(tail.chain.stream));
        if (is_chained || is_sealed) && is_new {
            self.check_seal(bytes, tail, line);
        }
        if is_chained && is_new {
            self.check_time(line.time.as_deref().unwrap_or_default());
        }
        let Some(anchors) = &mut self.means.anchors else { return };
        if is_chained {
            self.first.entry(tail.chain.stream).or_insert(tail.chain.seq);
        }
        if let Some(kind) = anchors.check(tail.chain) {
            self.find(kind);
        }
    }

    /// One that was repeated or moved has been told of, and its key is gone.
    fn check_seal(&mut self, bytes: &[u8], tail: &Tail, line: &Line<'_>) {
        let Some(seals) = &mut self.means.seals else {
            self.report.unproven += u64::from(tail.seal.is_some());
            return;
        };
        let begun = line.epoch.as_ref().filter(|_| line.event == Event::SealingBegun.word());
        let seen = seals.check(bytes, tail, begun.map(|epoch| epoch.id.as_ref()));
        self.report.sealed += u64::from(seen.is_proven);
        self.report.unproven += u64::from(!seen.is_proven);
        // By a key of the epoch that it ends.
        if let Some(next) = line.epoch.as_ref().filter(|_| seen.is_proven && line.event == Event::SealingEnded.word()) {
            seals.expect(tail.chain, &next.id);
        }
        if let Some(kind) = seen.finding {
            self.find(kind);
        }
    }

    /// Order is by number, so a clock that was set back moves nothing; but what it says then is not when it was. Writers take the
    /// time before they wait for the lock, so a little is nothing.
    fn check_time(&mut self, time: &str) {
        // All are of one width, so the text has the order of the times.
        if time >= self.latest.as_str() {
            self.latest.clear();
            self.latest.push_str(time);
            return;
        }
        let (Ok(before), Ok(now)) = (humantime::parse_rfc3339(&self.latest), humantime::parse_rfc3339(time)) else {
            return;
        };
        let Ok(back) = before.duration_since(now) else { return };
        if back <= CLOCK_TOLERANCE {
            return;
        }
        self.report.clock_steps += 1;
        if self.means.anchors.is_some() {
            self.find(FindingKind::ClockBack { seconds: back.as_secs() });
        }
        // One step is one finding.
        self.latest.clear();
        self.latest.push_str(time);
    }

    pub(super) fn end_of_anchors(&mut self) {
        let Some(anchors) = &mut self.means.anchors else { return };
        self.report.checkpoints = anchors.total;
        let mut found = anchors.take_findings();
        let standing = |stream: StreamId| {
            let last = self.chains.get(stream)?.seq;
            let first = if self.start == Start::Anywhere { self.first.get(&stream).copied() } else { None };
            Some((first.unwrap_or(0), last))
        };
        found.append(&mut anchors.missing(standing));
        self.line = 0;
        found.into_iter().for_each(|kind| self.find(kind));
    }
}
