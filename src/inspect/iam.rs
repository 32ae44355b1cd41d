//! `vouchsafe check --iam`: the IAM policy that a command needs for a policy file. Pure: nothing is asked.
//!
//! As narrow as IAM can say it: exact parameters, whole path segments, KMS only through Systems Manager and only for these
//! parameters, and only with this environment's encryption context. `docs/aws.md` explains each part.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::cli::IamFor;
use crate::error::Error;
use crate::name::{StoreName, VariableName};
use crate::output;
use crate::policy::model::{
    AwsAccess, ItemRef, KmsStore, ParameterAnchor, Policy, Sink, Source, SsmStore, Stage, Store, parameters_of,
};
use crate::store::kms::{context_of, region_of};

/// Prints it.
///
/// # Errors
/// Standard output does not take it.
pub(super) fn print(policy: &Policy, sinks: &[Sink], command: IamFor) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(&document(policy, sinks, command)).unwrap_or_default();
    output::print(&(text + "\n"))
}

fn document(policy: &Policy, sinks: &[Sink], command: IamFor) -> Value {
    let mut statements = Vec::new();
    // The audit of every command but `run` may find a checkpoint due.
    if command != IamFor::Run {
        let parameter = |to: &ParameterAnchor| Place::of(&to.aws, None).parameter(&anywhere(&to.name));
        let parameters: BTreeSet<String> = parameters_of(sinks).map(parameter).collect();
        if !parameters.is_empty() {
            statements.push(json!({ "Effect": "Allow", "Action": ["ssm:PutParameter"], "Resource": parameters }));
        }
    }
    for (name, store) in &policy.stores {
        let items: Vec<&ItemRef> = policy
            .secrets
            .values()
            .filter_map(|binding| match &binding.source {
                Source::Item(item) if item.store == *name => Some(item),
                Source::Item(_) | Source::Ciphertext { .. } | Source::Template(_) => None,
            })
            .collect();
        match store {
            Store::Age(_) => {}
            Store::Ssm(store) => {
                let paths: BTreeSet<&str> =
                    policy.bundles.iter().filter(|one| one.store == *name).map(|one| one.path.as_str()).collect();
                statements.extend(match command {
                    IamFor::Rotate => rotate_ssm(store, policy, name),
                    _ => ssm(store, &items, &paths, command),
                });
            }
            Store::Kms(store) => {
                let contexts: BTreeSet<&BTreeMap<String, String>> = policy
                    .secrets
                    .values()
                    .filter_map(|binding| match &binding.source {
                        Source::Ciphertext { store, context, .. } if store == name => Some(context),
                        Source::Ciphertext { .. } | Source::Item(_) | Source::Template(_) => None,
                    })
                    .collect();
                statements.extend(kms(policy, store, &contexts, command));
            }
        }
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// What stands for the names of hosts and users.
fn anywhere(name: &str) -> String {
    name.replace("{host}", "*").replace("{uid}", "*")
}

fn ssm(store: &SsmStore, items: &[&ItemRef], paths: &BTreeSet<&str>, command: IamFor) -> Vec<Value> {
    let place = Place::of(&store.aws, store.key.as_deref());
    let names: BTreeSet<String> = items.iter().map(|item| place.parameter(item.item.as_str())).collect();
    let staged: BTreeSet<String> = items
        .iter()
        .filter(|item| item.stage == Some(Stage::Current))
        .map(|item| place.parameter(item.item.as_str()))
        .collect();
    let below: BTreeSet<String> =
        paths.iter().map(|path| format!("{}/*", place.parameter(path.trim_end_matches('/')))).collect();
    let folders = paths.iter().map(|path| place.parameter(path.trim_end_matches('/')));
    let path_resources: BTreeSet<String> = folders.chain(below.iter().cloned()).collect();
    let arns: BTreeSet<String> =
        items.iter().map(|item| item.item.as_str()).filter(|name| name.starts_with("arn:")).map(Into::into).collect();
    let readable: BTreeSet<String> = names.union(&below).cloned().collect();

    let through_ssm =
        |actions: &[&str], parameters: &BTreeSet<String>| place.through_ssm(store.key.as_deref(), actions, parameters);
    let mut statements = Vec::new();
    let mut allow = |actions: &[&str], resources: &BTreeSet<String>| {
        if !resources.is_empty() {
            statements.push(json!({ "Effect": "Allow", "Action": actions, "Resource": resources }));
        }
    };
    match command {
        IamFor::Run => {
            allow(&["ssm:GetParameters"], &names);
            allow(&["ssm:GetParameter"], &arns);
            allow(&["ssm:GetParameterHistory"], &staged);
            allow(&["ssm:GetParametersByPath"], &path_resources);
            if !readable.is_empty() {
                statements.push(through_ssm(&["kms:Decrypt"], &readable));
            }
        }
        IamFor::Set => {
            allow(&["ssm:PutParameter", "ssm:GetParameterHistory", "ssm:GetParameter"], &names);
            // Where a rotation has labelled it; another policy may rotate it.
            allow(&["ssm:LabelParameterVersion", "ssm:UnlabelParameterVersion"], &names);
            if !names.is_empty() {
                // Encrypt for the standard tier, GenerateDataKey for the advanced one, Decrypt to read a doubt back.
                statements.push(through_ssm(&["kms:Encrypt", "kms:GenerateDataKey", "kms:Decrypt"], &names));
            }
        }
        IamFor::Remove => allow(&["ssm:DeleteParameter", "ssm:GetParameterHistory"], &names),
        IamFor::History => allow(&["ssm:GetParameterHistory"], &names),
        // Parameters lie in no sealed file.
        IamFor::Rekey => {}
        IamFor::Rotate | IamFor::Checkpoint => {}
    }
    statements
}

/// The items that are rotated, what lies beside them, the lock, and what is read for it besides.
fn rotate_ssm(store: &SsmStore, policy: &Policy, name: &StoreName) -> Vec<Value> {
    let place = Place::of(&store.aws, store.key.as_deref());
    let (mut rotated, mut apart, mut read) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut means: BTreeSet<&VariableName> = BTreeSet::new();
    for (of, rotation) in policy.secrets.values().filter_map(|binding| Some((binding, binding.rotate.as_ref()?))) {
        means.extend(crate::rotate::means_of(policy, rotation));
        let Source::Item(item) = &of.source else { continue };
        if item.store == *name {
            rotated.insert(place.parameter(item.item.as_str()));
            if rotation.pending_separate {
                apart.insert(place.parameter(&format!("{}.pending", item.item.as_str())));
            }
        }
    }
    for binding in means.into_iter().filter_map(|name| policy.secrets.get(name)) {
        if let Source::Item(item) = &binding.source
            && item.store == *name
        {
            read.insert(place.parameter(item.item.as_str()));
        }
    }
    let mut statements = Vec::new();
    let mut allow = |actions: &[&str], resources: &BTreeSet<String>| {
        if !resources.is_empty() {
            statements.push(json!({ "Effect": "Allow", "Action": actions, "Resource": resources }));
        }
    };
    let written: BTreeSet<String> = rotated.union(&apart).cloned().collect();
    allow(
        &[
            "ssm:GetParameter",
            "ssm:GetParameters",
            "ssm:GetParameterHistory",
            "ssm:PutParameter",
            "ssm:LabelParameterVersion",
            "ssm:UnlabelParameterVersion",
        ],
        &written,
    );
    allow(&["ssm:DeleteParameter"], &apart);
    allow(&["ssm:GetParameters", "ssm:GetParameter", "ssm:GetParameterHistory"], &read);
    if !written.is_empty() {
        let lock = place.parameter(&format!("{}/.vouchsafe/rotation", store.prefix.trim_end_matches('/')));
        allow(&["ssm:GetParameter", "ssm:GetParameterHistory", "ssm:PutParameter"], &BTreeSet::from([lock]));
        let actions = ["kms:Encrypt", "kms:GenerateDataKey", "kms:Decrypt"];
        statements.push(place.through_ssm(store.key.as_deref(), &actions, &written));
    }
    if !read.is_empty() {
        statements.push(place.through_ssm(store.key.as_deref(), &["kms:Decrypt"], &read));
    }
    statements
}

fn kms(policy: &Policy, store: &KmsStore, inline: &BTreeSet<&BTreeMap<String, String>>, command: IamFor) -> Vec<Value> {
    let allow = |actions: &[&str], context: &BTreeMap<String, String>| {
        let keys: Vec<&String> = context.keys().collect();
        let mut condition = json!({ "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": keys } });
        let pairs: BTreeMap<String, &String> =
            context.iter().map(|(key, value)| (format!("kms:EncryptionContext:{key}"), value)).collect();
        match condition.as_object_mut() {
            Some(condition) if !pairs.is_empty() => {
                condition.insert("StringEquals".into(), json!(pairs));
            }
            Some(condition) => {
                condition.clear();
                condition.insert("Null".into(), json!({ "kms:EncryptionContextKeys": "true" }));
            }
            None => {}
        }
        json!({ "Effect": "Allow", "Action": actions, "Resource": store.key, "Condition": condition })
    };
    let of_file = context_of(&policy.environment, policy.service.as_ref(), &store.context);
    let actions: &[&str] = match command {
        IamFor::Checkpoint => return Vec::new(),
        IamFor::Run | IamFor::History => &["kms:Decrypt"],
        IamFor::Rotate | IamFor::Set | IamFor::Remove | IamFor::Rekey => &["kms:Encrypt", "kms:Decrypt"],
    };
    let file = store.path.as_ref().map(|_| allow(actions, &of_file));
    let values = inline.iter().filter(|_| command == IamFor::Run).map(|context| allow(&["kms:Decrypt"], context));
    file.into_iter().chain(values).collect()
}

/// What stands in an ARN before the resource. What the policy leaves open is `*`.
struct Place {
    partition: &'static str,
    region: String,
    account: String,
}

impl Place {
    fn of(aws: &AwsAccess, key: Option<&str>) -> Self {
        let key = key.filter(|key| key.starts_with("arn:"));
        let region = aws.region.as_deref().or_else(|| key.and_then(region_of)).unwrap_or("*");
        let account = aws.account.as_deref().or_else(|| key.and_then(|key| key.split(':').nth(4))).unwrap_or("*");
        let partition = match region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        Self { partition, region: region.to_owned(), account: account.to_owned() }
    }

    fn suffix(&self) -> &'static str {
        if self.partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" }
    }

    fn parameter(&self, name: &str) -> String {
        if name.starts_with("arn:") {
            return name.to_owned();
        }
        let Self { partition, region, account } = self;
        format!("arn:{partition}:ssm:{region}:{account}:parameter/{}", name.trim_start_matches('/'))
    }

    /// What may be done with the key, through Systems Manager and for these parameters only.
    fn through_ssm(&self, key: Option<&str>, actions: &[&str], parameters: &BTreeSet<String>) -> Value {
        let mut condition = json!({
            "StringEquals": { "kms:ViaService": format!("ssm.{}.{}", self.region, self.suffix()) },
            "StringLike": { "kms:EncryptionContext:PARAMETER_ARN": parameters },
        });
        if let (Some(alias), Some(condition)) = (self.alias(key), condition.as_object_mut()) {
            condition.insert("ForAnyValue:StringEquals".into(), json!({ "kms:ResourceAliases": alias }));
        }
        json!({ "Effect": "Allow", "Action": actions, "Resource": self.key(key), "Condition": condition })
    }

    /// The key, or every key of the account where the store names it by an alias: then the alias is a condition.
    fn key(&self, key: Option<&str>) -> String {
        let Self { partition, region, account } = self;
        match key {
            Some(arn) if arn.starts_with("arn:") && arn.contains(":key/") => arn.to_owned(),
            Some(id) if !id.starts_with("arn:") && !id.starts_with("alias/") => {
                format!("arn:{partition}:kms:{region}:{account}:key/{id}")
            }
            _ => format!("arn:{partition}:kms:{region}:{account}:key/*"),
        }
    }

    fn alias(&self, key: Option<&str>) -> Option<String> {
        match key {
            None => Some("alias/aws/ssm".into()),
            Some(key) => key.find("alias/").and_then(|at| key.get(at..)).map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::file::{LoadOptions, load};

    const POLICY: &str = r#"
version = 1
environment = "prod"
service = "api"
store = "params"
[stores.params]
type = "ssm"
region = "eu-west-1"
account = "111122223333"
prefix = "/prod/api/"
names = "lower_snake"
[stores.sealed]
type = "kms"
key = "arn:aws:kms:eu-west-1:111122223333:key/1234"
path = "prod.kms.age"
context = { team = "payments" }
[secrets]
DB_URL = {}
STAGED = { stage = "current" }
ADMIN_URL = { inject = false }
TOKEN = { store = "sealed" }
INLINE = { store = "sealed", ciphertext = "AAAA", context = { app = "x" } }
BARE = { store = "sealed", ciphertext = "AAAA" }
[secrets.ROTATED.rotate]
every = "30d"
[secrets.APART.rotate]
pending = "separate"
apply = { type = "postgres", admin = "ADMIN_URL", role = "api" }
[[bundles]]
path = "features/"
names = "UPPER_SNAKE"
[[grants]]
secrets = ["*"]
to = "anyone"
[[audit.sinks]]
type = "stderr"
"#;

    fn iam(command: IamFor) -> String {
        let folder = crate::store::scratch::Scratch::new();
        let path = folder.write("policy.toml", POLICY, 0o600);
        let policy = match load(&path, &LoadOptions::default()) {
            Ok(policy) => policy,
            Err(errors) => panic!("{errors:?}"),
        };
        serde_json::to_string(&document(&policy, &policy.sinks, command)).unwrap()
    }

    #[test]
    fn reading_is_allowed_for_exact_names_and_whole_segments_only() {
        let text = iam(IamFor::Run);
        for part in [
            r#""Action":["ssm:GetParameters"],"Effect":"Allow","Resource":["arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/admin_url","arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/apart","arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/db_url","arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/rotated","arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/staged"]"#,
            r#""Action":["ssm:GetParameterHistory"],"Effect":"Allow","Resource":["arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/rotated","arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/staged"]"#,
            r#""Action":["ssm:GetParametersByPath"],"Effect":"Allow","Resource":["arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/features","arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/features/*"]"#,
            r#""kms:ViaService":"ssm.eu-west-1.amazonaws.com""#,
            r#""kms:ResourceAliases":"alias/aws/ssm""#,
            r#""kms:EncryptionContext:vouchsafe:environment":"prod","kms:EncryptionContext:vouchsafe:service":"api""#,
            r#""StringEquals":{"kms:EncryptionContext:app":"x"}"#,
            r#""Null":{"kms:EncryptionContextKeys":"true"}"#,
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
        for other in ["Put", "Delete", "kms:Encrypt\"", "\"Resource\":\"*\""] {
            assert!(!text.contains(other), "{other} in {text}");
        }
    }

    #[test]
    fn a_rotation_may_do_what_it_does_to_what_it_rotates() {
        let text = iam(IamFor::Rotate);
        let at = |name: &str| format!("arn:aws:ssm:eu-west-1:111122223333:parameter/prod/api/{name}");
        let rotated = format!(r#"["{}","{}","{}"]"#, at("apart"), at("apart.pending"), at("rotated"));
        for part in [
            format!(
                r#""ssm:LabelParameterVersion","ssm:UnlabelParameterVersion"],"Effect":"Allow","Resource":{rotated}"#
            ),
            format!(r#""Action":["ssm:DeleteParameter"],"Effect":"Allow","Resource":["{}"]"#, at("apart.pending")),
            format!(r#""ssm:GetParameterHistory"],"Effect":"Allow","Resource":["{}"]"#, at("admin_url")),
            format!(
                r#"["ssm:GetParameter","ssm:GetParameterHistory","ssm:PutParameter"],"Effect":"Allow","Resource":["{}"]"#,
                at(".vouchsafe/rotation")
            ),
            r#""Action":["kms:Encrypt","kms:GenerateDataKey","kms:Decrypt"]"#.to_owned(),
            r#""Action":["kms:Encrypt","kms:Decrypt"],"Condition":{"ForAllValues:StringEquals""#.to_owned(),
        ] {
            assert!(text.contains(&part), "{part}\nnot in\n{text}");
        }
        for other in ["db_url", "staged", "features", "GetParametersByPath"] {
            assert!(!text.contains(other), "{other} in {text}");
        }
    }

    #[test]
    fn each_writing_command_gets_its_own_actions() {
        let set = iam(IamFor::Set);
        assert!(set.contains("ssm:PutParameter") && set.contains("kms:GenerateDataKey"), "{set}");
        assert!(set.contains("ssm:LabelParameterVersion") && !set.contains("DeleteParameter"), "{set}");
        let remove = iam(IamFor::Remove);
        assert!(remove.contains("ssm:DeleteParameter") && remove.contains("ssm:GetParameterHistory"), "{remove}");
        assert!(!remove.contains("PutParameter"), "{remove}");
        let rekey = iam(IamFor::Rekey);
        assert!(rekey.contains("kms:Encrypt") && !rekey.contains("ssm:"), "{rekey}");
        let history = iam(IamFor::History);
        assert!(history.contains("ssm:GetParameterHistory") && !history.contains("GetParameters"), "{history}");
    }
}
