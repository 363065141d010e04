//! The same bytes, arriving in different pieces.

/// A sequence of numbers that is the same in every run (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number, below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// `data` in pieces of one byte, and in three ways of pieces of any length that follow from `data` alone.
pub fn ways(data: &[u8]) -> Vec<Vec<&[u8]>> {
    let hash = data.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let mut ways = vec![data.chunks(1).collect()];
    for (turn, most) in [(1, 4), (2, 40), (3, 1000)] {
        let mut numbers = Numbers(hash ^ turn);
        let (mut rest, mut pieces) = (data, Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + numbers.below(most)).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        ways.push(pieces);
    }
    ways
}
