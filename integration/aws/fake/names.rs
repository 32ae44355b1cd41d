//! What Parameter Store allows as a name, a value, a label and a selector.
//!
//! <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html> and the service model.

use super::AwsError;

/// The name of a parameter in a write. AWS strips spaces around it.
pub fn check_name(name: &str, account_prefix: &str) -> Result<(), AwsError> {
    let rule = "Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). If formed as a path, it can \
                consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and \
                the following 3 symbols .-_";
    if name.is_empty() || name.len() + account_prefix.len() > 1011 {
        return Err(AwsError::validation(rule));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(AwsError::validation("Parameter name must be a fully qualified name."));
    }
    let segments: Vec<_> = name.strip_prefix('/').unwrap_or(name).split('/').collect();
    let first = segments[0].to_lowercase();
    if first.starts_with("aws") || first.starts_with("ssm") {
        // A reserved root answers as if it were somebody else's.
        return Err(if name.starts_with('/') {
            AwsError::new(400, "AccessDeniedException", "No access to reserved parameter name.")
        } else {
            AwsError::validation(rule)
        });
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if segments.iter().any(|segment| segment.is_empty() || !segment.chars().all(good)) {
        return Err(AwsError::validation(rule));
    }
    if name.starts_with('/') && segments.len() > 15 {
        return Err(AwsError::new(400, "HierarchyLevelLimitExceededException", "hierarchies: at most 15 levels"));
    }
    Ok(())
}

/// The value of a parameter, for its tier.
pub fn check_value(value: &str, tier: &str) -> Result<(), AwsError> {
    if value.is_empty() {
        return Err(AwsError::validation("Value '' at 'value' failed to satisfy constraint: length at least 1"));
    }
    if value.contains("{{") {
        return Err(AwsError::validation("Parameter value can't nest another parameter."));
    }
    let (limit, word) = if tier == "Standard" { (4096, "Standard") } else { (8192, "Advanced") };
    if value.len() > limit {
        return Err(AwsError::validation(&format!(
            "{word} tier parameters support a maximum parameter value of {limit} characters."
        )));
    }
    Ok(())
}

/// A label is at most 100 letters, digits, `_.-`, and does not begin with a digit, `aws` or `ssm`.
pub fn is_label(label: &str) -> bool {
    let lower = label.to_lowercase();
    (1..=100).contains(&label.len())
        && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
        && !label.starts_with(|c: char| c.is_ascii_digit())
        && !lower.starts_with("aws")
        && !lower.starts_with("ssm")
}

/// The bare name of a parameter and its selector, from a name, an ARN, or either with `:selector`.
/// `None` for an ARN of another account or region.
pub fn split<'a>(asked: &'a str, arn_prefix: &str) -> Option<(String, Option<&'a str>)> {
    let asked = asked.trim();
    if !asked.starts_with("arn:") {
        let (name, selector) = match asked.split_once(':') {
            Some((name, selector)) => (name, Some(selector)),
            None => (asked, None),
        };
        return Some((name.to_owned(), selector));
    }
    let rest = asked.strip_prefix(arn_prefix)?;
    let (name, selector) = match rest.split_once(':') {
        Some((name, selector)) => (name, Some(selector)),
        None => (rest, None),
    };
    // `parameter/x` is the ARN of both `x` and `/x`; what has more levels can only be a path.
    Some((name.to_owned(), selector))
}
