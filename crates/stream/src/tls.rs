//! TLS under `ssl:` and `pssl:` streams: what the process is to present and to trust, and one connection's machine.
//!
//! The configuration belongs to the process, as the options and the database's SSL table that set it do. Files are read when a
//! connection begins, and again when they have changed: connections that run keep what they began with. As Open vSwitch does,
//! a peer is trusted for the chain of its certificate to the CA alone; names do not matter, for controllers are
//! known by address. [`Session`] is the machine: bytes of the socket on one side, bytes of the user on the other; what it
//! buffers is bounded.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ib_base::getopt::{Found, HasArg, LongOpt};
use ib_base::vlog::module::STREAM_SSL;
use ib_base::{vlog_err_rl, vlog_info, vlog_warn_rl};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};

const EIO: i32 = 5;
const EPROTO: i32 = 71;
/// What a connection fails with that lacks configuration.
pub const ENOPROTOOPT: i32 = 92;
/// Bytes of the user's that wait for room in the socket at most.
const SEND_BUFFER: usize = 256 << 10;

const OPT_CERTIFICATE: u32 = 'c' as u32;
const OPT_PRIVATE_KEY: u32 = 'p' as u32;
const OPT_CA_CERT: u32 = 'C' as u32;
const OPT_BOOTSTRAP: u32 = 0x7150;
const OPT_PEER_CA_CERT: u32 = 0x7151;
const OPT_PROTOCOLS: u32 = 0x7152;
const OPT_CIPHERS: u32 = 0x7153;
const OPT_CIPHERSUITES: u32 = 0x7154;
const OPT_SERVER_NAME: u32 = 0x7155;

/// The long options of programs that speak TLS; `p:c:C:` are the short ones. [`CA_OPTIONS`] has those that not all have.
pub const OPTIONS: &[LongOpt] = &[
    LongOpt::new("private-key", HasArg::Required, OPT_PRIVATE_KEY),
    LongOpt::new("certificate", HasArg::Required, OPT_CERTIFICATE),
    LongOpt::new("ca-cert", HasArg::Required, OPT_CA_CERT),
    LongOpt::new("ssl-protocols", HasArg::Required, OPT_PROTOCOLS),
    LongOpt::new("ssl-ciphers", HasArg::Required, OPT_CIPHERS),
    LongOpt::new("ssl-ciphersuites", HasArg::Required, OPT_CIPHERSUITES),
    LongOpt::new("ssl-server-name", HasArg::Required, OPT_SERVER_NAME),
];

/// The long options of programs that learn a peer's CA, and of those that send theirs.
pub const CA_OPTIONS: &[LongOpt] = &[
    LongOpt::new("bootstrap-ca-cert", HasArg::Required, OPT_BOOTSTRAP),
    LongOpt::new("peer-ca-cert", HasArg::Required, OPT_PEER_CA_CERT),
];

/// What the options and columns of TLS say; an empty string is "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// PEM file of our private key.
    pub private_key: String,
    /// PEM file of our certificate, and of what follows it on the way to its CA.
    pub certificate: String,
    /// PEM file of the CAs whose peers we trust, or `none` to trust everyone.
    pub ca_cert: String,
    /// To trust the first peer's CA, and to write it there, if the file of `ca_cert` is missing.
    pub bootstrap: bool,
    /// PEM file of CAs that peers are sent, for their bootstrap.
    pub peer_ca_cert: String,
    /// Protocols, as in `TLSv1.2,TLSv1.3` or `TLSv1.2+`.
    pub protocols: String,
    /// Cipher list for TLS 1.2, by OpenSSL's names.
    pub ciphers: String,
    /// Cipher suites of TLS 1.3, colon-separated.
    pub ciphersuites: String,
    /// The name that clients ask for.
    pub server_name: String,
}

