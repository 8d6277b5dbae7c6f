//! What was asked for, and what of it stands in the kernel's tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{Maps, OWNED_CONNECTIONS_ONLY, OWNED_HAS_EXCLUSIONS, OwnedKey, TupleKey};
use crate::flow::FlowTuple;

/// The requests, and the entries in the kernel that they need.
pub(super) struct Tables {
    pub(super) maps: Box<dyn Maps>,
    /// What a wildcard stands for; `None`: for itself.
    addresses: Option<BTreeSet<IpAddr>>,
    requested: BTreeMap<(IpAddr, u16), u32>,
    /// Addresses and ports that are ours whole, by how many requests need them.
    whole: BTreeMap<OwnedKey, u32>,
    /// Connections that are ours whoever has their address and port, by these.
    flows: BTreeMap<OwnedKey, HashMap<TupleKey, u32>>,
    /// Those with more connections than could be entered: they are ours whole until there are fewer.
    crowded: BTreeSet<OwnedKey>,
    /// Connections in the kernel's table.
    listed: usize,
    /// How many went in when one more did not.
    room: usize,
    /// Entries in the kernel, with their flags.
    entered: BTreeMap<OwnedKey, u32>,
    /// Entries of each port.
    ports: HashMap<u16, u32>,
    bits: Vec<u64>,
    excluded: BTreeMap<TupleKey, u32>,
    /// Exclusions of each local port.
    excluded_ports: HashMap<u16, u32>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flows: usize = self.flows.values().map(HashMap::len).sum();
        f.debug_struct("Tables")
            .field("requested", &self.requested)
            .field("flows", &flows)
            .field("excluded", &self.excluded.len())
            .finish_non_exhaustive()
    }
}

impl Tables {
    pub(super) fn new(maps: Box<dyn Maps>, addresses: Option<BTreeSet<IpAddr>>) -> Self {
        Self {
            maps,
            addresses,
            requested: BTreeMap::new(),
            whole: BTreeMap::new(),
            flows: BTreeMap::new(),
            crowded: BTreeSet::new(),
            listed: 0,
            room: usize::MAX,
            entered: BTreeMap::new(),
            ports: HashMap::new(),
            bits: vec![0; 1024],
            excluded: BTreeMap::new(),
            excluded_ports: HashMap::new(),
        }
    }

    /// What a wildcard stands for; `None`: for itself.
    pub(super) const fn addresses(&self) -> Option<&BTreeSet<IpAddr>> {
        self.addresses.as_ref()
    }

    pub(super) fn owns(&self, local: SocketAddr) -> bool {
        let key = OwnedKey::new(local.ip().to_canonical(), local.port());
        let flags = [key, key.wildcard()].map(|key| self.entered.get(&key));
        let mut present = flags.into_iter().flatten();
        present.any(|flags| flags & OWNED_CONNECTIONS_ONLY == 0)
    }

    pub(super) fn own(&mut self, local: SocketAddr) -> io::Result<()> {
        let request = (local.ip().to_canonical(), local.port());
        if let Some(count) = self.requested.get_mut(&request) {
            *count += 1;
            return Ok(());
        }
        let keys = self.expand(request);
        for (index, key) in keys.iter().enumerate() {
            if let Err(error) = self.enter(*key) {
                for key in &keys[..index] {
                    self.leave(*key)?;
                }
                return Err(error);
            }
        }
        self.requested.insert(request, 1);
        Ok(())
    }

    pub(super) fn disown(&mut self, local: SocketAddr) -> io::Result<()> {
        let request = (local.ip().to_canonical(), local.port());
        let Some(count) = self.requested.get_mut(&request) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.requested.remove(&request);
        let mut result = Ok(());
        for key in self.expand(request) {
            let left = self.leave(key);
            result = result.and(left);
        }
        result
    }

