//! Takes checkpoints of the audit log to Parameter Store. The audit knows no store, and a store no audit: they meet here.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::audit::Courier;
use crate::inject::ParentEnv;
use crate::policy::model::{HostNetwork, ParameterAnchor, Sink, parameters_of};
use crate::store::aws::{Access, Notes};
use crate::store::ssm::publish;

/// How long one may take, with credentials, names and handshakes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes checkpoints to the parameters of a policy or host file.
pub struct ToParameters {
    network: HostNetwork,
    environment: Arc<ParentEnv>,
}

impl ToParameters {
    /// For these sinks; `None` where none of them has a parameter. `environment` is what the process was started with.
    pub fn of(
        sinks: &[Sink],
        network: &HostNetwork,
        environment: impl FnOnce() -> Arc<ParentEnv>,
    ) -> Option<Arc<dyn Courier>> {
        parameters_of(sinks).next()?;
        Some(Arc::new(Self { network: network.clone(), environment: environment() }))
    }
}

impl Courier for ToParameters {
    fn take(&self, note: &str, to: &ParameterAnchor) -> Result<(), String> {
        let variable = |name: &str| self.environment.get(name).map(OsString::from);
        let notes = Notes::default();
        let access =
            Access { policy: &to.aws, network: &self.network, env: &variable, notes: &notes, fallback_region: None };
        publish(access, &name_of(to), note, Instant::now() + PATIENCE).map_err(|error| error.to_string())
    }
}

/// The name on this host, for this uid.
fn name_of(to: &ParameterAnchor) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let host: String = host.chars().map(plain).collect();
    to.name.replace("{host}", &host).replace("{uid}", &rustix::process::getuid().as_raw().to_string())
}
