//! The two calls to KMS. The key is named in both, and the answer has to name it too.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_kms::primitives::Blob;

use crate::secret::Secret;
use crate::store::aws::Calls;
use crate::store::aws::error::{Asked, AwsError, Problem};

fn as_sent(context: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!context.is_empty()).then(|| context.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The plaintext of a ciphertext under `key` and exactly this context.
pub(super) async fn decrypt(
    calls: &Calls<'_>,
    key: &str,
    ciphertext: &[u8],
    context: &BTreeMap<String, String>,
) -> Result<Secret, AwsError> {
    let asked = Asked { action: "kms:Decrypt", resource: key.to_owned() };
    let client = calls.kms();
    let (blob, context) = (Blob::new(ciphertext), as_sent(context));
    let call = || {
        let request = client.decrypt().key_id(key).ciphertext_blob(blob.clone());
        request.set_encryption_context(context.clone()).send()
    };
    let answer = calls.read(&asked, call).await?;
    let check = || {
        calls.check_account(answer.key_id.as_deref())?;
        if answer.key_id.as_deref() == Some(key) { Ok(()) } else { Err(Problem::WrongKey) }
    };
    check().map_err(|problem| problem.of(&asked))?;
    let plaintext = answer.plaintext.ok_or_else(|| Problem::BadAnswer("it holds no plaintext").of(&asked))?;
    Ok(Secret::new(plaintext.into_inner()))
}

/// `Encrypt` changes nothing, so it is repeated like a read.
pub(super) async fn encrypt(
    calls: &Calls<'_>,
    key: &str,
    plaintext: &[u8],
    context: &BTreeMap<String, String>,
) -> Result<Vec<u8>, AwsError> {
    let asked = Asked { action: "kms:Encrypt", resource: key.to_owned() };
    let client = calls.kms();
    let (blob, context) = (Blob::new(plaintext), as_sent(context));
    let call = || {
        let request = client.encrypt().key_id(key).plaintext(blob.clone());
        request.set_encryption_context(context.clone()).send()
    };
    let answer = calls.read(&asked, call).await?;
    calls.check_account(answer.key_id.as_deref()).map_err(|problem| problem.of(&asked))?;
    let sealed = answer.ciphertext_blob.ok_or_else(|| Problem::BadAnswer("it holds no ciphertext").of(&asked))?;
    Ok(sealed.into_inner())
}