    pub(super) fn own_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let (key, of) = keys(tuple);
        let flows = self.flows.entry(of).or_default();
        let count = flows.entry(key).or_insert(0);
        *count += 1;
        if *count > 1 {
            return Ok(());
        }
        let entered = match self.entered.get(&of) {
            Some(flags) if flags & OWNED_CONNECTIONS_ONLY != 0 => self.list_one(key),
            Some(_) => Ok(()),
            None => self.settle(of),
        };
        if entered.is_err() {
            self.forget_flow(of, key);
            if !self.flows.contains_key(&of) {
                self.settle(of)?;
            }
        }
        entered
    }

    pub(super) fn disown_flow(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let (key, of) = keys(tuple);
        let count = self
            .flows
            .get_mut(&of)
            .and_then(|flows| flows.get_mut(&key));
        let Some(count) = count else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        let listed = self.is_only_connections(&of);
        self.forget_flow(of, key);
        let settled = if self.flows.contains_key(&of) {
            Ok(())
        } else {
            self.settle(of)
        };
        let unlisted = if listed { self.unlist_one(key) } else { Ok(()) };
        let relisted = self.relist();
        settled.and(unlisted).and(relisted)
    }

    pub(super) fn set_addresses(&mut self, addresses: BTreeSet<IpAddr>) -> io::Result<()> {
        let Some(before) = self.addresses.replace(addresses.clone()) else {
            self.addresses = None;
            return Ok(());
        };
        let wildcards: Vec<_> = self
            .requested
            .keys()
            .filter(|(ip, _)| ip.is_unspecified())
            .copied()
            .collect();
        let mut result = Ok(());
        for (any, port) in wildcards {
            let same_family = |ip: &&IpAddr| ip.is_ipv4() == any.is_ipv4();
            for gone in before.difference(&addresses).filter(same_family) {
                let left = self.leave(OwnedKey::new(*gone, port));
                result = result.and(left);
            }
            for new in addresses.difference(&before).filter(same_family) {
                let entered = self.enter(OwnedKey::new(*new, port));
                result = result.and(entered);
            }
        }
        result
    }

    pub(super) fn exclude(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let key = TupleKey::new(tuple);
        if let Some(count) = self.excluded.get_mut(&key) {
            *count += 1;
            return Ok(());
        }
        self.maps.set_excluded(key)?;
        self.excluded.insert(key, 1);
        let port = tuple.local.1;
        let exclusions = self.excluded_ports.entry(port).or_insert(0);
        *exclusions += 1;
        if *exclusions == 1 {
            self.settle_port(port)
        } else {
            Ok(())
        }
    }

    pub(super) fn include(&mut self, tuple: FlowTuple) -> io::Result<()> {
        let key = TupleKey::new(tuple);
        let Some(count) = self.excluded.get_mut(&key) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.excluded.remove(&key);
        let port = tuple.local.1;
        let exclusions = self.excluded_ports.entry(port).or_insert(1);
        *exclusions -= 1;
        if *exclusions == 0 {
            self.excluded_ports.remove(&port);
            self.settle_port(port)?;
        }
        self.maps.remove_excluded(key)
    }
}

/// The entries that requests need.
impl Tables {
    fn expand(&self, (ip, port): (IpAddr, u16)) -> Vec<OwnedKey> {
        match &self.addresses {
            Some(addresses) if ip.is_unspecified() => addresses
                .iter()
                .filter(|address| address.is_ipv4() == ip.is_ipv4())
                .map(|address| OwnedKey::new(*address, port))
                .collect(),
            _ => vec![OwnedKey::new(ip, port)],
        }
    }

    fn enter(&mut self, key: OwnedKey) -> io::Result<()> {
        let count = self.whole.entry(key).or_insert(0);
        *count += 1;
        if *count > 1 {
            return Ok(());
        }
        if let Err(error) = self.settle(key) {
            self.whole.remove(&key);
            return Err(error);
        }
        self.settle_below(key)
    }

    fn leave(&mut self, key: OwnedKey) -> io::Result<()> {
        let Some(count) = self.whole.get_mut(&key) else {
            return Ok(());
        };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        self.whole.remove(&key);
        // What the wildcard covered first: no frame of a connection is without an owner.
        let below = self.settle_below(key);
        let settled = self.settle(key);
        below.and(settled)
    }

    /// Settles what a wildcard has begun or ceased to cover.
    fn settle_below(&mut self, key: OwnedKey) -> io::Result<()> {
        if !key.is_wildcard() {
            return Ok(());
        }
        let covered: Vec<_> = self.flows.keys().copied().collect();
        let mut result = Ok(());
        for of in covered.into_iter().filter(|of| of.wildcard() == key) {
            let settled = self.settle(of);
            result = result.and(settled);
        }
        result
    }

    fn settle_port(&mut self, port: u16) -> io::Result<()> {
        let of_port: Vec<_> = self.entered.keys().copied().collect();
        let mut of_port = of_port.into_iter().filter(|key| key.port() == port);
        of_port.try_for_each(|key| self.settle(key))
    }

    /// The flags of the entry that `key` needs; `None`: it needs none.
    fn wanted(&self, key: &OwnedKey) -> Option<u32> {
        let exclusions = if self.excluded_ports.contains_key(&key.port()) {
            OWNED_HAS_EXCLUSIONS
        } else {
            0
        };
        if self.whole.contains_key(key) {
            return Some(exclusions);
        }
        if !self.flows.contains_key(key) || self.whole.contains_key(&key.wildcard()) {
            return None;
        }
        let only = if self.crowded.contains(key) {
            0
        } else {
            OWNED_CONNECTIONS_ONLY
        };
        Some(exclusions | only)
    }

