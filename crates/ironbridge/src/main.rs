//! The one binary: daemons and tools by the name it is called under, or as a subcommand.

fn main() {}
