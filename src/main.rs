//! Parse, run, print the error, turn it into a status: nothing else is decided here.

use std::io::Write;
use std::process::ExitCode;

use vouchsafe::cli::{self, Parsed};
use vouchsafe::error::{Error, Format};
use vouchsafe::{output, run, sys};

#[global_allocator]
static ALLOCATOR: sys::Wiping = sys::Wiping;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    let (outcome, format) = match cli::parse(std::env::args_os()) {
        Ok(Parsed::Text(text)) => (output::print(&text), Format::Text),
        Ok(Parsed::Command(cli)) => (run::run(cli.command), cli.error_format.into()),
        Err(error) => (Err(error.into()), Format::asked_for(std::env::args_os())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error, format),
    }
}

fn report(error: &Error, format: Format) -> ExitCode {
    // Standard error may be closed, full or read by nobody; the status still tells.
    drop(output::complain(&(error.render(format) + "\n")));
    ExitCode::from(error.class().status())
}

/// A panic's message may hold anything, so only its place is printed. The process ends without unwinding: no destructor
/// runs that could act on half a state.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "unknown".into(), |at| format!("{}:{}", at.file(), at.line()));
    drop(writeln!(std::io::stderr(), "vouchsafe: error[internal]: internal error at {place}\nhint: please report it"));
    sys::exit_now(125);
}
