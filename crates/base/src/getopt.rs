//! Command lines as `getopt_long` reads them, with its error texts.
//!
//! Long options may be abbreviated while unambiguous; arguments follow as `--opt=val` or `--opt val`, optional ones only
//! after `=`; short options cluster (`-abc`, `-ofile`); options and other arguments may mix unless the short options
//! start with `+`; `--` ends the options. Results name an option by an `id`: a short option's is its letter, a long
//! option's what its table says (a letter makes the two synonyms).
//!
//! ```
//! use ib_base::getopt::{Getopt, HasArg, LongOpt};
//! const LONG: &[LongOpt] = &[LongOpt::new("target", HasArg::Required, 't' as u32)];
//! let args = ["--target=br0", "show"].map(Into::into);
//! let mut opts = Getopt::new("ovs-appctl", &args, "+t:h", LONG);
//! let found = opts.next().unwrap().unwrap();
//! assert_eq!((found.id, found.arg_str()), ('t' as u32, "br0".to_string()));
//! assert!(opts.next().is_none());
//! assert_eq!(opts.rest(), ["show"]);
//! ```

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Whether an option takes an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HasArg {
    /// Never.
    No,
    /// Always.
    Required,
    /// Only as `--opt=val`, or `-oval`.
    Optional,
}

/// A long option.
#[derive(Clone, Copy, Debug)]
pub struct LongOpt {
    /// The name without dashes.
    pub name: &'static str,
    /// Whether it takes an argument.
    pub arg: HasArg,
    /// What [`Found::id`] says for it.
    pub id: u32,
}

impl LongOpt {
    /// A row of a table.
    pub const fn new(name: &'static str, arg: HasArg, id: u32) -> LongOpt {
        LongOpt { name, arg, id }
    }
}

/// An option on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which.
    pub id: u32,
    /// Its argument.
    pub arg: Option<OsString>,
}

impl Found {
    /// The argument as text (bytes that are not UTF-8 replaced); empty if there is none.
    pub fn arg_str(&self) -> String {
        self.arg.as_deref().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A reader of one command line. As an iterator it yields the options; [`Getopt::rest`] has the other arguments.
#[derive(Debug)]
pub struct Getopt<'a> {
    program: &'a str,
    args: &'a [OsString],
    index: usize,
    /// What remains of a cluster of short options.
    cluster: &'a [u8],
    shorts: &'a [u8],
    stop_at_first: bool,
    longs: Vec<LongOpt>,
    rest: Vec<OsString>,
}

impl<'a> Getopt<'a> {
    /// Reads `args`, which do not contain the program's name; `program` goes before error texts. `shorts` is as for
    /// the C function: letters, each with `:` for a required and `::` for an optional argument, a leading `+` to stop
    /// at the first argument that is no option.
    pub fn new(program: &'a str, args: &'a [OsString], shorts: &'a str, longs: &[LongOpt]) -> Getopt<'a> {
        let stripped = shorts.strip_prefix('+');
        Getopt {
            program,
            args,
            index: 0,
            cluster: &[],
            shorts: stripped.unwrap_or(shorts).as_bytes(),
            stop_at_first: stripped.is_some(),
            longs: longs.to_vec(),
            rest: Vec::new(),
        }
    }

    /// Adds long options, such as those that all daemons share.
    pub fn with(mut self, longs: &[LongOpt]) -> Self {
        self.longs.extend_from_slice(longs);
        self
    }

    /// The arguments that are no options, once the iterator has ended.
    pub fn rest(&self) -> Vec<OsString> {
        let mut rest = self.rest.clone();
        rest.extend_from_slice(self.args.get(self.index..).unwrap_or_default());
        rest
    }

    /// [`Getopt::rest`] as text (bytes that are not UTF-8 replaced).
    pub fn rest_str(&self) -> Vec<String> {
        self.rest().iter().map(|a| a.to_string_lossy().into_owned()).collect()
    }

    fn short(&mut self) -> Result<Found, String> {
        let letter = self.cluster[0];
        self.cluster = &self.cluster[1..];
        let at = self.shorts.iter().position(|c| *c == letter && letter != b':');
        let Some(at) = at else {
            return Err(format!("{}: invalid option -- '{}'", self.program, char::from(letter)));
        };
        let id = u32::from(letter);
        let colons = self.shorts[at + 1..].iter().take_while(|c| **c == b':').count();
        if colons == 0 {
            return Ok(Found { id, arg: None });
        }
        let glued = std::mem::take(&mut self.cluster);
        if !glued.is_empty() {
            return Ok(Found { id, arg: Some(OsString::from_vec(glued.to_vec())) });
        }
        if colons > 1 {
            return Ok(Found { id, arg: None });
        }
        match self.args.get(self.index) {
            Some(arg) => {
                self.index += 1;
                Ok(Found { id, arg: Some(arg.clone()) })
            }
            None => Err(format!("{}: option requires an argument -- '{}'", self.program, char::from(letter))),
        }
    }

    fn long(&mut self, text: &OsStr) -> Result<Found, String> {
        let bytes = text.as_bytes();
        let (name, glued) = match bytes.iter().position(|b| *b == b'=') {
            Some(eq) => (&bytes[..eq], Some(OsString::from_vec(bytes[eq + 1..].to_vec()))),
            None => (bytes, None),
        };
        let option = match self.longs.iter().find(|o| o.name.as_bytes() == name) {
            Some(exact) => *exact,
            None => {
                let matching: Vec<_> =
                    self.longs.iter().filter(|o| o.name.as_bytes().starts_with(name)).collect();
                let Some(first) = matching.first() else {
                    let whole = String::from_utf8_lossy(bytes);
                    return Err(format!("{}: unrecognized option '--{whole}'", self.program));
                };
                if matching.iter().any(|o| (o.id, o.arg) != (first.id, first.arg)) {
                    let list: String = matching.iter().map(|o| format!(" '--{}'", o.name)).collect();
                    return Err(format!(
                        "{}: option '--{}' is ambiguous; possibilities:{list}",
                        self.program,
                        text.to_string_lossy()
                    ));
                }
                **first
            }
        };
        let id = option.id;
        match (option.arg, glued) {
            (HasArg::No, Some(_)) => {
                Err(format!("{}: option '--{}' doesn't allow an argument", self.program, option.name))
            }
            (HasArg::Required, None) => match self.args.get(self.index) {
                Some(arg) => {
                    self.index += 1;
                    Ok(Found { id, arg: Some(arg.clone()) })
                }
                None => Err(format!("{}: option '--{}' requires an argument", self.program, option.name)),
            },
            (_, arg) => Ok(Found { id, arg }),
        }
    }
}

impl Iterator for Getopt<'_> {
    type Item = Result<Found, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.cluster.is_empty() {
            return Some(self.short());
        }
        loop {
            let args = self.args;
            let arg = args.get(self.index)?;
            let bytes = arg.as_bytes();
            if bytes == b"--" {
                self.index += 1;
                return None;
            }
            if let Some(name) = bytes.strip_prefix(b"--") {
                self.index += 1;
                return Some(self.long(OsStr::from_bytes(name)));
            }
            if bytes.len() > 1 && bytes[0] == b'-' {
                self.index += 1;
                self.cluster = &bytes[1..];
                return Some(self.short());
            }
            if self.stop_at_first {
                return None;
            }
            self.rest.push(arg.clone());
            self.index += 1;
        }
    }
}

