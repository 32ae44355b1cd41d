//! The same legal calls, made by boto3, on moto and on the fake: what both are right about, both have to say alike.

use super::fake::Fake;
use super::moto::{Moto, boto3, venv};

/// Prints one line for each call. Dates, accounts and what only one of them knows (see `reads`) are left out.
const SCRIPT: &str = r#"
from botocore.exceptions import ClientError
def clean(value):
    if isinstance(value, dict):
        drop = ('ResponseMetadata', 'LastModifiedDate', 'ARN', 'Selector', 'LastModifiedUser', 'KeyId', 'DataType', 'Policies',
                'Tier', 'Arn', 'EncryptionAlgorithm', 'NextToken', 'AllowedPattern', 'Description', 'AccountId', 'AWSAccountId')
        return {k: clean(v) for k, v in sorted(value.items()) if k not in drop and v != []}
    if isinstance(value, list):
        items = [clean(v) for v in value]
        return sorted(items, key=lambda v: json.dumps(v, default=str))
    return value
def say(what, call, **arguments):
    try: result = clean(call(**arguments))
    except ClientError as error: result = error.response['Error']['Code']
    print(what, json.dumps(result, default=str, sort_keys=True))
put = lambda name, value, **more: say('put ' + name, ssm.put_parameter, **{'Name': name, 'Value': value, 'Type': 'SecureString', **more})
put('/a/one', 'first'); put('/a/one', 'again'); put('/a/one', 'second', Overwrite=True)
put('/a/two', 'zwei', Type='String'); put('/a/deep/three', 'drei'); put('bare', 'x'); put('/ab/other', 'y')
put('/a/list', 'x,y', Type='StringList')
get = lambda *names: say('get ' + ' '.join(names), ssm.get_parameters, Names=list(names), WithDecryption=True)
get('/a/one'); get('/a/one', '/a/two', '/none', 'bare'); get('/a/one:1', '/a/two'); get('/a/one:9'); get('/a/one:label')
for name in ('/a/one', '/a/one:1', '/none', '/a/one:7'): say('one ' + name, ssm.get_parameter, Name=name, WithDecryption=True)
label = lambda version, *labels: say('label', ssm.label_parameter_version, Name='/a/one', ParameterVersion=version, Labels=list(labels))
label(1, 'vouchsafe-current'); get('/a/one:vouchsafe-current'); label(2, 'vouchsafe-current'); get('/a/one:vouchsafe-current')
label(1, 'aws-bad', '1bad', 'good'); label(9, 'x'); label(1, 'vouchsafe-previous', 'b', 'c')
say('unlabel', ssm.unlabel_parameter_version, Name='/a/one', ParameterVersion=1, Labels=['b', 'nothing'])
say('history', ssm.get_parameter_history, Name='/a/one', WithDecryption=True)
say('no history', ssm.get_parameter_history, Name='/none')
for path in ('/a', '/a/', '/none'):
    for recursive in (False, True): say(f'path {path} {recursive}', ssm.get_parameters_by_path, Path=path, Recursive=recursive, WithDecryption=True)
for n in range(23): ssm.put_parameter(Name=f'/p/{n:02}', Value=str(n), Type='SecureString')
pages = ssm.get_paginator('get_parameters_by_path').paginate(Path='/p', WithDecryption=True)
print('all', sorted(p['Name'] + '=' + p['Value'] for page in pages for p in page['Parameters']))
say('describe', ssm.describe_parameters, ParameterFilters=[{'Key': 'Name', 'Option': 'BeginsWith', 'Values': ['/a/']}])
say('delete', ssm.delete_parameter, Name='bare'); say('delete', ssm.delete_parameter, Name='bare')
say('delete many', ssm.delete_parameters, Names=['/ab/other', '/none'])
"#;

/// The fake makes no keys by the API; moto does.
const KMS: &str = r"
def crypt(key, other):
    blob = kms.encrypt(KeyId=key, Plaintext=b'secret', EncryptionContext={'a': 'b', 'c': 'd'})['CiphertextBlob']
    for name, arguments in {
        'right': {'KeyId': key, 'EncryptionContext': {'c': 'd', 'a': 'b'}},
        'no key named': {'EncryptionContext': {'c': 'd', 'a': 'b'}},
        'no context': {'KeyId': key}, 'part': {'KeyId': key, 'EncryptionContext': {'a': 'b'}},
        'other value': {'KeyId': key, 'EncryptionContext': {'a': 'B', 'c': 'd'}},
    }.items(): say('decrypt ' + name, kms.decrypt, CiphertextBlob=blob, **arguments)
    moved = kms.re_encrypt(CiphertextBlob=blob, SourceEncryptionContext={'a': 'b', 'c': 'd'}, DestinationKeyId=other)['CiphertextBlob']
    say('moved', kms.decrypt, CiphertextBlob=moved, KeyId=other)
    say('state', lambda **a: kms.describe_key(**a)['KeyMetadata']['KeyState'], KeyId=key)
    say('no such key', kms.encrypt, KeyId='alias/none', Plaintext=b'x')
    data = kms.generate_data_key(KeyId=key, NumberOfBytes=32)
    print('data key', kms.decrypt(CiphertextBlob=data['CiphertextBlob'], KeyId=key)['Plaintext'] == data['Plaintext'])
";

#[test]
fn moto_and_the_fake_agree_on_legal_calls() {
    let (Some(moto), Some(_)) = (Moto::start(), venv("python")) else { return };
    let fake = Fake::start();
    let (key, other) = (fake.key(), fake.key());
    let ours = boto3(&fake.endpoint(), &format!("{SCRIPT}{KMS}\ncrypt('{key}', '{other}')\n"));
    let new = "kms.create_key()['KeyMetadata']['KeyId']";
    let theirs = boto3(&moto.endpoint, &format!("{SCRIPT}{KMS}\ncrypt({new}, {new})\n"));
    let pairs: Vec<_> = ours.lines().zip(theirs.lines()).filter(|(ours, theirs)| ours != theirs).collect();
    let differences: String = pairs.iter().map(|(ours, theirs)| format!("fake {ours}\nmoto {theirs}\n")).collect();
    assert!(differences.is_empty() && ours.lines().count() == theirs.lines().count(), "{differences}");
    assert!(ours.lines().count() > 40);
}
