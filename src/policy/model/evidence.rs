//! What makes the records of a file hold against whoever takes the host later.

/// What makes the records of a file hold against whoever takes the host later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The age recipient to whom seeds go. Where there is one, no record is written that is not sealed.
    pub auditor: Option<String>,
}
