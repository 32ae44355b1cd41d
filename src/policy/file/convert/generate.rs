//! `rotate.generate`: what makes a new value.

use super::Context;
use super::rotation::{Whose, program};
use crate::name::escape;
use crate::policy::file::raw::{At, GenerateType, RawGenerate, RawPolicy};
use crate::policy::model::{Alphabet, CharacterClass, Generate, Password, Random};

/// Below so many bits the verifier of a random secret has to limit guesses (NIST SP 800-63B, 5.1.2.2), which not every
/// target does; OWASP wants as many of what is guessed over a network (ASVS 4.0.3, 3.2.2). The default has 240.
const LEAST_BITS: f64 = 64.0;

/// The generator that a policy without `generate` has.
const DEFAULT_LENGTH: usize = 40;

/// Random bytes before encoding: 256 bits, as much as any key of a target takes.
const DEFAULT_BYTES: usize = 32;

pub(super) fn generate(
    at: Option<&At<RawGenerate>>,
    whose: &Whose<'_>,
    files: &[RawPolicy],
    context: &mut Context<'_>,
) -> Generate {
    let absent = RawGenerate::default();
    let raw = at.map_or(&absent, |at| &at.value);
    let kind = raw.r#type.as_ref().map_or(GenerateType::Password, |at| at.value);
    for (field, span, types) in raw.fields_of_types() {
        if let Some(span) = span
            && !types.contains(&kind)
        {
            context.findings.wrong_at(span, format!("`{field}` means nothing for `generate` of this type"));
        }
    }
    Generate::Random(match kind {
        GenerateType::Age => Random::Age,
        GenerateType::Base64 => Random::Base64 { bytes: bytes(raw, context) },
        GenerateType::Ed25519 => Random::Ed25519,
        GenerateType::Hex => Random::Hex { bytes: bytes(raw, context) },
        GenerateType::Password => Random::Password(password(at, raw, context)),
        GenerateType::Uuid => Random::Uuid,
        GenerateType::X25519 => Random::X25519,
        GenerateType::Command => {
            let span = at.map_or(whose.name.span, |at| at.span);
            let parts = (raw.program.as_ref(), raw.timeout.as_ref(), raw.needs.as_ref());
            return match program("generate", span, parts, whose, files, context) {
                Some(program) => Generate::Command(program),
                // Noted; nothing of this policy is used.
                None => Generate::Random(Random::Uuid),
            };
        }
    })
}

fn bytes(raw: &RawGenerate, context: &mut Context<'_>) -> usize {
    let Some(at) = &raw.bytes else { return DEFAULT_BYTES };
    match usize::try_from(at.value) {
        Ok(bytes @ 16..=512) => bytes,
        _ => {
            context.findings.wrong(at, "`bytes` is a number from 16 to 512");
            DEFAULT_BYTES
        }
    }
}

fn password(whole: Option<&At<RawGenerate>>, raw: &RawGenerate, context: &mut Context<'_>) -> Password {
    let before = context.findings.len();
    let length = raw.length.as_ref().map_or(DEFAULT_LENGTH, |at| match usize::try_from(at.value) {
        Ok(length @ 16..=4096) => length,
        _ => {
            context.findings.wrong(at, "a generated value has 16 to 4096 characters");
            DEFAULT_LENGTH
        }
    });
    let alphabet = raw.alphabet.as_ref().map_or(Alphabet::UrlSafe, |at| at.value.into());
    let exclude = raw.exclude.as_ref().and_then(|at| {
        let rule = "`exclude` is printable ASCII characters, one after the other";
        context.checked(at, rule, |text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')))
    });
    let mut require: Vec<CharacterClass> =
        raw.require.iter().flat_map(|at| &at.value).map(|at| at.value.into()).collect();
    require.sort_unstable();
    require.dedup();
    let password = Password { length, alphabet, exclude: exclude.unwrap_or_default().into_bytes(), require };

    let characters = password.characters();
    if let (true, Some(at)) = (characters.is_empty(), &raw.exclude) {
        context.findings.wrong(at, "`exclude` leaves no character of the alphabet").hint("exclude = \"...\"   # fewer");
        return password;
    }
    for at in raw.require.iter().flat_map(|at| &at.value) {
        let class = CharacterClass::from(at.value);
        if characters.iter().any(|byte| class.has(*byte)) {
            continue;
        }
        let excluded = alphabet.characters().into_iter().any(|byte| class.has(byte));
        let (message, hint) = match (excluded, class) {
            (true, _) => ("`exclude` leaves no character of the class", "exclude = \"...\"   # fewer"),
            (false, CharacterClass::Symbol) => (
                "the alphabet has no character of the class",
                "alphabet = \"printable\"   # or \"url-safe\": `-` and `_`",
            ),
            (false, _) => ("the alphabet has no character of the class", "alphabet = \"alphanumeric\""),
        };
        context.findings.wrong(at, format!("{message} `{}`", class.word())).hint(hint);
    }
    if context.findings.len() == before && password.bits() < LEAST_BITS {
        let span = raw.exclude.as_ref().map(|at| at.span).or_else(|| whole.map(|at| at.span)).unwrap_or_default();
        let possible = password.bits().floor();
        let message = format!("only 2^{possible:.0} such passwords are possible, and 2^{LEAST_BITS} are the least");
        let hint = enough(&password).map_or_else(
            || format!("exclude less than `{}`", escape(&String::from_utf8_lossy(&password.exclude))),
            |length| format!("length = {length}"),
        );
        context.findings.wrong_at(span, message).hint(hint);
    }
    password
}

/// The length from which on such a password is good enough.
fn enough(password: &Password) -> Option<usize> {
    (password.length..=4096).find(|length| Password { length: *length, ..password.clone() }.bits() >= LEAST_BITS)
}