impl Settings {
    /// Takes an option of [`OPTIONS`], [`CA_OPTIONS`] or `p:c:C:`; false if it is another.
    pub fn option(&mut self, found: &Found) -> bool {
        let arg = found.arg_str();
        match found.id {
            OPT_PRIVATE_KEY => self.private_key = arg,
            OPT_CERTIFICATE => self.certificate = arg,
            OPT_CA_CERT | OPT_BOOTSTRAP => {
                self.ca_cert = arg;
                self.bootstrap = found.id == OPT_BOOTSTRAP;
            }
            OPT_PEER_CA_CERT => self.peer_ca_cert = arg,
            OPT_PROTOCOLS => self.protocols = arg,
            OPT_CIPHERS => self.ciphers = arg,
            OPT_CIPHERSUITES => self.ciphersuites = arg,
            OPT_SERVER_NAME => self.server_name = arg,
            _ => return false,
        }
        true
    }

    /// What the options say that have a word as their argument.
    pub fn fields_mut(&mut self) -> impl Iterator<Item = &mut String> {
        [
            &mut self.private_key,
            &mut self.certificate,
            &mut self.ca_cert,
            &mut self.peer_ca_cert,
            &mut self.protocols,
            &mut self.ciphers,
            &mut self.ciphersuites,
            &mut self.server_name,
        ]
        .into_iter()
    }
}

/// What `--help` says of the options; with `ca`, those of [`CA_OPTIONS`], too.
pub fn usage(ca: bool) -> String {
    let ca = match ca {
        true => {
            "  --bootstrap-ca-cert=FILE  with peer CA certificate to read or create\n  \
             --peer-ca-cert=FILE     file with peer CA certificate\n"
        }
        false => "",
    };
    format!(
        "PKI configuration (required to use SSL/TLS):\n  \
         -p, --private-key=FILE  file with private key\n  \
         -c, --certificate=FILE  file with certificate for private key\n  \
         -C, --ca-cert=FILE      file with peer CA certificate\n{ca}\
         SSL/TLS options:\n  \
         --ssl-protocols=PROTOS    range of SSL/TLS protocols to enable\n  \
         --ssl-ciphers=CIPHERS     list of SSL/TLS ciphers to enable\n  \
         --ssl-ciphersuites=SUITES list of SSL/TLS ciphersuites to enable with TLSv1.3+\n  \
         --ssl-server-name=NAME    server name for TLS Server Name Indication (SNI)\n"
    )
}

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(PathBuf, Option<(SystemTime, u64)>);

impl Stamp {
    fn of(path: &str) -> Stamp {
        let state = std::fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len())));
        Stamp(path.into(), state)
    }
}

/// What was made of the settings, and of which files.
struct Loaded {
    stamps: Vec<Stamp>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

#[derive(Default)]
struct State {
    settings: Settings,
    loaded: Option<Loaded>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn with_state<T>(f: impl FnOnce(&mut State) -> T) -> T {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    f(state.get_or_insert_with(State::default))
}

/// Sets what connections from now on use, and logs at once what is wrong with it, as far as it can be seen: names of protocols and
/// ciphers that cannot be understood, in whose place the default is used, and files.
pub fn configure(settings: Settings) {
    with_state(|state| {
        if state.settings != settings {
            TOLD.lock().unwrap_or_else(PoisonError::into_inner).clear();
            examine(&settings);
            *state = State { settings, loaded: None };
        }
    });
}

/// Logs what is wrong with settings that are given. A connection that needs what is lacking says so itself.
fn examine(settings: &Settings) {
    let Settings { private_key, certificate, ca_cert, peer_ca_cert, .. } = settings;
    if !private_key.is_empty() && !certificate.is_empty() {
        if let Err(error) = certificates(certificate) {
            let _ = lacking(format_args!("SSL_use_certificate_file: {error}"));
        } else if let Err(error) = key(private_key) {
            let _ = lacking(error);
        }
    }
    if !ca_cert.is_empty()
        && ca_cert != "none"
        && !bootstraps(settings)
        && let Err(error) = certificates(ca_cert)
    {
        let _ = lacking(format_args!("failed to load client certificates from {ca_cert}: {error}"));
    }
    if !peer_ca_cert.is_empty()
        && let Err(error) = peer_certificates(peer_ca_cert)
    {
        let _ = lacking(error);
    }
    protocols(&settings.protocols);
    suites(settings);
}

fn key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| {
        let why = match e {
            pem::Error::Io(_) => openssl_error(e),
            _ => "error:1E08010C:DECODER routines::unsupported".to_string(),
        };
        format!("SSL_use_PrivateKey_file: {why}")
    })
}

