//! Which URLs may be read (`image-api.md` 9.1): schemes, hosts and ports by allow and deny lists,
//! hosts in one spelling only, and no address inside our own network unless it is allowed by name
//! or by range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::config::Fetch;

/// Longest URL taken, in bytes.
const MAX_URL: usize = 2048;

/// Checks a URL by the rules; what its name resolves to is checked when it is resolved
/// ([`may_connect`]). Answers it parsed.
///
/// # Errors
/// Why it is refused, for the log: a client is told only that it is.
pub(super) fn check(rules: &Fetch, text: &str) -> Result<Url, &'static str> {
    if text.len() > MAX_URL {
        return Err("it is too long");
    }
    let url = Url::parse(text).map_err(|_| "it is no URL")?;
    if !listed(
        &rules.allowed_schemes,
        &rules.disallowed_schemes,
        &url.scheme().to_owned(),
    ) {
        return Err("its scheme is not allowed");
    }
    // What the parser made of the host must be what is written there: an address has one spelling.
    let written = authority(text).ok_or("it names no host")?;
    let host = url.host_str().ok_or("it names no host")?;
    if !written.eq_ignore_ascii_case(host) {
        return Err("its host is not in the canonical spelling");
    }
    let name = host.trim_matches(['[', ']']).to_owned();
    if !listed(&rules.allowed_hosts, &rules.disallowed_hosts, &name) {
        return Err("its host is not allowed");
    }
    if let Some(port) = url.port()
        && !listed(&rules.allowed_ports, &rules.disallowed_ports, &port)
    {
        return Err("its port is not allowed");
    }
    if let Ok(address) = name.parse()
        && !may_connect(rules, &name, address)
    {
        return Err("its address is not public");
    }
    Ok(url)
}

/// Whether `address`, which `host` is or resolves to, may be connected to.
pub(super) fn may_connect(rules: &Fetch, host: &str, address: IpAddr) -> bool {
    rules
        .allowed_hosts
        .iter()
        .any(|h| h.eq_ignore_ascii_case(host))
        || rules.allowed_networks.iter().any(|n| n.contains(&address))
        || is_public(address)
}

/// A list that is set decides; else the other one does.
fn listed<T: PartialEq>(allowed: &[T], disallowed: &[T], value: &T) -> bool {
    if allowed.is_empty() {
        !disallowed.contains(value)
    } else {
        allowed.contains(value)
    }
}

/// The host as it is written, brackets of IPv6 included. `None` where there is none, and where
/// somebody's name stands before it: we send no passwords, and such URLs are made to mislead.
fn authority(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.contains('@') {
        return None;
    }
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split_once(':').map_or(authority, |(h, _)| h),
    };
    (!host.is_empty()).then_some(host)
}

/// Whether an address is out in the world: neither this machine, nor its networks, nor reserved.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    // This network, shared space of carriers, benchmarks, reserved; protocol assignments and 6to4
    // relays.
    let reserved = matches!(
        (a, b, c),
        (0 | 240..=255, ..) | (100, 64..=127, _) | (198, 18 | 19, _) | (192, 0, 0) | (192, 88, 99)
    );
    !(reserved
        || v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation())
}

/// Global unicast (2000::/3) but for what is documentation or a protocol's.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    let is_documentation = (a == 0x2001 && b == 0xdb8) || (a == 0x3fff && b < 0x1000);
    let is_protocol = a == 0x2001 && b < 0x200;
    (a & 0xe000) == 0x2000 && !is_documentation && !is_protocol
}

/// The IPv4 address in a mapped, translated (NAT64) or tunnelled (6to4) one.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let at = |n: usize| {
        let [a, b] = s[n].to_be_bytes();
        let [c, d] = s[n + 1].to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(at(6)),
        [0x2002, ..] => Some(at(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(rules: &Fetch, text: &str) -> Result<(), &'static str> {
        check(rules, text).map(drop)
    }

    #[test]
    fn the_defaults_are_web_servers_in_the_world() {
        let rules = Fetch::default();
        for good in [
            "http://example.org/x",
            "https://example.org:443/x?y#z",
            "http://EXAMPLE.org",
            "http://8.8.8.8/x",
            "http://[2606:4700::1111]:80/x",
        ] {
            assert_eq!(says(&rules, good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "no URL"),
            ("example.org", "no URL"),
            ("ftp://example.org/x", "scheme"),
            ("file:///etc/passwd", "scheme"),
            ("http://example.org:22/", "port"),
            ("http://example.org:8080/", "port"),
            ("http://user@example.org/", "no host"),
            ("http://user:secret@example.org/", "no host"),
            ("http:example.org", "no host"),
            ("http:\\\\example.org\\x", "no host"),
            ("http://example.org\\@10.0.0.1/", ""),
            ("http://2130706433/", "canonical"),
            ("http://0x7f000001/", "canonical"),
            ("http://0177.0.0.1/", "canonical"),
            ("http://127.1/", "canonical"),
            ("http://127.0.0.1./", "canonical"),
            ("http://[::ffff:127.0.0.1]/", "canonical"),
            ("http://[::ffff:7f00:1]/", "public"),
            ("http://127.0.0.1/", "public"),
            ("http://10.1.2.3/", "public"),
            ("http://172.31.0.1/", "public"),
            ("http://192.168.0.1/", "public"),
            ("http://169.254.169.254/latest", "public"),
            ("http://100.64.0.1/", "public"),
            ("http://0.0.0.0/", "public"),
            ("http://[::1]/", "public"),
            ("http://[fe80::1]/", "public"),
            ("http://[fd00::1]/", "public"),
            ("http://[64:ff9b::a00:1]/", "public"),
            ("http://[2002:a00:1::1]/", "public"),
        ] {
            match says(&rules, bad) {
                Err(said) => assert!(said.contains(why), "{bad}: {said}"),
                // A backslash is a slash here: the host is what we connect to.
                Ok(()) => assert!(why.is_empty(), "{bad}"),
            }
        }
        assert!(says(&rules, &format!("http://example.org/{}", "x".repeat(3000))).is_err());
    }

    #[test]
    fn an_allow_list_decides_alone() {
        let rules = Fetch {
            allowed_hosts: vec!["mirror.lan".into(), "10.0.0.5".into()],
            disallowed_hosts: vec!["mirror.lan".into()],
            allowed_ports: vec![],
            disallowed_ports: vec![25],
            ..Fetch::default()
        };
        assert_eq!(says(&rules, "http://mirror.lan:8080/x"), Ok(()));
        assert_eq!(says(&rules, "http://10.0.0.5/x"), Ok(()));
        assert!(says(&rules, "http://mirror.lan:25/x").is_err());
        assert!(says(&rules, "http://example.org/x").is_err());
        // A name an operator allowed may be at an address of theirs.
        assert!(may_connect(&rules, "Mirror.lan", [192, 168, 0, 7].into()));
    }

    #[test]
    fn networks_are_allowed_by_range() {
        let rules = Fetch {
            allowed_networks: vec!["127.0.0.0/8".parse().unwrap()],
            ..Fetch::default()
        };
        assert_eq!(says(&rules, "http://127.0.0.1/x"), Ok(()));
        assert!(says(&rules, "http://10.0.0.1/x").is_err());
        assert!(!may_connect(&rules, "example.org", [10, 0, 0, 1].into()));
    }
}
