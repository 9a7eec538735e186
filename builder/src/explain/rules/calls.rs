//! Which program a command calls in the end, behind what only starts it: `sudo`, `env A=b`, `if`, `timeout 5`, `python -m`.

use super::super::shell::Simple;

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call<'s> {
    /// Its name without folder and version: `pip` for `/venv/bin/pip3.12`.
    pub(super) program: String,
    /// The same as it is written.
    pub(super) path: &'s str,
    pub(super) args: &'s [String],
}

/// Words of the shell's grammar, and programs whose arguments are the command itself.
const PREFIXES: [&str; 27] = [
    "if",
    "then",
    "elif",
    "else",
    "while",
    "until",
    "do",
    "!",
    "{",
    "time",
    "exec",
    "command",
    "builtin",
    "nohup",
    "eatmydata",
    "xvfb-run",
    "busybox",
    "sudo",
    "env",
    "nice",
    "timeout",
    "xargs",
    "gosu",
    "su-exec",
    "chroot",
    "retry",
    "catchsegv",
];
/// Prefixes with one argument of their own.
const WITH_ONE: [&str; 4] = ["timeout", "gosu", "su-exec", "chroot"];
/// `X run … COMMAND` of these is that command.
const RUNNERS: [&str; 9] = ["conda", "mamba", "micromamba", "uv", "poetry", "pipenv", "pdm", "pixi", "hatch"];
/// Options of prefixes and runners that have a value.
const VALUED: [&str; 11] = ["-u", "-n", "-g", "-p", "-I", "-P", "-L", "-d", "--name", "--prefix", "--python"];

impl<'s> Call<'s> {
    /// None for a command without a program, such as an assignment alone.
    pub(super) fn of(simple: &'s Simple) -> Option<Self> {
        let mut words: &[String] = &simple.words;
        loop {
            let (first, rest) = words.split_first()?;
            let name = plain(first);
            if is_assignment(first) {
                words = rest;
            } else if PREFIXES.contains(&name.as_str()) {
                words = behind_options(rest);
                if WITH_ONE.contains(&name.as_str()) {
                    words = words.split_first().map_or(&[][..], |(_, rest)| rest);
                }
            } else if RUNNERS.contains(&name.as_str()) && rest.first().is_some_and(|verb| verb == "run") {
                let inner = behind_options(&rest[1..]);
                // `uv run` alone is a command of its own, too: it locks and installs first.
                if inner.is_empty() || name == "uv" && !is_frozen(&rest[1..rest.len() - inner.len()]) {
                    return Some(Self { program: name, path: first, args: rest });
                }
                words = inner;
            } else if name == "python" && rest.first().is_some_and(|option| option == "-m") && rest.len() > 1
            {
                return Some(Self { program: plain(&rest[1]), path: &rest[1], args: &rest[2..] });
            } else {
                return Some(Self { program: name, path: first, args: rest });
            }
        }
    }

