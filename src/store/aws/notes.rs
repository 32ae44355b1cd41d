//! What a command notes of its calls to AWS.

use std::cell::{Cell, RefCell};

/// Request ids that a record lists.
const MAX_REQUEST_IDS: usize = 200;

/// What a command notes of its calls to AWS, for the audit and for the child's environment.
#[derive(Debug, Default)]
pub struct Notes {
    pub(super) static_keys: Cell<bool>,
    request_ids: RefCell<Vec<String>>,
}

impl Notes {
    /// Whether static keys from the environment were used.
    #[must_use]
    pub fn used_static_keys(&self) -> bool {
        self.static_keys.get()
    }

    /// The ids since the last time, by which the calls are found in CloudTrail.
    #[must_use]
    pub fn take_request_ids(&self) -> Vec<String> {
        self.request_ids.take()
    }

    pub(super) fn request(&self, id: Option<&str>) {
        let mut ids = self.request_ids.borrow_mut();
        let is_id = |id: &&str| id.len() <= 128 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if let Some(id) = id.filter(is_id)
            && ids.len() < MAX_REQUEST_IDS
        {
            ids.push(id.to_owned());
        }
    }
}
