//! The shared configuration files, `~/.aws/config` and `~/.aws/credentials`: checked before the SDK reads them.

use std::path::{Component, Path, PathBuf};

use aws_config::profile::ProfileSet;
use aws_types::os_shim_internal::{Env, Fs};

use super::error::Problem;
use crate::checked_file::{self, FileErrorKind, Use};
use crate::store::identity::Environment;

/// The region of the environment, else of the profile. The metadata service is not asked: where it does not answer that
/// takes two seconds.
///
/// # Errors
/// Someone else could have written the shared configuration.
pub async fn region(env: Environment<'_>, profile: Option<&str>) -> Result<Option<String>, Problem> {
    let of_environment = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().filter_map(env);
    let text = of_environment.filter_map(|value| value.into_string().ok()).find(|value| !value.is_empty());
    if text.is_some() && profile.is_none() {
        return Ok(text);
    }
    check(env)?;
    let set = read(env, profile).await;
    let of_profile = set.as_ref().and_then(|set| set.get_profile(set.selected_profile())?.get("region"));
    let usable = |region: &str| {
        !region.is_empty() && region.len() <= 64 && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    Ok(of_profile.map(ToOwned::to_owned).or(text).filter(|region| usable(region)))
}

/// Refuses a shared configuration file that someone else could have written: it says who we are. Who may read it is its
/// owner's business. What cannot be opened holds nothing, for the SDK as well.
pub(super) fn check(env: Environment<'_>) -> Result<(), Problem> {
    let text = |name: &str| env(name).and_then(|value| value.into_string().ok());
    let files = [("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")];
    for (name, usual) in files {
        let path = expanded(&text(name).unwrap_or_else(|| usual.into()), text("HOME"));
        // The way to say that there is none.
        if path == Path::new("/dev/null") {
            continue;
        }
        match checked_file::open(&path, Use::Public) {
            Ok(_) => {}
            Err(error) if matches!(error.kind, FileErrorKind::Io(_)) => {}
            Err(error) => return Err(Problem::UnsafeFile { why: error.to_string(), hint: error.hint() }),
        }
    }
    Ok(())
}

/// As the SDK does it: a first `~` is the home folder, if there is one.
fn expanded(path: &str, home: Option<String>) -> PathBuf {
    let mut names = Path::new(path).components();
    match (names.next(), home) {
        (Some(Component::Normal(first)), Some(home)) if first == "~" => Path::new(&home).join(names.as_path()),
        _ => PathBuf::from(path),
    }
}

/// The shared configuration files, as the wrapper's environment names them.
pub(super) async fn read(env: Environment<'_>, profile: Option<&str>) -> Option<ProfileSet> {
    let names = ["HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE"];
    let set: Vec<(&str, String)> =
        names.into_iter().filter_map(|name| Some((name, env(name)?.into_string().ok()?))).collect();
    let set: Vec<(&str, &str)> = set.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let profile = profile.map(|name| name.to_owned().into());
    #[allow(deprecated, reason = "the type that `load` takes lives in a deprecated module of the SDK")]
    let files = aws_config::profile::profile_file::ProfileFiles::default();
    aws_config::profile::load(&Fs::real(), &Env::from_slice(&set), &files, profile).await.ok()
}
