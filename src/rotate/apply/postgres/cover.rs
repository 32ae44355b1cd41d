//! Whether one role may do all that another one may, as far as the server's catalogs tell an administrator.
//!
//! What two roles have through a group is the same for both. What one has by itself could be shown to be the same only
//! object by object and right by right, with a session in every database, and never for a row-security policy. So it is
//! refused, and the hint moves it to a group.

use super::connect::Session;
use super::error::Failure;
use super::roles::{Role, quoted};
use crate::name::escape;
use crate::rotate::target::TargetError;

/// From here on a membership has options of its own: to inherit, and to `SET ROLE`.
const WITH_OPTIONS: u32 = 160_000;

/// What `other` lacks of what `current` has: the first thing, with the statement that mends it. Consumers are going to be
/// `other`, so what only `current` may do would fail at promotion, in every consumer at once.
///
/// # Errors
/// The server failed.
pub async fn lacks(admin: &Session, current: &Role, other: &Role) -> Result<Option<TargetError>, Failure> {
    let lack = match attribute(admin, current, other).await? {
        Some(lack) => Some(lack),
        None => match membership(admin, current, other).await? {
            Some(lack) => Some(lack),
            None => match setting(admin, current, other).await? {
                Some(lack) => Some(lack),
                None => by_itself(admin, current, other).await?,
            },
        },
    };
    Ok(lack.map(|Lack { what, hint }| {
        let (name, theirs) = (escape(&other.name), escape(&current.name));
        TargetError::new(format!("the role `{name}` does not cover `{theirs}`: {what}")).hinting(hint)
    }))
}

struct Lack {
    what: String,
    hint: String,
}

/// The first row, where it has that many columns and no NULL.
async fn first<const N: usize>(admin: &Session, sql: &str) -> Result<Option<[String; N]>, Failure> {
    let Some(row) = admin.rows(sql).await?.into_iter().next() else { return Ok(None) };
    let row: Vec<String> = row.into_iter().flatten().collect();
    row.try_into().map(Some).map_err(|_| Failure::Protocol)
}

async fn attribute(admin: &Session, current: &Role, other: &Role) -> Result<Option<Lack>, Failure> {
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
         b.rolconnlimit >= 0 AND (a.rolconnlimit < 0 OR b.rolconnlimit < a.rolconnlimit)), ('VALID UNTIL ''infinity''', \
         coalesce(b.rolvaliduntil, 'infinity') < coalesce(a.rolvaliduntil, 'infinity'))) v (word, missing) WHERE a.oid = {} \
         AND b.oid = {} AND v.missing LIMIT 1",
        cases.join(", "),
        current.oid,
        other.oid
    );
    let found = first(admin, &sql).await?;
    Ok(found.map(|[word]: [String; 1]| {
        let word = escape(&word);
        Lack { what: format!("it lacks {word}"), hint: format!("ALTER ROLE {} {word};", quoted(&other.name)) }
    }))
}

async fn membership(admin: &Session, current: &Role, other: &Role) -> Result<Option<Lack>, Failure> {
    // What is asked, what it is called here, and what a GRANT says for it. `MEMBER` before 16 means `SET` too.
    let mut kinds = vec![
        ("MEMBER", "it is no member of", ""),
        ("MEMBER WITH ADMIN OPTION", "it has no ADMIN OPTION on", " WITH ADMIN OPTION"),
    ];
    if admin.version >= WITH_OPTIONS {
        kinds.push(("USAGE", "it does not inherit from", " WITH INHERIT TRUE"));
        kinds.push(("SET", "it may not SET ROLE to", " WITH SET TRUE"));
    } else {
        kinds.push(("USAGE", "it does not inherit from", ""));
    }
    for (kind, what, with) in kinds {
        let sql = format!(
            "SELECT rolname FROM pg_roles r WHERE r.oid NOT IN ({a}, {b}) AND pg_has_role({a}::oid, r.oid, '{kind}') AND NOT \
             pg_has_role({b}::oid, r.oid, '{kind}') ORDER BY 1 LIMIT 1",
            a = current.oid,
            b = other.oid
        );
        let Some([group]) = first::<1>(admin, &sql).await? else { continue };
        return Ok(Some(Lack {
            what: format!("{what} `{}`", escape(&group)),
            hint: format!("GRANT {} TO {}{with};", quoted(&group), quoted(&other.name)),
        }));
    }
    Ok(None)
}