/// What OpenSSL says of a file: programs look for its words.
fn openssl_error(error: pem::Error) -> String {
    match error {
        pem::Error::Io(e) => {
            let number =
                0x8000_0000 | e.raw_os_error().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
            format!("error:{number:08X}:system library::{}", ib_base::errno::strerror(&e))
        }
        pem::Error::NoItemsFound => "error:0480006C:PEM routines::no start line".to_string(),
        pem::Error::MissingSectionEnd { .. } => "error:04800066:PEM routines::bad end line".to_string(),
        pem::Error::Base64Decode(_) => "error:04800064:PEM routines::bad base64 decode".to_string(),
        e => e.to_string(),
    }
}

/// Certificates to send along. The error is a sentence.
fn peer_certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Err(e) = std::fs::File::open(path) {
        return Err(format!("failed to open {path} for reading: {}", ib_base::errno::strerror(&e)));
    }
    certificates(path).map_err(|e| format!("PEM_read_X509 failed reading {path}: {e}"))
}

/// What [`configure`] was told last.
pub fn settings() -> Settings {
    with_state(|state| state.settings.clone())
}

fn os(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// The versions that a list of protocols allows. A `+` after the last or only name allows later ones; several names
/// are a range from the oldest to the newest.
fn protocols(list: &str) -> Vec<&'static SupportedProtocolVersion> {
    let all = || vec![&rustls::version::TLS12, &rustls::version::TLS13];
    let words: Vec<&str> = list.split([',', ' ']).filter(|w| !w.is_empty()).collect();
    if words.is_empty() {
        return all();
    }
    let (mut oldest, mut newest) = (u8::MAX, 0);
    for word in words {
        let (name, open) = word.strip_suffix('+').map_or((word, false), |name| (name, true));
        let version = match name.to_ascii_lowercase().as_str() {
            "tlsv1.2" => 2,
            "tlsv1.3" => 3,
            // Too old to be offered: the range begins with the oldest that is.
            "tlsv1" | "tlsv1.1" => 1,
            _ => {
                vlog_err_rl!(STREAM_SSL, (1, 5), "{}: SSL/TLS protocol not recognized", word);
                return all();
            }
        };
        oldest = oldest.min(version);
        newest = newest.max(if open { 3 } else { version });
    }
    let mut chosen = Vec::new();
    if (oldest..=newest).contains(&2) {
        chosen.push(&rustls::version::TLS12);
    }
    if (oldest..=newest).contains(&3) {
        chosen.push(&rustls::version::TLS13);
    }
    if chosen.is_empty() {
        vlog_err_rl!(STREAM_SSL, (1, 5), "{}: no supported SSL/TLS protocol", list);
        return all();
    }
    chosen
}

/// OpenSSL's name of a TLS 1.2 suite from the specification's: `TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384` is
/// `ECDHE-RSA-AES256-GCM-SHA384`.
fn openssl_name(suite: &str) -> String {
    let name = suite.trim_start_matches("TLS_").replace("_WITH_", "_").replace("AES_", "AES");
    name.trim_end_matches(if suite.contains("CHACHA20") { "_SHA256" } else { "" }).replace('_', "-")
}

/// Words of OpenSSL's cipher lists that stand for classes which hold all that we offer.
const CIPHER_CLASSES: &[&str] = &["ALL", "DEFAULT", "HIGH", "ECDHE", "KECDHE", "EECDH", "AESGCM", "TLSV1.2"];

