//! Names that a secret may not be bound to.
//!
//! Whoever writes a secret's value would choose, through such a name, what code the child runs: the loader's, an
//! interpreter's or a shell's start-up variables, or a command that a program runs by itself. A binding that means it says
//! `reserved = true`; the wrapper's own names are never anyone else's.

use crate::name::VariableName;

/// Whether a binding to `name` needs `reserved = true`.
#[must_use]
pub fn is_reserved(name: &VariableName) -> bool {
    let name = name.as_str();
    if NAMES.binary_search(&name).is_ok() || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return true;
    }
    // npm reads its settings whatever their case.
    let npm = name.as_bytes().get(..NPM.len());
    npm.is_some_and(|start| start.eq_ignore_ascii_case(NPM))
}

/// Whether no binding to `name` is possible, with `reserved = true` or without: the wrapper reads it or removes it.
#[must_use]
pub fn is_forbidden(name: &VariableName) -> bool {
    name.as_str().starts_with("VOUCHSAFE_")
}

/// `npm_config_*`, ours: settings of npm, `script-shell` among them.
const NPM: &[u8] = b"npm_config_";

/// Whole families.
const PREFIXES: [&str; 7] = [
    // Ours: the loader of macOS.
    "DYLD_",
    // sudo, plugins/sudoers/env.c: git runs commands that its configuration names.
    "GIT_CONFIG_",
    // sudo.
    "KRB5_CONFIG",
    // sudo and ld.so(8): preloading, search paths, auditing.
    "LD_",
    // Ours: `BASH_FUNC_name%%` cannot be a name here, but its unmangled relatives can.
    "BASH_FUNC_",
    // sudo: the loader of IRIX and Tru64.
    "_RLD",
    // The wrapper's own.
    "VOUCHSAFE_",
];

