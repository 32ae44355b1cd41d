//! The password of PostgreSQL roles.
//!
//! - [`value`]: what a value is, and the same with another password; [`url`], [`json`], [`place`]: its parts;
//! - [`connect`]: a session; [`tls`], [`witness`]: whether it is with the right server, and proves anything;
//! - [`server`]: what is held and done there, in the statements of [`roles`]; [`cover`]: whether one role may do what the other
//!   may; [`error`]: what went wrong.
//!
//! What must stay true:
//! - Nothing is altered before the current credential has proven itself at the administrator's own server, as one of the
//!   policy's roles: whoever can write to the store cannot point a rotation elsewhere.
//! - Where roles alternate, the current one is never altered, and the other one is altered only if it may do all that the
//!   current one may.
//! - No password is in a statement. An answer that was lost is looked for before anything is said or done again.

pub mod connect;
pub mod cover;
pub mod error;
pub mod json;
pub mod place;
pub mod roles;
pub mod server;
pub mod tls;
pub mod url;
pub mod value;
pub mod witness;

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use self::error::{Failure, Login};
use self::place::Place;
use self::server::Server;
use self::value::Credential;
use crate::name::escape;
use crate::policy::model::{HostNetwork, Postgres, Roles};
use crate::rotate::target::{Target, TargetError};
use crate::secret::Secret;

/// The roles of one binding at one server.
pub struct PostgresTarget<'a> {
    server: Server<'a>,
    deadline: Instant,
    runtime: Option<Runtime>,
    remarks: Vec<String>,
}

/// For the goodbye at the end.
const GOODBYE: Duration = Duration::from_secs(1);

impl<'a> PostgresTarget<'a> {
    /// `admin` is the administrator's connection URL. Until [`Target::set_deadline`] says another time, steps have until `deadline`.
    ///
    /// # Errors
    /// The administrator's URL is none, or its connection would not be safe.
    pub fn new(
        policy: &'a Postgres,
        admin: Secret,
        network: &HostNetwork,
        deadline: Instant,
    ) -> Result<Self, TargetError> {
        let server = Server::new(policy, admin, network)?;
        Ok(Self { server, deadline, runtime: None, remarks: Vec::new() })
    }

    /// Does `work` on the event loop, until the deadline.
    fn run<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> Result<T, TargetError>) -> Result<T, TargetError> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|_| TargetError::new("the system gives no file descriptor for an event loop"))?,
        };
        let deadline = self.deadline.into();
        self.server.is_altering = false;
        let done = runtime.block_on(async { tokio::time::timeout_at(deadline, work(self)).await });
        self.runtime = Some(runtime);
        done.unwrap_or_else(|_| {
            let error = TargetError::new("the database gave no answer before the deadline");
            Err(TargetError { is_unsettled: self.server.is_altering, ..error })
        })
    }

    /// The role of a value: the one it names, else the only one there is. What a value says that the policy does not is
    /// not cited: it is a part of the value.
    fn role_of(&self, what: &str, credential: &Credential<'_>) -> Result<String, TargetError> {
        let is_known = |place: &Place| self.server.places().any(|known| known.is_same_as(place));
        if !credential.places.iter().all(is_known) {
            let known: Vec<String> = self.server.places().map(|place| format!("`{place}`")).collect();
            let (known, admin) = (known.join(", "), &self.policy().admin);
            let problem = format!("{what} is for another server than {known}, which `{admin}` administers");
            return Err(TargetError::new(problem));
        }
        match (&self.policy().roles, &credential.user) {
            (Roles::Single(role), None) => Ok(role.clone()),
            (Roles::Single(role), Some(user)) if user == role => Ok(role.clone()),
            (Roles::Alternating(a, b), Some(user)) if user == a || user == b => Ok(user.clone()),
            (_, Some(_)) => {
                let names: Vec<String> = self.server.names().iter().map(|name| format!("`{}`", escape(name))).collect();
                let names = names.join(" and ");
                Err(TargetError::new(format!("{what} is for another role than {names}, which the policy rotates")))
            }
            (Roles::Alternating(..), None) => Err(TargetError::new(format!(
                "{what} names no user, so that nobody can tell which of the two roles it is for"
            ))),
        }
    }

    async fn apply_now(&mut self, current: Option<&Known<'_>>, pending: &Known<'_>) -> Result<(), TargetError> {
        let role = &pending.role;
        let unproven = |failure: Failure| TargetError::new(format!("as the role `{}`: {failure}", escape(role)));
        if let Err(error) = self.server.hold().await {
            // A role that renews itself: the administrator's credential is the one that was just replaced.
            let is_done = !error.is_busy && self.server.accepts(role, &pending.credential).await.unwrap_or(false);
            return if is_done { Ok(()) } else { Err(error) };
        }
        if self.server.accepts(role, &pending.credential).await.map_err(unproven)? {
            return Ok(());
        }
        match current {
            Some(current) => self.prove(current).await?,
            None => self.remarks.push(format!(
                "there is no current value, so nothing could prove that the role `{}` is this secret's; the policy and the \
                 administrator's right had to do",
                escape(role)
            )),
        }
        self.server.require_fit(role, current.map(|current| current.role.as_str())).await?;
        self.server.alter(role, &pending.credential).await
    }

    /// The current credential proves itself.
    async fn prove(&mut self, current: &Known<'_>) -> Result<(), TargetError> {
        let session = self.server.log_in_with(&current.role, &current.credential).await.map_err(|failure| {
            let role = escape(&current.role);
            let error = TargetError::new(format!(
                "the current credential of `{role}` does not work, so nothing was changed: {failure}"
            ));
            match failure.login() {
                Login::Refused => error.hinting("store the one that works with `vouchsafe set`, then rotate again"),
                Login::Barred | Login::Failed => error,
            }
        })?;
        session.end().await;
        Ok(())
    }

    async fn verify_now(&mut self, value: &Known<'_>) -> Result<(), TargetError> {
        let role = escape(&value.role);
        let login = self.server.log_in_with(&value.role, &value.credential).await;
        let mut session = login.map_err(|failure| TargetError {
            is_refusal: matches!(failure.login(), Login::Refused),
            ..TargetError::new(format!("the login as `{role}` failed: {failure}"))
        })?;
        if let Some(check) = &self.policy().check {
            let checked = session.check(check).await;
            checked.map_err(|failure| {
                let error = TargetError::new(format!("as `{role}` the policy's `check` failed: {failure}"));
                let may_hint = matches!(&failure, Failure::Sql(state) if state == "42501");
                let quoted = roles::quoted(&value.role);
                if may_hint {
                    error.hinting(format!("GRANT ... TO {quoted};   # or to a group that it is a member of"))
                } else {
                    error
                }
            })?;
        }
        session.end().await;
        Ok(())
    }

    /// Only where `previous` still works: its role may have another password by now. Where the server does not judge it
    /// (`pg_hba.conf`, NOLOGIN), it may work from elsewhere, or again one day.
    async fn retire_now(&mut self, previous: &Known<'_>) -> Result<(), TargetError> {
        self.server.hold().await?;
        match self.server.log_in_with(&previous.role, &previous.credential).await {
            Ok(session) => session.end().await,
            Err(failure) if failure.login() == Login::Refused => return Ok(()),
            Err(failure) => {
                let error = TargetError::new(format!("as the role `{}`: {failure}", escape(&previous.role)));
                return Err(match failure.login() {
                    Login::Barred => {
                        let quoted = roles::quoted(&previous.role);
                        error.hinting(format!(
                            "ALTER ROLE {quoted} PASSWORD NULL;   # or let it log in from here, then again"
                        ))
                    }
                    Login::Refused | Login::Failed => error,
                });
            }
        }
        self.server.forget_password(&previous.role).await
    }

    fn policy(&self) -> &'a Postgres {
        self.server.policy
    }

    /// Understands a value, and finds its role.
    fn known<'v>(&self, what: &str, value: &'v Secret) -> Result<Known<'v>, TargetError> {
        let credential = Credential::parse(value).map_err(|why| malformed(what, why))?;
        if credential.password.is_none() {
            return Err(TargetError::new(format!("{what} has no password")));
        }
        let role = self.role_of(what, &credential)?;
        Ok(Known { role, credential })
    }
}