/// The suites that the settings allow, all of them if a list names none that there is.
fn suites(settings: &Settings) -> Vec<rustls::SupportedCipherSuite> {
    let all = rustls::crypto::ring::ALL_CIPHER_SUITES;
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
    let is_13 = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
    let tls13: Vec<&str> = settings.ciphersuites.split(':').filter(|w| !w.is_empty()).collect();
    let tls12: Vec<String> = settings
        .ciphers
        .split([':', ',', ' '])
        .filter(|w| !w.is_empty() && !w.starts_with(['!', '-', '+', '@']))
        .map(str::to_ascii_uppercase)
        .collect();
    let wanted_13 = |s: &rustls::SupportedCipherSuite| {
        tls13.is_empty() || tls13.contains(&name(s).replace("TLS13_", "TLS_").as_str())
    };
    let wanted_12 = |s: &rustls::SupportedCipherSuite| {
        let its = openssl_name(&name(s)).to_ascii_uppercase();
        tls12.is_empty() || tls12.iter().any(|w| *w == its || CIPHER_CLASSES.contains(&w.as_str()))
    };
    let mut chosen = Vec::new();
    for (of_13, function) in [(true, "SSL_CTX_set_ciphersuites"), (false, "SSL_CTX_set_cipher_list")] {
        let family = || all.iter().filter(|s| is_13(s) == of_13);
        let before = chosen.len();
        chosen.extend(family().filter(|s| if of_13 { wanted_13(s) } else { wanted_12(s) }));
        if chosen.len() == before {
            vlog_err_rl!(STREAM_SSL, (1, 5), "{}: error:0A0000B9:SSL routines::no cipher match", function);
            chosen.extend(family());
        }
    }
    chosen
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match all {
        Ok(all) if all.is_empty() => Err(openssl_error(pem::Error::NoItemsFound)),
        other => other.map_err(openssl_error),
    }
}

/// Takes the next element off the front of DER: tag, contents, the element whole.
fn der<'a>(b: &mut &'a [u8]) -> Option<(u8, &'a [u8], &'a [u8])> {
    let (&tag, &first) = (b.first()?, b.get(1)?);
    let (len, head) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81..=0x84 => {
            let n = usize::from(first & 0x7f);
            let len = b.get(2..2 + n)?.iter().fold(0usize, |l, b| l << 8 | usize::from(*b));
            (len, 2 + n)
        }
        _ => return None,
    };
    let whole = b.get(..head.checked_add(len)?)?;
    *b = &b[whole.len()..];
    Some((tag, &whole[head..], whole))
}

/// Issuer and subject of a certificate (RFC 5280, 4.1), as DER.
fn names(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = certificate;
    let mut body = der(&mut outer)?.1;
    let mut tbs = der(&mut body)?.1;
    if tbs.first() == Some(&0xa0) {
        der(&mut tbs)?;
    }
    der(&mut tbs)?; // serial number
    der(&mut tbs)?; // signature algorithm
    let issuer = der(&mut tbs)?.2;
    der(&mut tbs)?; // validity
    Some((issuer, der(&mut tbs)?.2))
}

/// The first common name (2.5.4.3) in a certificate's subject, if it is text.
fn common_name(certificate: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    let mut subject = names(certificate)?.1;
    let mut sets = der(&mut subject)?.1;
    while let Some((_, mut set, _)) = der(&mut sets) {
        while let Some((_, mut pair, _)) = der(&mut set) {
            if der(&mut pair)?.1 == COMMON_NAME {
                return String::from_utf8(der(&mut pair)?.1.to_vec()).ok();
            }
        }
    }
    None
}

fn is_self_signed(certificate: &[u8]) -> bool {
    names(certificate).is_some_and(|(issuer, subject)| issuer == subject)
}

/// Appends what of `from` continues the chain.
fn extend_chain(chain: &mut Vec<CertificateDer<'static>>, from: &[CertificateDer<'static>]) {
    while let Some((issuer, subject)) = chain.last().and_then(|c| names(c))
        && issuer != subject
        && let Some(next) = from.iter().find(|c| names(c).is_some_and(|(_, s)| s == issuer))
    {
        chain.push(next.clone());
    }
}

