//! `ovs-pki`: a simple public key infrastructure for the switch's TLS connections.
//!
//! Two certificate authorities, one for switches and one for controllers, live in a directory as `openssl ca` keeps them, so that
//! either program can go on with what the other began. The cryptography is done by the `openssl` program, as it is in the original: a
//! host that makes keys has it, and ours need not speak X.509's writing side for a tool that runs a few times in a network's
//! life. What openssl says goes to the log file; its configuration goes in by its standard input.

use crate::io::{Io, argv0, program_name, version_text};
use ib_ovsdb::Uuid;
use ib_sys::dirs;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How long certificates last.
const DAYS: &str = "3650";
/// The fewest bits of a key.
const MIN_BITS: u32 = 1024;
/// A command and its arguments at most.
const MAX_WORDS: usize = 3;

/// Why the tool stops.
enum Stop {
    /// `PROGRAM: message`.
    Fatal(String),
    /// The line is complete.
    Line(String),
    /// Everything is said.
    Exit(i32),
}

type Outcome<T = ()> = Result<T, Stop>;

fn fatal<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Stop::Fatal(message.into()))
}

/// A system call's failure on a file.
fn failed(path: &Path) -> impl Fn(std::io::Error) -> Stop + '_ {
    move |e| Stop::Fatal(format!("{}: {}", path.display(), ib_base::errno::strerror(&e)))
}

struct Settings {
    is_dsa: bool,
    bits: String,
    dsaparam: Option<PathBuf>,
    dir: PathBuf,
    log: PathBuf,
    force: bool,
    batch: bool,
    unique: bool,
}

/// Runs the tool. `args` begins with the name that it was called by.
pub fn run(args: &[OsString], io: &mut Io<'_>) -> i32 {
    match run_checked(args, io) {
        Ok(()) => 0,
        Err(Stop::Exit(code)) => code,
        Err(Stop::Line(line)) => {
            io.err(format!("{line}\n"));
            1
        }
        Err(Stop::Fatal(message)) => io.fatal(&argv0(args), message),
    }
}

fn run_checked(args: &[OsString], io: &mut Io<'_>) -> Outcome {
    ib_sys::process::init(&program_name(args));
    let mut settings = Settings {
        is_dsa: false,
        bits: "3072".to_string(),
        dsaparam: None,
        dir: default_dir(),
        log: dirs::logdir().join("ovs-pki.log"),
        force: false,
        batch: false,
        unique: false,
    };
    let mut words: Vec<String> = Vec::new();
    let mut rest = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned());
    while let Some(word) = rest.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if word.starts_with("--") => (name.to_string(), Some(value.to_string())),
            _ => (word.clone(), None),
        };
        let mut argument = |long: &str| match attached.clone().or_else(|| rest.next()) {
            Some(value) => Ok(value),
            None => Err(Stop::Fatal(format!("error: missing argument to {long}"))),
        };
        match name.as_str() {
            "-h" | "--help" => {
                io.out(help(&argv0(args), &default_dir()));
                return Ok(());
            }
            "-V" | "--version" => {
                io.out(version_text("ovs-pki", ""));
                return Ok(());
            }
            "-k" | "--key" => match argument("--key")?.as_str() {
                "rsa" => settings.is_dsa = false,
                "dsa" => settings.is_dsa = true,
                _ => return fatal("argument to -k or --key must be rsa or dsa"),
            },
            "-B" | "--bits" => settings.bits = argument("--bits")?,
            "-D" | "--dsaparam" => settings.dsaparam = Some(argument("--dsaparam")?.into()),
            "-d" | "--dir" => settings.dir = argument("--dir")?.into(),
            "-l" | "--log" => settings.log = argument("--log")?.into(),
            "-f" | "--force" => settings.force = true,
            "-b" | "--batch" => settings.batch = true,
            "-u" | "--unique" => settings.unique = true,
            _ if word.starts_with('-') => return Err(Stop::Line(format!("unrecognized option {word}"))),
            _ if words.len() == MAX_WORDS => {
                return Err(Stop::Line(format!("{word}: only two arguments may be specified")));
            }
            _ => words.push(word),
        }
    }
    if !settings.bits.parse().is_ok_and(|bits: u32| bits >= MIN_BITS) {
        return fatal(format!("argument to -B or --bits must be at least {MIN_BITS}"));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    dispatch(&settings, &words, io)
}

