//! Which addresses an operator in a cluster does not connect to.
//!
//! The author of a `TaskQueue` or Pool chooses an address and the operator connects to it, from a place that its author
//! may not reach: its own pod, its node, the cloud's metadata service, the API server. Decides for one address; it looks
//! up no name and opens no connection. An IPv6 address that carries an IPv4 address is both.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// Metadata services of clouds that have no link-local address.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Why an address is none that a broker may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The operator's own pod.
    Loopback,
    /// No address, which Linux takes for this host.
    Unspecified,
    /// The link, where clouds have their metadata services and nodes their agents.
    LinkLocal,
    /// A cloud's metadata service at another address.
    Metadata,
    /// A group.
    Multicast,
    /// Everybody.
    Broadcast,
    /// The host of the API server.
    ApiServerHost,
    /// The API server itself. No exception lifts it.
    ApiServer,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Unspecified => "an unspecified address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata service",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::ApiServerHost => "the API server's host",
            Self::ApiServer => "the API server",
        })
    }
}

/// An address that is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub class: Class,
}

impl Refusal {
    /// What to tell the author of `field`.
    #[must_use]
    pub fn words(&self, field: &str) -> String {
        let Self { address, class } = self;
        let what =
            format!("{field}: {address} is {class}, which an operator in a cluster does not connect to");
        if *class == Class::ApiServer {
            return what;
        }
        format!(
            "{what}; if the broker is there, run it with --allow-broker-cidr={}",
            IpNet::from(*address)
        )
    }
}

/// What may be connected to.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    inside: bool,
    allowed: Vec<IpNet>,
}

impl Policy {
    /// Everything, outside a cluster: whoever starts the operator there has the rights that it has.
    #[must_use]
    pub fn outside() -> Self {
        Self::default()
    }

    /// All but what is refused in a cluster, and what is in these networks.
    #[must_use]
    pub fn inside(allowed: Vec<IpNet>) -> Self {
        Self {
            inside: true,
            allowed,
        }
    }

    /// True if nothing is refused.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        !self.inside
    }

    /// Whether this address may be connected to, where the API server is at `api`.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn judge(&self, address: SocketAddr, api: &BTreeSet<SocketAddr>) -> Result<(), Refusal> {
        if !self.inside {
            return Ok(());
        }
        let port = address.port();
        let forms = forms(address.ip());
        let is_api = |ip: &IpAddr| api.contains(&SocketAddr::new(*ip, port));
        if let Some(address) = forms.iter().copied().find(is_api) {
            let class = Class::ApiServer;
            return Err(Refusal { address, class });
        }
        if forms
            .iter()
            .any(|ip| self.allowed.iter().any(|net| net.contains(ip)))
        {
            return Ok(());
        }
        let refusal = |address: &IpAddr| {
            let host = || api.iter().any(|server| server.ip() == *address);
            let class = class(*address).or_else(|| host().then_some(Class::ApiServerHost))?;
            Some(Refusal {
                address: *address,
                class,
            })
        };
        forms.iter().find_map(refusal).map_or(Ok(()), Err)
    }
}

/// A network from text: `10.0.0.0/8`, or one address.
///
/// # Errors
/// What is wrong with it.
pub fn network(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().ok();
    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let net = net.ok_or("is not a network: ADDRESS/BITS, such as 10.1.2.0/24 or fd00::/64")?;
    if net.trunc() != net {
        // What was meant, the one address or the network around it, is not for us to guess.
        return Err(format!(
            "has bits beyond its prefix; the network is {}",
            net.trunc()
        ));
    }
    Ok(net)
}

/// What the text of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name, to be looked up.
    Name,
    /// An address.
    Address(IpAddr),
    /// The last part is a number, so that no name ends so, and it is no address as written. Some C libraries read 0x7f.1,
    /// 2130706433 or 127.1 as an address; here it is nothing.
    Neither,
}

/// Reads the text of a host.
#[must_use]
pub fn host(text: &str) -> Host {
    let host = text.strip_suffix('.').unwrap_or(text);
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Host::Address(address);
    }
    let last = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let hex = last
        .strip_prefix("0x")
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit()));
    if last.is_empty() || hex || last.chars().all(|c| c.is_ascii_digit()) || host.contains(':') {
        return Host::Neither;
    }
    Host::Name
}

/// The address, and the IPv4 addresses that it may reach by translation.
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let mut forms = vec![address];
    if let IpAddr::V6(v6) = address {
        let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
        match v6.segments() {
            // Only ::1 and :: are what they are by themselves.
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => {}
            // Mapped; compatible; translated (SIIT); NAT64, with the well-known prefix and a site's own.
            [0, 0, 0, 0, 0, 0xffff | 0, high, low]
            | [0, 0, 0, 0, 0xffff, 0, high, low]
            | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            | [0x64, 0xff9b, 1, _, _, _, high, low]
            // 6to4.
            | [0x2002, high, low, ..] => forms.push(v4(high, low)),
            _ => {}
        }
    }
    forms
}

