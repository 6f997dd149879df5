//! What a tool reads and writes, so that a test can be the terminal.
//!
//! Every tool is a function `run(args: &[OsString], io: &mut Io) -> i32`: `args[0]` is the name that it was called under
//! (which `getopt`'s errors repeat as it stands), the result is the exit code. A tool never ends the process itself,
//! except by a timeout's signal.

use std::ffi::OsString;
use std::io::{Read, Write};

/// A tool's standard input, output and error.
pub struct Io<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Standard output.
    pub stdout: &'a mut dyn Write,
    /// Standard error.
    pub stderr: &'a mut dyn Write,
}

impl std::fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Io")
    }
}

impl Io<'_> {
    /// Writes to standard output. A reader that has gone away is no error of ours.
    pub fn out(&mut self, text: impl AsRef<str>) {
        let _ = self.stdout.write_all(text.as_ref().as_bytes());
    }

    /// Writes to standard error.
    pub fn err(&mut self, text: impl AsRef<str>) {
        let _ = self.stderr.write_all(text.as_ref().as_bytes());
    }

    /// Writes `PROGRAM: MESSAGE` to standard error and returns 1, for `return io.fatal(...)`.
    pub fn fatal(&mut self, program: &str, message: impl AsRef<str>) -> i32 {
        self.err(format!("{program}: {}\n", message.as_ref()));
        1
    }
}

/// A tool or a daemon.
pub type Run = fn(&[OsString], &mut Io<'_>) -> i32;

/// The last component of `args[0]`: the program's name in its own messages.
pub fn program_name(args: &[OsString]) -> String {
    let name = args.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
    name.rsplit('/').next().unwrap_or_default().to_string()
}

/// `args[0]` as it stands, for `getopt`.
pub fn argv0(args: &[OsString]) -> String {
    args.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What `--version` prints: the line that clients parse, and our own. `extra` are the lines that some tools add.
pub fn version_text(program: &str, extra: &str) -> String {
    let line = ib_stream::unixctl::standard::version_line(program);
    format!("{line}{extra}Ironbridge {}\n", env!("CARGO_PKG_VERSION"))
}

/// Runs a tool on `input`; returns exit code, output and errors. For tests.
pub fn capture(run: Run, args: &[&str], input: &str) -> (i32, String, String) {
    let args: Vec<OsString> = args.iter().map(Into::into).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut stdin = input.as_bytes();
    let code = run(&args, &mut Io { stdin: &mut stdin, stdout: &mut stdout, stderr: &mut stderr });
    (code, String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}
