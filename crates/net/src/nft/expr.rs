//! Expressions of nftables rules.

use std::net::Ipv4Addr;

use crate::netlink::Writer;
use crate::{Ipv4Cidr, Protocol};

/// The first register; a value in it may spill into [`R2`].
pub(crate) const R1: u32 = 1;
/// The second 32-bit register of [`R1`]: the second field of a concatenation.
pub(crate) const R2: u32 = 9;
/// A register of its own.
pub(crate) const R3: u32 = 2;

/// What a packet meets at the end of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
}

impl Verdict {
    /// Writes it as a data attribute.
    pub(crate) fn write(&self, w: &mut Writer, kind: u16) {
        let (code, chain) = match self {
            Self::Drop => (0u32, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3i32 as u32, Some(chain)),
            Self::Goto(chain) => (-4i32 as u32, Some(chain)),
        };
        w.nest(kind, |w| {
            w.nest(2, |w| {
                w.be32(1, code);
                if let Some(chain) = chain {
                    w.text(2, chain);
                }
            });
        });
    }
}

/// Keys of `meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    Mark = 3,
    IifName = 6,
    OifName = 7,
    L4Proto = 16,
    PacketType = 19,
}

/// Keys of `ct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ct {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
}

/// Where a payload expression counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// `==` or `!=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq = 0,
    Neq = 1,
}

/// A set or map that a rule looks things up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetRef {
    /// Its name (`__map%d` for an anonymous one).
    pub(crate) name: String,
    /// Its id within the batch; 0 for one that exists already.
    pub(crate) id: u32,
}

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    Meta(Meta, u32),
    MetaSet(Meta, u32),
    Ct(Ct, u32),
    CtSet(Ct, u32),
    Payload {
        base: Base,
        offset: u32,
        len: u32,
        reg: u32,
    },
    /// With the offset of the checksum to set right, within the same header.
    PayloadSet {
        base: Base,
        offset: u32,
        len: u32,
        reg: u32,
        checksum: Option<u32>,
    },
    Cmp(Cmp, u32, Vec<u8>),
    Bitwise {
        reg: u32,
        mask: [u8; 4],
    },
    Lookup {
        set: SetRef,
        reg: u32,
        into: Option<u32>,
    },
    Dnat {
        address: u32,
        port: Option<u32>,
    },
    Snat {
        address: u32,
    },
    SnatPort {
        port: u32,
    },
    Masquerade,
    Redirect {
        port: u32,
    },
    NumgenInc {
        modulus: u32,
        reg: u32,
    },
    FibDaddrType(u32),
    /// Request id of the IPsec state that the packet came out of, the first being 0; no match if there is none.
    OpenedBy {
        place: u32,
        reg: u32,
    },
    /// 1 if the packet's way leads through IPsec, else 0.
    WillBeSealed(u32),
    Immediate(u32, Vec<u8>),
    Counter,
    Verdict(Verdict),
}