/// Whom a client trusts.
#[derive(Debug)]
struct ServerTrust {
    /// None: everyone.
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ServerTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The last error of configuration that was logged.
static TOLD: Mutex<String> = Mutex::new(String::new());

/// Logs an error of configuration, unless it was the last that was logged, and says what it means to whoever wants a connection.
fn lacking(text: impl fmt::Display) -> io::Error {
    let text = text.to_string();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if *told != text {
        vlog_err_rl!(STREAM_SSL, (1, 5), "{}", text);
        *told = text;
    }
    os(ENOPROTOOPT)
}

/// Logs that a connection cannot be for want of `what`, which is not configured or not usable.
fn wanting(what: &str) {
    vlog_err_rl!(STREAM_SSL, (5, 5), "{} must be configured to use SSL/TLS", what);
}

/// What OpenSSL calls an error, where it has words for it that operators look for.
fn in_openssl_words(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, Error, InvalidMessage};
    let (code, words) = match error {
        Error::InvalidCertificate(_) => (0x86, "certificate verify failed"),
        Error::NoCertificatesPresented => (0xc7, "peer did not return a certificate"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => (0x10b, "wrong version number"),
        Error::InvalidMessage(InvalidMessage::MissingData(_) | InvalidMessage::MessageTooShort) => {
            (0xa0, "length too short")
        }
        Error::AlertReceived(AlertDescription::UnknownCA) => (0x418, "tlsv1 alert unknown ca"),
        Error::AlertReceived(AlertDescription::BadCertificate) => (0x412, "sslv3 alert bad certificate"),
        Error::AlertReceived(AlertDescription::HandshakeFailure) => (0x410, "sslv3 alert handshake failure"),
        Error::AlertReceived(AlertDescription::ProtocolVersion) => (0x42e, "tlsv1 alert protocol version"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            (0x45c, "tlsv13 alert certificate required")
        }
        other => return other.to_string(),
    };
    format!("error:0A000{code:03X}:SSL routines::{words}")
}

/// True if `settings` want a CA that is not there yet, to be learnt from the first peer.
fn bootstraps(settings: &Settings) -> bool {
    settings.bootstrap && !settings.ca_cert.is_empty() && !std::path::Path::new(&settings.ca_cert).exists()
}

fn load(settings: &Settings) -> io::Result<Loaded> {
    let files = [&settings.private_key, &settings.certificate, &settings.ca_cert, &settings.peer_ca_cert];
    let stamps = files.map(|f| Stamp::of(f)).into();
    let mut complete = true;
    for (setting, what) in [
        (&settings.private_key, "Private key"),
        (&settings.certificate, "Certificate"),
        (&settings.ca_cert, "CA certificate"),
    ] {
        if setting.is_empty() {
            wanting(what);
            complete = false;
        }
    }
    if !complete {
        return Err(os(ENOPROTOOPT));
    }
    let (key_file, cert_file) = (&settings.private_key, &settings.certificate);
    let mut chain = certificates(cert_file).map_err(|e| {
        let error = lacking(format_args!("SSL_use_certificate_file: {e}"));
        wanting("Certificate");
        error
    })?;
    let key = key(key_file).map_err(|e| {
        let error = lacking(e);
        wanting("Private key");
        error
    })?;

    let anyone = settings.ca_cert == "none" || bootstraps(settings);
    let mut roots = RootCertStore::empty();
    if !anyone {
        let file = &settings.ca_cert;
        let cas = certificates(file)
            .map_err(|e| lacking(format_args!("failed to load client certificates from {file}: {e}")))?;
        for ca in &cas {
            if let Err(e) = roots.add(ca.clone()) {
                vlog_warn_rl!(STREAM_SSL, (1, 5), "{}: ignoring a CA certificate: {}", file, e);
            }
        }
        extend_chain(&mut chain, &cas);
    }
    if !settings.peer_ca_cert.is_empty() {
        match peer_certificates(&settings.peer_ca_cert) {
            Ok(cas) => chain.extend(cas.into_iter().filter(|c| !chain.contains(c)).collect::<Vec<_>>()),
            Err(e) => {
                let _ = lacking(e);
            }
        }
    }
    let roots = (!anyone).then(|| Arc::new(roots));

    let provider = Arc::new(CryptoProvider {
        cipher_suites: suites(settings),
        ..rustls::crypto::ring::default_provider()
    });
    let versions = protocols(&settings.protocols);
    let unusable = |e: rustls::Error| lacking(format_args!("SSL/TLS cannot be configured: {e}"));
    let mismatch = |_: rustls::Error| {
        let error =
            lacking("SSL_use_PrivateKey_file: error:05800074:x509 certificate routines::key values mismatch");
        wanting("Private key");
        error
    };
    let trust = Arc::new(ServerTrust { roots: roots.clone(), provider: Arc::clone(&provider) });
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(mismatch)?;
    let clients: Arc<dyn ClientCertVerifier> = match roots {
        Some(roots) => WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|e| lacking(format_args!("{}: no usable CA certificate: {e}", settings.ca_cert)))?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(unusable)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(mismatch)?;
    Ok(Loaded { stamps, client: Arc::new(client), server: Arc::new(server) })
}

/// Calls `f` with what the settings and the files as they are now make.
fn with_loaded<T>(f: impl FnOnce(&Settings, &Loaded) -> T) -> io::Result<T> {
    with_state(|state| {
        let stale = |l: &Loaded| l.stamps.iter().any(|s| *s != Stamp::of(&s.0.to_string_lossy()));
        if state.loaded.as_ref().is_none_or(stale) {
            state.loaded = None;
            state.loaded = Some(load(&state.settings)?);
        }
        match &state.loaded {
            Some(loaded) => Ok(f(&state.settings, loaded)),
            None => Err(os(ENOPROTOOPT)),
        }
    })
}

/// Checks that connections could be made; the log says what is lacking.
pub fn check() -> io::Result<()> {
    with_loaded(|_, _| ())
}

/// One TLS connection over a nonblocking socket.
pub struct Session {
    connection: Connection,
    /// Where to write the CA of the peer.
    bootstrap: Option<String>,
    established: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("established", &self.established).finish_non_exhaustive()
    }
}

