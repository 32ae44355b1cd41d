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

/// The manual page in roff, with the table of exit statuses.
#[must_use]
pub fn manual() -> String {
    let mut page = Vec::new();
    clap_mangen::Man::new(cli::definition()).render(&mut page).unwrap_or_default();
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(".SH \"EXIT STATUS\"\nThe status of the command passes through. Ours:\n");
    for class in Class::ALL {
        page.push_str(&format!(".TP\n\\fB{}\\fR {}\n{}\n", class.status(), class.word(), class.meaning()));
    }
    page
}
