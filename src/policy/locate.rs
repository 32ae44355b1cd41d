//! Where a policy is found, and whether what was found is the policy that was asked for.
//!
//! Pure: what exists is asked of a function that the caller hands in. Only a file that does not exist moves the search on;
//! one that is there but unsafe, unreadable or wrong is an error when it is read, since the next place would hold other rules.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::model::Policy;
use crate::error::{Cause, Class};
use crate::name::{EnvironmentName, ServiceName, show};

/// The folder of policies that a host has for all its users.
pub const HOST_FOLDER: &str = "/etc/vouchsafe";

/// What the search goes by.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `--policy`.
    pub policy: Option<PathBuf>,
    /// `VOUCHSAFE_POLICY`; empty counts as absent.
    pub policy_variable: Option<PathBuf>,
    /// `--env`, else `VOUCHSAFE_ENV`.
    pub environment: Option<EnvironmentName>,
    /// `--service`, else `VOUCHSAFE_SERVICE`.
    pub service: Option<ServiceName>,
    /// Root never searches the current folder: whoever can write there would choose root's policy.
    pub is_root: bool,
}

/// Why there is no policy to go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocateError {
    /// The policy speaks for another environment or service than was asked for.
    Mismatch {
        /// The policy.
        path: PathBuf,
        /// `environment` or `service`.
        what: &'static str,
        /// What the policy says.
        says: String,
        /// What was asked for.
        asked: String,
    },
    /// Nothing lies in any of these places.
    NotFound {
        /// Every place that was looked at.
        places: Vec<PathBuf>,
        /// Whether the current folder was left out because root asked.
        is_root: bool,
        /// The environment that was asked for.
        environment: EnvironmentName,
    },
    /// Neither a policy nor an environment was named.
    Unnamed,
}

impl fmt::Display for LocateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { path, what, says, asked } => {
                write!(f, "`{}` speaks for the {what} `{says}`, not for `{asked}`", show(path))
            }
            Self::NotFound { places, is_root, .. } => {
                let places: Vec<_> = places.iter().map(|place| format!("`{}`", show(place))).collect();
                write!(f, "no policy found; looked for {}", places.join(", "))?;
                if *is_root { f.write_str(" (root does not search the current folder)") } else { Ok(()) }
            }
            Self::Unnamed => f.write_str("neither an environment nor a policy is named"),
        }
    }
}

impl Cause for LocateError {
    fn class(&self) -> Class {
        match self {
            Self::Mismatch { .. } | Self::NotFound { .. } => Class::Policy,
            Self::Unnamed => Class::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Mismatch { what: "service", says, .. } => format!("--service {says}"),
            Self::Mismatch { says, .. } => format!("--env {says}"),
            Self::NotFound { environment, is_root: true, .. } => {
                format!("--policy policies/{environment}.toml   # or: vouchsafe init --env {environment}")
            }
            Self::NotFound { environment, .. } => {
                format!("vouchsafe init --env {environment}   # or name the policy: --policy FILE")
            }
            Self::Unnamed => "--env ENV, or --policy FILE".into(),
        })
    }
}

/// Says where the policy is. The file is not looked into.
///
/// # Errors
/// Nothing was named, or no place has a file.
pub fn locate(wanted: &Wanted, is_there: impl Fn(&Path) -> bool) -> Result<PathBuf, LocateError> {
    let variable = wanted.policy_variable.as_ref().filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = wanted.policy.as_ref().or(variable) {
        return Ok(path.clone());
    }
    let environment = wanted.environment.as_ref().ok_or(LocateError::Unnamed)?;
    let places = places(environment, wanted.service.as_ref(), wanted.is_root);
    match places.iter().find(|place| is_there(place)) {
        Some(place) => Ok(place.clone()),
        None => Err(LocateError::NotFound { places, is_root: wanted.is_root, environment: environment.clone() }),
    }
}

