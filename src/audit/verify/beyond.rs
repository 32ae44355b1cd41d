//! What a chain cannot say of itself: its seals, its clock, and whether it is the one that was attested elsewhere.

use std::time::Duration;

use super::finding::FindingKind;
use super::{Start, Verifier};
use crate::audit::chain::{StreamId, Tail};
use crate::audit::event::Event;
use crate::audit::read::record::Record;

/// How much earlier than the one before a record may say that it was written.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

impl Verifier<'_> {
    /// Looks at one record, of a log that is one chain or of a collected stream. `is_new`: it is no repetition.
    pub(super) fn check_beyond(
        &mut self,
        bytes: &[u8],
        tail: &Tail,
        line: &Record<'_>,
        is_chained: bool,
        is_new: bool,
    ) {
        // Whatever a record calls itself: where seals are asked for, a chain that has none is a finding.
        if is_new {
            self.check_seal(bytes, tail, line);
        }
        if is_chained && is_new {
            self.check_time(&line.time);
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
    fn check_seal(&mut self, bytes: &[u8], tail: &Tail, line: &Record<'_>) {
        let Some(seals) = &mut self.means.seals else {
            self.report.unproven += u64::from(tail.seal.is_some());
            return;
        };
        let begun = line.epoch.as_ref().filter(|_| line.is(Event::SealingBegun));
        let seen = seals.check(bytes, tail, begun.map(|epoch| epoch.id.as_ref()));
        self.report.sealed += u64::from(seen.is_proven);
        self.report.unproven += u64::from(!seen.is_proven);
        // By a key of the epoch that it ends.
        if let Some(next) = line.epoch.as_ref().filter(|_| seen.is_proven && line.is(Event::SealingEnded)) {
            seals.expect(tail.chain, &next.id);
        }
        seen.findings.into_iter().for_each(|kind| self.find(kind));
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

    pub(super) fn end_of_seals(&mut self) {
        let Some(seals) = &self.means.seals else { return };
        let found = seals.missing(self.start == Start::Anywhere);
        found.into_iter().for_each(|kind| self.find(kind));
    }

    pub(super) fn end_of_anchors(&mut self) {
        let Some(anchors) = &mut self.means.anchors else { return };
        self.report.checkpoints = anchors.total;
        self.report.unverified_checkpoints = anchors.unverified;
        self.report.other_notes = anchors.others;
        if let Some(reached) = anchors.reached {
            let last = self.chains.get(reached.stream).map_or(reached.seq, |chain| chain.seq);
            self.report.anchored = Some(reached.seq);
            self.report.beyond_anchor = Some(last.saturating_sub(reached.seq));
        }
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
