//! KMS: keys with states and usages, aliases, and ciphertexts that are opaque: a random blob for each, and a table.
//!
//! The encryption context is compared as the map that it is, and a key that is named has to be the right one.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{ACCOUNT, AwsError, REGION, random_bytes};

pub struct Kms {
    /// By id.
    pub keys: BTreeMap<String, KmsKey>,
    /// `alias/...` to id.
    pub aliases: BTreeMap<String, String>,
    /// Keys that the caller may not use.
    pub denied: Vec<String>,
    blobs: BTreeMap<Vec<u8>, Sealed>,
}

pub struct KmsKey {
    pub state: &'static str,
    pub usage: &'static str,
}

struct Sealed {
    key: String,
    plaintext: Vec<u8>,
    context: BTreeMap<String, String>,
}

type Answer = Result<Value, AwsError>;

impl Default for Kms {
    fn default() -> Self {
        let mut kms =
            Self { keys: BTreeMap::new(), aliases: BTreeMap::new(), denied: Vec::new(), blobs: BTreeMap::new() };
        let default = kms.create();
        kms.aliases.insert("alias/aws/ssm".into(), default);
        kms
    }
}

impl Kms {
    /// A new symmetric key; its id.
    pub fn create(&mut self) -> String {
        let hex: String = random_bytes(16).iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
        self.keys.insert(id.clone(), KmsKey { state: "Enabled", usage: "ENCRYPT_DECRYPT" });
        id
    }

    /// A ciphertext without asking, as base64.
    pub fn seal(&mut self, key: &str, plaintext: &[u8], context: &[(&str, &str)]) -> String {
        let context = context.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        STANDARD.encode(self.keep(Sealed { key: key.into(), plaintext: plaintext.into(), context }))
    }

    /// The context of every ciphertext.
    pub fn contexts(&self) -> Vec<BTreeMap<String, String>> {
        self.blobs.values().map(|sealed| sealed.context.clone()).collect()
    }

    /// One operation.
    pub fn call(&mut self, operation: &str, body: &Value) -> Answer {
        if let Some(token) = body["GrantTokens"].as_array().and_then(|tokens| tokens.first()) {
            return Err(AwsError::new(400, "InvalidGrantTokenException", &format!("no such grant token {token}")));
        }
        let answer = match operation {
            "Encrypt" => self.encrypt(body),
            "Decrypt" => self.decrypt(body),
            "ReEncrypt" => self.re_encrypt(body),
            "GenerateDataKey" => self.data_key(body),
            "DescribeKey" => self.describe(body),
            _ => Err(AwsError::new(400, "UnknownOperationException", "")),
        }?;
        if body["DryRun"].as_bool() == Some(true) {
            return Err(AwsError::new(400, "DryRunOperationException", "it would have succeeded"));
        }
        Ok(answer)
    }

    /// The id of a key that can encrypt and decrypt now, from an id, ARN or alias.
    pub fn usable(&self, name: &str) -> Result<String, AwsError> {
        let id = self.id_of(name)?;
        let key = &self.keys[&id];
        if self.denied.contains(&id) {
            let why = "The ciphertext refers to a customer master key that does not exist, does not exist in this \
                       region, or you are not allowed to access.";
            return Err(AwsError::new(400, "AccessDeniedException", why));
        }
        match key.state {
            "Enabled" => {}
            "Disabled" => {
                return Err(AwsError::new(400, "DisabledException", &format!("{} is disabled.", arn_of(&id))));
            }
            state => {
                let why = format!("{} is {state}.", arn_of(&id));
                return Err(AwsError::new(400, "KMSInvalidStateException", &why));
            }
        }
        if key.usage != "ENCRYPT_DECRYPT" {
            let why = format!("{} key usage is {} which is not valid.", arn_of(&id), key.usage);
            return Err(AwsError::new(400, "InvalidKeyUsageException", &why));
        }
        Ok(id)
    }

    fn id_of(&self, name: &str) -> Result<String, AwsError> {
        let missing = || AwsError::new(400, "NotFoundException", &format!("Key '{name}' does not exist"));
        let ours = format!("arn:aws:kms:{REGION}:{ACCOUNT}:");
        let bare = match name.strip_prefix(&ours) {
            Some(rest) => rest.strip_prefix("key/").unwrap_or(rest),
            None if name.starts_with("arn:") => return Err(missing()),
            None => name,
        };
        let id = self.aliases.get(bare).map_or(bare, String::as_str);
        if self.keys.contains_key(id) { Ok(id.to_owned()) } else { Err(missing()) }
    }

