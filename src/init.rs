//! `vouchsafe init`: a first policy, identity and sealed file that work at once, with the modes that the checks want.
//!
//! Nothing that exists is written over: a second `init` says what is there. The identity is written first, then the policy,
//! then the store that it names; `set` makes the store too, so a stop in between loses nothing.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;

use crate::checked_file::plain_io;
use crate::cli;
use crate::error::{Cause, Class, Error};
use crate::inject::ParentEnv;
use crate::name::show;
use crate::policy::file::HOST_FILE;
use crate::policy::locate::HOST_FOLDER;
use crate::setting::{Setting, is_root};
use crate::{caller, output};

/// Writes everything, then loads the policy as `run` would.
///
/// # Errors
/// Something is there already, or cannot be written.
pub fn init(options: &cli::Init, parent: &ParentEnv) -> Result<(), Error> {
    let layout = Layout::new(options, parent)?;
    layout.refuse_existing()?;
    let identity = age::x25519::Identity::generate();
    for folder in layout.folders() {
        make_folder(folder)?;
    }
    let key = identity.to_string();
    let recipient = identity.to_public().to_string();
    let text = format!("# vouchsafe identity of the environment {}\n# public key: {recipient}\n", options.env);
    write_new(&layout.identity, &[text.as_bytes(), key.expose_secret().as_bytes(), b"\n"], 0o600)?;
    let user = caller::of_this_process(false);
    let user = user.user.unwrap_or_else(|| user.uid.to_string());
    write_new(&layout.policy, &[layout.policy_text(options, &recipient, &user).as_bytes()], 0o644)?;

    let setting = Setting::of_file(&layout.policy, Some(&options.env), "--env", parent)?;
    for name in setting.policy.stores.keys() {
        setting.open_age_file(name)?.create(options.service.as_ref())?;
    }
    output::print(&layout.what_next(options))
}

/// Where everything goes.
struct Layout {
    policy: PathBuf,
    sealed: PathBuf,
    identity: PathBuf,
    log: PathBuf,
}

impl Layout {
    fn new(options: &cli::Init, parent: &ParentEnv) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| InitError::Io(path, plain_io(&error))
        };
        let folder = std::fs::canonicalize(&options.folder).map_err(io(&options.folder))?;
        let own = parent.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        // A place of the user's own is needed only for what the options do not place.
        let place = |option: &Option<PathBuf>, of_root: &str, below_home: &str, name: &str| match (option, &own) {
            (Some(path), _) => std::path::absolute(path).map_err(io(path)),
            (None, _) if is_root() => Ok(Path::new(of_root).join(name)),
            (None, Some(home)) => Ok(home.join(below_home).join(name)),
            (None, None) => Err(InitError::NoHome),
        };
        let base = match &options.service {
            Some(service) => format!("{}/{service}", options.env),
            None => options.env.to_string(),
        };
        let key = format!("{}.key", options.env);
        Ok(Self {
            policy: folder.join("policies").join(format!("{base}.toml")),
            sealed: folder.join("secrets").join(format!("{base}.age")),
            identity: place(&options.identity, "/etc/vouchsafe", ".config/vouchsafe", &key)?,
            log: place(&options.log, "/var/log/vouchsafe", ".local/state/vouchsafe", "{uid}.jsonl")?,
        })
    }

    fn refuse_existing(&self) -> Result<(), Error> {
        for path in [&self.policy, &self.sealed, &self.identity] {
            if std::fs::symlink_metadata(path).is_ok() {
                return Err(InitError::Exists { path: path.clone(), is_identity: *path == self.identity }.into());
            }
        }
        Ok(())
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        [&self.identity, &self.log, &self.sealed, &self.policy].into_iter().filter_map(|path| path.parent())
    }

    fn policy_text(&self, options: &cli::Init, recipient: &str, user: &str) -> String {
        // The policy lies one folder deeper for each of `policies/` and the environment.
        let (up, depth) = if options.service.is_some() { ("../..", 3) } else { ("..", 2) };
        let base = self.sealed.ancestors().nth(depth).and_then(|base| self.sealed.strip_prefix(base).ok());
        let sealed = base.map_or_else(|| self.sealed.clone(), |below| Path::new(up).join(below));
        let service = options.service.as_ref().map(|service| format!("service = \"{service}\"\n")).unwrap_or_default();
        let user = user.parse::<u32>().map_or_else(|_| format!("\"{user}\""), |uid| uid.to_string());
        format!(
            "# What one service gets in the environment {env}. Fields: policies/README.md of vouchsafe.\n\
             version = 1\n\
             environment = \"{env}\"\n\
             {service}store = \"files\"\n\
             \n\
             [stores.files]\n\
             type = \"age\"\n\
             path = {sealed}\n\
             recipients = [\"{recipient}\"]\n\
             identities = [{identity}]\n\
             \n\
             # NAME = {{}} binds the variable NAME to the item NAME of the store. Write its value with: vouchsafe set NAME\n\
             [secrets]\n\
             EXAMPLE_TOKEN = {{}}\n\
             \n\
             [[grants]]\n\
             secrets = [\"*\"]\n\
             to = {{ users = [{user}] }}\n\
             \n\
             [[audit.sinks]]\n\
             type = \"file\"\n\
             path = {log}\n",
            env = options.env,
            sealed = toml_string(&sealed.to_string_lossy()),
            identity = toml_string(&format!("file:{}", self.identity.to_string_lossy())),
            log = toml_string(&self.log.to_string_lossy()),
        )
    }

    fn what_next(&self, options: &cli::Init) -> String {
        let service = options.service.as_ref().map(|service| format!(" --service {service}")).unwrap_or_default();
        let select_by_name = format!("`--env {}{service}`", options.env);
        let search = if self.policy.starts_with(HOST_FOLDER) {
            format!("{select_by_name} finds the same policy\n")
        } else if is_root() {
            format!("root does not search the current folder: {select_by_name} alone does not find this policy\n")
        } else {
            format!("from the folder above `policies`, {select_by_name} finds the same policy\n")
        };
        let select = format!("--policy {}", shell_word(&show(&self.policy)));
        format!(
            "policy    {}\nstore     {}\nidentity  {}   (keep a copy in a safe place: without it the store does not open)\naudit     {}\n\n\
             next:\n  vouchsafe set EXAMPLE_TOKEN {select} --generate\n  vouchsafe run {select} -- printenv EXAMPLE_TOKEN\n{search}",
            show(&self.policy),
            show(&self.sealed),
            show(&self.identity),
            show(&self.log),
        )
    }
}

