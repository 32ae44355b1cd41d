//! How containers stop: `docker stop`, other stop signals, and the processes that nobody waits for. The table of
//! `docs/platforms.md` is printed here.

use std::time::Duration;

use super::engine::Engine;
use super::image::{PLAIN, identity};
use super::supervised;
use crate::aws::fake::server::eventually;

/// What stands between the engine and the application.
pub struct Mode {
    pub name: &'static str,
    pub image: &'static str,
    pub flags: &'static [&'static str],
    /// Whether the application is not PID 1, so that a signal without a handler ends it.
    pub has_init: bool,
}

const EXEC: Mode = Mode { name: "exec", image: PLAIN, flags: &[], has_init: false };
const TINI: Mode = Mode { name: "exec, `docker run --init` (tini)", image: PLAIN, flags: &["--init"], has_init: true };

const MODES: [Mode; 3] = [EXEC, TINI, supervised::MODE];

/// Signal and number. systemd in a container wants RTMIN+3, php-fpm QUIT.
const SIGNALS: [(&str, i32); 3] = [("TERM", 15), ("QUIT", 3), ("RTMIN+3", 37)];

/// Seconds of `docker stop --time`: then comes KILL.
const PATIENCE: u32 = 2;

pub fn the_table(engine: &Engine) {
    let identity = identity(engine);
    let mut table = format!(
        "\n| application | `STOPSIGNAL` | mode | `docker stop --time {PATIENCE}` takes | status |\n|---|---|---|---|---|\n"
    );
    for (signal, number) in SIGNALS {
        for mode in MODES {
            let image = format!("stop-{}-{}", mode.image, signal.to_lowercase().replace('+', "-"));
            engine.derive(&image, &format!("FROM {}\nSTOPSIGNAL SIG{signal}\n", mode.image));
            for word in ["handle", "wait"] {
                let flags = [mode.flags, &[&identity]].concat();
                let stopped = engine.start_ready(&flags, &image, &["/app", word]).stop(PATIENCE);
                let row = format!("{word} {signal} {}: {:?} {}", mode.name, stopped.took, stopped.status);
                let is_killed = word == "wait" && !mode.has_init;
                let expected = match word {
                    "handle" => 7,
                    _ if is_killed => 137,
                    _ => 128 + number,
                };
                assert_eq!(stopped.status, expected, "{row}");
                let heard = stopped.said.contains(&format!("signal {number}\n"));
                assert_eq!(heard, word == "handle", "{row}: {}", stopped.said);
                assert!(!is_killed || stopped.took >= Duration::from_secs(PATIENCE.into()), "{row}");
                let application = if word == "handle" { "has a handler" } else { "has none" };
                table += &format!(
                    "| {application} | {signal} | {} | {:.1} s | {} |\n",
                    mode.name,
                    stopped.took.as_secs_f64(),
                    stopped.status
                );
            }
        }
    }
    println!("{table}");
}

/// In exec mode the application is PID 1 and has to wait for what falls to it, as without us.
pub fn zombies(engine: &Engine) {
    let identity = identity(engine);
    for mode in MODES {
        let container = engine.start_ready(&[mode.flags, &[&identity]].concat(), mode.image, &["/app", "orphans"]);
        let expected = if mode.has_init { 0 } else { 3 };
        eventually(mode.name, || container.zombies() == expected);
        println!("\n| three orphans that ended | {} | {} zombies |", mode.name, container.zombies());
    }
}
