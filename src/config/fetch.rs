//! `[fetch]`

use ipnet::IpNet;
use serde::Deserialize;

/// What may be read over HTTP on behalf of clients: by web-download, glance-download and
/// locations of http stores. A set allow list makes the deny list beside it void.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// Schemes of URLs.
    pub allowed_schemes: Vec<String>,
    /// Schemes refused.
    pub disallowed_schemes: Vec<String>,
    /// Hosts as URLs name them. What is named here may also be at a private address.
    pub allowed_hosts: Vec<String>,
    /// Hosts refused.
    pub disallowed_hosts: Vec<String>,
    /// Ports; a URL without one passes.
    pub allowed_ports: Vec<u16>,
    /// Ports refused.
    pub disallowed_ports: Vec<u16>,
    /// Networks that may be read from though they are loopback, link-local or private.
    pub allowed_networks: Vec<IpNet>,
    /// Redirects followed, each checked as the first URL was.
    pub redirects: u32,
    /// Seconds a connection may take to come about.
    pub connect_timeout: u64,
    /// Seconds a server may send nothing.
    pub read_timeout: u64,
    /// Times a broken transfer is taken up again, from where it broke off where the server can.
    pub retries: u32,
    /// Parts of one download read at once, where the server knows ranges and has a strong `ETag`; 1:
    /// none are.
    pub parts: usize,
    /// Bytes of a part.
    pub part_size: u64,
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            allowed_schemes: vec!["http".into(), "https".into()],
            disallowed_schemes: Vec::new(),
            allowed_hosts: Vec::new(),
            disallowed_hosts: Vec::new(),
            allowed_ports: vec![80, 443],
            disallowed_ports: Vec::new(),
            allowed_networks: Vec::new(),
            redirects: 5,
            connect_timeout: 10,
            read_timeout: 60,
            retries: 3,
            parts: 4,
            part_size: 8 << 20,
        }
    }
}
