//! `ovs-pcap` and `ovs-tcpundump`: captured packets as hexadecimal digits, a packet a line, as `ofproto/trace` takes them.
//!
//! The first reads a capture file, the second what `tcpdump -xx` prints. Both know `--help` and `--version`, and say what
//! is wrong under the whole name that they were called by, as the originals do.

use std::ffi::OsString;
use std::fmt::Write;
use std::io::{BufRead, BufReader};

use ib_base::errno::strerror;
use ib_packet::pcap::PcapReader;

use crate::io::{Io, argv0, program_name, version_text};

/// Bytes of a capture's header, and of the one before each packet.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: u64 = 16;

const OPTIONS: &str = "
The following options are also available:
  -h, --help                  display this help message
  -V, --version               display version information
";

/// Reads options; the rest are the other arguments, in any order. `Err` is the exit code of a run that is over.
fn words(args: &[OsString], usage: &str, io: &mut Io<'_>) -> Result<Vec<String>, i32> {
    let name = argv0(args);
    let mut rest = Vec::new();
    let mut options = true;
    for arg in args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()) {
        let long = arg.strip_prefix("--").filter(|l| !l.is_empty());
        let is = |name: &str| long.is_some_and(|l| name.starts_with(l));
        match arg.as_str() {
            _ if !options => rest.push(arg),
            "--" => options = false,
            "-h" => return Err(help(usage, io)),
            "-V" => return Err(version(args, io)),
            _ if is("help") => return Err(help(usage, io)),
            _ if is("version") => return Err(version(args, io)),
            a if a.starts_with('-') && a.len() > 1 => {
                // Of letters in one word the first that is none is told of.
                let what = match long {
                    Some(l) => format!("--{l}"),
                    None => a.chars().take(2).collect(),
                };
                return Err(io.fatal(&name, format!("option {what} not recognized")));
            }
            _ => rest.push(arg),
        }
    }
    Ok(rest)
}

fn help(usage: &str, io: &mut Io<'_>) -> i32 {
    io.out(format!("{usage}{OPTIONS}"));
    0
}

fn version(args: &[OsString], io: &mut Io<'_>) -> i32 {
    io.out(version_text(&program_name(args), ""));
    0
}

/// Runs `ovs-pcap`.
pub fn run_pcap(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let name = argv0(args);
    let usage = format!(
        "{name}: print pcap file packet data as hex\nusage: {name} FILE\nwhere FILE is a PCAP file.\n"
    );
    let files = match words(args, &usage, io) {
        Ok(files) => files,
        Err(code) => return code,
    };
    let [file] = files.as_slice() else {
        return io.fatal(&name, "exactly 1 non-option argument required (use --help for help)");
    };
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) => return io.fatal(&name, format!("{file}: {}", strerror(&e))),
    };
    match print_capture(&bytes, io) {
        Ok(()) => 0,
        Err(why) => io.fatal(&name, why),
    }
}

/// Prints the packets in front of what cannot be read, too.
fn print_capture(bytes: &[u8], io: &mut Io<'_>) -> Result<(), String> {
    if bytes.len() < FILE_HEADER {
        return Err("end of file reading pcap header".into());
    }
    let mut left = std::io::Cursor::new(bytes);
    let mut reader = PcapReader::new(&mut left).map_err(|_| {
        let magic = bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        format!(
            "bad magic {magic} reading pcap file (expected 0xa1b2c3d4, 0xa1b23c4d, 0x4d3cb2a1 or 0xd4c3b2a1)"
        )
    })?;
    let mut at = FILE_HEADER as u64;
    loop {
        match reader.read() {
            Ok(None) => return Ok(()),
            Ok(Some((_, packet))) => {
                at += RECORD_HEADER + packet.len() as u64;
                let mut line = String::with_capacity(2 * packet.len() + 1);
                for b in packet {
                    let _ = write!(line, "{b:02x}");
                }
                io.out(line + "\n");
            }
            Err(_) if (bytes.len() as u64) < at + RECORD_HEADER => {
                return Err("end of file within pcap record header".into());
            }
            Err(_) => return Err("end of file reading pcap packet data".into()),
        }
    }
}