impl Session {
    /// The side that connects, to `host`.
    pub fn client(host: &str) -> io::Result<Session> {
        let connection = with_loaded(|settings, loaded| {
            let asked = if settings.server_name.is_empty() { host } else { &settings.server_name };
            let nameless = || ServerName::from(std::net::IpAddr::from([0; 4]));
            let name = ServerName::try_from(asked.to_owned()).unwrap_or_else(|_| nameless());
            let bootstrap = bootstraps(settings).then(|| settings.ca_cert.clone());
            ClientConnection::new(Arc::clone(&loaded.client), name)
                .map(|c| (Connection::Client(c), bootstrap))
        })?;
        Session::new(connection)
    }

    /// The side that accepts.
    pub fn server() -> io::Result<Session> {
        let connection = with_loaded(|_, loaded| {
            ServerConnection::new(Arc::clone(&loaded.server)).map(|c| (Connection::Server(c), None))
        })?;
        Session::new(connection)
    }

    fn new(made: Result<(Connection, Option<String>), rustls::Error>) -> io::Result<Session> {
        let (mut connection, bootstrap) =
            made.map_err(|e| lacking(format_args!("SSL/TLS connection cannot begin: {e}")))?;
        connection.set_buffer_limit(Some(SEND_BUFFER));
        Ok(Session { connection, bootstrap, established: false })
    }