impl Expr {
    /// Writes it as an element of a rule's expression list.
    pub(crate) fn write(&self, w: &mut Writer) {
        let name = match self {
            Self::Meta(..) | Self::MetaSet(..) => "meta",
            Self::Ct(..) | Self::CtSet(..) => "ct",
            Self::Payload { .. } | Self::PayloadSet { .. } => "payload",
            Self::Cmp(..) => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Dnat { .. } | Self::Snat { .. } | Self::SnatPort { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Redirect { .. } => "redir",
            Self::NumgenInc { .. } => "numgen",
            Self::FibDaddrType(_) => "fib",
            Self::OpenedBy { .. } => "xfrm",
            Self::WillBeSealed(_) => "rt",
            Self::Counter => "counter",
            Self::Immediate(..) | Self::Verdict(_) => "immediate",
        };
        w.nest(1, |w| {
            w.text(1, name);
            w.nest(2, |w| self.write_data(w));
        });
    }

    fn write_data(&self, w: &mut Writer) {
        match self {
            Self::Meta(key, reg) => numbers(w, &[(2, *key as u32), (1, *reg)]),
            Self::MetaSet(key, reg) => numbers(w, &[(2, *key as u32), (3, *reg)]),
            Self::Ct(key, reg) => numbers(w, &[(2, *key as u32), (1, *reg)]),
            Self::CtSet(key, reg) => numbers(w, &[(2, *key as u32), (4, *reg)]),
            Self::Payload { base, offset, len, reg } => {
                numbers(w, &[(1, *reg), (2, *base as u32), (3, *offset), (4, *len)]);
            }
            Self::PayloadSet { base, offset, len, reg, checksum } => {
                let (kind, at) = checksum.map_or((0, 0), |at| (CHECKSUM_INET, at));
                numbers(w, &[(5, *reg), (2, *base as u32), (3, *offset), (4, *len), (6, kind), (7, at)]);
            }
            Self::Cmp(op, reg, value) => {
                numbers(w, &[(1, *reg), (2, *op as u32)]);
                w.nest(3, |w| w.bytes(1, value));
            }
            Self::Bitwise { reg, mask } => {
                numbers(w, &[(1, *reg), (2, *reg), (3, 4)]);
                w.nest(4, |w| w.bytes(1, mask));
                w.nest(5, |w| w.bytes(1, &[0; 4]));
            }
            Self::Lookup { set, reg, into } => {
                w.text(1, &set.name);
                w.be32(2, *reg);
                if let Some(into) = into {
                    w.be32(3, *into);
                }
                if set.id != 0 {
                    w.be32(4, set.id);
                }
            }
            Self::Dnat { address, port } => {
                numbers(w, &[(1, 1), (2, libc::AF_INET as u32), (3, *address)]);
                if let Some(port) = port {
                    numbers(w, &[(5, *port), (7, NAT_PROTO_SPECIFIED)]);
                }
            }
            Self::Snat { address } => numbers(w, &[(1, 0), (2, libc::AF_INET as u32), (3, *address)]),
            Self::SnatPort { port } => {
                numbers(w, &[(1, 0), (2, libc::AF_INET as u32), (5, *port), (7, NAT_PROTO_SPECIFIED)]);
            }
            Self::Masquerade | Self::Counter => {}
            Self::Redirect { port } => numbers(w, &[(1, *port), (3, NAT_PROTO_SPECIFIED)]),
            Self::NumgenInc { modulus, reg } => numbers(w, &[(1, *reg), (2, *modulus), (3, 0), (4, 0)]),
            // RESULT_ADDRTYPE of the destination
            Self::FibDaddrType(reg) => numbers(w, &[(3, 2), (2, 3), (1, *reg)]),
            Self::OpenedBy { place, reg } => {
                numbers(w, &[(1, *reg), (2, XFRM_REQUEST_ID)]);
                w.bytes(3, &[XFRM_IN]);
                w.be32(4, *place);
            }
            Self::WillBeSealed(reg) => numbers(w, &[(1, *reg), (2, RT_XFRM)]),
            Self::Immediate(reg, value) => {
                w.be32(1, *reg);
                w.nest(2, |w| w.bytes(1, value));
            }
            Self::Verdict(verdict) => {
                w.be32(1, 0);
                verdict.write(w, 2);
            }
        }
    }
}

const NAT_PROTO_SPECIFIED: u32 = 2;
const CHECKSUM_INET: u32 = 1;
const XFRM_REQUEST_ID: u32 = 5;
const XFRM_IN: u8 = 0;
const RT_XFRM: u32 = 4;
/// `RTN_LOCAL`.
const TYPE_LOCAL: u32 = 2;
/// Bits of `ct state`: established and related.
const STATE_OPEN: u32 = 2 | 4;
/// Bit of `ct status`: the destination was translated.
const STATUS_DNAT: u32 = 0x20;

fn numbers(w: &mut Writer, pairs: &[(u16, u32)]) {
    for (kind, value) in pairs {
        w.be32(*kind, *value);
    }
}

/// A rule under construction: match after match, then an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule(pub(crate) Vec<Expr>);

impl Rule {
    /// A rule that matches everything so far.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn push(mut self, exprs: impl IntoIterator<Item = Expr>) -> Self {
        self.0.extend(exprs);
        self
    }

