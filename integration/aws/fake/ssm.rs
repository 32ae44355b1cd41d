//! Parameter Store, as strict as AWS: sizes, tiers, names, labels, versions, selectors, keys, pages.
//!
//! What is stored as `SecureString` leaves decrypted only where `WithDecryption` asks for it and the key can be used.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::kms::Kms;
use super::names::{check_name, check_value, split};
pub use super::view::arn_of;
use super::view::{described, shown, visible};
use super::{ACCOUNT, AwsError, random_text};

/// Versions of a parameter that are kept.
const VERSIONS: usize = 100;
/// After a removal its name is not to be had for so long.
const RECREATE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Ssm {
    pub parameters: BTreeMap<String, Parameter>,
    /// How many parameters each page of `GetParametersByPath` has, in turn; then as many as are asked for.
    pub pages: Vec<usize>,
    /// Whether `Type` may change on overwrite, as moto lets it.
    pub lax_types: bool,
    /// Whether a write without `Description` drops the old one. It is not known which AWS does; it keeps it if not told so.
    pub drops_descriptions: bool,
    /// Names that were removed, and when.
    pub removed: BTreeMap<String, SystemTime>,
    pages_sent: usize,
    tokens: BTreeMap<String, (String, usize)>,
}

pub struct Parameter {
    pub versions: Vec<Version>,
    next: u64,
}

#[derive(Clone)]
pub struct Version {
    pub number: u64,
    pub value: String,
    pub kind: String,
    pub key: Option<String>,
    pub tier: String,
    pub description: String,
    pub labels: BTreeSet<String>,
    pub user: String,
    pub written: SystemTime,
}

pub(super) type Answer = Result<Value, AwsError>;

impl Ssm {
    /// Stores a parameter without asking: the state that a test begins with.
    pub fn seed(&mut self, name: &str, value: &str, kind: &str) -> u64 {
        let key = (kind == "SecureString").then(|| "alias/aws/ssm".to_owned());
        let entry = self.parameters.entry(name.into()).or_insert(Parameter { versions: Vec::new(), next: 1 });
        let number = entry.next;
        entry.next += 1;
        entry.versions.push(Version {
            number,
            value: value.into(),
            kind: kind.into(),
            key,
            tier: "Standard".into(),
            description: String::new(),
            labels: BTreeSet::new(),
            user: format!("arn:aws:iam::{ACCOUNT}:user/seed"),
            written: SystemTime::now(),
        });
        number
    }

    /// Puts a label on a version without asking.
    pub fn seed_label(&mut self, name: &str, number: u64, label: &str) {
        let parameter = self.parameters.get_mut(name).unwrap();
        for version in &mut parameter.versions {
            version.labels.remove(label);
            if version.number == number {
                version.labels.insert(label.into());
            }
        }
    }

    /// One operation.
    pub fn call(&mut self, operation: &str, body: &Value, kms: &Kms, user: &str) -> Answer {
        match operation {
            "GetParameter" => self.get_parameter(body, kms),
            "GetParameters" => self.get_parameters(body, kms),
            "GetParametersByPath" => self.by_path(body, kms),
            "GetParameterHistory" => self.history(body, kms),
            "PutParameter" => self.put(body, kms, user),
            "DeleteParameter" => self.delete(&text(body, "Name")?),
            "DeleteParameters" => self.delete_many(body),
            "LabelParameterVersion" => self.label(body),
            "UnlabelParameterVersion" => self.unlabel(body),
            "DescribeParameters" => self.describe(body),
            _ => Err(AwsError::new(400, "UnknownOperationException", "")),
        }
    }

    fn get_parameter(&self, body: &Value, kms: &Kms) -> Answer {
        let asked = text(body, "Name")?;
        match self.find(&asked) {
            Found::Nothing => Err(AwsError::new(400, "ParameterNotFound", "")),
            Found::NoVersion => {
                Err(AwsError::new(400, "ParameterVersionNotFound", "Systems Manager could not find the version"))
            }
            Found::Version { name, version, selector } => {
                Ok(json!({ "Parameter": shown(&name, version, selector, decrypts(body), kms)? }))
            }
        }
    }

