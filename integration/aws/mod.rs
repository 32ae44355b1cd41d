//! AWS: `ssm` and `kms` stores, the real binary against [`fake`] (strict, scriptable) and [`moto`] (breadth).

mod differential;
pub mod fake;
mod faults;
mod herd;
mod kms;
mod moto;
mod reads;
mod scene;
mod writes;
