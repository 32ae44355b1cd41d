//! The examples of `deploy/` and of `docs/platforms.md`: every command line in them is one that this build takes, and every
//! policy passes `policy lint`. What stands around them is checked by the tools of its platform, in `integration/deploy.rs`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use vouchsafe::cli::{Parsed, definition, parse};
use vouchsafe::policy::file::load_host;
use vouchsafe::policy::model::Principal;

use crate::harness::Scene;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect();
    files.sort();
    files
}

/// The command lines of a text: arrays in exec form; what is between backticks or quotes, or stands alone on its line.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once('[')
            && let Some((inside, _)) = rest.rsplit_once(']')
            && let Ok(words) = serde_json::from_str::<Vec<String>>(&format!("[{inside}]"))
        {
            found.extend(words.first().is_some_and(|word| is_ours(word)).then_some(words));
            continue;
        }
        let ours = line.split(['`', '\'', '"']).map(|part| {
            let part = part.trim_start_matches("# ").trim_start();
            let part = ["- ", "web: ", "ExecStart=", "$ ", "exec ", "chpst "]
                .iter()
                .fold(part, |part, start| part.strip_prefix(start).unwrap_or(part));
            // `-u user:group` of chpst; and what the shell takes for itself.
            let part = part.strip_prefix("-u ").and_then(|rest| rest.split_once(' ')).map_or(part, |(_, rest)| rest);
            part.split_whitespace()
                .take_while(|word| !word.starts_with('>'))
                .map(str::to_owned)
                .collect::<Vec<String>>()
        });
        found.extend(ours.filter(|words| words.len() > 1 && is_ours(&words[0])));
    }
    found
}

fn is_ours(word: &str) -> bool {
    word == "vouchsafe" || word.ends_with("/bin/vouchsafe")
}

/// Whether this build takes the line. Where a CMD follows, one is added; a verb alone is how a sentence names a command.
fn is_taken(words: &[String]) -> bool {
    if let [_, verb] = words
        && definition().get_subcommands().any(|command| command.get_name() == verb)
    {
        return true;
    }
    let mut words: Vec<OsString> = words.iter().map(OsString::from).collect();
    if words.last().is_some_and(|last| last == "--") {
        words.push("command".into());
    }
    words.len() == 1 || matches!(parse(words), Ok(Parsed::Command(_)))
}

#[test]
fn every_command_line_of_the_examples_is_taken() {
    // Lines of cron are shell; `rotate_units` takes them apart.
    let files: Vec<_> = files_below(&repository("deploy"))
        .into_iter()
        .filter(|path| !path.parent().unwrap().ends_with("cron.d"))
        .collect();
    let mut with_commands = Vec::new();
    for path in files.iter().chain([&repository("docs/platforms.md")]) {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = command_lines(&text);
        for words in &lines {
            assert!(is_taken(words), "{}: {}", path.display(), words.join(" "));
        }
        if !lines.is_empty() {
            with_commands.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    for name in ["Dockerfile", "api.yaml", "ecs.yaml", "buildspec.yml", "Procfile", "vouchsafe.pp", "platforms.md"] {
        assert!(with_commands.iter().any(|with| with == name), "no command line was found in {name}");
    }
    for name in ["vouchsafe-run-example.service", "vouchsafe-agent.service", "php-fpm-shop.service", "check"] {
        assert!(with_commands.iter().any(|with| with == name), "no command line was found in {name}");
    }
    assert!(with_commands.iter().filter(|name| *name == "run").count() >= 2, "no command line was found for runit");
}

#[test]
fn a_command_line_with_a_mistake_is_found() {
    let lines = command_lines(
        "ENTRYPOINT [\"/usr/local/bin/vouchsafe\", \"run\", \"--envv\", \"prod\", \"--\"]\nweb: vouchsafe exec -- ./bin/api\n\
         # `vouchsafe check --imm`\nvouchsafe is a word here\n  - vouchsafe run --policy x -- y\n",
    );
    let taken: Vec<bool> = lines.iter().map(|words| is_taken(words)).collect();
    assert_eq!(taken, [false, false, false, false, true], "{lines:?}");
}

/// What a ConfigMap holds under `api.toml: |`.
fn embedded_policy(text: &str) -> String {
    let inside = text.split_once("  api.toml: |\n").unwrap().1.lines();
    let lines = inside.take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn every_policy_of_the_examples_passes_lint() {
    let scene = Scene::new();
    let files = files_below(&repository("deploy"));
    let mut seen = 0;
    for path in &files {
        let text = std::fs::read_to_string(path).unwrap();
        // The other file in TOML is the host file.
        let is_policy = path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with("host.toml");
        let policy = if is_policy {
            text
        } else if text.contains("kind: ConfigMap") {
            embedded_policy(&text)
        } else {
            continue;
        };
        seen += 1;
        let name = scene.write(&format!("{seen}.toml"), policy.as_bytes()).display().to_string();
        let outcome = scene.vouchsafe(&["policy", "lint", &name]);
        assert!(outcome.status.success(), "{}: {}", path.display(), outcome.transcript());
        // Nothing odd either.
        assert_eq!(outcome.err(), "", "{}", path.display());
    }
    assert!(seen >= 5, "{seen} policies");
}

#[test]
fn the_host_file_of_the_examples_lets_those_in_who_are_granted_something() {
    let scene = Scene::new();
    let text = std::fs::read(repository("deploy/agent/host.toml")).unwrap();
    let host = load_host(&scene.write("host.toml", &text), false).unwrap();
    assert_eq!(host.sinks.len(), 1);
    assert_eq!(host.agent.socket.as_deref(), Some(Path::new("/run/vouchsafe/agent.sock")));
    assert!(host.agent.user.is_some());
    let policies = files_below(&repository("deploy/agent/policies"));
    assert_eq!(host.agent.users.len(), policies.len());
    for user in &host.agent.users {
        let Principal::Name(user) = user else { panic!("{user:?}") };
        let granted = format!("to = {{ users = [\"{user}\"] }}");
        assert!(policies.iter().any(|path| std::fs::read_to_string(path).unwrap().contains(&granted)), "{granted}");
    }
}