/// What [`locate`] asks in earnest. Whatever cannot be looked at counts as there, a link that leads nowhere too: opening it
/// says why.
#[must_use]
pub fn is_there(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// Refuses a policy that speaks for another environment or service than was asked for. What was not asked for, the policy
/// says.
///
/// # Errors
/// One of the two differs.
pub fn check_match(
    policy: &Policy,
    environment: Option<&EnvironmentName>,
    service: Option<&ServiceName>,
) -> Result<(), LocateError> {
    let differs = |what, says: &str, asked: &str| LocateError::Mismatch {
        path: policy.files.first().cloned().unwrap_or_default(),
        what,
        says: says.to_owned(),
        asked: asked.to_owned(),
    };
    if let Some(asked) = environment
        && *asked != policy.environment
    {
        return Err(differs("environment", policy.environment.as_str(), asked.as_str()));
    }
    match (&policy.service, service) {
        (Some(says), Some(asked)) if says != asked => Err(differs("service", says.as_str(), asked.as_str())),
        _ => Ok(()),
    }
}

fn places(environment: &EnvironmentName, service: Option<&ServiceName>, is_root: bool) -> Vec<PathBuf> {
    let here = (!is_root).then_some(Path::new(""));
    let roots = here.into_iter().chain([Path::new(HOST_FOLDER)]);
    roots
        .flat_map(|root| {
            let folder = root.join("policies");
            let own = service.map(|service| folder.join(environment.as_str()).join(format!("{service}.toml")));
            own.into_iter().chain([folder.join(format!("{environment}.toml"))])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(environment: Option<&str>, service: Option<&str>, is_root: bool) -> Wanted {
        Wanted {
            environment: environment.map(|name| EnvironmentName::new(name).unwrap()),
            service: service.map(|name| ServiceName::new(name).unwrap()),
            is_root,
            ..Wanted::default()
        }
    }

    const ALL: [&str; 4] = [
        "policies/prod/api.toml",
        "policies/prod.toml",
        "/etc/vouchsafe/policies/prod/api.toml",
        "/etc/vouchsafe/policies/prod.toml",
    ];

    #[test]
    fn places_are_searched_in_order() {
        for (index, expected) in ALL.iter().enumerate() {
            let there = &ALL[index..];
            let found =
                locate(&wanted(Some("prod"), Some("api"), false), |path| there.iter().any(|p| path == Path::new(p)));
            assert_eq!(found, Ok(PathBuf::from(expected)));
        }
    }

    #[test]
    fn without_a_service_only_the_environments_own_file_counts() {
        let found = locate(&wanted(Some("prod"), None, false), |_| true);
        assert_eq!(found, Ok("policies/prod.toml".into()));
    }

    #[test]
    fn root_does_not_search_the_current_folder() {
        let found = locate(&wanted(Some("prod"), Some("api"), true), |_| true);
        assert_eq!(found, Ok(ALL[2].into()));
        let asked = std::cell::RefCell::new(Vec::new());
        let none = locate(&wanted(Some("prod"), Some("api"), true), |path| {
            asked.borrow_mut().push(path.to_owned());
            false
        });
        assert!(asked.borrow().iter().all(|path| path.is_absolute()));
        assert!(none.unwrap_err().to_string().ends_with("(root does not search the current folder)"));
    }

    #[test]
    fn what_is_named_is_taken_and_not_searched_for() {
        let mut both = wanted(Some("prod"), None, true);
        both.policy_variable = Some("b.toml".into());
        assert_eq!(locate(&both, |_| panic!("searched")), Ok("b.toml".into()));
        both.policy = Some("a.toml".into());
        assert_eq!(locate(&both, |_| panic!("searched")), Ok("a.toml".into()));
        let mut empty = wanted(None, None, false);
        empty.policy_variable = Some(PathBuf::new());
        assert_eq!(locate(&empty, |_| true), Err(LocateError::Unnamed));
    }

    #[test]
    fn every_place_is_listed_where_none_has_a_file() {
        let error = locate(&wanted(Some("prod"), Some("api"), false), |_| false).unwrap_err();
        let expected = ALL.map(|place| format!("`{place}`")).join(", ");
        assert_eq!(error.to_string(), format!("no policy found; looked for {expected}"));
        assert_eq!(error.class(), Class::Policy);
    }

    #[test]
    fn only_absence_moves_on() {
        assert!(!is_there(Path::new("/no/such/place")));
        assert!(!is_there(Path::new("/dev/null/below-a-file")));
        assert!(is_there(Path::new("/dev/null")));
    }

    #[test]
    fn a_policy_for_another_environment_or_service_is_refused() {
        let text = "version = 1\nenvironment = \"prod\"\nservice = \"api\"\n";
        let policy = super::super::file::parse_text(text, Path::new("p.toml"), &Default::default()).unwrap();
        let environment = |name: &str| EnvironmentName::new(name).unwrap();
        let service = |name: &str| ServiceName::new(name).unwrap();
        assert_eq!(check_match(&policy, None, None), Ok(()));
        assert_eq!(check_match(&policy, Some(&environment("prod")), Some(&service("api"))), Ok(()));
        let error = check_match(&policy, Some(&environment("dev")), None).unwrap_err();
        assert_eq!(error.to_string(), "`p.toml` speaks for the environment `prod`, not for `dev`");
        assert!(check_match(&policy, None, Some(&service("web"))).is_err());
    }
}
