//! [`FlowState`]'s words as the types they mean.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{FLOW_STATE_WORDS, FlowState, FlowTuple, flags};
use crate::seq::{Mss, SeqNum, WindowScale};
use crate::wire::MacAddr;

pub(crate) fn ip_words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(v4) => [u32::from(v4), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            [
                (bits >> 96) as u32,
                (bits >> 64) as u32,
                (bits >> 32) as u32,
                bits as u32,
            ]
        }
    }
}

fn ip_addr(words: [u32; 4], ipv6: bool) -> IpAddr {
    if !ipv6 {
        return Ipv4Addr::from_bits(words[0]).into();
    }
    let bits = words
        .iter()
        .fold(0_u128, |bits, &word| bits << 32 | u128::from(word));
    Ipv6Addr::from_bits(bits).into()
}

macro_rules! sequence_numbers {
    ($($(#[$doc:meta])* $get:ident $set:ident;)*) => {$(
        $(#[$doc])*
        pub const fn $get(&self) -> SeqNum {
            SeqNum(self.$get)
        }

        /// Sets it.
        pub const fn $set(&mut self, value: SeqNum) {
            self.$get = value.0;
        }
    )*};
}

impl FlowState {
    sequence_numbers! {
        /// RCV.NXT.
        rcv_nxt set_rcv_nxt;
        /// Right edge of the window last advertised.
        rcv_adv set_rcv_adv;
        /// Last.ACK.sent of RFC 7323.
        last_ack_sent set_last_ack_sent;
        /// SND.UNA.
        snd_una set_snd_una;
        /// SND.NXT.
        snd_nxt set_snd_nxt;
        /// Sequence number after the last byte the application wrote.
        snd_end set_snd_end;
        /// End of the last segment sent that was not full.
        snd_sml set_snd_sml;
    }

    /// The state as words, as hardware is given it.
    pub const fn to_words(self) -> [u32; FLOW_STATE_WORDS] {
        zerocopy::transmute!(self)
    }

    /// The state that hardware gave back.
    pub const fn from_words(words: [u32; FLOW_STATE_WORDS]) -> Self {
        zerocopy::transmute!(words)
    }

    /// Who the flow is.
    pub fn tuple(&self) -> FlowTuple {
        let ipv6 = self.has(flags::IPV6);
        FlowTuple {
            local: (ip_addr(self.local_ip, ipv6), (self.ports >> 16) as u16),
            remote: (ip_addr(self.remote_ip, ipv6), self.ports as u16),
        }
    }

    /// Sets it, and with it [`flags::IPV6`]. Both addresses are of one family.
    pub fn set_tuple(&mut self, tuple: &FlowTuple) {
        self.local_ip = ip_words(tuple.local.0);
        self.remote_ip = ip_words(tuple.remote.0);
        self.ports = u32::from(tuple.local.1) << 16 | u32::from(tuple.remote.1);
        self.set(flags::IPV6, tuple.local.0.is_ipv6());
    }

    /// The peer's (or the next hop's) hardware address.
    pub const fn remote_mac(&self) -> MacAddr {
        let [a, b, c, d] = self.remote_mac_high.to_be_bytes();
        let [e, f, ..] = self.remote_mac_low_ttl_tos.to_be_bytes();
        MacAddr([a, b, c, d, e, f])
    }

    /// Sets it.
    pub const fn set_remote_mac(&mut self, mac: MacAddr) {
        let [a, b, c, d, e, f] = mac.0;
        self.remote_mac_high = u32::from_be_bytes([a, b, c, d]);
        let [.., ttl, tos] = self.remote_mac_low_ttl_tos.to_be_bytes();
        self.remote_mac_low_ttl_tos = u32::from_be_bytes([e, f, ttl, tos]);
    }

    /// IPv4 time to live or IPv6 hop limit of our packets.
    pub const fn ttl(&self) -> u8 {
        (self.remote_mac_low_ttl_tos >> 8) as u8
    }

    /// IPv4 type of service or IPv6 traffic class of our packets, without the ECN bits.
    pub const fn tos(&self) -> u8 {
        self.remote_mac_low_ttl_tos as u8 & !3
    }

    /// Sets both.
    pub const fn set_ttl_tos(&mut self, ttl: u8, tos: u8) {
        let mac = self.remote_mac_low_ttl_tos & 0xffff_0000;
        self.remote_mac_low_ttl_tos = mac | (ttl as u32) << 8 | (tos & !3) as u32;
    }

    /// Bytes of payload in a full segment of ours, options already subtracted.
    pub const fn mss(&self) -> Mss {
        Mss::new((self.mss_scales >> 16) as u16)
    }

    /// Rcv.Wind.Shift of RFC 7323: the scale of windows that we advertise.
    pub const fn rcv_scale(&self) -> WindowScale {
        WindowScale::new((self.mss_scales >> 8) as u8 & 0xf)
    }

    /// Snd.Wind.Shift of RFC 7323: the scale of windows that the peer advertises.
    pub const fn snd_scale(&self) -> WindowScale {
        WindowScale::new(self.mss_scales as u8 & 0xf)
    }

    /// Sets the three.
    pub const fn set_mss_scales(&mut self, mss: Mss, rcv: WindowScale, snd: WindowScale) {
        self.mss_scales = mss.bytes() << 16 | (rcv.get() as u32) << 8 | snd.get() as u32;
    }

    /// Whether all bits of `flag` ([`flags`]) are set.
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    /// Sets or clears `flag`.
    pub const fn set(&mut self, flag: u32, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }

    /// Bytes sent and not acknowledged.
    pub const fn in_flight(&self) -> u32 {
        self.snd_nxt().since(self.snd_una())
    }

    /// Bytes written by the application and not sent.
    pub const fn unsent(&self) -> u32 {
        self.snd_end().since(self.snd_nxt())
    }

    /// Bytes that the peer may still send under the window last advertised.
    pub const fn rcv_wnd(&self) -> u32 {
        self.rcv_adv().since(self.rcv_nxt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_read_back(
            v6 in any::<bool>(), ips in any::<[u128; 2]>(), ports in any::<[u16; 2]>(), mac in any::<[u8; 6]>(),
            ttl in any::<u8>(), tos in any::<u8>(), mss in 48_u16.., rcv in 0_u8..15, snd in 0_u8..15,
        ) {
            let ip = |bits: u128| -> IpAddr {
                if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
            };
            let tuple = FlowTuple { local: (ip(ips[0]), ports[0]), remote: (ip(ips[1]), ports[1]) };
            let mut state = FlowState::default();
            state.set_ttl_tos(ttl, tos);
            state.set_tuple(&tuple);
            state.set_remote_mac(MacAddr(mac));
            state.set_mss_scales(Mss::new(mss), WindowScale::new(rcv), WindowScale::new(snd));
            prop_assert_eq!(state.tuple(), tuple);
            prop_assert_eq!(FlowState::from_words(state.to_words()), state);
            prop_assert_eq!(state.to_words()[8], u32::from(ports[0]) << 16 | u32::from(ports[1]));
            prop_assert_eq!(state.remote_mac(), MacAddr(mac));
            prop_assert_eq!((state.ttl(), state.tos()), (ttl, tos & !3));
            prop_assert_eq!(state.mss().get(), mss);
            prop_assert_eq!((state.rcv_scale().get(), state.snd_scale().get()), (rcv, snd));
        }
    }
}