    /// Gives `key` the entry that it needs. Its connections are entered before nothing but them is ours, and taken out when
    /// everything is. Where they find no room everything is ours, too, and it is an error.
    fn settle(&mut self, key: OwnedKey) -> io::Result<()> {
        let listed = self.is_only_connections(&key);
        let mut result = Ok(());
        let lists = |wanted: Option<u32>| wanted.is_some_and(|it| it & OWNED_CONNECTIONS_ONLY != 0);
        if !lists(self.wanted(&key)) {
            let stays = self.wanted(&key).is_some() && !self.whole.contains_key(&key);
            if !stays {
                self.crowded.remove(&key);
            }
        } else if !listed && let Err(error) = self.list(&key) {
            self.crowded.insert(key);
            result = Err(error);
        }
        let wanted = self.wanted(&key);
        match wanted {
            Some(flags) => self.set(key, flags)?,
            None => self.remove(key)?,
        }
        if listed && !lists(wanted) {
            self.unlist(&key)?;
        }
        result
    }

    /// Settles those that found no room and would find it now.
    fn relist(&mut self) -> io::Result<()> {
        loop {
            let (flows, vacant) = (&self.flows, self.room.saturating_sub(self.listed));
            let fits = |of: &&OwnedKey| flows.get(of).map_or(0, HashMap::len) <= vacant;
            let Some(of) = self.crowded.iter().find(fits).copied() else {
                return Ok(());
            };
            self.crowded.remove(&of);
            self.settle(of)?;
        }
    }

    /// Enters the connections of `key`: all, or none.
    fn list(&mut self, key: &OwnedKey) -> io::Result<()> {
        let flows: Vec<_> = self.flows_of(key);
        for (index, flow) in flows.iter().enumerate() {
            if let Err(error) = self.list_one(*flow) {
                let taken_back = flows[..index].iter().map(|flow| self.unlist_one(*flow));
                return taken_back.fold(Err(error), Result::and);
            }
        }
        Ok(())
    }

    fn unlist(&mut self, key: &OwnedKey) -> io::Result<()> {
        let flows = self.flows_of(key);
        let unlisted = flows.into_iter().map(|flow| self.unlist_one(flow));
        unlisted.fold(Ok(()), Result::and)
    }

    fn list_one(&mut self, flow: TupleKey) -> io::Result<()> {
        let entered = self.maps.set_connection(flow);
        match entered {
            Ok(()) => {
                self.listed += 1;
                self.room = self.room.max(self.listed);
            }
            Err(_) => self.room = self.listed,
        }
        entered
    }

    fn unlist_one(&mut self, flow: TupleKey) -> io::Result<()> {
        self.listed -= 1;
        self.maps.remove_connection(flow)
    }

    fn flows_of(&self, key: &OwnedKey) -> Vec<TupleKey> {
        let flows = self.flows.get(key);
        flows.map_or_else(Vec::new, |flows| flows.keys().copied().collect())
    }

    fn is_only_connections(&self, key: &OwnedKey) -> bool {
        let flags = self.entered.get(key);
        flags.is_some_and(|flags| flags & OWNED_CONNECTIONS_ONLY != 0)
    }

    fn forget_flow(&mut self, of: OwnedKey, key: TupleKey) {
        if let Some(flows) = self.flows.get_mut(&of) {
            flows.remove(&key);
            if flows.is_empty() {
                self.flows.remove(&of);
            }
        }
    }
}

/// The entries themselves.
impl Tables {
    /// The entry first, then the port's bit: the program sees either none or the whole.
    fn set(&mut self, key: OwnedKey, flags: u32) -> io::Result<()> {
        let before = self.entered.get(&key).copied();
        if before == Some(flags) {
            return Ok(());
        }
        self.maps.set_owned(key, flags)?;
        let port = key.port();
        if before.is_none() {
            if !self.ports.contains_key(&port)
                && let Err(error) = self.set_bit(port, true)
            {
                self.maps.remove_owned(key)?;
                return Err(error);
            }
            *self.ports.entry(port).or_insert(0) += 1;
        }
        self.entered.insert(key, flags);
        Ok(())
    }

    fn remove(&mut self, key: OwnedKey) -> io::Result<()> {
        if self.entered.remove(&key).is_none() {
            return Ok(());
        }
        let port = key.port();
        let entries = self.ports.entry(port).or_insert(1);
        *entries -= 1;
        if *entries == 0 {
            self.ports.remove(&port);
            self.set_bit(port, false)?;
        }
        self.maps.remove_owned(key)
    }

    fn set_bit(&mut self, port: u16, owned: bool) -> io::Result<()> {
        let word = usize::from(port >> 6);
        let bit = 1 << (port & 63);
        let bits = if owned {
            self.bits[word] | bit
        } else {
            self.bits[word] & !bit
        };
        self.maps.set_ports(word as u32, bits)?;
        self.bits[word] = bits;
        Ok(())
    }
}

/// A connection, and the address and port that it is at.
fn keys(tuple: FlowTuple) -> (TupleKey, OwnedKey) {
    let key = TupleKey::new(tuple);
    (key, key.owned())
}