/// Single names, sorted by byte. The source of each: S sudo plugins/sudoers/env.c, G glibc sysdeps/generic/unsecvars.h,
/// O our own additions (well known, in neither list).
const NAMES: [&str; 107] = [
    "AWS_CONFIG_FILE",        // O: names programs to run
    "BASHOPTS",               // S
    "BASH_ENV",               // S
    "BROWSER",                // O: run as a command
    "BUNDLE_GEMFILE",         // O: code to load
    "CDPATH",                 // S
    "CLASSPATH",              // S
    "CORECLR_PROFILER",       // O: code before main
    "CORECLR_PROFILER_PATH",  // O: code before main
    "COR_PROFILER",           // O: code before main
    "COR_PROFILER_PATH",      // O: code before main
    "DLC_ACE",                // S
    "DOTNET_ADDITIONAL_DEPS", // O: code before main
    "DOTNET_STARTUP_HOOKS",   // O: code before main
    "EDITOR",                 // O: run as a command
    "ENV",                    // S
    "ERL_AFLAGS",             // O: flags of erl
    "ERL_FLAGS",              // O: flags of erl
    "ERL_ZFLAGS",             // O: flags of erl
    "FPATH",                  // S
    "GCONV_PATH",             // S, G
    "GEM_HOME",               // O: code to load
    "GEM_PATH",               // O: code to load
    "GETCONF_DIR",            // G
    "GIT_ASKPASS",            // O: run as a command
    "GIT_CONFIG",             // O: names programs to run
    "GIT_EDITOR",             // O: run as a command
    "GIT_EXEC_PATH",          // O: where git's commands lie
    "GIT_EXTERNAL_DIFF",      // O: run as a command
    "GIT_PAGER",              // O: run as a command
    "GIT_PROXY_COMMAND",      // O: run as a command
    "GIT_SEQUENCE_EDITOR",    // O: run as a command
    "GIT_SSH",                // O: run as a command
    "GIT_SSH_COMMAND",        // S
    "GIT_TEMPLATE_DIR",       // O: hooks to run
    "GLIBC_TUNABLES",         // O, G since 2.39
    "GLOBIGNORE",             // S
    "HOME",                   // O: start-up files of everything
    "HOSTALIASES",            // S, G
    "IFS",                    // S
    "JAVA_TOOL_OPTIONS",      // S
    "JDK_JAVA_OPTIONS",       // O: as JAVA_TOOL_OPTIONS, for the launcher
    "KRB5_KTNAME",            // S
    "KUBECONFIG",             // O: names programs to run
    "LESSCLOSE",              // O: run as a command
    "LESSOPEN",               // O: run as a command
    "LOCALDOMAIN",            // S, G
    "LOCPATH",                // G
    "LUA_INIT",               // O: code before main
    "MALLOC_TRACE",           // G: a file that is written
    "MANPAGER",               // O: run as a command
    "MAVEN_OPTS",             // O: options of the JVM
    "NIS_PATH",               // G
    "NLSPATH",                // S, G
    "NODE_OPTIONS",           // S
    "NODE_PATH",              // S
    "NULLCMD",                // S
    "OPENSSL_CONF",           // O: loads engines
    "OPENSSL_ENGINES",        // O: where engines lie
    "OPENSSL_MODULES",        // O: where providers lie
    "PAGER",                  // O: run as a command
    "PATH",                   // O: where commands lie
    "PATH_LOCALE",            // S
    "PERL5DB",                // S
    "PERL5LIB",               // S
    "PERL5OPT",               // S
    "PERLIO_DEBUG",           // S
    "PERLLIB",                // S
    "PHPRC",                  // O: configuration that loads extensions
    "PHP_INI_SCAN_DIR",       // O: the same
    "PROMPT_COMMAND",         // O: run by bash
    "PS4",                    // S
    "PYTHONBREAKPOINT",       // O: code to call
    "PYTHONHOME",             // S
    "PYTHONINSPECT",          // S
    "PYTHONPATH",             // S
    "PYTHONPLATLIBDIR",       // O: where code is loaded from
    "PYTHONSTARTUP",          // S
    "PYTHONUSERBASE",         // S
    "READNULLCMD",            // S
    "RESOLV_HOST_CONF",       // G
    "RES_OPTIONS",            // S, G
    "RUBYLIB",                // S
    "RUBYOPT",                // S
    "RUSTC_WRAPPER",          // O: run as a command
    "R_PROFILE",              // O: code before main
    "R_PROFILE_USER",         // O: the same
    "SHELL",                  // O: run as a command
    "SHELLOPTS",              // S
    "SSH_ASKPASS",            // O: run as a command
    "SSLKEYLOGFILE",          // O: session keys are written there
    "SUDO_ASKPASS",           // O: run as a command
    "SUDO_EDITOR",            // O: run as a command
    "TERMCAP",                // S
    "TERMINFO",               // S
    "TERMINFO_DIRS",          // S
    "TERMPATH",               // S
    "TMPDIR",                 // G
    "TMPPREFIX",              // S
    "TZDIR",                  // G
    "USR_ACE",                // S
    "VAR_ACE",                // S
    "VISUAL",                 // O: run as a command
    "XDG_CONFIG_DIRS",        // O: start-up files
    "XDG_CONFIG_HOME",        // O: start-up files
    "ZDOTDIR",                // S
    "_JAVA_OPTIONS",          // S
];

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VariableName {
        VariableName::new(text).unwrap()
    }

    #[test]
    fn the_list_is_sorted_so_that_it_can_be_searched() {
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        for entry in NAMES {
            assert!(is_reserved(&name(entry)), "{entry}");
            assert!(!is_reserved(&name(&format!("X{entry}"))), "X{entry}");
        }
    }

    /// The lists as their sources print them, so that an entry lost above is noticed.
    #[test]
    fn every_entry_of_the_sources_is_reserved() {
        const SUDO: &str = "IFS CDPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES NLSPATH PATH_LOCALE KRB5_CONFIG KRB5_KTNAME \
            VAR_ACE USR_ACE DLC_ACE TERMINFO TERMINFO_DIRS TERMPATH TERMCAP ENV BASH_ENV PS4 GLOBIGNORE BASHOPTS SHELLOPTS \
            JAVA_TOOL_OPTIONS _JAVA_OPTIONS CLASSPATH PERLIO_DEBUG PERLLIB PERL5LIB PERL5OPT PERL5DB FPATH NULLCMD \
            READNULLCMD ZDOTDIR TMPPREFIX PYTHONHOME PYTHONPATH PYTHONINSPECT PYTHONUSERBASE PYTHONSTARTUP RUBYLIB RUBYOPT \
            NODE_OPTIONS NODE_PATH GIT_SSH_COMMAND GCONV_PATH";
        const GLIBC: &str = "GETCONF_DIR LOCPATH MALLOC_TRACE NIS_PATH RESOLV_HOST_CONF TMPDIR TZDIR";
        const OURS: &str = "GLIBC_TUNABLES OPENSSL_CONF OPENSSL_MODULES SSLKEYLOGFILE JDK_JAVA_OPTIONS DOTNET_STARTUP_HOOKS \
            PHPRC PHP_INI_SCAN_DIR GIT_EXEC_PATH LUA_INIT R_PROFILE EDITOR PAGER BROWSER VISUAL PATH HOME SHELL";
        for entry in [SUDO, GLIBC, OURS].iter().flat_map(|list| list.split_whitespace()) {
            assert!(is_reserved(&name(entry)), "{entry}");
        }
    }

    #[test]
    fn families_are_reserved_as_a_whole() {
        for member in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "LD_AUDIT",
            "LD_",
            "_RLD_LIST",
            "_RLDN32_LIST",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0",
            "DYLD_INSERT_LIBRARIES",
            "KRB5_CONFIG_X",
            "npm_config_script_shell",
            "NPM_CONFIG_REGISTRY",
            "BASH_FUNC_x",
            "VOUCHSAFE_POLICY",
        ] {
            assert!(is_reserved(&name(member)), "{member}");
        }
        for free in ["OLD_URL", "LDAP_URL", "DATABASE_URL", "GIT_TOKEN", "NPM_TOKEN", "npm_confi", "_", "path", "LD"] {
            assert!(!is_reserved(&name(free)), "{free}");
        }
    }

    #[test]
    fn our_own_names_are_forbidden() {
        assert!(is_forbidden(&name("VOUCHSAFE_AGE_IDENTITY")));
        assert!(!is_forbidden(&name("VOUCHSAFE")));
        assert!(!is_forbidden(&name("LD_PRELOAD")));
    }
}
