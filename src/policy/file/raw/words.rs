//! The words that a field may be, each with the checked type it stands for.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::model;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident => $model:ty { $($(#[$variant_doc:meta])* $word:literal = $variant:ident,)+ }) => {
        words!($(#[$doc])* $name { $($(#[$variant_doc])* $word = $variant,)+ });

        impl From<$name> for $model {
            fn from(word: $name) -> Self {
                match word { $($name::$variant => Self::$variant,)+ }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $word:literal = $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
        #[schemars(inline)]
        pub(in crate::policy) enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }
    };
}

words!(
    /// What kind of store.
    StoreType {
        /// A file encrypted with age.
        "age" = Age,
        /// A sealed file, or inline ciphertexts, under an AWS KMS key.
        "kms" = Kms,
        /// AWS Systems Manager Parameter Store.
        "ssm" = Ssm,
    }
);

words!(
    /// What kind of place a checkpoint goes to.
    AnchorType {
        /// A parameter of AWS Systems Manager.
        "ssm" = Ssm,
    }
);

words!(
    /// What the plaintext of an `age` store looks like.
    Format => model::DocumentFormat {
        /// vouchsafe's own document.
        "sealed" = Sealed,
        /// `NAME=value` lines.
        "dotenv" = Dotenv,
        /// One flat JSON object of strings.
        "json" = Json,
        /// One flat TOML table of strings.
        "toml" = Toml,
    }
);

words!(
    /// How names are written on the other side.
    NameWord => model::NameStyle {
        /// Unchanged.
        "as-written" = AsWritten,
        /// `DATABASE_URL` is `database-url`.
        "lower-kebab" = LowerKebab,
        /// `DATABASE_URL` is `database_url`.
        "lower_snake" = LowerSnake,
        /// `database-url` is `DATABASE_URL`.
        "UPPER_SNAKE" = UpperSnake,
    }
);

words!(
    /// The one source that AWS credentials may come from.
    CredentialWord => model::CredentialSource {
        /// `AWS_ACCESS_KEY_ID` and its company.
        "environment" = Environment,
        /// The shared configuration and credentials files.
        "profile" = Profile,
        /// IAM Identity Center.
        "sso" = Sso,
        /// EKS IRSA.
        "web-identity" = WebIdentity,
        /// ECS, EKS Pod Identity.
        "container" = Container,
        /// The instance metadata service, version 2.
        "imds" = Imds,
    }
);

words!(
    /// Which version of an item, during rotation.
    StageWord => model::Stage {
        /// What consumers get.
        "current" = Current,
        /// Created, not yet proven.
        "pending" = Pending,
        /// What consumers got before.
        "previous" = Previous,
    }
);

words!(
    /// What `run` does with a value older than its `max_age`.
    ExpiredWord => model::OnExpired {
        /// The child does not start.
        "refuse" = Refuse,
        /// `check` says so; the child starts.
        "warn" = Warn,
    }
);

words!(
    /// What makes a new value.
    GenerateType {
        /// An age identity.
        "age" = Age,
        /// Random bytes in base64 with padding.
        "base64" = Base64,
        /// What a program of yours prints.
        "command" = Command,
        /// An Ed25519 private key, PKCS #8 in PEM.
        "ed25519" = Ed25519,
        /// Random bytes in hexadecimal.
        "hex" = Hex,
        /// Random characters.
        "password" = Password,
        /// A random UUID.
        "uuid" = Uuid,
        /// An X25519 private key in base64, as WireGuard takes it.
        "x25519" = X25519,
    }
);

words!(
    /// What a generated password has at least one of.
    ClassWord => model::CharacterClass {
        /// `0-9`.
        "digit" = Digit,
        /// `a-z`.
        "lower" = Lower,
        /// Anything that is no letter and no digit.
        "symbol" = Symbol,
        /// `A-Z`.
        "upper" = Upper,
    }
);

words!(
    /// The characters of a generated password.
    AlphabetWord => model::Alphabet {
        /// `A-Z a-z 0-9`.
        "alphanumeric" = Alphanumeric,
        /// `0-9 a-f`.
        "hex" = Hex,
        /// Printable ASCII but space, quotes, backslash, `@` and `/`.
        "printable" = Printable,
        /// `A-Z a-z 0-9 - _`.
        "url-safe" = UrlSafe,
    }
);

words!(
    /// What makes the target accept a new value.
    ApplyType {
        /// A program of yours.
        "command" = Command,
        /// Nothing: the value is only generated.
        "none" = None,
        /// A PostgreSQL role's password.
        "postgres" = Postgres,
    }
);

words!(
    /// Where a version lies that is not proven yet.
    PendingWord {
        /// Beside the item, as `<name>.pending`: for readers that know no labels.
        "separate" = Separate,
        /// As a version of the item itself.
        "version" = Version,
    }
);

words!(
    /// Whether pointers to an AWS role pass to the child.
    AwsRoleWord => model::AwsRole {
        /// They pass.
        "pass" = Pass,
        /// They are removed.
        "strip" = Strip,
    }
);

words!(
    /// Who wins where a secret and the inherited environment have the same name.
    CollisionWord => model::OnCollision {
        /// Nobody: the child does not start.
        "error" = Error,
        /// The secret.
        "secret" = Secret,
        /// The inherited environment.
        "inherited" = Inherited,
    }
);

words!(
    /// How the child is run.
    ModeWord => model::RunMode {
        /// The wrapper is replaced by the child.
        "exec" = Exec,
        /// The wrapper stays as the parent.
        "supervise" = Supervise,
    }
);

words!(
    /// Whether the agent may, must or must not be used.
    AgentWord => model::AgentUse {
        /// As the caller likes.
        "allow" = Allow,
        /// Only through the agent.
        "require" = Require,
        /// Never through the agent.
        "forbid" = Forbid,
    }
);

words!(
    /// What a changed secret does to a supervised child.
    OnChangeWord => model::OnChange {
        /// It is stopped and started with the new value.
        "restart" = Restart,
        /// Nothing.
        "ignore" = Ignore,
    }
);

words!(
    /// What a supervised child that dies of a change is started with.
    OnCrashWord => model::OnCrash {
        /// What the store has then, three times more.
        "again" = Again,
        /// What the child before it had.
        "previous" = Previous,
    }
);

words!(
    /// What kind of sink.
    SinkType {
        /// A file of JSON lines.
        "file" = File,
        /// Standard error.
        "stderr" = Stderr,
        /// A descriptor that the wrapper is started with.
        "fd" = Fd,
        /// A mirror, which never counts: the local socket of a syslog daemon, RFC 5424.
        "syslog" = Syslog,
        /// A mirror, which never counts: journald's native socket.
        "journald" = Journald,
    }
);