/// A setting that only one of them has makes the sessions of the other one different, whichever of them it is.
async fn setting(admin: &Session, current: &Role, other: &Role) -> Result<Option<Lack>, Failure> {
    let of = |oid: u32| {
        format!("SELECT setdatabase, unnest(setconfig) AS setting FROM pg_db_role_setting WHERE setrole = {oid}")
    };
    for (one, two, is_missing) in [(current, other, true), (other, current, false)] {
        let sql = format!(
            "SELECT split_part(setting, '=', 1), coalesce(d.datname, '') FROM ({} EXCEPT {}) s LEFT JOIN pg_database d ON \
             d.oid = s.setdatabase ORDER BY 1, 2 LIMIT 1",
            of(one.oid),
            of(two.oid)
        );
        let Some([setting, database]) = first::<2>(admin, &sql).await? else { continue };
        let (setting, role) = (escape(&setting), quoted(&other.name));
        let place = if database.is_empty() { String::new() } else { format!(" IN DATABASE {}", quoted(&database)) };
        let hint = if is_missing {
            format!("ALTER ROLE {role}{place} SET {setting} TO ...;   # as `SELECT * FROM pg_db_role_setting` shows it")
        } else {
            format!("ALTER ROLE {role}{place} RESET {setting};   # or the same for {}", quoted(&current.name))
        };
        return Ok(Some(Lack { what: format!("its setting `{setting}` is another"), hint }));
    }
    Ok(None)
}

/// What depends on a role by itself, in every database (`pg_shdepend`; PostgreSQL documentation, "System Catalogs"): what it
/// owns (`o`), access control lists with it (`a`; of columns and of default privileges too), row-security policies for it
/// (`r`). A role that inherits from the current one has all of it but what goes by the very role: default privileges for
/// what it makes, and user mappings. A policy that names the other role may be a restrictive one, so it counts as well. What
/// is recorded of a role in initial privileges (`i`) is no right, nor is it one to have granted a membership (from 16 on).
async fn by_itself(admin: &Session, current: &Role, other: &Role) -> Result<Option<Lack>, Failure> {
    let sql = format!(
        "SELECT kind, coalesce(datname, ''), count(*), min(by_other::int) FROM (SELECT CASE WHEN s.deptype = 'o' AND s.classid \
         = 'pg_default_acl'::regclass THEN 'defaults' WHEN s.deptype = 'o' AND s.classid = 'pg_user_mapping'::regclass THEN \
         'mapping' ELSE s.deptype::text END AS kind, d.datname, s.refobjid = {b} AS by_other FROM pg_shdepend s LEFT JOIN \
         pg_database d ON d.oid = s.dbid WHERE s.refclassid = 'pg_authid'::regclass AND s.classid <> \
         'pg_auth_members'::regclass AND (s.refobjid = {a} AND s.deptype IN ('a', 'o', 'r') OR s.refobjid = {b} AND s.deptype \
         = 'r')) found WHERE by_other OR kind IN ('defaults', 'mapping') OR NOT pg_has_role({b}::oid, {a}::oid, 'USAGE') \
         GROUP BY kind, datname, by_other ORDER BY kind DESC, datname NULLS FIRST, by_other LIMIT 1",
        a = current.oid,
        b = other.oid
    );
    let Some([kind, database, count, by_other]) = first::<4>(admin, &sql).await? else { return Ok(None) };
    let whose = if by_other == "1" { other } else { current };
    let (theirs, role) = (escape(&whose.name), quoted(&whose.name));
    let (place, within) = match escape(&database) {
        none if none.is_empty() => ("the whole server".to_owned(), String::new()),
        name => (format!("`{name}`"), format!("in `{name}`, ")),
    };
    let things = |one: &str, many: &str| if count == "1" { format!("1 {one}") } else { format!("{count} {many}") };
    Ok(Some(match kind.as_str() {
        "o" => Lack {
            what: format!("`{theirs}` itself owns {} in {place}", things("object", "objects")),
            hint: format!("REASSIGN OWNED BY {role} TO a_group;   # {within}a group of both"),
        },
        "r" => Lack {
            what: format!(
                "{} in {place} for `{theirs}` itself",
                if count == "1" {
                    "1 row-security policy is".to_owned()
                } else {
                    format!("{count} row-security policies are")
                }
            ),
            hint: format!("ALTER POLICY ... ON ... TO a_group;   # {within}a group of both, in the place of {role}"),
        },
        "mapping" => Lack {
            what: format!("`{theirs}` itself has {} in {place}", things("user mapping", "user mappings")),
            hint: format!(
                "DROP USER MAPPING FOR {role} SERVER ...;   # {within}and one for a group that both are SET to"
            ),
        },
        "defaults" => Lack {
            what: format!("there are default privileges in {place} for what `{theirs}` itself creates"),
            hint: format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {role} REVOKE ...;   # {within}and for a group that both are SET to"
            ),
        },
        _ => Lack {
            what: format!("rights to {} in {place} are granted to `{theirs}` itself", things("object", "objects")),
            hint: format!("GRANT ... TO a_group;   # {within}a group of both; then REVOKE ... FROM {role}"),
        },
    }))
}
