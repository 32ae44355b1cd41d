//! The JSON Schema of a policy, from the very types that parse it. Editors complete and check a policy by it
//! (`#:schema docs/spec/policy.schema.json` in the first line); what a schema cannot say, only `policy lint` says.

use serde_json::Value;

use super::file::raw::RawPolicy;

/// The schema as it is committed, which a test holds against [`schema`]: the binary need not know how to make one.
pub const COMMITTED: &str = include_str!("../../docs/spec/policy.schema.json");

/// The schema, JSON Schema 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut value = schemars::schema_for!(RawPolicy).to_value();
    tidy(&mut value);
    value
}

/// TOML has no null: a field that may be absent is just not required. Formats of integers mean nothing outside Rust, and
/// the defaults of tables that nobody wrote would be all their absent fields. Names of types are ours alone.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(types)) = map.get_mut("type") {
                types.retain(|word| word != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|word| word != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    for (key, value) in only {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            let is_integer = map.get("type").is_some_and(|word| word == "integer");
            if is_integer {
                map.remove("format");
            }
            map.retain(|key, value| key != "default" || !(value.is_null() || value.is_object() || value.is_array()));
            map.values_mut().for_each(tidy);
        }
        Value::Array(list) => list.iter_mut().for_each(tidy),
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("#/$defs/Raw") {
                *text = format!("#/$defs/{name}");
            }
        }
        Value::Bool(_) | Value::Null | Value::Number(_) => {}
    }
    if let Some(Value::Object(definitions)) = value.get_mut("$defs") {
        let named = std::mem::take(definitions);
        *definitions = named
            .into_iter()
            .map(|(name, schema)| (name.strip_prefix("Raw").unwrap_or(&name).to_owned(), schema))
            .collect();
    }
}
