//! What users and scripts say to programs: command lines, log levels, control requests.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use ib_base::getopt::{Getopt, HasArg, LongOpt};
use ib_base::json::{Json, Style};
use ib_base::vlog;
use ib_ovsdb::idl::Idl;
use ib_ovsdb::{Schema, SymbolTable, schemas};
use ib_stream::jsonrpc::Message;
use ib_stream::unixctl::client::answer_text;
use ib_tools::dbctl::generic::Generic;
use ib_tools::dbctl::{grammar, values};

use super::text;

pub const RPC_SEEDS: &[&[u8]] = &[
    br#"{"method":"dpif/show","params":["br0"],"id":1}"#,
    br#"{"result":"text","error":null,"id":1}"#,
    br#"{"method":"echo","params":[],"id":null}"#,
    br#"{"id":1,"error":"no","result":null}"#,
];

/// A message that is one says the same again.
pub fn json_rpc(input: &[u8]) {
    let Ok(json) = Json::parse_bytes(input) else { return };
    answer_text(&json, Style::SORTED);
    answer_text(&json, Style::PRETTY_SORTED);
    if let Ok(message) = Message::from_json(json) {
        let again = Message::from_json(message.to_json()).expect("what was made is a message");
        assert_eq!(again, message);
    }
}

pub const VLOG_SEEDS: &[&[u8]] = &[
    b"dpif:file:dbg",
    b"ANY:console:off syslog:info",
    b"PATTERN:file:%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m",
    b"FACILITY:daemon",
    b"PATTERN:console:%-5p %10c %A %B %E %P %r %t %%",
];

pub fn vlog(input: &[u8]) {
    let spec = text(input);
    let _ = vlog::set(&spec);
    let _ = vlog::set_verbosity(Some(&spec));
    vlog::list(vlog::module::Listing::S);
    vlog::list_pattern();
    // Nothing is to be written meanwhile.
    let _ = vlog::set("ANY:ANY:off");
}

pub const GETOPT_SEEDS: &[&[u8]] =
    &[b"-vx\n--log-file\n--timeout=5\nshow\n-s\n--\n-t", b"--na\n-t5\n-to\n--option=x\n--no\n-"];

pub fn getopt(input: &[u8]) {
    const LONG: &[LongOpt] = &[
        LongOpt::new("names", HasArg::No, 1000),
        LongOpt::new("no-names", HasArg::No, 1001),
        LongOpt::new("timeout", HasArg::Required, 't' as u32),
        LongOpt::new("log-file", HasArg::Optional, 1002),
    ];
    let words: Vec<OsString> = input.split(|b| *b == b'\n').map(|w| OsString::from_vec(w.to_vec())).collect();
    for shorts in ["+t:ov::", "t:ov::", ":t"] {
        let mut opts = Getopt::new("p", &words, shorts, LONG);
        let mut count = 0;
        for found in opts.by_ref() {
            count += 1;
            match found {
                Ok(found) => drop(found.arg_str()),
                Err(e) => drop(e.to_string()),
            }
            assert!(count <= input.len() + 1);
        }
        assert!(opts.rest_str().len() <= words.len());
    }
}

pub const DBCTL_SEEDS: &[&[u8]] = &[
    b"--if-exists\nset\nInterface\neth0\noptions:a=b\nmtu_request=1500\n--\n--id=@x\ncreate\nQoS\nqueues={0=@q}",
    b"--columns=name\nlist\nBridge\n--\nget\nbridge\nbr0\nother_config:x\n--\nfind\nport\ntag>=5\ntrunks{<=}[1,2]",
];

/// A command line of the tools that edit databases, and each of its words as a column and a value.
pub fn dbctl(input: &[u8]) {
    thread_local! {
        static IDL: Idl = {
            let mut idl = Idl::new(&Schema::parse(schemas::VSWITCH).expect("our own schema"));
            idl.register_all();
            idl
        };
    }
    let words: Vec<String> = input.split(|b| *b == b'\n').map(text).collect();
    let _ =
        grammar::parse::<ib_tools::vsctl::State>(&[Generic::<ib_tools::vsctl::State>::COMMANDS], &words, &[]);
    IDL.with(|idl| {
        for word in &words {
            for table in ["Interface", "Bridge", "Queue"] {
                let _ = values::assignment(idl, table, word, &mut SymbolTable::new());
                let _ = values::matches(
                    idl.view(),
                    table,
                    ib_ovsdb::Uuid::default(),
                    word,
                    &mut SymbolTable::new(),
                );
            }
        }
    });
}

pub const OVS_DUMP_SEEDS: &[&[u8]] = &[
    b" port  VLAN  MAC                Age\n    1     3  00:00:00:00:00:77  static\nLOCAL     0  ee:e1:80:6c:5e:51    4\n",
    b" port  VLAN  GROUP                Age\n    1     0  224.1.2.3          7\n    1     5  ff0e::7  MLDv2  9\n 1 0 querier 3\n",
    b"tcp,orig=(src=10.9.0.1,dst=10.9.0.2,sport=1,dport=2),reply=(src=10.9.0.2,dst=10.9.0.9,sport=2,dport=1),zone=5,timeout=9,labels=0x1,protoinfo=(state_orig=ESTABLISHED,state_reply=ESTABLISHED,wscale_orig=9)",
];

/// What Open vSwitch prints of its tables.
pub fn ovs_dump(input: &[u8]) {
    let _ = ib_tools::adopt::read_dumps(&String::from_utf8_lossy(input));
}

pub const PORT_SEEDS: &[&[u8]] = &[
    br#"{"orig":["10.0.0.1","10.0.0.2",6,1001,80,0],"reply":["10.0.0.2","10.0.0.9",6,80,1001,0],"zone":9,"left_ms":3600000,"mark":1,"label":"0x1f","nat":"source","helper":"ftp","tcp":[["ESTABLISHED",1,9,9,7,false],["SYN_RECV",1,9,9,null,true]],"skew":[[1,-2,3],[0,0,0]],"expected":[["10.0.0.2","10.0.0.1",6,20,"destination","10.0.0.3",null]]}"#,
    br#"{"orig":["fd00::1","fd00::2",58,128,129,7],"reply":["fd00::2","fd00::1",58,129,128,7],"zone":0,"left_ms":1,"talk":2,"parent":["fd00::1","fd00::2",6,1,2,0],"zone_timeouts":true}"#,
    br#"{"bridge":"br0","ports":[{"port":{"name":"vm1","tag":5},"interfaces":[{"name":"vm1","type":"internal"}],"qos":{"type":"linux-htb","queues":[[3,{"dscp":7}]]}}],"mirrors":[{"mirror":"m","port":"vm1","role":"source"}],"state":{}}"#,
    br#"{"format":"ironbridge-port","version":1,"sha1":"bf21a9e8fbc5a3846fb05b4fa0859e0917b2202f","content":{}}"#,
];

/// A file, and a content without the file's digest around it; a content that is one is found in the file that is made of it.
pub fn port_file(input: &[u8]) {
    let _ = ib_tools::port::file::read(input);
    let Ok(content) = Json::parse_bytes(input) else { return };
    if let Ok(saved) = ib_dpif::ct_saved::CtSaved::from_json(&content) {
        assert_eq!(ib_dpif::ct_saved::CtSaved::from_json(&saved.to_json()), Ok(saved));
    }
    if ib_tools::port::config::Imported::read(&content).is_ok() {
        let again = ib_tools::port::file::read(ib_tools::port::file::write(content.clone()).as_bytes());
        assert!(again.is_ok(), "{again:?}");
    }
}