fn dispatch(settings: &Settings, words: &[&str], io: &mut Io<'_>) -> Outcome {
    match *words {
        [] => fatal("missing command name; use --help for help"),
        ["init", ..] => init(settings, io),
        ["req", name] => {
            req(settings, name)?;
            fingerprint(&file(name, "req"), io).map(drop)
        }
        ["sign", name] => sign(settings, name, "switch", true, io),
        ["sign", name, kind] => sign(settings, name, authority(kind)?, true, io),
        ["req+sign", name] => req_sign(settings, name, "switch", io),
        ["req+sign", name, kind] => req_sign(settings, name, authority(kind)?, io),
        ["verify", name] => verify(settings, name, "switch", io),
        ["verify", name, kind] => verify(settings, name, authority(kind)?, io),
        ["fingerprint", path] => fingerprint(Path::new(path), io).map(drop),
        ["self-sign", name] => self_sign(settings, name),
        [command @ ("req" | "fingerprint" | "self-sign"), ..] => {
            fatal(format!("{command} must have exactly one argument; use --help for help"))
        }
        [command @ ("sign" | "req+sign" | "verify"), ..] => {
            fatal(format!("{command} must have one or two arguments; use --help for help"))
        }
        [command, ..] => fatal(format!("{command} command unknown; use --help for help")),
    }
}

fn default_dir() -> PathBuf {
    PathBuf::from("/var/lib/openvswitch/pki")
}

fn authority(kind: &str) -> Outcome<&'static str> {
    match kind {
        "switch" => Ok("switch"),
        "controller" => Ok("controller"),
        _ => fatal("type argument must be 'switch' or 'controller'"),
    }
}

/// `NAME-WHAT.pem`, here.
fn file(name: &str, what: &str) -> PathBuf {
    PathBuf::from(format!("{name}-{what}.pem"))
}

fn must_exist(path: &Path) -> Outcome {
    if path.exists() { Ok(()) } else { fatal(format!("{} does not exist", path.display())) }
}

fn must_not_exist(settings: &Settings, path: &Path) -> Outcome {
    if !path.exists() || settings.force {
        return Ok(());
    }
    fatal(format!("{} already exists and --force not supplied", path.display()))
}

/// Runs openssl with `input`; what it says goes to the log.
fn openssl(settings: &Settings, dir: &Path, args: &[&str], input: &str) -> Outcome {
    let log = OpenOptions::new().create(true).append(true).open(&settings.log);
    // A log that cannot be written does not keep anybody from a key.
    let output = || match &log {
        Ok(log) => log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from),
        Err(_) => Stdio::null(),
    };
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(args).stdin(Stdio::piped()).stdout(output()).stderr(output());
    let mut child = command.spawn().map_err(no_openssl)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read what it was given has failed, and says so by its status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = child.wait().map_err(no_openssl)?;
    if status.success() {
        return Ok(());
    }
    let what = args.first().copied().unwrap_or_default();
    fatal(format!("openssl {what} failed; see {} for what it says", settings.log.display()))
}

fn no_openssl(e: std::io::Error) -> Stop {
    match e.kind() {
        std::io::ErrorKind::NotFound => {
            Stop::Fatal("the openssl program is needed, but it is not installed".to_string())
        }
        _ => Stop::Fatal(format!("openssl: {}", ib_base::errno::strerror(&e))),
    }
}

