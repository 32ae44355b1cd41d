//! Becoming the child. Nothing of the wrapper is left: it is replaced, in the same process.

use std::io;
use std::os::fd::AsFd;

use super::command::{Command, CommandError, Target};
use crate::audit::Released;
use crate::checked_file::plain_io;
use crate::inject::ChildEnv;
use crate::policy::eval::Pin;
use crate::sys;

/// Replaces this process by `command` with the environment that was released. Returns only if that failed.
#[must_use]
pub fn exec(command: &Command, pin: Pin, environment: Released<ChildEnv>) -> CommandError {
    let target = match command.target(pin) {
        Ok(target) => target,
        Err(error) => return error,
    };
    let environment = environment.into_inner();
    let error = match &target {
        Target::Descriptor(program) => sys::execveat(program.as_fd(), environment.argv(), environment.envp()),
        Target::Path(path) => sys::execve(path, environment.argv(), environment.envp()),
    };
    drop(environment);
    // A look-up that succeeded and an exec that finds nothing: the interpreter of a script, or the ELF loader, is missing.
    let why = if error.kind() == io::ErrorKind::NotFound {
        "the interpreter or loader that it names does not exist".to_owned()
    } else {
        plain_io(&error)
    };
    CommandError::NotExecutable { path: command.found().to_owned(), why }
}
