//! A network of one's own: the process goes into a fresh network namespace before its first thread, so that nothing of
//! the machine's network is seen or touched, and the kernel takes every device away with the process, however it ends.
//!
//! Root may do so at once. Anyone else becomes root of a user namespace first, if the machine allows it; if not,
//! the error says what forbids it and what would allow it. No mount namespace is needed: nothing here reads `/sys`.

use std::io;

use ib_base::errno::strerror;
use ib_sys::netns;

use crate::embedded::own_name;

/// How the process got its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// As root.
    Root,
    /// As root of a user namespace.
    UserNamespace,
}

/// Moves the process, which has one thread, into its own network namespace. The error is a text for the user.
pub fn enter() -> Result<Isolation, String> {
    let root = netns::is_root();
    let as_root = if root { netns::unshare() } else { Err(io::ErrorKind::PermissionDenied.into()) };
    if as_root.is_ok() {
        return Ok(Isolation::Root);
    }
    let refused = |what| move |e| explain(what, &e, root);
    netns::become_root_in_user_namespace().map_err(refused("a user namespace"))?;
    netns::unshare().map_err(refused("a network namespace inside a user namespace"))?;
    // Some machines grant the namespace and then none of its rights.
    bring_up_loopback().map_err(refused("control of its own network"))?;
    Ok(Isolation::UserNamespace)
}

fn bring_up_loopback() -> io::Result<()> {
    use ib_sys::rtnetlink::{IFF_UP, LinkChange, Rtnl};
    let mut rtnl = Rtnl::open()?;
    let lo = rtnl.link_by_name("lo")?;
    rtnl.set_link(lo.ifindex, &LinkChange { flags: Some((IFF_UP, IFF_UP)), ..LinkChange::default() })
}

/// A setting of the kernel that forbids user namespaces at the value `bad`, and what to do.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    ("/proc/sys/user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=10000"),
];

fn explain(what: &str, error: &io::Error, root: bool) -> String {
    let mut text = format!("this machine does not give {what} to this user: {}\n", strerror(error));
    let refusing: Vec<_> = SETTINGS
        .iter()
        .filter(|(path, bad, _)| std::fs::read_to_string(path).is_ok_and(|v| v.trim() == *bad))
        .collect();
    text.push_str("Any one of these helps:\n");
    if root || std::path::Path::new("/.dockerenv").exists() {
        text.push_str("  in a container: start it with --privileged, or with\n");
        text.push_str("    --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined\n");
    }
    if !root {
        text.push_str(&format!("  run it as root: sudo {} demo\n", own_name()));
    }
    for (path, bad, remedy) in refusing {
        text.push_str(&format!("  {path} is {bad}; an administrator can change that: {remedy}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explanation_names_the_error_and_a_way() {
        let denied = io::Error::from_raw_os_error(1);
        let text = explain("a user namespace", &denied, false);
        let first = "this machine does not give a user namespace to this user: Operation not permitted\n";
        assert!(text.starts_with(first), "{text}");
        assert!(text.contains("  run it as root: sudo "), "{text}");
        assert!(explain("a user namespace", &denied, true).contains("--privileged"), "{text}");
    }
}