/// What date(1) prints for the time of a file, or for now.
fn date(args: &[&str], io: &mut Io<'_>) -> Outcome<String> {
    let output = Command::new("date").args(args).output().map_err(failed(Path::new("date")))?;
    if !output.status.success() {
        io.err(String::from_utf8_lossy(&output.stderr));
        return Err(Stop::Exit(1));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
}

fn init(settings: &Settings, io: &mut Io<'_>) -> Outcome {
    let dir = &settings.dir;
    if dir.exists() && !settings.force {
        return fatal(format!("{} already exists and --force not specified", dir.display()));
    }
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let newkey = if settings.is_dsa {
        if !dir.join("dsaparam.pem").exists() {
            io.err("Generating DSA parameters, please wait...\n");
            openssl(settings, dir, &["dsaparam", "-out", "dsaparam.pem", &settings.bits], "")?;
        }
        "dsa:../dsaparam.pem".to_string()
    } else {
        format!("rsa:{}", settings.bits)
    };
    let now = date(&["+%Y %b %d %T"], io)?;
    for name in ["controllerca", "switchca"] {
        io.err(format!("Creating {name}...\n"));
        init_authority(settings, &dir.join(name), name, &newkey, &now)?;
    }
    Ok(())
}

fn init_authority(settings: &Settings, dir: &Path, name: &str, newkey: &str, now: &str) -> Outcome {
    for (sub, mode) in [("certs", 0o755), ("crl", 0o755), ("newcerts", 0o755), ("private", 0o700)] {
        let path = dir.join(sub);
        fs::DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(failed(&path))?;
    }
    let configuration = format!(
        "[ req ]\n\
         prompt = no\n\
         distinguished_name = req_distinguished_name\n\n\
         [ req_distinguished_name ]\n\
         C = US\nST = CA\nL = Palo Alto\nO = Open vSwitch\nOU = {name}\n\
         CN = OVS {name} CA Certificate ({now})\n\n\
         [ ca ]\n\
         default_ca = the_ca\n\n\
         [ the_ca ]\n\
         dir            = .\n\
         database       = $dir/index.txt\n\
         new_certs_dir  = $dir/newcerts\n\
         certificate    = $dir/cacert.pem\n\
         serial         = $dir/serial\n\
         private_key    = $dir/private/cakey.pem\n\
         RANDFILE       = $dir/private/.rand\n\
         default_days   = {DAYS}\n\
         default_crl_days= 30\n\
         default_md     = sha512\n\
         policy         = policy\n\
         email_in_dn    = no\n\
         name_opt       = ca_default\n\
         cert_opt       = ca_default\n\
         copy_extensions = copy\n\
         unique_subject = no\n\n\
         [ policy ]\n\
         countryName             = optional\n\
         stateOrProvinceName     = optional\n\
         organizationName        = match\n\
         organizationalUnitName  = optional\n\
         commonName              = supplied\n\
         emailAddress            = optional\n\n\
         [ ca_cert ]\n\
         basicConstraints=CA:true\n\n\
         [ usr_cert ]\n\
         basicConstraints=CA:false\n"
    );
    for (file, text) in
        [("ca.cnf", configuration.as_str()), ("index.txt", ""), ("crlnumber", "01\n"), ("serial", "01\n")]
    {
        let path = dir.join(file);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    let key = "private/cakey.pem";
    private_file(&dir.join(key))?;
    let request = ["req", "-config", "ca.cnf", "-nodes", "-newkey", newkey, "-keyout", key, "-out"];
    openssl(settings, dir, &[&request[..], &["careq.pem"]].concat(), "")?;
    let sign = ["ca", "-config", "ca.cnf", "-create_serial", "-out", "cacert.pem", "-days", DAYS, "-batch"];
    let sign_self = ["-keyfile", key, "-selfsign", "-extensions", "ca_cert", "-infiles", "careq.pem"];
    openssl(settings, dir, &[&sign[..], &sign_self[..]].concat(), "")
}

/// Makes an empty file that only its owner reads, for a key to be written into.
fn private_file(path: &Path) -> Outcome {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed(path))
}

fn path_str(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| Stop::Fatal(format!("{}: not valid UTF-8", path.display())))
}

fn here() -> Outcome<PathBuf> {
    std::env::current_dir().map_err(failed(Path::new(".")))
}

