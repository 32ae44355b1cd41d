//! The server, from the administrator's side: the session with the locks, logins with values, the one change.

use std::path::Path;
use std::time::{Duration, Instant};

use super::connect::{Session, Way, Who, log_in};
use super::cover;
use super::error::{Failure, Login};
use super::place::Place;
use super::roles::{self, Role};
use super::value::Credential;
use super::{tls, url};
use crate::name::escape;
use crate::policy::model::{HostNetwork, Postgres, Roles};
use crate::rotate::target::TargetError;
use crate::secret::Secret;
use crate::store::aws::resolver::Names;

/// PostgreSQL 10, as `server_version_num` has it.
const OLDEST: u32 = 100_000;
/// Parameters of libpq that would change with whom is spoken, or how safely.
const UNSUPPORTED: [&str; 7] = ["hostaddr", "require_auth", "requirepeer", "service", "sslcert", "sslcrl", "sslkey"];
/// How long a server process that lost us may take to end.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The administrator's own server, and what is held there.
pub struct Server<'a> {
    /// The roles and their administrator.
    pub policy: &'a Postgres,
    admin: Secret,
    way: Way,
    held: Option<Held>,
    /// Where the administrator's last session was: the one place of several where a role is altered, and proven.
    place: Option<Place>,
    /// A statement is under way whose answer matters.
    pub is_altering: bool,
}

/// The administrator's session, with the locks.
struct Held {
    session: Session,
    roles: Vec<Role>,
}

impl<'a> Server<'a> {
    /// `admin` is the administrator's connection URL.
    ///
    /// # Errors
    /// The URL is none, or the connection would not be safe.
    pub fn new(policy: &'a Postgres, admin: Secret, network: &HostNetwork) -> Result<Self, TargetError> {
        let name = &policy.admin;
        let bad = |why: String| {
            TargetError::new(format!("the value of `{name}` is not usable: {why}"))
                .hinting("it is a URL: postgres://admin:password@host:5432/database?sslmode=verify-full")
        };
        let text = std::str::from_utf8(admin.expose()).map_err(|_| bad("it is not UTF-8".into()))?;
        let url = url::parse(text).map_err(|why| bad(why.to_string()))?;
        if url.user.is_none() || url.places.is_empty() {
            return Err(bad("it names no user or no host".into()));
        }
        // Passing over what asks for more safety would be less of it.
        if let Some(word) = UNSUPPORTED.iter().find(|word| url.parameter(word).is_some()) {
            return Err(bad(format!("its parameter `{word}` is not supported")));
        }
        let is_binding_required = url.parameter("channel_binding") == Some("require");
        let sslmode = url.parameter("sslmode");
        let with_security =
            |place: &Place| tls::security(&place.host, sslmode).map(|security| (place.clone(), security));
        let places = url.places.iter().map(with_security).collect::<Result<Vec<_>, _>>();
        let places = places.map_err(|why| bad(why.to_string()))?;
        let sslrootcert = url.parameter("sslrootcert");
        if sslrootcert.is_some_and(|path| path != "system" && !Path::new(path).is_absolute()) {
            return Err(bad("its `sslrootcert` is no absolute path".into()));
        }
        let way = Way { places, tls: tls::config(sslrootcert, network)?, is_binding_required, names: Names::default() };
        drop(url);
        Ok(Self { policy, admin, way, held: None, place: None, is_altering: false })
    }

