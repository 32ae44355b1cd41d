//! Rotation of parameters, driven by the library's own joint: what the story of `rotate` asks of the store.

use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

use vouchsafe::name::{ItemName, StoreName};
use vouchsafe::policy::model::{AwsAccess, HostNetwork, SsmStore, Stage};
use vouchsafe::secret::Secret;
use vouchsafe::store::aws::{Access, Notes};
use vouchsafe::store::ssm::Parameters;
use vouchsafe::store::stages::{Holder, Staged, StagedItem, Stages};
use vouchsafe::store::{Answer, Author, Store, StoreError, Wanted};

use super::fake::credentials::{STATIC_ID, STATIC_SECRET};
use super::fake::{Fake, REGION, ssm};

pub const ITEM: &str = "/test/api/A";
pub const APART: &str = "/test/api/A.pending";
pub const LOCK: &str = "/test/api/.vouchsafe/rotation";

/// One store, as each process would open it for itself.
pub struct Rotator {
    name: StoreName,
    store: SsmStore,
    network: HostNetwork,
    notes: Notes,
    pub seconds: u64,
}

fn static_keys(name: &str) -> Option<OsString> {
    match name {
        "AWS_ACCESS_KEY_ID" => Some(STATIC_ID.into()),
        "AWS_SECRET_ACCESS_KEY" => Some(STATIC_SECRET.into()),
        _ => None,
    }
}

impl Rotator {
    pub fn new(fake: &Fake) -> Self {
        Self::at(&fake.endpoint())
    }

    pub fn at(endpoint: &str) -> Self {
        let aws = AwsAccess { region: Some(REGION.into()), endpoint: Some(endpoint.into()), ..AwsAccess::default() };
        Self {
            name: StoreName::new("params").unwrap(),
            store: SsmStore { aws, prefix: "/test/api/".into(), key: None },
            network: HostNetwork::default(),
            notes: Notes::default(),
            seconds: 20,
        }
    }

    /// In the account that the policy pins.
    pub fn pinned(mut self, account: &str) -> Self {
        self.store.aws.account = Some(account.into());
        self
    }

    pub fn open(&self) -> Parameters<'_> {
        let (policy, network, notes) = (&self.store.aws, &self.network, &self.notes);
        let access = Access { policy, network, env: &static_keys, notes, fallback_region: None };
        Parameters::new(&self.name, &self.store, access)
    }

    pub fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.seconds)
    }

    pub fn request_ids(&self) -> usize {
        self.notes.take_request_ids().len()
    }

    /// What a reader of the stage `current` gets.
    pub fn current(&self) -> Option<String> {
        self.reads(Some(Stage::Current))
    }

    /// What a reader that knows no stages gets.
    pub fn newest(&self) -> Option<String> {
        self.reads(None)
    }

    fn reads(&self, stage: Option<Stage>) -> Option<String> {
        let wanted = Wanted::Item { item: ItemName::new(ITEM).unwrap(), version: None, stage, plain: false };
        match done(self.open().fetch(&[wanted], self.deadline())).pop() {
            Some(Answer::Found(found)) => Some(text(&found.value)),
            _ => None,
        }
    }

    /// A whole rotation, and the right given back whatever happens, as the story does. Answers the current version.
    pub fn rotate(&self, item: &StagedItem, value: &str) -> Result<u64, StoreError> {
        let mut store = self.open();
        store.hold(&holder("a"), self.deadline())?;
        let rotated = self.rotate_in(&mut store, item, value);
        store.let_go(self.deadline())?;
        rotated
    }

    /// The same, where the right is there already.
    pub fn rotate_in(&self, store: &mut Parameters<'_>, item: &StagedItem, value: &str) -> Result<u64, StoreError> {
        let before = store.staged(item, self.deadline())?;
        if before.is_unmarked {
            store.adopt(item, self.deadline())?;
        }
        let number = match before.pending {
            Some(pending) => pending.number,
            None => store.stage_pending(item, &secret(value), &author(), self.deadline())?,
        };
        let pending = store.read(item, Stage::Pending, self.deadline())?.expect("there is a pending version");
        assert_eq!(pending.version, Some(number));
        store.promote(item, number, &author(), self.deadline())
    }

    /// With the right to rotate.
    pub fn holding<T>(&self, work: impl FnOnce(&mut Parameters<'_>) -> T) -> T {
        let mut store = self.open();
        done(store.hold(&holder("a"), self.deadline()));
        let result = work(&mut store);
        done(store.let_go(self.deadline()));
        result
    }

    pub fn staged(&self, item: &StagedItem) -> Result<Staged, StoreError> {
        self.open().staged(item, self.deadline())
    }

    /// `current pending previous`, by number.
    pub fn told(&self, item: &StagedItem) -> String {
        let staged = done(self.staged(item));
        let number =
            |note: Option<vouchsafe::store::VersionNote>| note.map_or_else(|| "-".into(), |it| it.number.to_string());
        [staged.current, staged.pending, staged.previous].map(number).join(" ")
    }
}

/// What must have gone well. The error is shown as a user sees it.
pub fn done<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

pub fn by_label() -> StagedItem {
    StagedItem { item: ItemName::new(ITEM).unwrap(), pending_separate: false }
}

pub fn apart() -> StagedItem {
    StagedItem { item: ItemName::new(ITEM).unwrap(), pending_separate: true }
}

pub fn holder(name: &str) -> Holder {
    Holder { owner: format!("{name}@host pid 7"), since: SystemTime::now() }
}

pub fn author() -> Author {
    Author { name: "a".into(), time: SystemTime::now() }
}

pub fn secret(value: &str) -> Secret {
    Secret::new(value.as_bytes().to_vec())
}

pub fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

/// The versions of a parameter: `number value labels`, the labels without what they all begin with.
pub fn versions(fake: &Fake, name: &str) -> Vec<String> {
    let world = fake.world();
    let Some(parameter) = world.ssm.parameters.get(name) else { return Vec::new() };
    let one = |version: &ssm::Version| {
        let labels: Vec<_> = version.labels.iter().map(|label| label.trim_start_matches("vouchsafe-")).collect();
        format!("{} {} {}", version.number, version.value, labels.join("+")).trim_end().to_owned()
    };
    parameter.versions.iter().map(one).collect()
}

/// The claims on the right to rotate are as old as if their process had died long ago.
pub fn let_time_pass(fake: &Fake) {
    let mut world = fake.world();
    if let Some(lock) = world.ssm.parameters.get_mut(LOCK) {
        for version in &mut lock.versions {
            version.written -= Duration::from_secs(21 * 60);
        }
    }
}
