//! Hashing of tokens.

/// Tokens are table indices with a generation: spreading them needs one multiplication, not SipHash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenHash;

#[derive(Debug, Default)]
pub(super) struct TokenHasher(u64);

impl std::hash::BuildHasher for TokenHash {
    type Hasher = TokenHasher;
    fn build_hasher(&self) -> TokenHasher {
        TokenHasher(0)
    }
}

impl std::hash::Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u64(&mut self, token: u64) {
        self.0 = token.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
