//! IAM policies, judged as far as vouchsafe prints them: actions, resources with wildcards, conditions on the encryption
//! context and on the service by which a key is used. A condition that is not known here fails the test loudly.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a request says of itself to the conditions.
pub type Context = BTreeMap<String, Vec<String>>;

/// Whether some statement of the policy document allows this.
pub fn allows(document: &Value, action: &str, resource: &str, context: &Context) -> bool {
    let statements = document["Statement"].as_array().unwrap();
    statements.iter().any(|statement| {
        assert_eq!(statement["Effect"], "Allow");
        list(&statement["Action"]).iter().any(|pattern| matches(pattern, action))
            && list(&statement["Resource"]).iter().any(|pattern| matches(pattern, resource))
            && holds(&statement["Condition"], context)
    })
}

fn holds(condition: &Value, context: &Context) -> bool {
    let operators = condition.as_object().into_iter().flatten();
    operators.flat_map(|(operator, keys)| keys.as_object().unwrap().iter().map(move |pair| (operator, pair))).all(
        |(operator, (key, wanted))| {
            let wanted = list(wanted);
            let known = context.get(key.as_str()).map(Vec::as_slice).unwrap_or_default();
            let fits = |like: bool, value: &String| {
                wanted.iter().any(|pattern| if like { matches(pattern, value) } else { pattern == value })
            };
            match operator.as_str() {
                "StringEquals" => !known.is_empty() && known.iter().all(|value| fits(false, value)),
                "StringLike" => !known.is_empty() && known.iter().all(|value| fits(true, value)),
                "ForAllValues:StringEquals" => known.iter().all(|value| fits(false, value)),
                "ForAnyValue:StringEquals" => known.iter().any(|value| fits(false, value)),
                "ForAnyValue:StringLike" => known.iter().any(|value| fits(true, value)),
                "Null" => wanted.iter().all(|wanted| (wanted == "true") == known.is_empty()),
                other => panic!("the fake does not know the condition {other}"),
            }
        },
    )
}

fn list(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap().to_owned()).collect(),
        Value::Bool(truth) => vec![truth.to_string()],
        one => vec![one.as_str().unwrap().to_owned()],
    }
}

/// `*` is any text, a `/` too; `?` one character.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(&pattern[1..], &text[at..])),
        Some(c) => {
            let mut rest = text.chars();
            let fits = rest.next().is_some_and(|have| c == '?' || c == have);
            fits && matches(&pattern[c.len_utf8()..], rest.as_str())
        }
    }
}