    fn encrypt(&mut self, body: &Value) -> Answer {
        let key = self.usable(text(body, "KeyId")?)?;
        let plaintext = bytes(body, "Plaintext")?;
        if plaintext.is_empty() || plaintext.len() > 4096 {
            return Err(AwsError::validation("'plaintext' failed to satisfy constraint: length between 1 and 4096"));
        }
        let blob = self.keep(Sealed { key: key.clone(), plaintext, context: context(body, "EncryptionContext") });
        let algorithm = "SYMMETRIC_DEFAULT";
        Ok(json!({ "CiphertextBlob": STANDARD.encode(blob), "KeyId": arn_of(&key), "EncryptionAlgorithm": algorithm }))
    }

    fn decrypt(&self, body: &Value) -> Answer {
        let sealed = self.open(body, "KeyId", "EncryptionContext")?;
        Ok(json!({
            "Plaintext": STANDARD.encode(&sealed.plaintext),
            "KeyId": arn_of(&sealed.key),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }))
    }

    fn re_encrypt(&mut self, body: &Value) -> Answer {
        let sealed = self.open(body, "SourceKeyId", "SourceEncryptionContext")?;
        let (plaintext, source) = (sealed.plaintext.clone(), sealed.key.clone());
        let key = self.usable(text(body, "DestinationKeyId")?)?;
        let context = context(body, "DestinationEncryptionContext");
        let blob = self.keep(Sealed { key: key.clone(), plaintext, context });
        Ok(json!({ "CiphertextBlob": STANDARD.encode(blob), "SourceKeyId": arn_of(&source), "KeyId": arn_of(&key) }))
    }

    fn data_key(&mut self, body: &Value) -> Answer {
        let key = self.usable(text(body, "KeyId")?)?;
        let plaintext = random_bytes(32);
        let context = context(body, "EncryptionContext");
        let blob = self.keep(Sealed { key: key.clone(), plaintext: plaintext.clone(), context });
        let (blob, plaintext) = (STANDARD.encode(blob), STANDARD.encode(plaintext));
        Ok(json!({ "CiphertextBlob": blob, "Plaintext": plaintext, "KeyId": arn_of(&key) }))
    }

    fn describe(&self, body: &Value) -> Answer {
        let id = self.id_of(text(body, "KeyId")?)?;
        let key = &self.keys[&id];
        Ok(json!({ "KeyMetadata": {
            "AWSAccountId": ACCOUNT, "KeyId": id, "Arn": arn_of(&id), "Enabled": key.state == "Enabled",
            "KeyState": key.state, "KeyUsage": key.usage, "KeySpec": "SYMMETRIC_DEFAULT", "MultiRegion": false,
        } }))
    }

    fn open(&self, body: &Value, key: &str, context_field: &str) -> Result<&Sealed, AwsError> {
        let blob = bytes(body, "CiphertextBlob")?;
        if blob.is_empty() || blob.len() > 6144 {
            return Err(AwsError::validation("'ciphertextBlob' failed to satisfy constraint: length at most 6144"));
        }
        // AWS says nothing more than its name here.
        let invalid = || AwsError { status: 400, code: "InvalidCiphertextException".into(), message: None };
        let named = body[key].as_str().map(|name| self.usable(name)).transpose()?;
        let sealed = self.blobs.get(&blob).ok_or_else(invalid)?;
        self.usable(&sealed.key)?;
        if named.is_some_and(|named| named != sealed.key) {
            let why = "The key ID in the request does not identify a CMK that can perform this operation.";
            return Err(AwsError::new(400, "IncorrectKeyException", why));
        }
        if sealed.context != context(body, context_field) {
            return Err(invalid());
        }
        Ok(sealed)
    }

    fn keep(&mut self, sealed: Sealed) -> Vec<u8> {
        let blob = random_bytes(120 + sealed.plaintext.len());
        self.blobs.insert(blob.clone(), sealed);
        blob
    }
}

pub fn arn_of(id: &str) -> String {
    format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/{id}")
}

fn text<'a>(body: &'a Value, field: &str) -> Result<&'a str, AwsError> {
    let missing = || AwsError::validation(&format!("Value null at '{field}' failed to satisfy constraint: not null"));
    body[field].as_str().ok_or_else(missing)
}

fn bytes(body: &Value, field: &str) -> Result<Vec<u8>, AwsError> {
    STANDARD.decode(text(body, field)?).map_err(|_| AwsError::new(400, "SerializationException", ""))
}

fn context(body: &Value, field: &str) -> BTreeMap<String, String> {
    let object = body[field].as_object();
    object.into_iter().flatten().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}
