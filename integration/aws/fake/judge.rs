//! Who may do what: names and operations that a test denies, and an IAM policy where a test has set one.

use super::iam::{self, Context};
use super::{ACCOUNT, AwsError, REGION, Record, World, kms, ssm};

impl World {
    /// IAM, as far as tests need it: names and operations that are denied.
    pub(super) fn judge(&self, record: &Record) -> Result<(), AwsError> {
        let denied = |resource: &str| {
            let why = format!(
                "User: arn:aws:iam::{ACCOUNT}:user/test is not authorized to perform: ssm:{} on resource: {resource} \
                 because no identity-based policy allows the ssm:{} action",
                record.target, record.target
            );
            Err(AwsError::new(400, "AccessDeniedException", &why))
        };
        if self.denied_operations.contains(&record.target) {
            return denied("*");
        }
        for asked in record.names() {
            let bare = asked.strip_prefix(&ssm::arn_of("")).map_or_else(|| asked.clone(), |rest| format!("/{rest}"));
            let bare = bare.split(':').next().unwrap_or(&bare);
            if self.denied.contains(bare) {
                return denied(&ssm::arn_of(bare));
            }
        }
        let Some(document) = &self.iam else { return Ok(()) };
        for (action, resource, context) in self.rights(record) {
            if !iam::allows(document, &action, &resource, &context) {
                let why = format!("not authorized to perform: {action} on resource: {resource}");
                return Err(AwsError::new(400, "AccessDeniedException", &why));
            }
        }
        Ok(())
    }

    /// What a call needs: actions on resources, with what the conditions are told.
    fn rights(&self, record: &Record) -> Vec<(String, String, Context)> {
        let body = &record.body;
        let action = format!("ssm:{}", record.target);
        if record.request.header("x-amz-target").is_some_and(|target| target.starts_with("Trent")) {
            let mut context = Context::new();
            for (name, value) in body["EncryptionContext"].as_object().into_iter().flatten() {
                let value = value.as_str().unwrap_or_default().to_owned();
                context.insert(format!("kms:EncryptionContext:{name}"), vec![value]);
                context.entry("kms:EncryptionContextKeys".into()).or_default().push(name.clone());
            }
            let key = body["KeyId"].as_str().unwrap_or("*").to_owned();
            return vec![(format!("kms:{}", record.target), key, context)];
        }
        let arn = |asked: &String| match asked.strip_prefix(&ssm::arn_of("")) {
            Some(rest) => ssm::arn_of(rest.split(':').next().unwrap_or(rest)),
            None => ssm::arn_of(asked.split(':').next().unwrap_or(asked)),
        };
        let mut parameters: Vec<String> = record.names().iter().map(arn).collect();
        let mut rights: Vec<_> = parameters.iter().map(|arn| (action.clone(), arn.clone(), Context::new())).collect();
        if let Some(path) = body["Path"].as_str() {
            rights.push((action, ssm::arn_of(path.trim_end_matches('/')), Context::new()));
            let inside = format!("{}/", path.trim_end_matches('/'));
            let below = self.ssm.parameters.keys().filter(|name| name.starts_with(&inside));
            parameters.extend(below.map(|name| ssm::arn_of(name)));
        }
        // What Parameter Store does with the key is done in the caller's name.
        let through = match record.target.as_str() {
            "PutParameter" if body["Tier"] == "Advanced" => "kms:GenerateDataKey",
            "PutParameter" => "kms:Encrypt",
            _ if body["WithDecryption"].as_bool() == Some(true) => "kms:Decrypt",
            _ => return rights,
        };
        for arn in parameters {
            let stored = self.ssm.parameters.iter().find(|(name, _)| ssm::arn_of(name) == arn);
            let stored = stored.and_then(|(_, parameter)| parameter.versions.last()?.key.clone());
            let key = body["KeyId"].as_str().map(ToOwned::to_owned).or(stored);
            let Some(id) = key.and_then(|key| self.kms.usable(&key).ok()) else { continue };
            let aliases = self.kms.aliases.iter().filter(|(_, target)| **target == id);
            let context = Context::from([
                ("kms:ViaService".into(), vec![format!("ssm.{REGION}.amazonaws.com")]),
                ("kms:EncryptionContext:PARAMETER_ARN".into(), vec![arn]),
                ("kms:EncryptionContextKeys".into(), vec!["PARAMETER_ARN".into()]),
                ("kms:ResourceAliases".into(), aliases.map(|(alias, _)| alias.clone()).collect()),
            ]);
            rights.push((through.into(), kms::arn_of(&id), context));
        }
        rights
    }
}
