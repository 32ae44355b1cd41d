//! What lies between records, before the first and after the last: torn writes, lines of others, and what somebody did.

use super::finding::{Finding, FindingKind};
use super::line::Junk;
use super::{Kind, MARK, Verifier, find};
use crate::audit::chain::Tail;
use crate::audit::event::Event;
use crate::audit::read::record::Record;

impl Verifier<'_> {
    /// The first record has told what the logs are; [`Kind::Unknown`] if there is none. Logs without one that came before are then
    /// a collector's, or nobody's.
    pub(super) fn decide(&mut self, kind: Kind) {
        self.kind = if kind == Kind::Unknown { self.kind } else { kind };
        for finding in std::mem::take(&mut self.undecided) {
            if self.kind == Kind::Collected {
                self.report.foreign_lines += 1;
            } else {
                self.report.add(&finding.path, finding.line, finding.kind);
            }
        }
    }

    /// What came before this record is accounted for by it, or is a finding.
    pub(super) fn settle(&mut self, junk: &mut Option<Junk>, line: &Record<'_>) {
        let may_hold = line.is(Event::Quarantined) || line.is(Event::SealingBegun);
        let note = line.quarantined.as_ref().filter(|_| may_hold);
        match (junk.take(), note) {
            (Some(junk), Some(note)) if junk.is(note) => {
                self.report.quarantined += 1;
                // No writer is killed so that its line has a beginning and an end.
                if junk.is_altered {
                    self.find_at(junk.line, FindingKind::Altered);
                }
            }
            (Some(junk), note) => {
                self.unaccounted(&junk);
                if note.is_some() {
                    self.find(FindingKind::QuarantineGone);
                }
            }
            (None, Some(_)) => self.find(FindingKind::QuarantineGone),
            (None, None) => {}
        }
    }

    fn unaccounted(&mut self, junk: &Junk) {
        match junk.altered {
            Some(tail) => {
                self.find_at(junk.line, FindingKind::Altered);
                self.chains.go_on_from(tail.chain);
            }
            None if self.kind == Kind::Chained || junk.ours => self.find_at(junk.line, FindingKind::NotARecord),
            None => self.report.foreign_lines += 1,
        }
    }

    /// A line that is no record.
    pub(super) fn other(&mut self, bytes: &[u8], newline: bool, junk: &mut Option<Junk>) {
        if self.kind != Kind::Collected {
            return junk.get_or_insert_with(|| Junk::new(self.line)).add(bytes, newline);
        }
        if let Some(tail) = Tail::read(bytes) {
            self.find(FindingKind::Altered);
            self.chains.go_on_from(tail.chain);
        } else if find(bytes, MARK).is_some() {
            self.find(FindingKind::NotARecord);
        } else {
            self.report.foreign_lines += 1;
        }
    }

    pub(super) fn end_of_log(&mut self, junk: Option<Junk>) {
        let Some(junk) = junk else { return };
        let is_torn = !junk.newline && junk.altered.is_none() && (self.kind == Kind::Chained || junk.is_begun);
        let kind = if is_torn { FindingKind::Torn { bytes: junk.length } } else { FindingKind::NotARecord };
        if self.kind == Kind::Unknown && junk.altered.is_none() && !junk.ours {
            self.undecided.push(Finding { path: self.path.to_owned(), line: junk.line, kind });
        } else if is_torn {
            self.find_at(junk.line, kind);
        } else {
            self.unaccounted(&junk);
        }
    }

    fn find_at(&mut self, line: u64, kind: FindingKind) {
        self.report.add(self.path, line, kind);
    }
}
