//! Roles, as an administrator's session sees and alters them: what they are, whether one covers the other, who rotates.
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

/// What `other` lacks of what `current` has: the first thing, with the statement that mends it. Consumers are going to be
/// `other`, so what only `current` may do would fail at promotion, in every consumer at once.
///
/// # Errors
/// The server failed.
pub async fn lacks(admin: &Session, current: &Role, other: &Role) -> Result<Option<TargetError>, Failure> {
    let (name, theirs) = (escape(&other.name), escape(&current.name));
    let (current_id, other_id) = (current.oid, other.oid);
    let hinted = quoted(&other.name);
    let lack = |what: String, hint: String| {
        let problem = format!("the role `{name}` does not cover `{theirs}`: {what}");
        Some(TargetError::new(problem).hinting(hint))
    };
    let first = |rows: Vec<Vec<Option<String>>>| {
        rows.into_iter().next().map(|row| row.into_iter().flatten().collect::<Vec<_>>())
    };

    let attributes = [
        ("SUPERUSER", "rolsuper"),
        ("CREATEROLE", "rolcreaterole"),
        ("CREATEDB", "rolcreatedb"),
        ("REPLICATION", "rolreplication"),
        ("BYPASSRLS", "rolbypassrls"),
        ("INHERIT", "rolinherit"),
    ];
    let cases: Vec<String> =
        attributes.iter().map(|(word, column)| format!("('{word}', a.{column} AND NOT b.{column})")).collect();
    let sql = format!(
        "SELECT v.word FROM pg_roles a, pg_roles b, LATERAL (VALUES {}, ('CONNECTION LIMIT ' || a.rolconnlimit, \
         b.rolconnlimit >= 0 AND (a.rolconnlimit < 0 OR b.rolconnlimit < a.rolconnlimit))) v (word, missing) WHERE a.oid = \
         {current_id} AND b.oid = {other_id} AND v.missing LIMIT 1",
        cases.join(", ")
    );
    if let Some(word) = first(admin.rows(&sql).await?).and_then(|row| row.into_iter().next()) {
        let word = escape(&word);
        return Ok(lack(format!("it lacks {word}"), format!("ALTER ROLE {hinted} {word};")));
    }

    // With PostgreSQL 16 a membership may be without inheritance, so USAGE is asked for by itself.
    let sql = format!(
        "SELECT rolname FROM pg_roles r, unnest(ARRAY['MEMBER', 'USAGE']) kind WHERE r.oid NOT IN ({current_id}, \
         {other_id}) AND pg_has_role({current_id}::oid, r.oid, kind) AND NOT pg_has_role({other_id}::oid, r.oid, kind) \
         ORDER BY kind, rolname LIMIT 1"
    );
    if let Some(group) = first(admin.rows(&sql).await?).and_then(|row| row.into_iter().next()) {
        let hint = format!("GRANT {} TO {hinted};", quoted(&group));
        return Ok(lack(format!("it is no member of `{}`", escape(&group)), hint));
    }

    let sql = format!(
        "SELECT split_part(setting, '=', 1) FROM (SELECT setdatabase, unnest(setconfig) AS setting FROM \
         pg_db_role_setting WHERE setrole = {current_id} EXCEPT SELECT setdatabase, unnest(setconfig) FROM \
         pg_db_role_setting WHERE setrole = {other_id}) missing ORDER BY 1 LIMIT 1"
    );
    if let Some(setting) = first(admin.rows(&sql).await?).and_then(|row| row.into_iter().next()) {
        let setting = escape(&setting);
        let hint =
            format!("ALTER ROLE {hinted} SET {setting} TO ...;   # as `SELECT * FROM pg_db_role_setting` shows it");
        return Ok(lack(format!("its setting `{setting}` is another"), hint));
    }

    // What belongs to the role itself, or is granted to it and not to a group, in every database (pg_shdepend).
    let sql = format!(
        "SELECT a.deptype, coalesce(d.datname, 'the whole server'), count(*) FROM pg_shdepend a LEFT JOIN pg_database d ON \
         d.oid = a.dbid WHERE a.refclassid = 'pg_authid'::regclass AND a.refobjid = {current_id} AND a.deptype IN ('a', \
         'o') AND NOT pg_has_role({other_id}::oid, {current_id}::oid, 'USAGE') AND NOT EXISTS (SELECT FROM pg_shdepend b \
         WHERE b.refclassid = a.refclassid AND b.refobjid = {other_id} AND b.deptype IN ('a', 'o') AND (b.dbid, b.classid, \
         b.objid, b.objsubid) = (a.dbid, a.classid, a.objid, a.objsubid) AND a.deptype = 'a') GROUP BY 1, 2 ORDER BY 1 \
         DESC, 2 LIMIT 1"
    );
    let mine = quoted(&current.name);
    if let Some([kind, database, count]) =
        first(admin.rows(&sql).await?).and_then(|row| <[String; 3]>::try_from(row).ok())
    {
        let database = escape(&database);
        let objects = if count == "1" { "1 object".to_owned() } else { format!("{count} objects") };
        return Ok(if kind == "o" {
            let hint = format!("REASSIGN OWNED BY {mine} TO a_group;   # in `{database}`, a group of both");
            lack(format!("`{theirs}` itself owns {objects} in `{database}`"), hint)
        } else {
            let hint = format!("GRANT ... TO a_group;   # in `{database}`, a group of both, in the place of {mine}");
            lack(format!("rights to {objects} in `{database}` are granted to `{theirs}` itself"), hint)
        });
    }
    Ok(None)
}

/// A role as a hint's SQL has it. Whoever made the role chose its name.
#[must_use]
pub fn quoted(role: &str) -> String {
    escape(&escape_identifier(role))
}
