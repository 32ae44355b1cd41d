//! The child: found before anything is fetched ([`command`]), started after everything was written down ([`exec`]), and
//! stayed with where that is asked for ([`supervise`]).

pub mod command;
pub mod exec;
pub mod supervise;