/// What `-o`, `--option` of a tool prints, for shells to complete from.
pub fn options_text(tables: &[&[LongOpt]]) -> String {
    let mut out = String::new();
    for option in tables.iter().copied().flatten() {
        let arg = match option.arg {
            HasArg::No => "",
            HasArg::Required => "ARG",
            HasArg::Optional => "[ARG]",
        };
        let equals = if arg.is_empty() { "" } else { "=" };
        out.push_str(&format!("--{}{equals}{arg}\n", option.name));
        if let Some(short) = char::from_u32(option.id).filter(char::is_ascii_alphanumeric) {
            out.push_str(&format!("-{short} {arg}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &[LongOpt] = &[
        LongOpt::new("target", HasArg::Required, b't' as u32),
        LongOpt::new("help", HasArg::No, b'h' as u32),
        LongOpt::new("version", HasArg::No, b'V' as u32),
        LongOpt::new("verbose", HasArg::Optional, b'v' as u32),
    ];

    fn check(shorts: &str, args: &[&str], expect: &str) {
        let args: Vec<OsString> = args.iter().map(Into::into).collect();
        let mut opts = Getopt::new("prog", &args, shorts, LONG);
        let mut out = Vec::new();
        for found in opts.by_ref() {
            match found {
                Ok(f) => {
                    let arg = f.arg.as_ref().map(|_| format!("={}", f.arg_str())).unwrap_or_default();
                    out.push(format!("{}{arg}", char::from_u32(f.id).unwrap()));
                }
                Err(e) => out.push(e),
            }
        }
        out.push(format!("{:?}", opts.rest_str()));
        assert_eq!(out.join(" "), expect, "{args:?}");
    }

    #[test]
    fn forms() {
        check(
            "ht:v::",
            &["a", "-ht", "x", "b", "--target=y", "--tar", "z", "-v", "-vdbg"],
            "h t=x t=y t=z v v=dbg [\"a\", \"b\"]",
        );
        check("+ht:", &["-h", "cmd", "-t", "x"], "h [\"cmd\", \"-t\", \"x\"]");
        check("ht:", &["a", "--", "-h"], "[\"a\", \"-h\"]");
        check("h", &["-", "-h"], "h [\"-\"]");
    }
    #[test]
    fn printed() {
        let text = options_text(&[&LONG[..2], &LONG[3..]]);
        assert_eq!(text, "--target=ARG\n-t ARG\n--help\n-h \n--verbose=[ARG]\n-v [ARG]\n");
    }

    #[test]
    fn errors() {
        check("h", &["--foo"], "prog: unrecognized option '--foo' []");
        check("h", &["--foo=1"], "prog: unrecognized option '--foo=1' []");
        check("h", &["-z"], "prog: invalid option -- 'z' []");
        check("t:", &["-t"], "prog: option requires an argument -- 't' []");
        check("", &["--target"], "prog: option '--target' requires an argument []");
        check("", &["--help=2"], "prog: option '--help' doesn't allow an argument []");
        check("", &["--ver"], "prog: option '--ver' is ambiguous; possibilities: '--version' '--verbose' []");
    }
}