fn req(settings: &Settings, name: &str) -> Outcome {
    let (key, request) = (file(name, "privkey"), file(name, "req"));
    must_not_exist(settings, &key)?;
    must_not_exist(settings, &request)?;
    let dir = here()?;
    let (key_path, request) = (path_str(&key)?, path_str(&request)?);
    if settings.is_dsa {
        let parameters = settings.dsaparam.clone().unwrap_or_else(|| settings.dir.join("dsaparam.pem"));
        must_exist(&parameters)?;
        private_file(&key)?;
        openssl(settings, &dir, &["gendsa", "-out", key_path, path_str(&parameters)?], "")?;
    } else {
        private_file(&key)?;
        openssl(settings, &dir, &["genrsa", "-out", key_path, &settings.bits], "")?;
    }
    // Names are not unique in the world; who wants them as they are says so.
    let common_name = match settings.unique {
        true => name.to_string(),
        false => format!("{name} id:{}", Uuid::random()),
    };
    let configuration = format!(
        "[ req ]\n\
         prompt = no\n\
         distinguished_name = name\n\
         req_extensions = extensions\n\
         [ name ]\n\
         C = US\nST = CA\nL = Palo Alto\nO = Open vSwitch\nOU = Open vSwitch certifier\nCN = {common_name}\n\
         [ extensions ]\n\
         subjectAltName = DNS:{common_name}\n"
    );
    let args = ["req", "-config", "/dev/stdin", "-new", "-text", "-key", key_path, "-out", request];
    openssl(settings, &dir, &args, &configuration)
}

fn check_dir(settings: &Settings) -> Outcome {
    if settings.dir.is_dir() {
        return Ok(());
    }
    let dir = settings.dir.display();
    fatal(format!("{dir} does not exist (need to run 'init' or use '--dir'?)"))
}

fn sign(settings: &Settings, name: &str, kind: &str, asks: bool, io: &mut Io<'_>) -> Outcome {
    let (request, certificate) = (file(name, "req"), file(name, "cert"));
    if asks {
        fingerprint(&request, io)?;
    }
    if asks && !settings.batch {
        io.out("Does fingerprint match? (yes/no)\n");
        let mut answer = String::new();
        match BufReader::new(&mut *io.stdin).read_line(&mut answer) {
            Ok(1..) if answer.trim() == "yes" => {}
            Ok(1..) => return Err(Stop::Line("Match failure, aborting".to_string())),
            Ok(0) | Err(_) => return Err(Stop::Exit(1)),
        }
    }
    must_not_exist(settings, &certificate)?;
    check_dir(settings)?;
    let dir = here()?;
    let (request, certificate) = (dir.join(request), dir.join(certificate));
    let args = ["ca", "-config", "ca.cnf", "-extensions", "usr_cert", "-batch", "-in", path_str(&request)?];
    let args = [&args[..], &["-out", path_str(&certificate)?]].concat();
    let signed = openssl(settings, &settings.dir.join(format!("{kind}ca")), &args, "");
    if signed.is_err() {
        // What is left of a failure is no certificate.
        let _ = fs::remove_file(&certificate);
    }
    signed
}

fn req_sign(settings: &Settings, name: &str, kind: &str, io: &mut Io<'_>) -> Outcome {
    check_dir(settings)?;
    must_not_exist(settings, &file(name, "cert"))?;
    req(settings, name)?;
    sign(settings, name, kind, false, io)?;
    fingerprint(&file(name, "req"), io).map(drop)
}

fn verify(settings: &Settings, name: &str, kind: &str, io: &mut Io<'_>) -> Outcome {
    let certificate = file(name, "cert");
    must_exist(&certificate)?;
    check_dir(settings)?;
    let authority = settings.dir.join(format!("{kind}ca")).join("cacert.pem");
    let mut command = Command::new("openssl");
    command.args(["verify", "-CAfile", path_str(&authority)?, path_str(&certificate)?]);
    let output = command.output().map_err(no_openssl)?;
    io.out(String::from_utf8_lossy(&output.stdout));
    io.err(String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Ok(()),
        code => Err(Stop::Exit(code.unwrap_or(1))),
    }
}

