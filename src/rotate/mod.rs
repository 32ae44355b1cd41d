//! Rotation: a new value, accepted by its target and proven, before any consumer gets it.
//!
//! create (a pending version) -> apply (the target accepts it) -> verify (it works, and can do what it must) -> promote
//! (current <- pending, previous <- current) -> retire (the target forgets the previous one). Every step is safe to repeat,
//! and which one is next is derived from the store: there is no journal that could be lost.
//!
//! - [`mod@generate`]: what makes a new value;
//! - [`target`]: what a rotated credential is for, and the steps there.

pub mod generate;
pub mod target;
