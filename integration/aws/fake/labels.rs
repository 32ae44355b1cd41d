//! Labels of versions, as `LabelParameterVersion` and `UnlabelParameterVersion` judge and move them.

use serde_json::{Value, json};

use super::AwsError;
use super::names::is_label;
use super::ssm::{Answer, Ssm, text, texts};

impl Ssm {
    pub(super) fn label(&mut self, body: &Value) -> Answer {
        let (name, labels) = (text(body, "Name")?, texts(body, "Labels", 10)?);
        let parameter = self.parameters.get_mut(&name).ok_or_else(|| AwsError::new(400, "ParameterNotFound", ""))?;
        let number = match body["ParameterVersion"].as_u64() {
            Some(number) => number,
            None => parameter.versions.last().unwrap().number,
        };
        if labels.iter().any(|label| label.is_empty() || label.len() > 100) {
            return Err(AwsError::validation("Value at 'labels' failed to satisfy constraint: length 1 to 100"));
        }
        let (good, bad): (Vec<_>, Vec<_>) = labels.into_iter().partition(|label| is_label(label));
        let target = parameter.versions.iter().position(|version| version.number == number);
        let target = target.ok_or_else(|| AwsError::new(400, "ParameterVersionNotFound", ""))?;
        let fresh = good.iter().filter(|label| !parameter.versions[target].labels.contains(*label)).count();
        if parameter.versions[target].labels.len() + fresh > 10 {
            return Err(AwsError::new(400, "ParameterVersionLabelLimitExceeded", "at most 10 labels for a version"));
        }
        for version in &mut parameter.versions {
            version.labels.retain(|label| !good.contains(label));
        }
        parameter.versions[target].labels.extend(good);
        Ok(json!({ "InvalidLabels": bad, "ParameterVersion": number }))
    }

    pub(super) fn unlabel(&mut self, body: &Value) -> Answer {
        let (name, labels) = (text(body, "Name")?, texts(body, "Labels", 10)?);
        let parameter = self.parameters.get_mut(&name).ok_or_else(|| AwsError::new(400, "ParameterNotFound", ""))?;
        let number = body["ParameterVersion"].as_u64().unwrap_or(0);
        let version = parameter.versions.iter_mut().find(|version| version.number == number);
        let version = version.ok_or_else(|| AwsError::new(400, "ParameterVersionNotFound", ""))?;
        let (gone, invalid): (Vec<_>, Vec<_>) = labels.into_iter().partition(|label| version.labels.remove(label));
        Ok(json!({ "RemovedLabels": gone, "InvalidLabels": invalid }))
    }
}
