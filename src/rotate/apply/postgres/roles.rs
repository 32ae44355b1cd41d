//! Roles, as an administrator's session sees and alters them: what they are, and who rotates them.
//!
//! Every text in a statement is quoted by the protocol crate; a password never is in one, only its SCRAM verifier.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password::scram_sha_256;
use zeroize::Zeroizing;

use super::connect::Session;
use super::error::Failure;
use crate::name::escape;
use crate::rotate::target::TargetError;

/// What is known of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Its id, which no other role of this server has.
    pub oid: u32,
    /// It may log in, and its validity has not ended.
    pub can_log_in: bool,
    /// Its validity has ended.
    pub is_over: bool,
}

/// Half of the key of the advisory locks: `vsRo`. The other half is the role's id.
const LOCKS: i64 = 0x7673_526f;

fn lock_of(role: &Role) -> i64 {
    LOCKS << 32 | i64::from(role.oid)
}

/// The roles of these names, sorted by id; those that do not exist are left out.
///
/// # Errors
/// The server failed.
pub async fn find(admin: &Session, names: &[&str]) -> Result<Vec<Role>, Failure> {
    let list: Vec<String> = names.iter().map(|name| escape_literal(name)).collect();
    let sql = format!(
        "SELECT rolname, oid, rolcanlogin, coalesce(rolvaliduntil < now(), false) FROM pg_roles WHERE rolname IN ({}) \
         ORDER BY oid",
        list.join(", ")
    );
    let role = |row: Vec<Option<String>>| match <[Option<String>; 4]>::try_from(row) {
        Ok([Some(name), Some(oid), Some(can), Some(over)]) => {
            let oid = oid.parse().map_err(|_| Failure::Protocol)?;
            Ok(Role { name, oid, can_log_in: can == "t", is_over: over == "t" })
        }
        _ => Err(Failure::Protocol),
    };
    admin.rows(&sql).await?.into_iter().map(role).collect()
}

/// Takes the locks of the roles, for the rest of the session. Answers who has one of them.
///
/// # Errors
/// The server failed.
pub async fn lock(admin: &Session, roles: &[Role]) -> Result<Option<Holder>, Failure> {
    for role in roles {
        let key = lock_of(role);
        let rows = admin.rows(&format!("SELECT pg_try_advisory_lock({key})")).await?;
        if rows.first().and_then(|row| row.first()?.as_deref()) != Some("t") {
            return holder(admin, role).await.map(Some);
        }
    }
    Ok(None)
}

/// Who has a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The role that it is about.
    pub role: String,
    /// The server process; empty if it was gone when it was looked for.
    pub pid: String,
    what: String,
}

async fn holder(admin: &Session, role: &Role) -> Result<Holder, Failure> {
    let key = lock_of(role);
    let sql = format!(
        "SELECT l.pid, coalesce(a.application_name, ''), coalesce(host(a.client_addr), 'this host'), \
         coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '') \
         FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted AND \
         l.objsubid = 1 AND l.classid = {} AND l.objid = {} AND l.database = (SELECT oid FROM pg_database WHERE datname = \
         current_database()) LIMIT 1",
        key >> 32,
        role.oid
    );
    let row = admin.rows(&sql).await?.into_iter().next().unwrap_or_default();
    let mut columns = row.into_iter().map(Option::unwrap_or_default);
    let mut next = || columns.next().unwrap_or_default();
    let (pid, application, host, since) = (next(), next(), next(), next());
    let mut what = format!("`{}`", escape(&application));
    for (word, text) in [("from", &host), ("server process", &pid), ("since", &since)] {
        if !text.is_empty() {
            what.push_str(&format!(", {word} {}", escape(text)));
        }
    }
    Ok(Holder { role: role.name.clone(), pid, what })
}

impl Holder {
    /// The refusal.
    #[must_use]
    pub fn error(&self) -> TargetError {
        let problem = format!("somebody else rotates the role `{}`: {}", escape(&self.role), self.what);
        let error = TargetError { is_busy: true, ..TargetError::new(problem) };
        if self.pid.is_empty() {
            return error;
        }
        error.hinting(format!("wait; if it hangs, as the administrator: SELECT pg_terminate_backend({});", self.pid))
    }
}

/// Ends the server process `pid` if it is ours: the one that has the lock of one of the roles. After a lost answer it may
/// still be at work.
///
/// # Errors
/// The server failed.
pub async fn end_former(admin: &Session, roles: &[Role], pid: &str) -> Result<(), Failure> {
    let Ok(pid) = pid.parse::<u32>() else { return Ok(()) };
    let ids: Vec<String> = roles.iter().map(|role| role.oid.to_string()).collect();
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE pid = {pid} AND locktype = 'advisory' AND granted AND \
         objsubid = 1 AND classid = {LOCKS} AND objid IN ({}) LIMIT 1",
        ids.join(", ")
    );
    admin.rows(&sql).await.map(drop)
}

/// Frees the locks now, not when the server notices that the session ended.
///
/// # Errors
/// The server failed.
pub async fn unlock(admin: &Session) -> Result<(), Failure> {
    admin.rows("SELECT pg_advisory_unlock_all()").await.map(drop)
}

/// Gives a role a password. The server gets the SCRAM-SHA-256 verifier (RFC 5803), so that no log of its holds the password.
///
/// # Errors
/// The server refuses or fails; then [`Failure::is_unsettled`] says whether it may have happened.
pub async fn set_password(admin: &Session, role: &str, password: &[u8]) -> Result<(), Failure> {
    let verifier = Zeroizing::new(scram_sha_256(password));
    let sql = Zeroizing::new(format!("ALTER ROLE {} PASSWORD {}", escape_identifier(role), escape_literal(&verifier)));
    admin.rows(&sql).await.map(drop)
}

/// Takes a role's password away.
///
/// # Errors
/// The server refuses or fails.
pub async fn forget_password(admin: &Session, role: &str) -> Result<(), Failure> {
    admin.rows(&format!("ALTER ROLE {} PASSWORD NULL", escape_identifier(role))).await.map(drop)
}

/// A role as a hint's SQL has it. Whoever made the role chose its name.
#[must_use]
pub fn quoted(role: &str) -> String {
    escape(&escape_identifier(role))
}