    /// What it is asked to do: the first argument that is no option.
    pub(super) fn verb(&self) -> &'s str {
        let words = self.operands(&[
            "--prefix",
            "--cwd",
            "-C",
            "--registry",
            "--dir",
            "--manifest-path",
            "--project",
        ]);
        words.into_iter().find(|word| !word.starts_with('+')).unwrap_or_default()
    }

    /// Whether an option is there, also as `--option=value`.
    pub(super) fn has(&self, option: &str) -> bool {
        self.args
            .iter()
            .any(|arg| arg == option || arg.strip_prefix(option).is_some_and(|rest| rest.starts_with('=')))
    }

    /// Arguments that are neither options, nor values of `valued` ones.
    pub(super) fn operands(&self, valued: &[&str]) -> Vec<&'s str> {
        let mut operands = Vec::new();
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            if valued.contains(&arg.as_str()) {
                args.next();
            } else if !arg.starts_with('-') || arg == "-" {
                operands.push(arg.as_str());
            }
        }
        operands
    }

    /// The values of an option.
    pub(super) fn values(&self, options: &[&str]) -> Vec<&'s str> {
        let mut values = Vec::new();
        let mut args = self.args.iter();
        while let Some(arg) = args.next() {
            if options.contains(&arg.as_str()) {
                values.extend(args.next().map(String::as_str));
            } else if let Some((option, value)) = arg.split_once('=')
                && options.contains(&option)
            {
                values.push(value);
            } else if let Some(value) = options.iter().find_map(|option| joined(arg, option)) {
                values.push(value);
            }
        }
        values
    }

    /// The script that a shell or interpreter is given as an argument: `sh -c '…'`, `Rscript -e '…'`.
    pub(super) fn script(&self) -> Option<&'s str> {
        let option = match self.program.as_str() {
            "sh" | "bash" | "dash" | "ash" | "zsh" | "su" => 'c',
            "python" => 'c',
            "R" | "Rscript" | "r" | "julia" | "perl" | "ruby" | "node" => 'e',
            _ => return None,
        };
        let is_option = |arg: &String| {
            arg.strip_prefix('-')
                .is_some_and(|letters| !letters.starts_with('-') && letters.ends_with(option))
        };
        let at = self.args.iter().position(is_option)?;
        self.args.get(at + 1).map(String::as_str)
    }
}

/// `-rFILE`
fn joined<'a>(arg: &'a str, option: &str) -> Option<&'a str> {
    let is_short = option.len() == 2 && !option.starts_with("--");
    arg.strip_prefix(option).filter(|value| is_short && !value.is_empty())
}

fn is_frozen(options: &[String]) -> bool {
    options
        .iter()
        .any(|option| matches!(option.as_str(), "--frozen" | "--locked" | "--no-sync" | "--no-project"))
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let name = name.strip_suffix('+').unwrap_or(name);
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// What follows options, and assignments.
fn behind_options(mut words: &[String]) -> &[String] {
    while let Some((first, rest)) = words.split_first() {
        if VALUED.contains(&first.as_str()) {
            words = rest.split_first().map_or(&[][..], |(_, rest)| rest);
        } else if first.starts_with('-') || is_assignment(first) {
            words = rest;
        } else {
            break;
        }
    }
    words
}

/// A program's name without its folder and its version.
fn plain(word: &str) -> String {
    let name = word.rsplit('/').next().unwrap_or(word);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    match bare {
        "python" | "pip" | "pipx" | "uv" | "gcc" | "ruby" | "node" | "conda" => bare.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::shell;
    use super::*;

    #[test]
    fn the_program_is_found_behind_what_starts_it() {
        for (text, program, args) in [
            ("/opt/venv/bin/pip3.12 install x", "pip", "install x"),
            ("python3 -m pip install x", "pip", "install x"),
            ("A=1 B='x y' sudo -E -u root env C=2 pip install x", "pip", "install x"),
            ("if ! timeout 5 curl -f u", "curl", "-f u"),
            ("conda run -n base --live-stream pip install x", "pip", "install x"),
            ("uv run --frozen pytest -q", "pytest", "-q"),
            ("uv run pytest -q", "uv", "run pytest -q"),
            ("xargs -n 1 apt-get install", "apt-get", "install"),
            ("python3 -c 'import x'", "python", "-c import x"),
        ] {
            let commands = shell::commands(text, &[]);
            let call = Call::of(&commands[0]).unwrap();
            assert_eq!((call.program.as_str(), call.args.join(" ").as_str()), (program, args), "{text}");
        }
        assert_eq!(Call::of(&shell::commands("A=1", &[])[0]), None);
        let commands =
            shell::commands("pip install -rone --requirement two --requirement=three x -i url y", &[]);
        let call = Call::of(&commands[0]).unwrap();
        assert_eq!(call.values(&["-r", "--requirement"]), ["one", "two", "three"]);
        assert_eq!(call.operands(&["-r", "--requirement", "-i"]), ["install", "x", "y"]);
        let commands = shell::commands("bash -lc 'a b'", &[]);
        assert_eq!(Call::of(&commands[0]).unwrap().script(), Some("a b"));
    }
}
