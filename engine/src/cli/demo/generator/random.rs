//! Random numbers that are the same everywhere and for ever.

/// xoshiro256++, seeded by splitmix64. Good enough for made-up usage; not for secrets.
#[derive(Debug, Clone)]
pub struct Random([u64; 4]);

impl Random {
    /// Starts the series of a seed. Every seed is good, 0 too.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Random([(); 4].map(|()| splitmix(&mut state)))
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// The next 128 bits.
    #[inline]
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }

    /// A number in `0..end`; 0 when `end` is 0. Some numbers are likelier than others by less than
    /// `end` in 2^64.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(end);
        u64::try_from(product >> 64).expect("the upper half of 128 bits has 64")
    }

    /// As [`Random::below`], for a place in a list.
    #[inline]
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("it is below a usize")
    }

    /// True once in `times` on average; never when `times` is 0.
    #[inline]
    pub fn one_in(&mut self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    /// A number from 1 to 2^`bits_max` whose size is skewed: each number of bits from `bits_min` is as
    /// likely as any other.
    #[inline]
    pub fn skewed(&mut self, bits_min: u32, bits_max: u32) -> u64 {
        let bits = u64::from(bits_min) + self.below(u64::from(bits_max - bits_min) + 1);
        1 + self.below(1 << bits)
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_its_published_numbers() {
        let mut state = 1_234_567;
        let first: Vec<u64> = (0..3).map(|_| splitmix(&mut state)).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn xoshiro_gives_its_published_numbers() {
        let mut random = Random([1, 2, 3, 4]);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut random = Random::new(7);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[random.index(10)] += 1;
        }
        assert!(seen.iter().all(|n| (900..1_100).contains(n)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
        assert!(!random.one_in(0));
    }

    #[test]
    fn skewed_numbers_stay_between_one_and_the_power_of_two() {
        let mut random = Random::new(7);
        let numbers: Vec<u64> = (0..10_000).map(|_| random.skewed(2, 10)).collect();
        assert!(numbers.iter().all(|n| (1..=1_024).contains(n)));
        let small = numbers.iter().filter(|n| **n <= 32).count();
        assert!((4_000..7_000).contains(&small), "{small}");
    }
}
