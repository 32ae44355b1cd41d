//! The least that an exec wrapper can be: replaces itself by its arguments, environment untouched. What `vouchsafe run` is
//! measured against. Built on its own, static, by `benches/run`.

use std::os::unix::process::CommandExt;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().expect("a command");
    let error = std::process::Command::new(program).args(arguments).exec();
    panic!("{error}");
}
