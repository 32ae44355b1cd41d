//! What the agent says of itself: one JSON object on a line of standard error for each event. Names and numbers, never values.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::output;

/// How much somebody ought to care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Somebody has to do something.
    Error,
    /// As it should be.
    Info,
    /// It goes on, and not as it should.
    Warning,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Info => "info",
            Self::Warning => "warning",
        }
    }
}

/// Writes one line. `more` is an object.
pub(crate) fn log(level: Level, event: &str, more: Value) {
    let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let mut line: Map<String, Value> = Map::new();
    line.insert("schema".into(), json!("vouchsafe.log/1"));
    line.insert("time".into(), json!(time));
    line.insert("level".into(), json!(level.word()));
    line.insert("event".into(), json!(event));
    if let Value::Object(more) = more {
        line.extend(more);
    }
    // Standard error may be closed or full; there is nobody else to tell.
    output::complain(&(Value::Object(line).to_string() + "\n")).unwrap_or_default();
}