    fn function(&self) -> &'static str {
        match (&self.connection, self.established) {
            (_, true) => "SSL_read",
            (Connection::Client(_), false) => "SSL_connect",
            (Connection::Server(_), false) => "SSL_accept",
        }
    }

    /// Sends what waits; true if all is sent.
    fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Takes what the socket has. `Ok(false)` at its end.
    fn fill(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        let n = loop {
            match self.connection.read_tls(socket) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if n == 0 {
            return Ok(false);
        }
        if let Err(e) = self.connection.process_new_packets() {
            // The peer is told why, if it can be.
            let _ = self.flush(socket);
            vlog_warn_rl!(STREAM_SSL, (10, 25), "{}: {}", self.function(), in_openssl_words(&e));
            let theirs = matches!(e, rustls::Error::AlertReceived(_));
            return Err(os(if self.established && theirs { EIO } else { EPROTO }));
        }
        Ok(true)
    }

    /// Goes on with the handshake. `Ok` once it is done, `WouldBlock` while it waits for the socket.
    pub fn handshake(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        while !self.established {
            let flushed = self.flush(socket)?;
            if !self.connection.is_handshaking() {
                if !flushed {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.established = true;
                return self.learn_ca();
            }
            if !self.connection.wants_read() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if !self.fill(socket)? {
                vlog_warn_rl!(
                    STREAM_SSL,
                    (10, 25),
                    "{}: error:0A000126:SSL routines::unexpected eof while reading",
                    self.function()
                );
                return Err(os(EPROTO));
            }
        }
        Ok(())
    }

    /// With a CA to learn: writes down the peer's and ends the connection, which trusted it for no reason.
    fn learn_ca(&mut self) -> io::Result<()> {
        let Some(file) = self.bootstrap.take() else { return Ok(()) };
        let chain = self.connection.peer_certificates().unwrap_or_default();
        let Some(ca) = chain.last().filter(|c| is_self_signed(c)) else {
            vlog_err_rl!(
                STREAM_SSL,
                (1, 5),
                "could not bootstrap CA cert: obtained certificate is not self-signed (subject issuer mismatch)"
            );
            if chain.len() < 2 {
                vlog_err_rl!(
                    STREAM_SSL,
                    (1, 5),
                    "only one certificate was received, so probably the peer is not configured to send its CA \
                     certificate"
                );
            }
            return Err(os(EPROTO));
        };
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&file)
            .and_then(|mut f| f.write_all(pem(ca).as_bytes()));
        match written {
            Ok(()) => vlog_info!(STREAM_SSL, "successfully bootstrapped CA cert to {}", file),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                vlog_info!(STREAM_SSL, "reading CA cert {} created by another process", file);
            }
            Err(e) => {
                vlog_err_rl!(
                    STREAM_SSL,
                    (1, 5),
                    "could not bootstrap CA cert: writing {} failed: {}",
                    file,
                    ib_base::errno::strerror(&e)
                );
            }
        }
        Err(os(EPROTO))
    }

    /// Whom the peer has proven to be: the common name of its certificate, once the handshake is done.
    pub fn peer_id(&self) -> Option<String> {
        if !self.established {
            return None;
        }
        common_name(self.connection.peer_certificates()?.first()?)
    }

    /// Reads the user's bytes. `Ok(0)` is the end; `WouldBlock` means to wait for the socket.
    pub fn recv(&mut self, socket: &mut (impl Read + Write), buf: &mut [u8]) -> io::Result<usize> {
        self.flush(socket)?;
        loop {
            match self.connection.reader().read(buf) {
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An end without farewell is an end.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) => return Err(e),
            }
            if !self.fill(socket)? {
                return Ok(0);
            }
            // Answers of the protocol itself, such as to a key update.
            self.flush(socket)?;
        }
    }

    /// Takes as much of `bytes` as there is room for; true with it if the socket must have room before the rest goes.
    pub fn send(&mut self, socket: &mut impl Write, bytes: &[u8]) -> io::Result<(usize, bool)> {
        self.flush(socket)?;
        let n = self.connection.writer().write(bytes)?;
        let flushed = self.flush(socket)?;
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok((n, !flushed || n < bytes.len()))
    }

    /// Says farewell, as far as the socket takes it.
    pub fn close(&mut self, socket: &mut impl Write) {
        self.connection.send_close_notify();
        // The socket is closed next, whatever happens.
        let _ = self.flush(socket);
    }
}