fn class(address: IpAddr) -> Option<Class> {
    if METADATA.contains(&address) {
        return Some(Class::Metadata);
    }
    let unspecified = match address {
        // All of "this network" reaches the host itself or nobody.
        IpAddr::V4(v4) => v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    [
        (address.is_loopback(), Class::Loopback),
        (unspecified, Class::Unspecified),
        (link_local, Class::LinkLocal),
        (address.is_multicast(), Class::Multicast),
        (broadcast, Class::Broadcast),
    ]
    .into_iter()
    .find_map(|(is, class)| is.then_some(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(policy: &Policy, text: &str, api: &[&str]) -> Option<Class> {
        let api = api.iter().map(|server| server.parse().unwrap()).collect();
        let address = SocketAddr::new(text.parse().unwrap(), 6379);
        policy.judge(address, &api).err().map(|refusal| refusal.class)
    }

    #[test]
    fn addresses_have_their_class_in_every_form() {
        use Class::{Broadcast, LinkLocal, Loopback, Metadata, Multicast, Unspecified};
        let inside = Policy::inside(Vec::new());
        for (text, class) in [
            ("127.0.0.1", Some(Loopback)),
            ("127.255.255.254", Some(Loopback)),
            ("::1", Some(Loopback)),
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::127.0.0.1", Some(Loopback)),
            ("64:ff9b::127.0.0.1", Some(Loopback)),
            ("64:ff9b:1::127.0.0.1", Some(Loopback)),
            ("2002:7f00:1::", Some(Loopback)),
            ("::ffff:0:127.0.0.1", Some(Loopback)),
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("::", Some(Unspecified)),
            ("::ffff:0.0.0.0", Some(Unspecified)),
            ("169.254.169.254", Some(LinkLocal)),
            ("::ffff:169.254.169.254", Some(LinkLocal)),
            ("64:ff9b::a9fe:a9fe", Some(LinkLocal)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("ff02::1", Some(Multicast)),
            ("255.255.255.255", Some(Broadcast)),
            ("::ffff:255.255.255.255", Some(Broadcast)),
            ("fd00:ec2::254", Some(Metadata)),
            ("100.100.100.200", Some(Metadata)),
            ("10.0.0.1", None),
            ("128.0.0.1", None),
            ("169.253.0.1", None),
            ("172.16.0.1", None),
            ("fd00::1", None),
            ("fec0::1", None),
            ("2001:db8::1", None),
            ("::ffff:10.0.0.1", None),
        ] {
            assert_eq!(judged(&inside, text, &[]), class, "{text}");
            assert_eq!(judged(&Policy::outside(), text, &[]), None, "{text}");
        }
    }

    #[test]
    fn exceptions_lift_all_but_the_api_server_itself() {
        let nets = |texts: &[&str]| Policy::inside(texts.iter().map(|text| network(text).unwrap()).collect());
        let none = nets(&[]);
        assert_eq!(
            judged(&none, "10.96.0.1", &["10.96.0.1:443"]),
            Some(Class::ApiServerHost)
        );
        assert_eq!(
            judged(&none, "10.96.0.1", &["10.96.0.1:6379"]),
            Some(Class::ApiServer)
        );
        assert_eq!(
            judged(&none, "::ffff:10.96.0.1", &["10.96.0.1:6379"]),
            Some(Class::ApiServer)
        );
        assert_eq!(judged(&none, "10.96.0.2", &["10.96.0.1:6379"]), None);
        let wide = nets(&["10.0.0.0/8", "127.0.0.0/8"]);
        assert_eq!(judged(&wide, "10.96.0.1", &["10.96.0.1:443"]), None);
        assert_eq!(
            judged(&wide, "10.96.0.1", &["10.96.0.1:6379"]),
            Some(Class::ApiServer)
        );
        assert_eq!(judged(&wide, "127.0.0.1", &[]), None);
        assert_eq!(judged(&wide, "::ffff:127.0.0.1", &[]), None);
        assert_eq!(judged(&wide, "::1", &[]), Some(Class::Loopback));
    }

    #[test]
    fn text_that_only_some_libraries_take_for_an_address_is_nothing() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(host(text), Host::Address(address.parse().unwrap()), "{text}");
        }
        for text in [
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "127.1",
            "0177.0.0.1",
            "fe80::1%lo",
            "1.2.3.4.5",
            "",
            ".",
        ] {
            assert_eq!(host(text), Host::Neither, "{text}");
        }
        for text in [
            "localhost",
            "localhost.",
            "redis.shop.svc",
            "0x7f.test",
            "redis-0",
            "a1",
        ] {
            assert_eq!(host(text), Host::Name, "{text}");
        }
    }

    #[test]
    fn a_network_is_written_without_host_bits() {
        assert_eq!(network("10.1.0.0/16").unwrap().to_string(), "10.1.0.0/16");
        assert_eq!(network("127.0.0.1").unwrap().to_string(), "127.0.0.1/32");
        assert!(network("10.1.2.3/16").unwrap_err().contains("10.1.0.0/16"));
        for text in ["", "10.0.0.0/33", "localhost", "10.0.0.0/-1", "10/8"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let address = "127.0.0.1".parse().unwrap();
        let words = Refusal {
            address,
            class: Class::Loopback,
        }
        .words("spec.broker");
        assert!(
            words.contains("spec.broker: 127.0.0.1 is a loopback address"),
            "{words}"
        );
        assert!(
            words.contains("--allow-broker-cidr=127.0.0.1/32") && words.len() < 256,
            "{words}"
        );
        let words = Refusal {
            address,
            class: Class::ApiServer,
        }
        .words("spec.broker");
        assert!(!words.contains("--allow"), "{words}");
    }
}
