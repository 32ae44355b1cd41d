//! What lies between records, before the first and after the last: torn writes, lines of others, and what somebody did.

use ring::digest::{Context, SHA256};

use super::finding::FindingKind;
use super::line::{Junk, Line};
use super::{Kind, MARK, Verifier, find};
use crate::audit::chain::Tail;
use crate::audit::event::Event;

impl Verifier<'_> {
    /// What came before this record is accounted for by it, or is a finding.
    pub(super) fn settle(&mut self, junk: &mut Option<Junk>, line: &Line<'_>, kind: Kind) {
        let note = line.quarantined.as_ref().filter(|_| line.event == Event::Quarantined.word());
        match (junk.take(), note) {
            (Some(junk), Some(note)) if junk.is(note) => self.report.quarantined += 1,
            (Some(junk), note) => {
                self.unaccounted(&junk, kind);
                if note.is_some() {
                    self.find(FindingKind::QuarantineGone);
                }
            }
            (None, Some(_)) => self.find(FindingKind::QuarantineGone),
            (None, None) => {}
        }
    }

    fn unaccounted(&mut self, junk: &Junk, kind: Kind) {
        let here = std::mem::replace(&mut self.line, junk.line);
        match junk.altered {
            Some(tail) => {
                self.find(FindingKind::Altered);
                self.chains.go_on_from(tail.chain);
            }
            None if kind == Kind::Chained || junk.ours => self.find(FindingKind::NotARecord),
            None => self.report.foreign_lines += 1,
        }
        self.line = here;
    }

    /// A line that is no record.
    pub(super) fn other(&mut self, bytes: &[u8], newline: bool, kind: Kind, junk: &mut Option<Junk>) {
        if kind != Kind::Collected {
            let new = || Junk {
                line: self.line,
                hash: Context::new(&SHA256),
                length: 0,
                newline: false,
                altered: None,
                ours: false,
                whole_but_newline: false,
            };
            return junk.get_or_insert_with(new).add(bytes, newline);
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

    pub(super) fn end_of_log(&mut self, kind: Kind, junk: Option<Junk>) {
        match junk {
            Some(junk) if !junk.newline && (kind == Kind::Chained || junk.whole_but_newline) => {
                self.line = junk.line;
                self.find(FindingKind::Torn { bytes: junk.length });
            }
            Some(junk) => self.unaccounted(&junk, kind),
            None => {}
        }
    }
}