/// A certificate as PEM (RFC 7468).
fn pem(certificate: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        for group in line.chunks(3) {
            let bits = group.iter().fold(0u32, |v, b| v << 8 | u32::from(*b)) << (8 * (3 - group.len()));
            for i in 0..4 {
                let used = i <= group.len();
                let digit = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
                out.push(if used { char::from(digit) } else { '=' });
            }
        }
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(list: &str) -> Vec<String> {
        protocols(list).iter().map(|v| format!("{:?}", v.version)).collect()
    }

    #[test]
    fn lists_of_protocols_are_ranges() {
        let both = ["TLSv1_2", "TLSv1_3"];
        assert_eq!(versions(""), both);
        assert_eq!(versions("TLSv1.2"), ["TLSv1_2"]);
        assert_eq!(versions("TLSv1.3"), ["TLSv1_3"]);
        assert_eq!(versions("TLSv1.2+"), both);
        assert_eq!(versions("TLSv1,TLSv1.1,TLSv1.2"), ["TLSv1_2"], "what is too old is left out");
        assert_eq!(versions("TLSv1.1"), both, "nothing usable is as no list");
        assert_eq!(versions("foo"), both);
    }

    #[test]
    fn lists_of_ciphers_have_the_names_of_openssl() {
        let names = |ciphers: &str, ciphersuites: &str| {
            let settings = Settings {
                ciphers: ciphers.into(),
                ciphersuites: ciphersuites.into(),
                ..Settings::default()
            };
            suites(&settings).iter().map(|s| format!("{:?}", s.suite())).collect::<Vec<_>>()
        };
        let all = rustls::crypto::ring::ALL_CIPHER_SUITES.len();
        assert_eq!(names("", "").len(), all);
        assert_eq!(names("HIGH:!aNULL:!MD5", "").len(), all);
        assert_eq!(names("nonsense", "nonsense").len(), all);
        let one = names("ECDHE-RSA-AES256-GCM-SHA384", "TLS_AES_128_GCM_SHA256");
        assert_eq!(one, ["TLS13_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
        assert!(
            names("ECDHE-ECDSA-CHACHA20-POLY1305", "")
                .contains(&"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256".to_owned())
        );
    }

    #[test]
    fn names_of_certificates() {
        // SEQUENCE { SEQUENCE { [0] { 2 }, serial, algorithm, issuer, validity, subject } }
        let certificate = |issuer: u8, subject: u8| {
            let tbs = [
                &[0xa0, 3, 2, 1, 2, 2, 1, 7, 0x30, 0][..],
                &[0x30, 1, issuer, 0x30, 0, 0x30, 1, subject][..],
            ]
            .concat();
            let mut all =
                vec![0x30, u8::try_from(tbs.len() + 2).unwrap(), 0x30, u8::try_from(tbs.len()).unwrap()];
            all.extend(tbs);
            all
        };
        assert!(is_self_signed(&certificate(5, 5)));
        assert!(!is_self_signed(&certificate(5, 6)));
        let whole = certificate(5, 5);
        for end in 0..whole.len() {
            assert!(!is_self_signed(&whole[..end]), "cut at {end}");
        }
        assert!(!is_self_signed(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]));
    }

    #[test]
    fn common_name_of_a_subject() {
        let element =
            |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let name = |oid: u8, text: &[u8]| {
            let pair = [element(6, &[0x55, 4, oid]), element(12, text)].concat();
            element(0x31, &element(0x30, &pair))
        };
        let certificate = |subject: &[u8]| {
            let parts = [&[2, 1, 7, 0x30, 0, 0x30, 0, 0x30, 0][..], &element(0x30, subject)].concat();
            element(0x30, &element(0x30, &parts))
        };
        let whole = certificate(&[name(10, b"org"), name(3, b"sw 1"), name(3, b"other")].concat());
        assert_eq!(common_name(&whole).as_deref(), Some("sw 1"));
        assert_eq!(common_name(&certificate(&name(10, b"org"))), None);
        assert_eq!(common_name(&certificate(&name(3, &[0xff]))), None);
        for end in 0..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn errors_have_openssls_words() {
        use rustls::{AlertDescription, CertificateError, Error};
        let words = in_openssl_words(&Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(words, "error:0A000086:SSL routines::certificate verify failed");
        let words = in_openssl_words(&Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(words, "error:0A000418:SSL routines::tlsv1 alert unknown ca");
        let dir = std::env::temp_dir().join(format!("ib-tls-words-{}", std::process::id()));
        std::fs::write(&dir, "-----BEGIN PRIVATE KEY-----\nAAAA\n").unwrap();
        let path = dir.display().to_string();
        assert_eq!(
            key(&path).unwrap_err(),
            "SSL_use_PrivateKey_file: error:1E08010C:DECODER routines::unsupported"
        );
        assert_eq!(certificates(&path).unwrap_err(), "error:04800066:PEM routines::bad end line");
        std::fs::remove_file(&dir).unwrap();
    }

    #[test]
    fn pem_text() {
        assert_eq!(pem(b"Man"), "-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n");
        assert_eq!(pem(b"Ma").lines().nth(1), Some("TWE="));
        assert_eq!(pem(b"M").lines().nth(1), Some("TQ=="));
        assert_eq!(pem(&[0; 49]).lines().count(), 4);
    }
}