    /// The places that the administrator's URL names.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.way.places.iter().map(|(place, _)| place)
    }

    /// The roles that may be rotated.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match &self.policy.roles {
            Roles::Alternating(a, b) => vec![a, b],
            Roles::Single(role) => vec![role],
        }
    }

    /// Opens the administrator's session with the locks of all roles, unless it is open.
    ///
    /// # Errors
    /// The administrator cannot log in, a role is missing, or somebody else has a lock.
    pub async fn hold(&mut self) -> Result<(), TargetError> {
        if self.held.is_some() {
            return Ok(());
        }
        let session = self.log_in_as_admin().await.map_err(|failure| self.of_admin(&failure))?;
        let roles = roles::find(&session, &self.names()).await.map_err(|failure| self.of_admin(&failure))?;
        if let Some(missing) = self.names().into_iter().find(|name| !roles.iter().any(|role| role.name == *name)) {
            return Err(missing_role(missing, &self.policy.roles));
        }
        match roles::lock(&session, &roles).await {
            Ok(None) => {}
            Ok(Some(holder)) => return Err(holder.error()),
            Err(failure) => return Err(self.of_admin(&failure)),
        }
        self.held = Some(Held { session, roles });
        Ok(())
    }

    fn held(&self) -> Result<&Held, TargetError> {
        self.held.as_ref().ok_or_else(|| TargetError::new("there is no session with the server"))
    }

    /// Refuses a role that could not log in, or would be less than the current one.
    ///
    /// # Errors
    /// What it lacks, or the server failed.
    pub async fn require_fit(&self, role: &str, current: Option<&str>) -> Result<(), TargetError> {
        let held = self.held()?;
        let of = |name: &str| held.roles.iter().find(|role| role.name == name);
        let target = of(role).ok_or_else(|| missing_role(role, &self.policy.roles))?;
        refuse_without_login(target)?;
        let Some(current) = current.and_then(of).filter(|current| current.oid != target.oid) else { return Ok(()) };
        match cover::lacks(&held.session, current, target).await {
            Ok(None) => Ok(()),
            Ok(Some(lack)) => Err(lack),
            Err(failure) => Err(self.of_admin(&failure)),
        }
    }

    /// Takes the password of a role away. Repeated once if the answer was lost.
    ///
    /// # Errors
    /// The server refuses or fails.
    pub async fn forget_password(&mut self, role: &str) -> Result<(), TargetError> {
        let mut is_second = false;
        loop {
            self.hold().await?;
            let Err(failure) = roles::forget_password(&self.held()?.session, role).await else { return Ok(()) };
            if is_second || !failure.is_unsettled() {
                let role = escape(role);
                return Err(TargetError::new(format!("the password of `{role}` could not be taken away: {failure}")));
            }
            self.held = None;
            is_second = true;
        }
    }

    /// Frees the locks and says goodbye. Polite, not needed: a server frees the locks of a session that broke.
    pub async fn end(&mut self) {
        if let Some(held) = self.held.take() {
            roles::unlock(&held.session).await.unwrap_or_default();
            held.session.end().await;
        }
    }

    async fn log_in_as_admin(&mut self) -> Result<Session, Failure> {
        let text = std::str::from_utf8(self.admin.expose()).unwrap_or_default();
        let url = url::parse(text).map_err(|_| Failure::Protocol)?;
        let role = url.user.as_deref().unwrap_or_default();
        let dbname = url.dbname.as_deref().unwrap_or(role);
        let password = url.password.as_ref().map(|password| password.as_slice());
        let session = log_in(&self.way, &Who { role, password, dbname, is_proof: false }, None).await?;
        // Older servers would take the verifier for the password.
        if session.version < OLDEST {
            return Err(Failure::Unproven("the server is older than PostgreSQL 10 and knows no SCRAM"));
        }
        self.place = Some(session.place.clone());
        Ok(session)
    }

    fn of_admin(&self, failure: &Failure) -> TargetError {
        let error = TargetError::new(format!("as administrator (`{}`): {failure}", self.policy.admin));
        match failure.login() {
            Login::Refused | Login::Barred => error.hinting(format!(
                "mend its value: vouchsafe set {}   # postgres://admin:password@host:5432/database",
                self.policy.admin
            )),
            Login::Failed => error,
        }
    }

    /// Logs in with a value, as its consumer would, but at the administrator's own server. Of several places, that is the one
    /// that takes the administrator's writes: another one may be behind.
    ///
    /// # Errors
    /// The server refuses, asks for no proof, or cannot be reached.
    pub async fn log_in_with(&mut self, role: &str, credential: &Credential<'_>) -> Result<Session, Failure> {
        // Who renews itself may be an administrator that gets in no more: then each place is asked.
        if self.place.is_none()
            && self.way.places.len() > 1
            && let Ok(session) = self.log_in_as_admin().await
        {
            session.end().await;
        }
        let admin = std::str::from_utf8(self.admin.expose()).ok().and_then(|text| url::parse(text).ok());
        let admin = admin.ok_or(Failure::Protocol)?;
        let dbname =
            credential.dbname.as_deref().or(admin.dbname.as_deref()).or(admin.user.as_deref()).unwrap_or_default();
        let password = credential.password.as_ref().map(|password| password.as_slice());
        let session = log_in(&self.way, &Who { role, password, dbname, is_proof: true }, self.place.as_ref()).await?;
        if session.role == role { Ok(session) } else { Err(Failure::Unproven("the login ended up as another role")) }
    }

    /// Whether the server accepts a value.
    ///
    /// # Errors
    /// Nobody can say.
    pub async fn accepts(&mut self, role: &str, credential: &Credential<'_>) -> Result<bool, Failure> {
        match self.log_in_with(role, credential).await {
            Ok(session) => {
                session.end().await;
                Ok(true)
            }
            Err(failure) if failure.login() != Login::Failed => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Alters the role. After a lost answer it finds out what became of it: the lock comes free only with the end of the
    /// server process that may still be at work, and from then on a login tells.
    ///
    /// # Errors
    /// The server refuses or fails.
    pub async fn alter(&mut self, role: &str, credential: &Credential<'_>) -> Result<(), TargetError> {
        let password = credential.password.as_ref().map(|password| password.as_slice()).unwrap_or_default();
        let mut is_second = false;
        loop {
            self.hold().await?;
            self.is_altering = true;
            let done = roles::set_password(&self.held()?.session, role, password).await;
            let failure = match done {
                Err(failure) if failure.is_unsettled() => failure,
                settled => {
                    self.is_altering = false;
                    return settled.map_err(|failure| self.not_altered(role, &failure));
                }
            };
            let lost = |error: &dyn std::fmt::Display| TargetError {
                is_unsettled: true,
                ..TargetError::new(format!("nobody can say whether the role `{}` was altered: {error}", escape(role)))
            };
            // Its socket is closed without a goodbye: there may be nobody to hear it.
            if let Some(Held { session, roles }) = self.held.take() {
                let pid = session.pid.clone();
                drop(session);
                self.settle(&roles, &pid).await.map_err(|error| lost(&error))?;
            }
            let is_done = self.accepts(role, credential).await.map_err(|failure| lost(&failure))?;
            self.is_altering = false;
            if is_done {
                return Ok(());
            }
            if is_second {
                return Err(self.not_altered(role, &failure));
            }
            is_second = true;
        }
    }

    /// Waits for the end of the session that was lost, by taking its locks.
    async fn settle(&mut self, roles: &[Role], former: &str) -> Result<(), TargetError> {
        let until = Instant::now() + SETTLE;
        loop {
            let error = match self.hold().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() > until {
                return Err(error);
            }
            if error.is_busy
                && let Ok(session) = self.log_in_as_admin().await
            {
                // A right that is missing only means that the wait is longer.
                roles::end_former(&session, roles, former).await.unwrap_or_default();
                session.end().await;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn not_altered(&self, role: &str, failure: &Failure) -> TargetError {
        let error = TargetError::new(format!("the role `{}` could not be altered: {failure}", escape(role)));
        match failure {
            Failure::Sql(state) if state == "42501" => {
                // As the server calls it, not as the secret URL does.
                let admin = self.held.as_ref().map_or_else(String::new, |held| roles::quoted(&held.session.role));
                let role = roles::quoted(role);
                error.hinting(format!(
                    "ALTER ROLE {admin} CREATEROLE;   # from PostgreSQL 16 on also: GRANT {role} TO {admin} WITH ADMIN OPTION;"
                ))
            }
            _ => error,
        }
    }
}

fn missing_role(role: &str, roles: &Roles) -> TargetError {
    let error = TargetError::new(format!("there is no role `{}`", escape(role)));
    let quoted = roles::quoted(role);
    error.hinting(match roles {
        Roles::Alternating(..) => {
            format!("CREATE ROLE {quoted} LOGIN IN ROLE a_group;   # the group that owns and may do what both need")
        }
        Roles::Single(_) => format!("CREATE ROLE {quoted} LOGIN;"),
    })
}

fn refuse_without_login(role: &Role) -> Result<(), TargetError> {
    let (name, quoted) = (escape(&role.name), roles::quoted(&role.name));
    if !role.can_log_in {
        return Err(TargetError::new(format!("the role `{name}` may not log in"))
            .hinting(format!("ALTER ROLE {quoted} LOGIN;")));
    }
    if role.is_over {
        let error = TargetError::new(format!("the validity of the role `{name}` has ended"));
        return Err(error.hinting(format!("ALTER ROLE {quoted} VALID UNTIL 'infinity';")));
    }
    Ok(())
}
