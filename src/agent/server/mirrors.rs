//! What the agent hears of its mirrors: counted for whoever watches, and said in its own log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::log::{Level, log};
use crate::audit::mirror::{MirrorNews, Watch};

/// How many records are missing in mirrors. Counted in the thread of the writer, read in that of the loop.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses(Arc<AtomicU64>);

impl Losses {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Watch for Losses {
    fn lost(&mut self, records: u64) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }

    fn news(&mut self, news: MirrorNews) {
        match news {
            MirrorNews::Fails { mirror, why } => {
                let message = format!("audit records are not mirrored to {mirror}: {why}");
                log(Level::Warning, "mirror.fails", json!({ "message": message }));
            }
            MirrorNews::Works { mirror, lost } => {
                let message = format!("audit records are mirrored to {mirror} again");
                log(Level::Info, "mirror.works", json!({ "message": message, "lost": lost }));
            }
        }
    }
}