/// A value and its role.
struct Known<'v> {
    role: String,
    credential: Credential<'v>,
}

const CURRENT: &str = "the current value";
const PENDING: &str = "the pending value";
const PREVIOUS: &str = "the previous value";

fn malformed(what: &str, why: value::Malformed) -> TargetError {
    TargetError::new(format!("{what} is not usable for PostgreSQL: {why}"))
        .hinting("it is a password, a postgres:// URL, or a JSON object with `username` and `password`")
}

impl Target for PostgresTarget<'_> {
    fn compose(&mut self, current: Option<&Secret>, generated: Secret) -> Result<Secret, TargetError> {
        if generated.expose().is_empty() || generated.expose().contains(&0) {
            return Err(TargetError::new("the generated value is no password: it is empty or has a NUL"));
        }
        let Some(value) = current else {
            return match &self.policy().roles {
                Roles::Single(_) => Ok(generated),
                Roles::Alternating(..) => Err(TargetError::new(
                    "there is no current value, so nothing says how its readers learn the user",
                )
                .hinting("store the first one with `vouchsafe set`: a postgres:// URL, or a JSON object with `username` and `password`")),
            };
        };
        let credential = Credential::parse(value).map_err(|why| malformed(CURRENT, why))?;
        let role = self.role_of(CURRENT, &credential)?;
        let other = match &self.policy().roles {
            Roles::Alternating(a, b) => Some(if role == *a { b.as_str() } else { a.as_str() }),
            Roles::Single(_) => None,
        };
        credential.with(other, &generated).map_err(|why| malformed(CURRENT, why))
    }

    fn apply(&mut self, current: Option<&Secret>, pending: &Secret) -> Result<(), TargetError> {
        let pending = self.known(PENDING, pending)?;
        let current = current.map(|value| self.known(CURRENT, value)).transpose()?;
        let is_same = current.as_ref().is_some_and(|current| current.role == pending.role);
        if is_same && matches!(self.policy().roles, Roles::Alternating(..)) {
            let role = escape(&pending.role);
            return Err(TargetError::new(format!(
                "the pending value is for `{role}` as the current one is, which is never altered"
            )));
        }
        self.run(async |target| target.apply_now(current.as_ref(), &pending).await)
    }

    fn verify(&mut self, value: &Secret) -> Result<(), TargetError> {
        let value = self.known("the value", value)?;
        self.run(async |target| target.verify_now(&value).await)
    }

    fn retire(&mut self, previous: &Secret, current: &Secret) -> Result<(), TargetError> {
        if matches!(self.policy().roles, Roles::Single(_)) {
            return Ok(());
        }
        let (previous, current) = (self.known(PREVIOUS, previous)?, self.known(CURRENT, current)?);
        if previous.role == current.role {
            return Ok(());
        }
        self.run(async |target| target.retire_now(&previous).await)
    }

    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    fn remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }
}

impl Drop for PostgresTarget<'_> {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        runtime.block_on(async { drop(tokio::time::timeout(GOODBYE, self.server.end()).await) });
        runtime.shutdown_background();
    }
}