/// A basic string of TOML: what JSON escapes is escaped the same way there, but for the one control character that JSON
/// leaves as it is.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A word that a shell takes as it is.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:,@%".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// 0700: what lies in it is found by nobody else. A folder that is there stays as it is. The folder of the host file is the
/// exception: a wrapper that may not look whether there is one refuses, so root's identity would stop everybody else. The
/// identity has its own mode.
fn make_folder(path: &Path) -> Result<(), Error> {
    // The folder itself may be what is asked for, or one above it.
    let for_all = Path::new(HOST_FILE)
        .parent()
        .filter(|folder| path.starts_with(folder) && std::fs::symlink_metadata(folder).is_err());
    let make = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        // Not by `mode`: root's umask may take it away again.
        for_all.map_or(Ok(()), |folder| std::fs::set_permissions(folder, Permissions::from_mode(0o755)))
    };
    make().map_err(|error: io::Error| InitError::Io(path.to_owned(), plain_io(&error)).into())
}

fn write_new(path: &Path, pieces: &[&[u8]], mode: u32) -> Result<(), Error> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        file.sync_all()
    };
    write().map_err(|error| InitError::Io(path.to_owned(), plain_io(&error)).into())
}

/// Why nothing, or not everything, was written.
#[derive(Debug)]
enum InitError {
    Exists { path: PathBuf, is_identity: bool },
    Io(PathBuf, String),
    NoHome,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { path, .. } => write!(f, "`{}` exists; nothing was written", show(path)),
            Self::Io(path, why) => write!(f, "`{}`: {why}", show(path)),
            Self::NoHome => write!(f, "HOME is not set, so there is no place of your own for the identity and the log"),
        }
    }
}

impl Cause for InitError {
    fn class(&self) -> Class {
        Class::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { is_identity: true, .. } => Some("another place for the new one: --identity FILE".into()),
            Self::Exists { .. } => Some("another environment, service or folder: vouchsafe init --help".into()),
            Self::Io(..) => None,
            Self::NoHome => Some("vouchsafe init --identity FILE --log FILE".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_those_who_read_them() {
        assert_eq!(toml_string("a \"b\" \\c\u{7f}\n"), r#""a \"b\" \\c\u007f\n""#);
        assert_eq!(shell_word("/a/b-c_1.toml"), "/a/b-c_1.toml");
        assert_eq!(shell_word("/a b/it's"), "'/a b/it'\\''s'");
    }
}
