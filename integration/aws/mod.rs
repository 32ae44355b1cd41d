//! AWS: `ssm` and `kms` stores, the real binary against [`fake`] (strict, scriptable) and moto (breadth).

pub mod fake;
mod reads;
mod scene;
mod writes;
