//! Frames built byte by byte, and what the built-in programs must make of them.
//!
//! [`Frame`] builds Ethernet frames that are right in every length and checksum, whole or as the
//! fragments of one datagram. [`vectors`] has the tables of frames that programs are tried with.

pub mod vectors;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// IEEE 802.1Q: the EtherType of a VLAN tag.
pub const VLAN: u16 = 0x8100;
/// IEEE 802.1ad: the EtherType of a service provider's outer tag.
pub const QINQ: u16 = 0x88a8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
/// Of the identification field, the same in all fragments of a datagram.
const IDENTIFICATION: u16 = 0x1d0c;

/// One packet on Ethernet, described; [`Frame::build`] gives the bytes.
#[derive(Debug, Clone)]
pub struct Frame {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    tags: Vec<(u16, u16)>,
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
    options: Vec<u8>,
    extensions: Vec<Extension>,
    payload: Vec<u8>,
}

/// An IPv6 extension header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options, of this many units of 8 bytes beyond the first.
    HopByHop(u8),
    /// A routing header without segments left, likewise.
    Routing(u8),
    /// Destination options, likewise.
    Destination(u8),
    /// The fragment header of a packet that is not fragmented (RFC 6946).
    AtomicFragment,
}

impl Frame {
    /// A UDP datagram between two addresses of one family.
    ///
    /// # Panics
    /// If one address is IPv4 and the other IPv6.
    #[must_use]
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::with_protocol(UDP, source, destination)
    }

    /// A TCP segment that opens a connection.
    ///
    /// # Panics
    /// If one address is IPv4 and the other IPv6.
    #[must_use]
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::with_protocol(TCP, source, destination)
    }

    /// An IP packet of any protocol number: for other than UDP and TCP the payload is all that
    /// follows the IP header, and the ports are not used.
    ///
    /// # Panics
    /// If one address is IPv4 and the other IPv6.
    #[must_use]
    pub fn with_protocol(protocol: u8, source: SocketAddr, destination: SocketAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination}");
        Self {
            // Locally administered, so that they are nobody's.
            destination_mac: [2, 0, 0, 0, 0, 2],
            source_mac: [2, 0, 0, 0, 0, 1],
            tags: vec![],
            source,
            destination,
            protocol,
            options: vec![],
            extensions: vec![],
            payload: vec![],
        }
    }

    /// Sets the Ethernet addresses.
    #[must_use]
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// Adds a VLAN tag inside those added before: EtherType ([`VLAN`], [`QINQ`]) and VLAN id.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, vlan: u16) -> Self {
        self.tags.push((ethertype, vlan & 0xfff));
        self
    }

    /// Sets this many bytes of IPv4 options.
    ///
    /// # Panics
    /// If the packet is IPv6, or `length` is not a multiple of 4 up to 40.
    #[must_use]
    pub fn options(mut self, length: usize) -> Self {
        assert!(self.source.is_ipv4() && length <= 40 && length.is_multiple_of(4), "{length}");
        self.options = vec![1; length]; // No Operation, which ends nothing early.
        self
    }

    /// Adds an IPv6 extension header behind those added before.
    ///
    /// # Panics
    /// If the packet is IPv4.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        assert!(self.source.is_ipv6(), "IPv4 has no extension headers");
        self.extensions.push(extension);
        self
    }

    /// Sets what follows the UDP or TCP header.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The frame's bytes, without frame check sequence and padding.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let (next, rest) = self.behind_ip(&self.extensions);
        let mut frame = self.link();
        frame.extend(self.ip(next, 0, &rest));
        frame
    }

    /// The frames of the packet's fragments, each with `size` bytes of it but for the last.
    ///
    /// For IPv6 the first `unfragmentable` extension headers are repeated in every fragment; the
    /// others travel in the fragmented part.
    ///
    /// # Panics
    /// If `size` is not a positive multiple of 8.
    #[must_use]
    pub fn fragments(&self, size: usize, unfragmentable: usize) -> Vec<Vec<u8>> {
        assert!(size > 0 && size.is_multiple_of(8), "{size}");
        let (repeated, fragmented) = self.extensions.split_at(unfragmentable);
        let (next, part) = self.behind_ip(fragmented);
        let pieces = part.len().div_ceil(size);
        let fragment = |(index, piece): (usize, &[u8])| {
            let (units, more) = (index * size / 8, index + 1 < pieces);
            let units = u16::try_from(units).expect("invariant: a packet has at most 8191 units");
            let mut frame = self.link();
            if self.source.is_ipv4() {
                frame.extend(self.ip(next, units | u16::from(more) << 13, piece));
            } else {
                let mut behind = fragment_header(next, units << 3 | u16::from(more));
                behind.extend(piece);
                let (next, rest) = chain(repeated, FRAGMENT, behind);
                frame.extend(self.ip(next, 0, &rest));
            }
            frame
        };
        part.chunks(size).enumerate().map(fragment).collect()
    }

    fn link(&self) -> Vec<u8> {
        let mut link = [self.destination_mac, self.source_mac].concat();
        for (ethertype, vlan) in &self.tags {
            link.extend(ethertype.to_be_bytes());
            link.extend(vlan.to_be_bytes());
        }
        let ip = if self.source.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        link.extend(ip.to_be_bytes());
        link
    }

    /// The IP header with `behind`, whose protocol is `next`. `fragment` is for IPv4.
    fn ip(&self, next: u8, fragment: u16, behind: &[u8]) -> Vec<u8> {
        let mut ip = Vec::new();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = 5 + self.options.len() / 4;
                ip.extend([0x40 | words as u8, 0]);
                ip.extend(length(words * 4 + behind.len()).to_be_bytes());
                ip.extend(IDENTIFICATION.to_be_bytes());
                ip.extend(fragment.to_be_bytes());
                ip.extend([64, next, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                ip.extend(&self.options);
                let sum = checksum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ip.extend([0x60, 0, 0, 0]);
                ip.extend(length(behind.len()).to_be_bytes());
                ip.extend([next, 64]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
            }
            _ => unreachable!("invariant: both addresses are of one family"),
        }
        ip.extend(behind);
        ip
    }

    /// What follows the IP header, and its protocol number.
    fn behind_ip(&self, extensions: &[Extension]) -> (u8, Vec<u8>) {
        chain(extensions, self.protocol, self.transport())
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()];
        let mut segment = ports.concat();
        let sum_at = match self.protocol {
            UDP => {
                segment.extend(length(8 + self.payload.len()).to_be_bytes());
                segment.extend([0; 2]);
                6
            }
            TCP => {
                const SYN: u8 = 2;
                segment.extend([0; 8]); // sequence, acknowledgement
                segment.extend([5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
                16
            }
            _ => return self.payload.clone(),
        };
        segment.extend(&self.payload);
        let sum = match checksum(&[&self.pseudo_header(segment.len()), &segment]) {
            0 => 0xffff, // 0 would say "no checksum" (RFC 768).
            sum => sum,
        };
        segment[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn pseudo_header(&self, segment: usize) -> Vec<u8> {
        let mut header = Vec::new();
        for ip in [self.source.ip(), self.destination.ip()] {
            match ip {
                IpAddr::V4(ip) => header.extend(ip.octets()),
                IpAddr::V6(ip) => header.extend(ip.octets()),
            }
        }
        // In both families the sum of these words is that of length and protocol.
        header.extend(length(segment).to_be_bytes());
        header.extend([0, self.protocol]);
        header
    }
}

/// An ARP request for `target`, which is neither IPv4 nor IPv6 to a parser.
#[must_use]
pub fn arp_request(source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let source_mac = [2, 0, 0, 0, 0, 1];
    let mut frame = [[0xff; 6], source_mac].concat();
    frame.extend(ETHERTYPE_ARP.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]); // Ethernet, IPv4, sizes, request
    frame.extend(source_mac);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// The Internet checksum (RFC 1071) over parts of even length, but for the last.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Puts extension headers before `behind`, and gives the first one's number with the bytes.
fn chain(extensions: &[Extension], protocol: u8, behind: Vec<u8>) -> (u8, Vec<u8>) {
    extensions.iter().rev().fold((protocol, behind), |(next, behind), extension| {
        let mut header = extension.bytes(next);
        header.extend(behind);
        (extension.number(), header)
    })
}

impl Extension {
    const fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Destination(_) => 60,
            Self::AtomicFragment => FRAGMENT,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(units) | Self::Destination(units) => {
                let mut header = vec![next, units];
                let mut left = 8 * (usize::from(units) + 1) - 2;
                while left > 0 {
                    let option = left.min(257);
                    match option {
                        1 => header.push(0), // Pad1
                        // Experimental (RFC 4727), to be skipped by who does not know it.
                        _ => {
                            header.extend([0x1e, (option - 2) as u8]);
                            header.resize(header.len() + option - 2, 0);
                        }
                    }
                    left -= option;
                }
                header
            }
            Self::Routing(units) => {
                let mut header = vec![next, units, 253, 0]; // experimental, no segments left
                header.resize(8 * (usize::from(units) + 1), 0);
                header
            }
            Self::AtomicFragment => fragment_header(next, 0),
        }
    }
}

fn fragment_header(next: u8, offset_and_more: u16) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend(offset_and_more.to_be_bytes());
    header.extend(u32::from(IDENTIFICATION).to_be_bytes());
    header
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("invariant: a packet has at most 65535 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn v4() -> Frame {
        Frame::udp("192.0.2.1:4000".parse().unwrap(), "198.51.100.7:20000".parse().unwrap())
    }

    fn v6() -> Frame {
        let to = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7), 20000);
        Frame::udp("[2001:db8::1]:4000".parse().unwrap(), to.into())
    }

    #[test]
    fn checksums_are_those_of_the_rfc_and_fold_twice() {
        // RFC 1071, section 3: the sum is ddf2.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(checksum(&[&[0x12, 0x34, 0x56]]), !(0x1234 + 0x5600));
        assert_eq!(checksum(&[&[0xff; 40]]), 0);
    }

    #[test]
    fn a_datagram_is_right_to_the_byte() {
        let frame = v4().payload(b"hi").build();
        // The checksums were worked out apart from this code.
        let expected = [
            &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..],
            &[0x45, 0, 0, 30, 0x1d, 0x0c, 0, 0, 64, 17, 0x71, 0x87],
            &[192, 0, 2, 1, 198, 51, 100, 7],
            &[0x0f, 0xa0, 0x4e, 0x20, 0, 10, 0x4d, 0x74, b'h', b'i'],
        ]
        .concat();
        assert_eq!(frame, expected);
    }

    #[test]
    fn what_carries_its_checksum_sums_up_to_zero() {
        for payload in [&b""[..], b"x", b"even", &[0xff; 301]] {
            let frame = v4().options(40).payload(payload).build();
            assert_eq!(checksum(&[&frame[14..74]]), 0);
            let pseudo = v4().pseudo_header(8 + payload.len());
            assert_eq!(checksum(&[&pseudo, &frame[74..]]), 0);
            let frame = v6().extension(Extension::HopByHop(1)).payload(payload).build();
            let pseudo = v6().pseudo_header(8 + payload.len());
            assert_eq!(checksum(&[&pseudo, &frame[14 + 40 + 16..]]), 0);
        }
        let tcp = Frame::tcp(v4().source, v4().destination).build();
        let pseudo = Frame::tcp(v4().source, v4().destination).pseudo_header(20);
        assert_eq!(checksum(&[&pseudo, &tcp[34..]]), 0);
    }

    #[test]
    fn tags_nest_in_the_order_they_are_added() {
        let frame = v6().tag(QINQ, 100).tag(VLAN, 7).build();
        assert_eq!(frame[12..22], [0x88, 0xa8, 0, 100, 0x81, 0, 0, 7, 0x86, 0xdd]);
        assert_eq!(frame[22..], v6().build()[14..]);
    }

    #[test]
    fn extension_headers_name_each_other_and_their_length() {
        use Extension::{AtomicFragment, Destination, HopByHop, Routing};
        let chain = [HopByHop(0), Routing(2), AtomicFragment, Destination(255)];
        let frame = chain.into_iter().fold(v6(), Frame::extension).build();
        let mut at = 14 + 40;
        let mut found = vec![frame[14 + 6]];
        while *found.last().unwrap() != UDP {
            let size = if found.last() == Some(&FRAGMENT) { 0 } else { frame[at + 1].into() };
            found.push(frame[at]);
            at += 8 * (size + 1);
        }
        assert_eq!(found, [0, 43, 44, 60, UDP]);
        assert_eq!(frame.len(), at + 8);
        assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), at + 8 - 54);
    }

    #[test]
    fn fragments_put_together_are_the_packet() {
        let payload: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let whole = v4().payload(&payload).build();
        let pieces = v4().payload(&payload).fragments(400, 0);
        assert_eq!(pieces.len(), 3);
        let flags: Vec<_> = pieces.iter().map(|f| u16::from_be_bytes([f[20], f[21]])).collect();
        assert_eq!(flags, [0x2000, 0x2000 | 50, 100]);
        assert_eq!(pieces.iter().flat_map(|f| &f[34..]).copied().collect::<Vec<_>>(), whole[34..]);
        assert!(pieces.iter().all(|f| checksum(&[&f[14..34]]) == 0));

        let long = v6()
            .extension(Extension::HopByHop(0))
            .extension(Extension::Destination(0))
            .payload(&payload);
        let pieces = long.fragments(400, 1);
        // The hop-by-hop header names the fragment header, and that one the options inside.
        assert!(pieces.iter().all(|f| f[20] == 0 && f[54] == FRAGMENT && f[62] == 60));
        let flags: Vec<_> = pieces.iter().map(|f| u16::from_be_bytes([f[64], f[65]])).collect();
        assert_eq!(flags, [1, 400 | 1, 800]);
        let put = pieces.iter().flat_map(|f| &f[70..]).copied().collect::<Vec<_>>();
        assert_eq!(put, long.build()[62..]);
    }
}
