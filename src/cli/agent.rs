//! `vouchsafe agent`, and what `run` says of the agent.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::agent::health::Address;
use crate::name::{EnvironmentName, ServiceName};

/// `vouchsafe agent`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Agent {
    /// Ask the agent that runs, instead of being it.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// The folder of the policies to serve: ENVIRONMENT.toml and ENVIRONMENT/SERVICE.toml in it.
    #[arg(long, value_name = "DIR", required = true)]
    pub policies: Option<PathBuf>,
    /// The socket to serve. Default: what the host file says. Not used where systemd hands one over.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The host file. Default: /etc/vouchsafe/host.toml.
    #[arg(long, value_name = "FILE")]
    pub host: Option<PathBuf>,
    // Not a comment for rustdoc, which takes the brackets for a link.
    #[arg(
        long,
        value_name = "ADDRESS",
        help = "Answer /livez, /readyz and /metrics here: unix:PATH, 127.0.0.1:PORT or [::1]:PORT"
    )]
    #[allow(missing_docs)]
    pub health: Option<Address>,
}

/// What can be asked of an agent that runs.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// What it serves and how it is. Shows no value.
    Status {
        /// Its socket. Also VOUCHSAFE_AGENT. Default: what the host file says.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make it forget what it has cached.
    Flush {
        /// Its socket. Also VOUCHSAFE_AGENT. Default: what the host file says.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// Of this environment only.
        #[arg(long, short = 'e', value_name = "ENVIRONMENT")]
        env: Option<EnvironmentName>,
        /// Of this service only.
        #[arg(long, short = 's', value_name = "SERVICE")]
        service: Option<ServiceName>,
    },
}

/// Whether `run` goes through the agent.
#[derive(Debug, Clone, Default, Args)]
pub struct Through {
    /// Go through the agent, at this socket, and in no other way. Without a socket: VOUCHSAFE_AGENT, or what the host file
    /// says. The agent chooses the policy, by --env and --service.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true, conflicts_with_all = ["no_agent", "policy"])]
    pub agent: Option<Option<PathBuf>>,
    /// Not through the agent, even if there is one. The record says so.
    #[arg(long)]
    pub no_agent: bool,
}
