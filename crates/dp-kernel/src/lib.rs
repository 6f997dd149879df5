//! Provider for openvswitch.ko.