    /// More expressions.
    pub(crate) fn with(self, exprs: impl IntoIterator<Item = Expr>) -> Self {
        self.push(exprs)
    }

    /// The packet comes in by this link (or not).
    pub(crate) fn iif(self, op: Cmp, link: &str) -> Self {
        self.push([Expr::Meta(Meta::IifName, R1), Expr::Cmp(op, R1, link_name(link))])
    }

    /// The packet leaves by this link (or not).
    pub(crate) fn oif(self, op: Cmp, link: &str) -> Self {
        self.push([Expr::Meta(Meta::OifName, R1), Expr::Cmp(op, R1, link_name(link))])
    }

    fn address(self, offset: u32, op: Cmp, net: Ipv4Cidr) -> Self {
        let load = Expr::Payload { base: Base::Network, offset, len: 4, reg: R1 };
        let mask = net.mask().to_be_bytes();
        let value = net.network().address.octets().to_vec();
        let masked = (net.prefix < 32).then_some(Expr::Bitwise { reg: R1, mask });
        self.push([Some(load), masked, Some(Expr::Cmp(op, R1, value))].into_iter().flatten())
    }

    /// The source is in `net` (or not).
    pub(crate) fn saddr(self, op: Cmp, net: Ipv4Cidr) -> Self {
        self.address(12, op, net)
    }

    /// The destination is in `net` (or not).
    pub(crate) fn daddr(self, op: Cmp, net: Ipv4Cidr) -> Self {
        self.address(16, op, net)
    }

    /// The destination is an address of this machine.
    pub(crate) fn daddr_local(self) -> Self {
        self.push([Expr::FibDaddrType(R1), Expr::Cmp(Cmp::Eq, R1, TYPE_LOCAL.to_ne_bytes().to_vec())])
    }

    /// The transport protocol.
    pub(crate) fn protocol(self, protocol: Protocol) -> Self {
        self.push([Expr::Meta(Meta::L4Proto, R1), Expr::Cmp(Cmp::Eq, R1, vec![protocol.number()])])
    }

    /// The destination port; needs [`Rule::protocol`] first.
    pub(crate) fn dport(self, port: u16) -> Self {
        self.push([
            Expr::Payload { base: Base::Transport, offset: 2, len: 2, reg: R1 },
            Expr::Cmp(Cmp::Eq, R1, port.to_be_bytes().to_vec()),
        ])
    }

    /// The source port; needs [`Rule::protocol`] first.
    pub(crate) fn sport(self, port: u16) -> Self {
        self.push([
            Expr::Payload { base: Base::Transport, offset: 0, len: 2, reg: R1 },
            Expr::Cmp(Cmp::Eq, R1, port.to_be_bytes().to_vec()),
        ])
    }

    /// An ICMP redirect.
    pub(crate) fn icmp_redirect(self) -> Self {
        self.push([
            Expr::Meta(Meta::L4Proto, R1),
            Expr::Cmp(Cmp::Eq, R1, vec![1]),
            Expr::Payload { base: Base::Transport, offset: 0, len: 1, reg: R1 },
            Expr::Cmp(Cmp::Eq, R1, vec![5]),
        ])
    }

    /// Loads protocol and destination port as the key of a set.
    pub(crate) fn key_proto_port(self) -> Self {
        self.push([Expr::Meta(Meta::L4Proto, R1), Expr::Payload { base: Base::Transport, offset: 2, len: 2, reg: R2 }])
    }

