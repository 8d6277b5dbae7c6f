use super::*;
use crate::wire::checksum::{Checksum, checksum};

/// RFC 1071, section 1, to the letter.
fn by_the_book(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    for word in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([
            word[0],
            word.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[test]
fn the_example_of_rfc_1071() {
    let mut sum = Checksum::new();
    sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert_eq!(sum.folded(), 0xddf2);
}

#[test]
fn carries_survive_long_runs_of_ones() {
    for len in [0, 1, 2, 31, 32, 33, 65535, 1 << 20] {
        let bytes = vec![0xff; len];
        assert_eq!(checksum(&bytes), by_the_book(&bytes), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_sum(
        bytes in vec(any::<u8>(), 0..1500),
        cuts in vec(0usize..1500, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut sum = Checksum::new();
        let mut copying = Checksum::new();
        let mut copy = Vec::new();
        for pair in cuts.windows(2) {
            let piece = &bytes[pair[0]..pair[1]];
            sum.add(piece);
            let mut out = vec![0; piece.len()];
            prop_assert_eq!(copying.add_copying(&mut out, piece), piece.len());
            copy.extend(out);
        }
        prop_assert_eq!(sum.finish(), by_the_book(&bytes));
        prop_assert_eq!(copying.finish(), by_the_book(&bytes));
        prop_assert_eq!(copy, bytes);
    }

    #[test]
    fn data_with_its_checksum_is_valid_and_with_one_flipped_bit_is_not(
        mut bytes in vec(any::<u8>(), 2..300),
        bit in any::<prop::sample::Index>(),
    ) {
        bytes[..2].fill(0);
        let field = checksum(&bytes).to_be_bytes();
        bytes[..2].copy_from_slice(&field);
        let mut sum = Checksum::new();
        sum.add(&bytes);
        prop_assert!(sum.is_valid());

        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut sum = Checksum::new();
        sum.add(&bytes);
        prop_assert!(!sum.is_valid());
    }
}
