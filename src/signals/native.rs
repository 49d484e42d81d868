//! Exponential buckets of durations: the arithmetic of native histograms, in integers.
//!
//! Schema 3 has eight buckets for each doubling: bucket `i` holds the durations in `(2^((i-1)/8), 2^(i/8)]` seconds, so
//! its upper edge is 2^(1/8) = 1.0905 times its lower one. A quantile that is told as the middle of its bucket is off
//! by at most (1.0905 - 1) / (1.0905 + 1) = 4.33 %; schema 2 would be off by 8.6 %. Wherever in its bucket a reader
//! puts it, it is off by less than 9.05 %.
//!
//! Durations are whole nanoseconds, so "at most 2^(i/8) seconds" is "at most [2^(i/8) · 10^9] nanoseconds": one
//! comparison of integers, exact at every edge, where the logarithm of a float would err by one bucket now and then.

/// Eight buckets for each doubling.
pub const SCHEMA: i8 = 3;

/// Up to here, 0.95 µs, durations are in the zero bucket: the clock itself costs some 30 ns, a request takes 20 µs or
/// more, and no panel tells half a microsecond from a quarter. A power of two, so that it is an edge in coarser schemas
/// too.
pub const ZERO_THRESHOLD_SECONDS: f64 = 1.0 / (1 << ZERO_EXPONENT) as f64;

/// The zero threshold is 2 to the minus this.
const ZERO_EXPONENT: i32 = 20;

/// Cells: the zero bucket, then one for each native bucket, up to the one that the largest number of nanoseconds (584
/// years) falls in. So no duration is outside.
pub const CELLS: usize = 434;

/// Most buckets that a page shows of one histogram. 160 are 20 doublings, 1 µs to 1 s; it is also the default of the
/// OpenTelemetry SDKs.
pub const SHOWN_BUCKETS: usize = 160;

/// Upper edge of each cell in nanoseconds, inclusive.
static UPPER_NANOS: [u64; CELLS] = upper_nanos();

/// Parts that each doubling is cut into to find a cell. A part is at most 1/16 wide and a bucket 0.09, so a part has at
/// most one edge inside, and one comparison decides.
const PARTS: usize = 16;

/// The cell of the smallest number of each part.
static FIRST_CELL: [u16; 64 * PARTS] = first_cells();

/// The cell that a duration falls in.
#[must_use]
#[inline]
pub fn cell(nanos: u64) -> usize {
    let first = usize::from(FIRST_CELL[part(nanos)]);
    first + usize::from(nanos > UPPER_NANOS[first])
}

/// The exponent of `nanos` and the next four bits.
const fn part(nanos: u64) -> usize {
    let zeros = (nanos | 1).leading_zeros();
    let fraction = (nanos << zeros << 1) >> 60;
    (63 - zeros as usize) * PARTS + fraction as usize
}

/// The smallest duration of a cell.
#[must_use]
pub const fn lowest(cell: usize) -> u64 {
    if cell == 0 { 0 } else { UPPER_NANOS[cell - 1] + 1 }
}

/// Number of the native bucket that a cell above the zero bucket counts.
#[must_use]
pub const fn index(cell: usize) -> i32 {
    cell as i32 - 8 * ZERO_EXPONENT
}

/// Lowers the schema, two buckets becoming one, until at most `most` are left.
///
/// Which schema that gives depends on nothing but the set of buckets that are not empty. None of them ever becomes
/// empty again, so from one page to the next a histogram may become coarser and never finer, and no count goes back.
#[must_use]
pub fn merged(mut schema: i8, mut buckets: Vec<(i32, u64)>, most: usize) -> (i8, Vec<(i32, u64)>) {
    // -4 is the coarsest there is; what is left then is left.
    while buckets.len() > most && schema > -4 {
        schema -= 1;
        let mut into = 0;
        for at in 0..buckets.len() {
            let (index, count) = buckets[at];
            // (base^(i-1), base^i] is a part of (base²^(j-1), base²^j] with j = i/2, rounded up.
            let index = (index + 1).div_euclid(2);
            if at > 0 && buckets[into].0 == index {
                buckets[into].1 += count;
            } else {
                into += usize::from(at > 0);
                buckets[into] = (index, count);
            }
        }
        buckets.truncate(into + 1);
    }
    (schema, buckets)
}

/// 2^(k/8), in units of 2^-90: fine enough for the nanosecond to be right in every bucket, as a test shows, and times
/// 10^9 below 2^128.
const ROOTS: [u128; 8] = [
    1_237_940_039_285_380_274_899_124_224,
    1_349_983_185_416_640_037_111_407_380,
    1_472_167_102_664_922_255_829_854_488,
    1_605_409_609_231_505_965_841_771_515,
    1_750_711_592_962_066_872_460_373_069,
    1_909_164_529_791_845_003_399_616_134,
    2_081_958_682_668_237_652_883_223_645,
    2_270_392_042_539_286_511_080_270_765,
];

const fn upper_nanos() -> [u64; CELLS] {
    let mut upper = [0; CELLS];
    let mut cell = 0;
    while cell < CELLS {
        let index = index(cell);
        let shift = 90 - index.div_euclid(8);
        let nanos = (ROOTS[index.rem_euclid(8) as usize] * 1_000_000_000) >> shift;
        upper[cell] = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        cell += 1;
    }
    upper
}

const fn first_cells() -> [u16; 64 * PARTS] {
    let upper = upper_nanos();
    let mut first = [0; 64 * PARTS];
    let (mut at, mut cell) = (0, 0);
    while at < first.len() {
        let smallest = ((PARTS + at % PARTS) as u128) << (at / PARTS) >> 4;
        while (upper[cell] as u128) < smallest {
            cell += 1;
        }
        first[at] = cell as u16;
        at += 1;
    }
    first
}
