//! The words of the record: what happened, how it ended, and how much the record proves. Scripts may rely on them.

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)+ }

        impl $type {
            /// All of them, in the order of their words.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable word.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    };
}

words!(
    /// What happened.
    Event {
        /// Fetched to see whether something changed; nothing was handed over.
        AccessCompared = "access.compared",
        /// The policy does not grant what was asked.
        AccessDenied = "access.denied",
        /// What was granted could not be fetched or put together; nothing was released.
        AccessFailed = "access.failed",
        /// The values are handed over next. Written before they are.
        AccessReleased = "access.released",
        /// The policy grants it. Written before anything is fetched.
        AccessRequested = "access.requested",
        /// The values were released, and then the child could not be started.
        AccessUnused = "access.unused",
        /// The agent forgot what it had cached, because it was told to; or it was told to by somebody who may not.
        AgentFlushed = "agent.flushed",
        /// The agent serves from now on.
        AgentStarted = "agent.started",
        /// The agent ends.
        AgentStopped = "agent.stopped",
        /// A checkpoint did not get where it was to go. Written by the file sink itself.
        CheckpointFailed = "audit.checkpoint_failed",
        /// The log is not what its last writer left. Written by the file sink itself.
        Discontinuity = "audit.discontinuity",
        /// Bytes of the log that are no record. Written by the file sink itself.
        Quarantined = "audit.quarantined",
        /// The agent can write records again, after a time in which it could not.
        AuditResumed = "audit.resumed",
        /// Records are sealed from here on, by the keys of another seed. Written by the file sink itself.
        SealingBegun = "audit.sealing_begun",
        /// The epoch that seals records ends with this one, and the next begins. Written by the file sink itself.
        SealingEnded = "audit.sealing_ended",
        /// A supervised child has ended.
        ChildExited = "child.exited",
        /// A supervised child is going to be stopped and started with new values. Written before it is.
        ChildRestarting = "child.restarting",
        /// The policy was read again, or another one took effect.
        PolicyLoaded = "policy.loaded",
        /// A policy was not accepted.
        PolicyRefused = "policy.refused",
        /// A policy is going to be signed, and was, or was not.
        PolicySigned = "policy.signed",
        /// The version that is there is marked as the current one, before another is created.
        RotationAdopted = "rotation.adopted",
        /// The new credential was accepted by its target.
        RotationApplied = "rotation.applied",
        /// A new version exists, unproven.
        RotationCreated = "rotation.created",
        /// The new version, which was not promoted, is gone.
        RotationDiscarded = "rotation.discarded",
        /// A step of a rotation failed.
        RotationFailed = "rotation.failed",
        /// The new version is the current one.
        RotationPromoted = "rotation.promoted",
        /// The previous version is gone, from the store and from its target.
        RotationRetired = "rotation.retired",
        /// The previous version is the current one again.
        RotationRolledBack = "rotation.rolled_back",
        /// A rotation begins, or goes on.
        RotationStarted = "rotation.started",
        /// The new credential works.
        RotationVerified = "rotation.verified",
        /// Names, versions, stages or dates were read, not values.
        SecretListed = "secret.listed",
        /// The agent fetched anew what it serves, for an access that is written down.
        SecretRefreshed = "secret.refreshed",
        /// A sealed file was encrypted to other recipients.
        SecretRekeyed = "secret.rekeyed",
        /// An item was removed, or could not be.
        SecretRemoved = "secret.removed",
        /// A store is changed next. Written before it is.
        SecretWriteRequested = "secret.write_requested",
        /// A value was written, or could not be.
        SecretWritten = "secret.written",
    }
);

words!(
    /// How it ended.
    Outcome {
        /// Allowed, and not yet done.
        Allowed = "allowed",
        /// Refused by policy.
        Denied = "denied",
        /// Tried in vain.
        Failed = "failed",
        /// Done.
        Succeeded = "succeeded",
        /// Nobody can say: an answer was lost.
        Unknown = "unknown",
    }
);

words!(
    /// How much a record proves by itself.
    Assurance {
        /// Written by the agent, for other uids than its own, and chained.
        Agent = "agent",
        /// Chained, one file for each uid, durable.
        File = "file",
        /// Accepted by whoever reads the descriptor; chained within one process.
        Stream = "stream",
    }
);
