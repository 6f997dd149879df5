//! What the provider for openvswitch.ko says and hears. So far this is the language: [`message`] has the messages of its generic
//! netlink families as values; nothing opens a socket yet, and bridges of type `system` are forwarded in user space.

pub mod message;
