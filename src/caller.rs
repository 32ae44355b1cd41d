//! Who runs the wrapper: uid, groups, and their names as `/etc/passwd` and `/etc/group` give them.
//!
//! The files are read here and not by libc: a static binary has no NSS, an empty container has no file, and NSS would load
//! foreign code into a process that is about to hold secrets. A user known only to LDAP has a number and no name here.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::policy::eval::Caller;

/// A user database larger than this is not read: names stay numbers.
const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;

/// The names of users and groups, read again when the files have changed: for a process that asks often.
#[derive(Debug, Default)]
pub struct Names {
    users: Database,
    groups: Database,
}

#[derive(Debug, Default)]
struct Database {
    text: String,
    /// Of the file that was read: device, inode, size, last change.
    read: Option<(u64, u64, u64, i64, i64)>,
}

impl Names {
    /// The name of a user.
    pub fn user(&mut self, uid: u32) -> Option<String> {
        name_of(uid, self.users.fresh("/etc/passwd"))
    }

    /// Somebody else, with the names that the policy may ask for.
    pub fn caller(&mut self, uid: u32, gid: u32, groups: &[u32]) -> Caller {
        let user = self.user(uid);
        let mut seen = std::collections::BTreeSet::new();
        let gids = std::iter::once(gid).chain(groups.iter().copied()).filter(|gid| seen.insert(*gid));
        let database = self.groups.fresh("/etc/group");
        let groups = gids.map(|gid| (gid, name_of(gid, database))).collect();
        Caller { uid, user, groups }
    }
}

impl Database {
    fn fresh(&mut self, path: &str) -> &str {
        let now = rustix::fs::stat(path)
            .map(|stat| {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                (stat.st_dev, stat.st_ino, size, stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or_default())
            })
            .ok();
        if now.is_none() || now != self.read {
            self.text = read_database(path);
            self.read = now;
        }
        &self.text
    }
}

/// The caller of this process. Group names are looked up only if `with_group_names`, since only a policy needs them.
#[must_use]
pub fn of_this_process(with_group_names: bool) -> Caller {
    let uid = rustix::process::getuid().as_raw();
    let mut gids = vec![rustix::process::getgid().as_raw()];
    gids.extend(rustix::process::getgroups().unwrap_or_default().into_iter().map(rustix::process::Gid::as_raw));
    let mut seen = std::collections::BTreeSet::new();
    gids.retain(|gid| seen.insert(*gid));
    let group_file = if with_group_names { read_database("/etc/group") } else { String::new() };
    Caller {
        uid,
        user: name_of(uid, &read_database("/etc/passwd")),
        groups: gids.into_iter().map(|gid| (gid, name_of(gid, &group_file))).collect(),
    }
}

/// The caller that a user of this host would be: by name, or by number, which need not be in `/etc/passwd`. `None` if there is
/// no such name.
#[must_use]
pub fn of_principal(name_or_uid: &str) -> Option<Caller> {
    principal(name_or_uid, &read_database("/etc/passwd"), &read_database("/etc/group"))
}

/// As a login would: the group of the user's entry, and every group that lists the user (passwd(5), group(5)).
fn principal(name_or_uid: &str, passwd: &str, group: &str) -> Option<Caller> {
    let is_number = !name_or_uid.is_empty() && name_or_uid.bytes().all(|byte| byte.is_ascii_digit());
    let uid = match is_number {
        true => name_or_uid.parse().ok()?,
        false => passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&name_or_uid)).then(|| fields.get(2)?.parse().ok())?
        })?,
    };
    let user = name_of(uid, passwd);
    let of_entry = user.as_deref().and_then(|user| {
        let entry = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
        entry.split(':').nth(3)?.parse::<u32>().ok()
    });
    let listing = group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (gid, members) = (fields.nth(2)?.parse::<u32>().ok()?, fields.next()?);
        members.split(',').any(|member| Some(member) == user.as_deref()).then_some(gid)
    });
    let mut gids: Vec<u32> = of_entry.into_iter().chain(listing).collect();
    let mut seen = std::collections::BTreeSet::new();
    gids.retain(|gid| seen.insert(*gid));
    Some(Caller { uid, user, groups: gids.into_iter().map(|gid| (gid, name_of(gid, group))).collect() })
}

/// An absent or unreadable database means that nobody has a name; a grant by name then does not match, which is safe.
fn read_database(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DATABASE_LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 <= DATABASE_LIMIT => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(_) | Err(_) => String::new(),
    }
}

/// passwd(5) and group(5) agree on the fields that matter: name, password, number. The first entry of a number counts.
fn name_of(id: u32, database: &str) -> Option<String> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with(['#', '+', '-']))?;
        (fields.nth(1)?.parse::<u32>() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_as_this_process_is() {
        let own = of_this_process(true);
        let gids: Vec<u32> = own.groups.iter().map(|(gid, _)| *gid).collect();
        let mut names = Names::default();
        for _ in 0..2 {
            assert_eq!(names.caller(own.uid, gids[0], &gids), own);
        }
    }

    #[test]
    fn names_are_found_by_number() {
        let passwd =
            "# comment\n+nis::0:0\nroot:x:0:0:root:/root:/bin/bash\napi:x:1001:1001::/:/bin/false\ntwin:x:1001:1:::\n";
        assert_eq!(name_of(0, passwd).as_deref(), Some("root"));
        assert_eq!(name_of(1001, passwd).as_deref(), Some("api"));
        assert_eq!(name_of(5, passwd), None);
        assert_eq!(name_of(0, ""), None);
        assert_eq!(name_of(7, "short:x\n:x:7:7:::\nlong:x:99999999999:1:::"), None);
    }
    #[test]
    fn a_user_has_the_groups_that_a_login_would_give() {
        let passwd = "root:x:0:0:::\napi:x:1001:1002:::\n";
        let group = "root:x:0:\nservices:x:1002:other\nstaff:x:50:x,api\nadm:x:4:apix,xapi\nagain:x:1002:api\n";
        let named = |gid, name: &str| (gid, Some(name.to_owned()));
        let api =
            Caller { uid: 1001, user: Some("api".into()), groups: vec![named(1002, "services"), named(50, "staff")] };
        assert_eq!(principal("api", passwd, group), Some(api.clone()));
        assert_eq!(principal("1001", passwd, group), Some(api));
        assert_eq!(principal("7", passwd, group), Some(Caller { uid: 7, user: None, groups: Vec::new() }));
        assert_eq!(principal("nobody", passwd, group), None);
        assert_eq!(principal("", passwd, group), None);
    }
}
