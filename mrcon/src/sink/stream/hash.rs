//! Which partition of a super stream a key is in.
//!
//! The same as RabbitMQ's own clients choose by default, so that their users find a key where they
//! expect it: MurmurHash3 of 32 bits with a fixed seed, modulo the number of partitions.

/// The seed of RabbitMQ's clients.
const SEED: u32 = 104_729;

/// The position of the partition of `key` among `count` partitions.
pub(super) fn partition(key: &[u8], count: usize) -> usize {
    murmur3(key, SEED) as usize % count
}

/// MurmurHash3, x86, 32 bits.
fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(seed, |hash, block| {
        let mixed = hash ^ scrambled(u32::from_le_bytes(*block));
        mixed
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64)
    });
    if !tail.is_empty() {
        let mut block = [0; 4];
        block[..tail.len()].copy_from_slice(tail);
        hash ^= scrambled(u32::from_le_bytes(block));
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

fn scrambled(block: u32) -> u32 {
    block
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_differs_from_other_implementations() {
        for (text, seed, expected) in [
            ("", 0, 0),
            ("", 1, 0x514e_28b7),
            ("a", 0x9747_b28c, 0x7fa0_9ea6),
            ("ab", 0x9747_b28c, 0x7487_5592),
            ("abc", 0x9747_b28c, 0xc84a_62dd),
            ("abcd", 0x9747_b28c, 0xf047_8627),
            ("Hello, world!", 0x9747_b28c, 0x2488_4cba),
            ("customer-1", SEED, 536_801_432),
            ("żółć", SEED, 3_178_564_868),
        ] {
            assert_eq!(murmur3(text.as_bytes(), seed), expected, "{text}");
        }
    }
}
