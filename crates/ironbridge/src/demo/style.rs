//! How the demonstration looks on a terminal: headings, commands, their output, and a mark for each check.
//!
//! Colour helps a reader's eye and carries no meaning of its own: without it (`NO_COLOR`, `--no-color`, not a terminal)
//! the text is the same. Every check is one line that begins with a mark; they are counted for the exit code.

use std::io::IsTerminal;

use ib_tools::io::Io;

/// Lines of a command's output that are shown at most.
const MAX_LINES: usize = 24;

/// What a text is, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// A heading.
    Heading,
    /// A command.
    Command,
    /// What a command said.
    Output,
    /// Something that went well.
    Good,
    /// Something that did not.
    Bad,
    /// Something left out.
    Skipped,
}

impl Ink {
    fn code(self) -> &'static str {
        match self {
            Ink::Heading => "1",
            Ink::Command => "36",
            Ink::Output => "2",
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Skipped => "33",
        }
    }
}

/// The terminal, and the score.
#[derive(Debug)]
pub struct Style<'a, 'b> {
    io: &'a mut Io<'b>,
    colour: bool,
    quiet: bool,
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// Whether the terminal is one and its user wants colour.
pub fn colour_wanted() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    std::io::stdout().is_terminal() && !refused && !dumb
}

impl<'a, 'b> Style<'a, 'b> {
    /// A style on `io`; `quiet` shows checks alone.
    pub fn new(io: &'a mut Io<'b>, colour: bool, quiet: bool) -> Style<'a, 'b> {
        Style { io, colour, quiet, passed: 0, failed: 0, skipped: 0 }
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", ink.code())
        } else {
            text.to_owned()
        }
    }

    fn line(&mut self, text: &str) {
        self.io.out(format!("{text}\n"));
        // Each line as it happens, also into a pipe.
        let _ = self.io.stdout.flush();
    }

    /// A heading with a line's distance.
    pub fn heading(&mut self, text: &str) {
        if !self.quiet {
            let painted = self.paint(Ink::Heading, text);
            self.line(&format!("\n{painted}"));
        }
    }

    /// A sentence for the reader.
    pub fn say(&mut self, text: &str) {
        if !self.quiet {
            for l in text.lines() {
                self.line(format!("  {l}").trim_end());
            }
        }
    }

    /// A sentence that is shown also if quiet.
    pub fn insist(&mut self, text: &str) {
        self.line(text);
    }

    /// A command line as one would type it.
    pub fn command(&mut self, text: &str) {
        if !self.quiet {
            let painted = self.paint(Ink::Command, &format!("$ {text}"));
            self.line(&format!("  {painted}"));
        }
    }

    /// What a command said; long output is cut.
    pub fn output(&mut self, text: &str) {
        if self.quiet {
            return;
        }
        let lines: Vec<&str> = text.lines().collect();
        for l in lines.iter().take(MAX_LINES) {
            let painted = self.paint(Ink::Output, l);
            self.line(&format!("    {painted}"));
        }
        if lines.len() > MAX_LINES {
            self.line(&format!("    ... and {} lines more", lines.len() - MAX_LINES));
        }
    }

    /// A check that went well.
    pub fn pass(&mut self, text: &str) {
        self.passed += 1;
        let mark = self.paint(Ink::Good, "✓");
        self.line(&format!("  {mark} {text}"));
    }

    /// A check that failed.
    pub fn fail(&mut self, text: &str) {
        self.failed += 1;
        let painted = self.paint(Ink::Bad, &format!("✗ {text}"));
        self.line(&format!("  {painted}"));
    }

    /// A check that this machine does not allow.
    pub fn skip(&mut self, text: &str) {
        self.skipped += 1;
        let painted = self.paint(Ink::Skipped, &format!("- {text}"));
        self.line(&format!("  {painted}"));
    }

    /// The last line.
    pub fn score(&mut self, seconds: f64) {
        let skipped = if self.skipped > 0 { format!(", {} left out", self.skipped) } else { String::new() };
        let (ink, text) = if self.failed == 0 {
            (Ink::Good, format!("✓ all {} checks passed{skipped}", self.passed))
        } else {
            let all = self.passed + self.failed;
            (Ink::Bad, format!("✗ {} of {all} checks failed{skipped}", self.failed))
        };
        let painted = self.paint(ink, &text);
        self.line(&format!("\n{painted} in {seconds:.1} s; nothing is left behind."));
    }

    /// Whether no check has failed so far.
    pub fn is_clean(&self) -> bool {
        self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(colour: bool, quiet: bool, expect: &str) {
        let mut out = Vec::new();
        let mut io = Io { stdin: &mut &b""[..], stdout: &mut out, stderr: &mut Vec::new() };
        let mut s = Style::new(&mut io, colour, quiet);
        s.command("ovs-vsctl show");
        s.pass("yes");
        s.fail("no");
        assert!(!s.is_clean());
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn with_and_without_colour() {
        check(false, false, "  $ ovs-vsctl show\n  ✓ yes\n  ✗ no\n");
        check(false, true, "  ✓ yes\n  ✗ no\n");
        check(
            true,
            false,
            "  \x1b[36m$ ovs-vsctl show\x1b[0m\n  \x1b[32m✓\x1b[0m yes\n  \x1b[1;31m✗ no\x1b[0m\n",
        );
    }
}