/// Runs `ovs-tcpundump`.
pub fn run_tcpundump(args: &[OsString], io: &mut Io<'_>) -> i32 {
    let name = argv0(args);
    let usage = format!(
        "{name}: print \"tcpdump -xx\" output as hex\nusage: {name} < FILE\nwhere FILE is output from \"tcpdump -xx\".\n"
    );
    match words(args, &usage, io) {
        Ok(rest) if rest.is_empty() => {}
        Ok(_) => return io.fatal(&name, "non-option argument not supported (use --help for help)"),
        Err(code) => return code,
    }
    let mut packet = String::new();
    let mut lines = BufReader::new(&mut *io.stdin);
    let mut line = Vec::new();
    // A line at a time: the input may be a tcpdump that still runs.
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        let row = dump_row(&text);
        if row.as_ref().is_none_or(|(offset, _)| *offset == 0) && !packet.is_empty() {
            packet.push('\n');
            let _ = io.stdout.write_all(packet.as_bytes());
            packet.clear();
        }
        if let Some((_, digits)) = row {
            packet.push_str(&digits);
        }
    }
    if !packet.is_empty() {
        packet.push('\n');
        let _ = io.stdout.write_all(packet.as_bytes());
    }
    0
}

/// `0x0010:  4500 0054 ...  E..T` with white space in front: the offset, and the digits up to the characters.
fn dump_row(line: &str) -> Option<(u64, String)> {
    let t = line.trim_start();
    if t.len() == line.len() {
        return None;
    }
    let (offset, rest) = t.strip_prefix("0x")?.split_once(':')?;
    let offset = u64::from_str_radix(offset, 16).ok()?;
    let mut digits = String::new();
    // A group is one space and its digits; two spaces end the digits.
    for group in rest.strip_prefix(' ')?.trim_end().split(' ').skip(1) {
        if group.is_empty() || group.len() > 4 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            break;
        }
        digits.push_str(group);
    }
    Some((offset, digits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::capture;

    #[test]
    fn dumps_of_tcpdump() {
        let input = "12:00:00 IP 1.2.3.4\n\t0x0000:  4500 0054 beef  E..T..\n\t0x0010:  c0a8 00\n12:00:01 IP\n\t0x0000:  4500 00\n\
                     \t0x0000:  0001\n0x0000:  ffff\n";
        let (code, out, err) = capture(run_tcpundump, &["ovs-tcpundump"], input);
        assert_eq!((code, out.as_str(), err.as_str()), (0, "45000054beefc0a800\n450000\n0001\n", ""));
        let (code, _, err) = capture(run_tcpundump, &["x/ovs-tcpundump", "y"], "");
        assert_eq!(
            (code, err.as_str()),
            (1, "x/ovs-tcpundump: non-option argument not supported (use --help for help)\n")
        );
    }

    #[test]
    fn captures() {
        let dir = std::env::temp_dir().join(format!("ovs-pcap-test.{}", std::process::id()));
        let header = [0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 1];
        let record = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0xab, 0xcd];
        let name = dir.to_string_lossy().into_owned();
        for (cut, out, err) in [
            (0, "abcd\n", ""),
            (1, "", "p: end of file reading pcap packet data\n"),
            (3, "", "p: end of file within pcap record header\n"),
            (18, "", ""),
            (19, "", "p: end of file reading pcap header\n"),
        ] {
            let all = [&header[..], &record].concat();
            std::fs::write(&dir, &all[..all.len() - cut]).unwrap();
            let got = capture(run_pcap, &["p", &name], "");
            assert_eq!(got, (i32::from(!err.is_empty()), out.into(), err.into()), "{cut}");
        }
        std::fs::write(&dir, [b'x'; 24]).unwrap();
        let (_, _, err) = capture(run_pcap, &["p", &name], "");
        assert!(err.starts_with("p: bad magic 2021161080 reading"), "{err}");
        let _ = std::fs::remove_file(&dir);
        let (code, _, err) = capture(run_pcap, &["p", "-x"], "");
        assert_eq!((code, err.as_str()), (1, "p: option -x not recognized\n"));
        assert_eq!(
            capture(run_pcap, &["p"], "").2,
            "p: exactly 1 non-option argument required (use --help for help)\n"
        );
    }
}
