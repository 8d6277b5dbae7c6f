//! Ports that one address owns: entries of the program's table that are written without a system call.

use std::fmt;
use std::sync::atomic::Ordering;

use super::mapping::Mapping;
use super::steering::OwnedKey;

/// Words of an entry: two of address, one with the family.
const WORDS: usize = 3;

/// The table `SINGLE` of `bpf/steer.c`, one entry a port.
pub(super) struct Singles {
    memory: Mapping,
}

impl fmt::Debug for Singles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Singles").finish_non_exhaustive()
    }
}

impl Singles {
    pub(super) const fn new(memory: Mapping) -> Self {
        Self { memory }
    }

    /// Enters `key`. Returns `false` when the port has another entry, or the key is no single address.
    pub(super) fn set(&self, key: &OwnedKey) -> bool {
        let words = key.single();
        let present = self.read(key.port());
        if key.is_wildcard() || (present[2] != 0 && present != words) {
            return false;
        }
        // The family last: before it the program takes the entry for empty.
        self.write(key.port(), words)
    }

    /// Takes `key` out. Returns `false` when it is not here.
    pub(super) fn clear(&self, key: &OwnedKey) -> bool {
        if self.read(key.port()) != key.single() {
            return false;
        }
        let [first, second, _] = key.single();
        self.write(key.port(), [first, second, 0])
    }

    fn read(&self, port: u16) -> [u64; WORDS] {
        let word = |index| {
            self.memory
                .word(usize::from(port) * WORDS + index)
                .map_or(0, |word| word.load(Ordering::Relaxed))
        };
        [word(0), word(1), word(2)]
    }

    fn write(&self, port: u16, words: [u64; WORDS]) -> bool {
        words.into_iter().enumerate().all(|(index, value)| {
            let word = self.memory.word(usize::from(port) * WORDS + index);
            word.map(|word| word.store(value, Ordering::Release))
                .is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_port_has_one_owner_here() {
        let singles = Singles::new(Mapping::anonymous(65536 * WORDS * 8, false).unwrap());
        let key = |ip: &str, port| OwnedKey::new(ip.parse::<IpAddr>().unwrap(), port);
        let (first, second) = (key("10.0.0.1", 65535), key("10.0.0.2", 65535));
        assert!(!singles.clear(&first));
        assert!(singles.set(&first) && singles.set(&first));
        assert!(!singles.set(&second) && !singles.clear(&second));
        assert!(!singles.set(&key("::", 1)), "a wildcard is no address");
        assert!(singles.clear(&first));
        assert!(singles.set(&second));
        let v6 = key("2001:db8::1", 7);
        assert!(singles.set(&v6));
        assert_eq!(singles.read(7), v6.single());
        assert_eq!(singles.read(8), [0; 3]);
    }
}
