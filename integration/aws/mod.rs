//! AWS: `ssm` and `kms` stores, the real binary against [`fake`] (strict, scriptable) and [`moto`] (breadth).

mod addresses;
mod agent;
mod checkpoints;
mod commands;
pub mod credentials;
mod differential;
pub mod fake;
mod fake_tests;
mod faults;
mod herd;
mod kms;
mod limits;
pub mod moto;
pub mod namespace;
mod reads;
mod rekey;
mod rotation_bundles;
mod rotation_cut;
mod rotation_lock;
mod rotation_refused;
mod rotation_set;
mod rotation_stages;
mod rotator;
pub mod scene;
pub mod tls;
mod writes;
