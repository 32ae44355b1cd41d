//! How the two policies rotate one secret. What programs get for it is access. Pure.

use std::time::Duration;

use super::{Found, later, list, never, quoted, quoted_or_none, time, time_or_none, unpinned, unset};
use crate::name::VariableName;
use crate::policy::model::{Alphabet, Apply, Generate, Program, Random, Roles, Rotation};

pub(super) fn compare(name: &VariableName, old: Option<&Rotation>, new: Option<&Rotation>, found: &mut Found) {
    let of = |field: &str| format!("secret {}: `rotate{field}`", quoted(name.as_str()));
    let limit = |rotation: Option<&Rotation>, of: fn(&Rotation) -> Option<Duration>| rotation.and_then(of);
    let every = (limit(old, |one| one.every), limit(new, |one| one.every));
    found.setting(&of(".every"), (&every.0, &every.1), time_or_none, later);
    let (Some(old), Some(new)) = (old, new) else {
        let is = (old.is_some(), new.is_some());
        let word = |is: &bool| if *is { "there" } else { "not there" }.to_owned();
        found.setting(&of(""), (&is.0, &is.1), word, never);
        return;
    };
    let weaker = |old: &Generate, new: &Generate| match (old, new) {
        (Generate::Random(old), Generate::Random(new)) => bits(new) < bits(old),
        (Generate::Random(_), Generate::Command(_)) => true,
        (Generate::Command(_), Generate::Random(_) | Generate::Command(_)) => false,
    };
    found.setting(&of(".generate"), (&old.generate, &new.generate), generate, weaker);
    let checks = |apply: &Apply| match apply {
        Apply::Postgres(postgres) => postgres.check.clone(),
        Apply::Command(_) | Apply::None => None,
    };
    if let (Apply::Postgres(before), Apply::Postgres(after)) = (&old.apply, &new.apply) {
        found.setting(&of(".apply.admin"), (&before.admin, &after.admin), |name| quoted(name.as_str()), never);
        found.setting(&of(".apply.role"), (&before.roles, &after.roles), roles, never);
        found.setting(&of(".apply.check"), (&checks(&old.apply), &checks(&new.apply)), quoted_or_none, unpinned);
    } else {
        found.setting(&of(".apply"), (&old.apply, &new.apply), apply, never);
    }
    let word = |is: &bool| if *is { quoted("separate") } else { unset() };
    found.setting(&of(".pending"), (&old.pending_separate, &new.pending_separate), word, never);
    found.setting(&of(".retire_after"), (&old.retire_after, &new.retire_after), time_or_none, later);
}

/// How many bits whoever guesses it lacks.
fn bits(random: &Random) -> f64 {
    match random {
        Random::Age | Random::Ed25519 | Random::X25519 => 256.0,
        Random::Base64 { bytes } | Random::Hex { bytes } => 8.0 * *bytes as f64,
        Random::Password(password) => password.bits(),
        Random::Uuid => 122.0,
    }
}

fn generate(generate: &Generate) -> String {
    match generate {
        Generate::Command(program) => program_words(program),
        Generate::Random(Random::Age) => "an age identity".into(),
        Generate::Random(Random::Base64 { bytes }) => format!("{bytes} bytes in base64"),
        Generate::Random(Random::Ed25519) => "an Ed25519 key".into(),
        Generate::Random(Random::Hex { bytes }) => format!("{bytes} bytes in hexadecimal"),
        Generate::Random(Random::Password(password)) => {
            let alphabet = match password.alphabet {
                Alphabet::Alphanumeric => "alphanumeric",
                Alphabet::Hex => "hex",
                Alphabet::Printable => "printable",
                Alphabet::UrlSafe => "url-safe",
            };
            let required = list(password.require.iter().map(|class| class.word()));
            let excluded = quoted(&String::from_utf8_lossy(&password.exclude));
            let length = password.length;
            format!("{length} characters of {alphabet} without {excluded}, required {required}")
        }
        Generate::Random(Random::Uuid) => "a UUID".into(),
        Generate::Random(Random::X25519) => "an X25519 key".into(),
    }
}

fn apply(apply: &Apply) -> String {
    match apply {
        Apply::Command(program) => program_words(program),
        Apply::None => unset(),
        Apply::Postgres(postgres) => {
            format!("PostgreSQL, {}, by {}", roles(&postgres.roles), quoted(postgres.admin.as_str()))
        }
    }
}

fn roles(roles: &Roles) -> String {
    match roles {
        Roles::Alternating(one, other) => format!("roles {} and {} by turns", quoted(one), quoted(other)),
        Roles::Single(one) => format!("role {}", quoted(one)),
    }
}

fn program_words(program: &Program) -> String {
    let timeout = time(&program.timeout);
    let needs = list(program.needs.iter().map(VariableName::as_str));
    format!("the program {} with needs {needs} and {timeout} for a step", quoted(&program.path.to_string_lossy()))
}
