//! The child: found before anything is fetched ([`command`]), started after everything was written down ([`exec`]).

pub mod command;
pub mod exec;
