//! What the command line's own definition gives: completions and the manual page.

use crate::cli;
use crate::error::Class;

/// The completion script for `shell`.
#[must_use]
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::definition(), "vouchsafe", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page in roff, with the options of every command and the table of exit statuses. One page: its list of commands
/// must not refer to pages that nobody has.
#[must_use]
pub fn manual() -> String {
    let definition = cli::definition();
    let man = clap_mangen::Man::new(definition.clone());
    let mut page = roff(|out| {
        man.render_title(out)?;
        man.render_name_section(out)?;
        man.render_synopsis_section(out)?;
        man.render_options_section(out)
    });
    page.push_str(".SH COMMANDS\n");
    commands(&definition, "vouchsafe", &mut page);
    page.push_str(".SH \"EXIT STATUS\"\nThe status of the command passes through. Ours:\n");
    for class in Class::ALL {
        page.push_str(&format!(".TP\n\\fB{}\\fR {}\n{}\n", class.status(), class.word(), class.meaning()));
    }
    page
}

/// Each command below `parent` that does something, as a section of its own.
fn commands(parent: &clap::Command, above: &str, page: &mut String) {
    for command in parent.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("{above} {}", command.get_name());
        if command.has_subcommands() {
            commands(command, &name, page);
            // `agent` does something by itself too.
            if command.is_subcommand_required_set() {
                continue;
            }
        }
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let command = command.clone().bin_name(&name).display_name(&name);
        let man = clap_mangen::Man::new(command.mut_args(|argument| match argument.get_id().as_str() {
            // Said once, for all commands.
            "error_format" => argument.hide(true),
            _ => argument,
        }));
        let options = roff(|out| man.render_options_section(out));
        let options = options.lines().filter(|line| *line != ".SH OPTIONS").map(|line| format!("{line}\n"));
        page.push_str(&format!(".SS \"{name}\"\n{about}\n{}", options.collect::<String>()));
    }
}

fn roff(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    // Writing into memory cannot fail.
    render(&mut out).unwrap_or_default();
    String::from_utf8_lossy(&out).into_owned()
}