    /// Loads destination port and VXLAN id of a datagram as the key of a set.
    pub(crate) fn key_port_vni(self) -> Self {
        self.push([
            Expr::Payload { base: Base::Transport, offset: 2, len: 2, reg: R1 },
            Expr::Payload { base: Base::Transport, offset: 12, len: 3, reg: R2 },
        ])
    }

    /// Loads the source address.
    pub(crate) fn key_source(self, reg: u32) -> Self {
        self.push([Expr::Payload { base: Base::Network, offset: 12, len: 4, reg }])
    }

    /// Loads the destination address.
    pub(crate) fn key_destination(self, reg: u32) -> Self {
        self.push([Expr::Payload { base: Base::Network, offset: 16, len: 4, reg }])
    }

    /// Protocol and destination port are in a set.
    pub(crate) fn proto_port_in(self, set: &str) -> Self {
        self.key_proto_port().push([Expr::Lookup { set: SetRef { name: set.into(), id: 0 }, reg: R1, into: None }])
    }

    fn ct_bits(self, key: Ct, bits: u32) -> Self {
        self.push([
            Expr::Ct(key, R1),
            Expr::Bitwise { reg: R1, mask: bits.to_ne_bytes() },
            Expr::Cmp(Cmp::Neq, R1, vec![0; 4]),
        ])
    }

    /// The packet belongs to a connection that has been let through.
    pub(crate) fn established(self) -> Self {
        self.ct_bits(Ct::State, STATE_OPEN)
    }

    /// The connection's destination was translated.
    pub(crate) fn dnatted(self) -> Self {
        self.ct_bits(Ct::Status, STATUS_DNAT)
    }

    /// The packet goes the connection's way (0) or back (1).
    pub(crate) fn direction(self, direction: u8) -> Self {
        self.push([Expr::Ct(Ct::Direction, R1), Expr::Cmp(Cmp::Eq, R1, vec![direction])])
    }

    /// Ends with a verdict.
    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        self.push([Expr::Verdict(verdict)])
    }

    /// Gives the packet a mark.
    pub(crate) fn mark(self, mark: u32) -> Self {
        self.push([Expr::Immediate(R1, mark.to_ne_bytes().to_vec()), Expr::MetaSet(Meta::Mark, R1)])
    }

    /// Ends with masquerading.
    pub(crate) fn masquerade(self) -> Self {
        self.push([Expr::Masquerade])
    }

    /// Ends with a new source address.
    pub(crate) fn snat(self, address: Ipv4Addr) -> Self {
        self.push([Expr::Immediate(R1, address.octets().to_vec()), Expr::Snat { address: R1 }])
    }

    /// Ends with a new source port, on the same address.
    pub(crate) fn snat_port(self, port: u16) -> Self {
        self.push([Expr::Immediate(R1, port.to_be_bytes().to_vec()), Expr::SnatPort { port: R1 }])
    }

    /// Ends with a new destination port on this machine.
    pub(crate) fn redirect(self, port: u16) -> Self {
        self.push([Expr::Immediate(R1, port.to_be_bytes().to_vec()), Expr::Redirect { port: R1 }])
    }

    /// Ends with a new destination; the port is kept if `None`.
    pub(crate) fn dnat(self, address: Ipv4Addr, port: Option<u16>) -> Self {
        let rule = self.push([Expr::Immediate(R1, address.octets().to_vec())]);
        match port {
            None => rule.push([Expr::Dnat { address: R1, port: None }]),
            Some(port) => rule
                .push([Expr::Immediate(R3, port.to_be_bytes().to_vec()), Expr::Dnat { address: R1, port: Some(R3) }]),
        }
    }
}

/// A link name as the kernel compares it: 16 bytes, zero-filled.
fn link_name(link: &str) -> Vec<u8> {
    let mut name = link.as_bytes().to_vec();
    name.resize(16, 0);
    name
}

impl Protocol {
    /// The number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}