    fn get_parameters(&self, body: &Value, kms: &Kms) -> Answer {
        let names = texts(body, "Names", 10)?;
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            return Err(AwsError::validation("Duplicate parameter names are not allowed"));
        }
        let (mut found, mut invalid) = (BTreeMap::new(), Vec::new());
        for asked in names {
            match self.find(&asked) {
                Found::Version { name, version, selector } => {
                    let shown = shown(&name, version, selector, decrypts(body), kms)?;
                    found.insert((name, selector.unwrap_or("").to_owned()), shown);
                }
                Found::Nothing | Found::NoVersion => invalid.push(asked),
            }
        }
        // In alphabetical order, as the service does, not in the order of the request.
        Ok(json!({ "Parameters": found.into_values().collect::<Vec<_>>(), "InvalidParameters": invalid }))
    }

    fn by_path(&mut self, body: &Value, kms: &Kms) -> Answer {
        let path = text(body, "Path")?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
        if !path.starts_with('/') || !path.chars().all(good) || path.contains("//") {
            return Err(AwsError::validation(
                "The parameter path must be prefixed with \"/\" and can include: a-zA-Z0-9_.-",
            ));
        }
        let most = body["MaxResults"].as_u64().unwrap_or(10);
        if !(1..=10).contains(&most) {
            return Err(AwsError::validation("Value at 'maxResults' failed to satisfy constraint: between 1 and 10"));
        }
        let recursive = body["Recursive"].as_bool().unwrap_or(false);
        let inside = format!("{}/", path.trim_end_matches('/'));
        let all: Vec<_> = self
            .parameters
            .iter()
            .filter(|(name, _)| name.strip_prefix(&inside).is_some_and(|rest| recursive || !rest.contains('/')))
            .collect();
        let from = self.resume(body, &path)?;
        let size = self.pages.get(self.pages_sent).copied().unwrap_or(most as usize).min(most as usize);
        let mut page = Vec::new();
        for (name, parameter) in all.iter().skip(from).take(size) {
            page.push(shown(name, parameter.versions.last().unwrap(), None, decrypts(body), kms)?);
        }
        let reached = from + page.len();
        // A last page may be full and still promise another, and a page may be empty in the middle.
        let more = reached < all.len() || self.pages_sent + 1 < self.pages.len();
        self.pages_sent += 1;
        let mut answer = json!({ "Parameters": page });
        if more {
            answer["NextToken"] = self.token(&path, reached).into();
        }
        Ok(answer)
    }

    fn history(&mut self, body: &Value, kms: &Kms) -> Answer {
        let name = text(body, "Name")?;
        let most = body["MaxResults"].as_u64().unwrap_or(50);
        if !(1..=50).contains(&most) {
            return Err(AwsError::validation("Value at 'maxResults' failed to satisfy constraint: between 1 and 50"));
        }
        let Found::Version { name, .. } = self.find(&name) else {
            return Err(AwsError::new(400, "ParameterNotFound", ""));
        };
        let from = self.resume(body, &name)?;
        let versions = &self.parameters[&name].versions;
        let mut page = Vec::new();
        for version in versions.iter().skip(from).take(most as usize) {
            let mut entry = described(&name, version);
            entry["Value"] = visible(&name, version, decrypts(body), kms)?.into();
            entry["Labels"] = version.labels.iter().cloned().collect::<Vec<_>>().into();
            page.push(entry);
        }
        let reached = from + page.len();
        let mut answer = json!({ "Parameters": page });
        if reached < versions.len() {
            answer["NextToken"] = self.token(&name, reached).into();
        }
        Ok(answer)
    }

    fn put(&mut self, body: &Value, kms: &Kms, user: &str) -> Answer {
        let (name, value) = (text(body, "Name")?.trim().to_owned(), text(body, "Value")?);
        check_name(&name, &arn_of(""))?;
        let overwrite = body["Overwrite"].as_bool().unwrap_or(false);
        let old = self.parameters.get(&name).and_then(|parameter| parameter.versions.last());
        if old.is_some() && !overwrite {
            return Err(AwsError::new(400, "ParameterAlreadyExists", "The parameter already exists."));
        }
        let kind = match (body["Type"].as_str(), old) {
            (Some(kind), None) => kind.to_owned(),
            (None, Some(old)) => old.kind.clone(),
            (Some(kind), Some(old)) if kind == old.kind || self.lax_types => kind.to_owned(),
            (Some(_), Some(_)) => {
                let why = "Parameter Store doesn't support changing a parameter type";
                return Err(AwsError::new(400, "HierarchyTypeMismatchException", why));
            }
            (None, None) => return Err(AwsError::validation("A parameter type is required when you create one.")),
        };
        if !["String", "StringList", "SecureString"].contains(&kind.as_str()) {
            return Err(AwsError::new(400, "UnsupportedParameterType", "The parameter type isn't supported."));
        }
        let was = old.map_or("Standard", |old| &old.tier);
        let tier = match body["Tier"].as_str() {
            None => was,
            Some("Intelligent-Tiering") if value.len() > 4096 || was == "Advanced" => "Advanced",
            Some("Intelligent-Tiering") => "Standard",
            Some(tier @ ("Standard" | "Advanced")) => tier,
            Some(_) => {
                return Err(AwsError::validation("Value at 'tier' failed to satisfy constraint: enum value set"));
            }
        };
        if was == "Advanced" && tier == "Standard" {
            let why = "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the \
                       advanced-parameter tier to the standard-parameter tier.";
            return Err(AwsError::validation(why));
        }
        check_value(&value, tier)?;
        let key = match (kind.as_str(), body["KeyId"].as_str()) {
            ("SecureString", key) => Some(key.unwrap_or("alias/aws/ssm").to_owned()),
            (_, None) => None,
            (_, Some(_)) => return Err(AwsError::validation("KeyId is only valid for SecureString")),
        };
        if let Some(key) = &key {
            kms.usable(key).map_err(|error| AwsError::new(400, "InvalidKeyId", &error.code))?;
        }
        let kept = old.filter(|_| !self.drops_descriptions).map(|old| old.description.clone()).unwrap_or_default();
        let description = body["Description"].as_str().map_or(kept, str::to_owned);
        if description.chars().count() > 1024 {
            let why = "Value at 'description' failed to satisfy constraint: length at most 1024";
            return Err(AwsError::validation(why));
        }
        if let Some(then) = self.removed.get(&name)
            && then.elapsed().unwrap_or_default() < RECREATE
        {
            return Err(AwsError::validation("Wait for at least 30 seconds before you create it with the same name."));
        }
        let tier = tier.to_owned();
        let parameter = self.parameters.entry(name).or_insert(Parameter { versions: Vec::new(), next: 1 });
        if parameter.versions.len() == VERSIONS {
            if !parameter.versions[0].labels.is_empty() {
                let why = "the oldest version, can't be deleted because it has a label associated with it";
                return Err(AwsError::new(400, "ParameterMaxVersionLimitExceeded", why));
            }
            parameter.versions.remove(0);
        }
        let number = parameter.next;
        parameter.next += 1;
        let labels = BTreeSet::new();
        let (user, written) = (user.to_owned(), SystemTime::now());
        let version = Version { number, value, kind, key, tier: tier.clone(), description, labels, user, written };
        parameter.versions.push(version);
        Ok(json!({ "Version": number, "Tier": tier }))
    }

    fn delete(&mut self, name: &str) -> Answer {
        match self.parameters.remove(name.trim()) {
            Some(_) => {
                self.removed.insert(name.trim().to_owned(), SystemTime::now());
                Ok(json!({}))
            }
            None => Err(AwsError::new(400, "ParameterNotFound", "")),
        }
    }

    fn delete_many(&mut self, body: &Value) -> Answer {
        let names = texts(body, "Names", 10)?;
        let (gone, invalid): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| self.delete(name).is_ok());
        Ok(json!({ "DeletedParameters": gone, "InvalidParameters": invalid }))
    }

    /// Enough of it for a listing: filters by name and by path.
    fn describe(&mut self, body: &Value) -> Answer {
        let most = body["MaxResults"].as_u64().unwrap_or(50) as usize;
        let filters: Vec<_> = body["ParameterFilters"].as_array().cloned().unwrap_or_default();
        let passes = |name: &str| {
            filters.iter().all(|filter| {
                let values: Vec<_> =
                    filter["Values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                match (filter["Key"].as_str(), filter["Option"].as_str()) {
                    (Some("Name"), None | Some("Equals")) => values.contains(&name),
                    (Some("Name"), Some("BeginsWith")) => values.iter().any(|value| name.starts_with(value)),
                    (Some("Path"), option) => values.iter().any(|value| {
                        let inside = format!("{}/", value.trim_end_matches('/'));
                        let rest = name.strip_prefix(&inside);
                        rest.is_some_and(|rest| option == Some("Recursive") || !rest.contains('/'))
                    }),
                    _ => false,
                }
            })
        };
        let all: Vec<_> = self.parameters.iter().filter(|(name, _)| passes(name)).collect();
        let from = self.resume(body, "describe")?;
        let page: Vec<_> = all
            .iter()
            .skip(from)
            .take(most)
            .map(|(name, parameter)| described(name, parameter.versions.last().unwrap()))
            .collect();
        let (reached, total) = (from + page.len(), all.len());
        let mut answer = json!({ "Parameters": page });
        if reached < total {
            answer["NextToken"] = self.token("describe", reached).into();
        }
        Ok(answer)
    }

    fn find<'s, 'a>(&'s self, asked: &'a str) -> Found<'s, 'a> {
        let Some((bare, selector)) = split(asked, &arn_of("")) else { return Found::Nothing };
        // An ARN has one slash where the name begins with one.
        let slashed = format!("/{bare}");
        let named = if asked.starts_with("arn:") && self.parameters.contains_key(&slashed) { slashed } else { bare };
        let Some(parameter) = self.parameters.get(&named) else { return Found::Nothing };
        let version = match selector {
            None => parameter.versions.last(),
            Some(selector) => parameter
                .versions
                .iter()
                .find(|version| selector.parse() == Ok(version.number) || version.labels.contains(selector)),
        };
        match version {
            Some(version) => Found::Version { name: named, version, selector },
            None => Found::NoVersion,
        }
    }

    fn token(&mut self, of: &str, reached: usize) -> String {
        let token = random_text(40);
        self.tokens.insert(token.clone(), (of.into(), reached));
        token
    }

    fn resume(&self, body: &Value, of: &str) -> Result<usize, AwsError> {
        let Some(token) = body["NextToken"].as_str() else { return Ok(0) };
        match self.tokens.get(token) {
            Some((whose, from)) if whose == of => Ok(*from),
            _ => Err(AwsError::new(400, "InvalidNextToken", "The specified token isn't valid.")),
        }
    }
}

enum Found<'s, 'a> {
    Nothing,
    NoVersion,
    Version { name: String, version: &'s Version, selector: Option<&'a str> },
}

fn decrypts(body: &Value) -> bool {
    body["WithDecryption"].as_bool().unwrap_or(false)
}

pub(super) fn text(body: &Value, field: &str) -> Result<String, AwsError> {
    let missing = || AwsError::validation(&format!("Value null at '{field}' failed to satisfy constraint: not null"));
    body[field].as_str().map(str::to_owned).ok_or_else(missing)
}

pub(super) fn texts(body: &Value, field: &str, most: usize) -> Result<Vec<String>, AwsError> {
    let list: Vec<String> =
        body[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    if list.is_empty() || list.len() > most {
        let why = format!("Value at '{field}' failed to satisfy constraint: length between 1 and {most}");
        return Err(AwsError::validation(&why));
    }
    Ok(list)
}
