//! The JSON Schema of what `--json` prints, one definition for each command, from the very types that are printed.

use serde_json::{Value, json};

use crate::audit_log::{Holding, PrincipalReport, Verification};
use crate::explain::Explanation;
use crate::inspect::{History, Listing, Report};
use crate::lint::Differences;
use crate::rekey::Rekeying;
use crate::rotate::Progress;
use crate::verdicts::Verdicts;

/// The schema, JSON Schema 2020-12. A text is checked against `#/$defs/COMMAND`.
#[must_use]
pub fn output_schema() -> Value {
    let mut generator = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let commands = [
        ("audit-report", generator.subschema_for::<PrincipalReport>()),
        ("audit-verify", generator.subschema_for::<Verification>()),
        ("audit-who-has", generator.subschema_for::<Holding>()),
        ("check", generator.subschema_for::<Report>()),
        ("explain", generator.subschema_for::<Explanation>()),
        ("history", generator.subschema_for::<History>()),
        ("policy-diff", generator.subschema_for::<Differences>()),
        ("policy-test", generator.subschema_for::<Verdicts>()),
        ("list", generator.subschema_for::<Listing>()),
        ("rekey", generator.subschema_for::<Rekeying>()),
        ("rotate", generator.subschema_for::<Progress>()),
    ];
    let mut definitions = generator.take_definitions(true);
    for (command, schema) in commands {
        definitions.insert(command.to_owned(), schema.into());
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What vouchsafe prints with --json",
        "description": "$defs/list is for `vouchsafe list --json`, and so on; `rotate` prints one object for each step, each on its line. Fields may be added; none is taken away.",
        "$defs": definitions,
    });
    drop_formats(&mut schema);
    schema
}

/// `uint64` means nothing outside Rust.
fn drop_formats(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").is_some_and(|format| format.as_str().is_some_and(|word| word.starts_with("uint"))) {
                map.remove("format");
            }
            map.values_mut().for_each(drop_formats);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_formats),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}