/// Prints a file's time and digest: a certificate's own, or that of the file's bytes.
fn fingerprint(path: &Path, io: &mut Io<'_>) -> Outcome<()> {
    let when = date(&["-r", path_str(path)?], io)?;
    let content = fs::read(path).map_err(failed(path))?;
    let is_certificate = content.windows(11).any(|w| w == b"-----BEGIN ")
        && String::from_utf8_lossy(&content).contains("-----BEGIN CERTIFICATE-----");
    let digest = if is_certificate {
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-sha1", "-fingerprint"]);
        let input = File::open(path).map_err(failed(path))?;
        let output = command.stdin(Stdio::from(input)).output().map_err(no_openssl)?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim_end().rsplit('=').next().unwrap_or_default().replace(':', "")
    } else {
        use sha1::{Digest, Sha1};
        Sha1::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    io.out(format!("{}\t{when}\n\tfingerprint {digest}\n", path.display()));
    Ok(())
}

fn self_sign(settings: &Settings, name: &str) -> Outcome {
    let (key, request, certificate) = (file(name, "privkey"), file(name, "req"), file(name, "cert"));
    must_exist(&request)?;
    must_exist(&key)?;
    must_not_exist(settings, &certificate)?;
    let (key, request) = (path_str(&key)?, path_str(&request)?);
    let args = ["x509", "-in", request, "-out", path_str(&certificate)?, "-signkey", key, "-req"];
    let rest = ["-days", DAYS, "-text", "-extfile", "/dev/stdin"];
    openssl(settings, &here()?, &[&args[..], &rest[..]].concat(), &format!("subjectAltName=DNS:{name}\n"))
}

fn help(called_as: &str, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "ovs-pki, for managing a simple OpenFlow public key infrastructure \n\
         usage: {called_as} [OPTION...] COMMAND [ARG...]\n\n\
         The valid stand-alone commands and their arguments are:\n  \
         init                 Initialize the PKI\n  \
         req NAME             Create new private key and certificate request\n                       \
         named NAME-privkey.pem and NAME-req.pem, resp.\n  \
         sign NAME [TYPE]     Sign switch certificate request NAME-req.pem,\n                       \
         producing certificate NAME-cert.pem\n  \
         req+sign NAME [TYPE] Combine the above two steps, producing all three files.\n  \
         verify NAME [TYPE]   Checks that NAME-cert.pem is a valid TYPE certificate\n  \
         fingerprint FILE     Prints the fingerprint for FILE\n  \
         self-sign NAME       Sign NAME-req.pem with NAME-privkey.pem,\n                       \
         producing self-signed certificate NAME-cert.pem\n\
         Each TYPE above is a certificate type: 'switch' (default) or 'controller'.\n\n\
         Options for 'init', 'req', and 'req+sign' only:\n  \
         -k, --key=rsa|dsa    Type of keys to use (default: rsa)\n  \
         -B, --bits=NBITS     Number of bits in keys (default: 3072).  For DSA keys,\n                         \
         this has an effect only on 'init'.\n  \
         -D, --dsaparam=FILE  File with DSA parameters (DSA only)\n                         \
         (default: dsaparam.pem within PKI directory)\n\
         Options for use with the 'sign' command:\n  \
         -b, --batch          Skip fingerprint verification\n\
         Options that apply to any command:\n  \
         -d, --dir=DIR        Directory where the PKI is located\n                         \
         (default: {dir})\n  \
         -f, --force          Continue even if file or directory already exists\n  \
         -l, --log=FILE       Log openssl output to FILE (default: ovs-log.log)\n  \
         -u, --unique         NAME is unique (don't append UUID/date)\n  \
         -h, --help           Print this usage message.\n  \
         -V, --version        Display version information.\n"
    )
}

#[cfg(test)]
mod tests {
    use crate::io::capture;

    #[test]
    fn command_lines_are_checked_before_anything_is_done() {
        for (args, expect) in [
            (&["/x/ovs-pki"][..], "/x/ovs-pki: missing command name; use --help for help\n"),
            (&["ovs-pki", "frob"], "ovs-pki: frob command unknown; use --help for help\n"),
            (&["ovs-pki", "req"], "ovs-pki: req must have exactly one argument; use --help for help\n"),
            (&["ovs-pki", "sign"], "ovs-pki: sign must have one or two arguments; use --help for help\n"),
            (&["ovs-pki", "sign", "a", "b"], "ovs-pki: type argument must be 'switch' or 'controller'\n"),
            (&["ovs-pki", "verify", "a", "b", "c"], "c: only two arguments may be specified\n"),
            (&["ovs-pki", "-B", "512"], "ovs-pki: argument to -B or --bits must be at least 1024\n"),
            (&["ovs-pki", "--key=x"], "ovs-pki: argument to -k or --key must be rsa or dsa\n"),
            (&["ovs-pki", "-z"], "unrecognized option -z\n"),
        ] {
            assert_eq!(capture(super::run, args, ""), (1, String::new(), expect.to_string()), "{args:?}");
        }
    }
}
