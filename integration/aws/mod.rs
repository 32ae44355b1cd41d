//! AWS: `ssm` and `kms` stores, the real binary against [`fake`] (strict, scriptable) and [`moto`] (breadth).

mod addresses;
mod agent;
mod commands;
mod credentials;
mod differential;
pub mod fake;
mod fake_tests;
mod faults;
mod herd;
mod kms;
mod limits;
mod moto;
mod namespace;
mod reads;
mod scene;
mod tls;
mod writes;
