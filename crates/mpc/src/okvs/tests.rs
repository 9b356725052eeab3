#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small numbers, on machines with addresses of 64 bits"
)]

use std::convert::Infallible;

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use proptest::prelude::*;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value as Json, json};

use super::*;
use crate::gf128::Gf128;

/// The output of BLAKE3 for some bytes.
struct Stream(blake3::OutputReader);

impl Stream {
    fn new(bytes: &[u8]) -> Self {
        Self(blake3::Hasher::new().update(bytes).finalize_xof())
    }

    fn values<V: Value>(bytes: &[u8], count: usize) -> Vec<V> {
        let mut values = vec![V::zeroed(); count];
        Self::new(bytes).0.fill(bytemuck::cast_slice_mut(&mut values));
        values
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

const SEED: Seed = *b"a seed of a test";

fn items(count: usize) -> Vec<u128> {
    let items: Vec<Gf128> = Stream::values(b"items", count);
    items.into_iter().map(|item| item.0).collect()
}

fn parameters(items: usize) -> Parameters {
    Parameters::for_items(items).unwrap()
}

fn encoded<V: Value>(items: &[u128], values: &[V]) -> Vec<V> {
    let mut rng = Stream::new(b"filler");
    encode(&parameters(items.len()), &SEED, items, values, &mut rng).unwrap()
}

/// One item after the other, as the module's documentation says.
fn oracle<V: Value>(parameters: &Parameters, table: &[V], item: u128) -> V {
    let mut block = item.to_le_bytes().into();
    Aes128::new(&SEED.into()).encrypt_block(&mut block);
    let hash = u128::from_le_bytes(block.into()) ^ item;
    let (columns, place) = (hash & u128::from(u64::MAX), hash >> 64);
    let fraction = |product: u128| product & u128::from(u64::MAX);

    let place = place * parameters.bins() as u128;
    let bin = (place >> 64) as usize;
    let bits = fraction(place) >> 24;
    let table = &table[bin * parameters.bin_size()..][..parameters.bin_size()];
    let sparse = parameters.bin_size() - 40;

    let mut left: Vec<_> = (0..sparse).collect();
    let mut rest = columns;
    let mut value = V::zeroed();
    for _ in 0..3 {
        let product = rest * left.len() as u128;
        value = value.xor(table[left.remove((product >> 64) as usize)]);
        rest = fraction(product);
    }
    for (bit, entry) in table[sparse..].iter().enumerate() {
        if bits >> bit & 1 == 1 {
            value = value.xor(*entry);
        }
    }
    value
}

/// Encodes and decodes; compares some with the oracle.
fn there_and_back<V: Value + PartialEq>(count: usize) {
    let items = items(count);
    let values: Vec<V> = Stream::values(b"values", count);
    let table = encoded(&items, &values);
    let parameters = parameters(count);
    assert_eq!(table.len(), parameters.size());
    let mut out = vec![V::zeroed(); count];
    decode(&parameters, &SEED, &table, &items, &mut out).unwrap();
    assert!(out == values, "{count} items of {} bytes", size_of::<V>());
    for at in (0..count).step_by(count / 10 + 1) {
        assert!(oracle(&parameters, &table, items[at]) == values[at]);
    }
}

#[test]
fn sizes() {
    for count in [0, 1, 2, 3, 4, 7, 10, 100, 1000, 32_767, 32_768, 49_151, 49_152, 100_000] {
        there_and_back::<Gf128>(count);
        there_and_back::<u64>(count);
        there_and_back::<[u8; 10]>(count);
    }
}

#[test]
fn a_million() {
    there_and_back::<Gf128>(1 << 20);
}

/// A peer's decoder was wrong for these sizes (secretflow/psi, issue 371).
#[test]
fn another_set_overlaps() {
    let all = items(6789 + 7890 - 1234);
    let (ours, theirs) = (&all[..6789], &all[6789 - 1234..]);
    let values: Vec<u64> = Stream::values(b"values", ours.len());
    let table = encoded(ours, &values);
    let mut out = vec![0; theirs.len()];
    decode(&parameters(6789), &SEED, &table, theirs, &mut out).unwrap();
    assert_eq!(out[..1234], values[6789 - 1234..]);
    let known: std::collections::HashSet<_> = values.iter().collect();
    assert!(out[1234..].iter().all(|value| !known.contains(value)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_is_decoded(
        pairs in prop::collection::hash_map(any::<u128>(), any::<u64>(), 0..600),
        seed: Seed,
        spare in 0..50_usize,
    ) {
        let (items, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        // A table may be for more items than there are.
        let parameters = parameters(items.len() + spare);
        let rows = Rows::new(&parameters, &seed, &items).unwrap();
        let table = rows.encode(&values, &mut Stream::new(&seed)).unwrap();
        let mut out = vec![0; items.len()];
        rows.decode(&table, &mut out).unwrap();
        prop_assert_eq!(out, values);
    }

    #[test]
    fn elimination_solves_what_peeling_leaves(seed: Seed, rows in 300..500_usize) {
        // 550 columns peel up to about 450 rows.
        let parameters = Parameters { items: 500, bins: 1, bin_limit: 500, sparse: 550 };
        let items = items(rows);
        let values: Vec<u64> = Stream::values(b"values", rows);
        let rows = Rows::new(&parameters, &seed, &items).unwrap();
        let table = rows.encode(&values, &mut Stream::new(&seed)).unwrap();
        let mut out = vec![0; items.len()];
        rows.decode(&table, &mut out).unwrap();
        prop_assert_eq!(out, values);
    }

    #[test]
    fn columns_are_distinct(item: u128, seed: Seed, sparse in 3..65_536_usize) {
        let parameters = Parameters { items: 1, bins: 1, bin_limit: 1, sparse };
        let rows = Rows::new(&parameters, &seed, &[item]).unwrap();
        let [a, b, c] = rows.bin(0).next().unwrap().columns(sparse).map(usize::from);
        prop_assert!(a < sparse && b < sparse && c < sparse);
        prop_assert!(a != b && b != c && a != c);
    }
}

#[test]
fn decoding_is_linear() {
    let count = 1000;
    let parameters = parameters(count);
    let items = items(count);
    let decoded = |table: &[Gf128]| {
        let mut out = vec![Gf128::ZERO; count];
        decode(&parameters, &SEED, table, &items, &mut out).unwrap();
        out
    };
    let a: Vec<Gf128> = Stream::values(b"a", parameters.size());
    let b: Vec<Gf128> = Stream::values(b"b", parameters.size());
    let by = Gf128(0x1234_5678_9abc_def0);
    let combined: Vec<_> = a.iter().zip(&b).map(|(a, b)| *a + *b * by).collect();
    let expected: Vec<_> =
        decoded(&a).into_iter().zip(decoded(&b)).map(|(a, b)| a + b * by).collect();
    assert!(decoded(&combined) == expected);
}

#[test]
fn bins_one_by_one() {
    let count = 150_000;
    let items = items(count);
    let values: Vec<u64> = Stream::values(b"values", count);
    let table = encoded(&items, &values);
    let parameters = parameters(count);
    assert_eq!(parameters.bins(), 5);
    let rows = Rows::new(&parameters, &SEED, &items).unwrap();
    let filler = Filler::new(&mut Stream::new(b"filler"));
    for bins in [0..0, 0..1, 1..4, 4..5] {
        let mut part = vec![0; parameters.entries(&bins).len()];
        rows.encode_bins(bins.clone(), &values, &filler, &mut part).unwrap();
        assert_eq!(part, table[parameters.entries(&bins)]);
        let range = rows.range(&bins);
        let mut out = vec![0; range.len()];
        rows.decode_bins(bins, &part, &mut out).unwrap();
        let expected: Vec<_> =
            rows.items()[range].iter().map(|item| values[*item as usize]).collect();
        assert_eq!(out, expected);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let items = items(150_000);
    let values: Vec<u64> = Stream::values(b"values", items.len());
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let table = encoded(&items, &values);
            let mut out = vec![0; items.len()];
            decode(&parameters(items.len()), &SEED, &table, &items, &mut out).unwrap();
            assert_eq!(out, values);
            table
        })
    };
    assert_eq!(with(1), with(3));
}

/// The sum of squared deviations over all values of a byte, in standard deviations from its mean.
fn chi_square(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let expected = bytes.len() as f64 / 256.0;
    let square: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
    (square - 255.0) / (2.0 * 255.0_f64).sqrt()
}

#[test]
fn a_table_of_uniform_values_is_uniform() {
    let items = items(60_000);
    let values: Vec<Gf128> = Stream::values(b"values", items.len());
    let table = encoded(&items, &values);
    assert!(chi_square(bytemuck::cast_slice(&table)).abs() < 5.0);
    // Also where the dense columns are, and if every entry is a pivot or free by elimination.
    let parameters = Parameters { items: 1000, bins: 1, bin_limit: 1000, sparse: 1000 };
    let mut dense = Vec::new();
    for seed in 0..20 {
        let rows = Rows::new(&parameters, &[seed; 16], &items[..880]).unwrap();
        let table = rows.encode(&values[..880], &mut Stream::new(&[seed])).unwrap();
        dense.extend_from_slice(&table[1000..]);
    }
    assert!(chi_square(bytemuck::cast_slice(&dense)).abs() < 5.0);
}

#[test]
fn a_foreign_item_decodes_to_random_bits() {
    // Values are all zeros: what is random comes from the free columns.
    let all = items(200_000);
    let (encoded_items, foreign) = all.split_at(100_000);
    let table = encoded(encoded_items, &vec![0_u64; encoded_items.len()]);
    let mut out = vec![0; foreign.len()];
    decode(&parameters(encoded_items.len()), &SEED, &table, foreign, &mut out).unwrap();
    assert!(chi_square(bytemuck::cast_slice(&out)).abs() < 5.0);
    out.sort_unstable();
    assert!(out.windows(2).all(|pair| pair[0] != pair[1]), "64 bits hardly ever collide");
}

#[test]
fn equal_items() {
    let rng = || Stream::new(b"filler");
    let mut items = items(100_000);
    items[99_000] = items[17];
    let values: Vec<u64> = Stream::values(b"values", items.len());
    let error = encode(&parameters(items.len()), &SEED, &items, &values, &mut rng()).unwrap_err();
    assert_eq!(error, EncodeError::Duplicate { first: 17, second: 99_000 });

    // Even if their values are equal, and if there are no others.
    for count in [2, 3, 1000, 49_151] {
        let items = vec![5; count];
        let values = vec![7_u64; count];
        let error = encode(&parameters(count), &SEED, &items, &values, &mut rng()).unwrap_err();
        assert_eq!(error, EncodeError::Duplicate { first: 0, second: 1 });
    }
    let items = vec![5; 100_000];
    let error = encode(&parameters(items.len()), &SEED, &items, &values, &mut rng()).unwrap_err();
    assert!(matches!(error, EncodeError::Overfull { found: 100_000, .. }));

    // Every item twice.
    let items: Vec<_> = items_twice(10_000);
    let values: Vec<u64> = Stream::values(b"values", items.len());
    let error = encode(&parameters(items.len()), &SEED, &items, &values, &mut rng()).unwrap_err();
    assert!(matches!(error, EncodeError::Duplicate { first, second } if second == first + 10_000));
}

fn items_twice(count: usize) -> Vec<u128> {
    let once = items(count);
    [once.clone(), once].concat()
}

#[test]
fn dependent_rows() {
    let parameters = Parameters { items: 100, bins: 1, bin_limit: 100, sparse: 10 };
    let values: Vec<u64> = Stream::values(b"values", 100);
    let mut rng = Stream::new(b"filler");
    let error = encode(&parameters, &SEED, &items(100), &values, &mut rng).unwrap_err();
    assert_eq!(error, EncodeError::Dependent { bin: 0 });
}

#[test]
fn wrong_lengths() {
    let parameters = parameters(10);
    let size = parameters.size();
    let items = items(11);
    let mut rng = Stream::new(b"filler");
    let mut encode = |items: &[u128], values| {
        encode::<u64>(&parameters, &SEED, items, values, &mut rng).unwrap_err()
    };
    assert_eq!(encode(&items, &[0; 11]), EncodeError::Items { found: 11, expected: 10 });
    assert_eq!(encode(&items[..9], &[0; 10]), EncodeError::Values { found: 10, expected: 9 });

    let rows = Rows::new(&parameters, &SEED, &items[..10]).unwrap();
    let filler = Filler::new(&mut rng);
    let mut table = vec![0_u64; size - 1];
    assert_eq!(
        rows.encode_bins(0..1, &[0; 10], &filler, &mut table),
        Err(EncodeError::Table { found: size - 1, expected: size })
    );
    assert_eq!(
        rows.encode_bins(0..2, &[0; 10], &filler, &mut table),
        Err(EncodeError::Bins { end: 2, bins: 1 })
    );

    assert_eq!(
        rows.decode(&table, &mut [0; 10]),
        Err(DecodeError::Table { found: size - 1, expected: size })
    );
    table.push(0);
    assert_eq!(
        rows.decode(&table, &mut [0; 11]),
        Err(DecodeError::Out { found: 11, expected: 10 })
    );
    assert_eq!(
        rows.decode_bins(1..2, &table, &mut [0; 10]),
        Err(DecodeError::Bins { end: 2, bins: 1 })
    );
    assert_eq!(
        rows.decode_bins(0..1, &table, &mut [0; 9]),
        Err(DecodeError::Out { found: 9, expected: 10 })
    );
    let too_many = Parameters::MOST_ITEMS + 1;
    assert_eq!(Parameters::for_items(too_many), Err(TooMany { items: too_many }));
}

#[test]
fn encoding_hardly_ever_fails() {
    for log in 0..=28 {
        for items in [1 << log, (3 << log) / 2 - 1, (3 << log) / 2, (5 << log) / 2 - 1] {
            let Ok(parameters) = Parameters::for_items(items) else { continue };
            let bits = parameters.failure().log2();
            assert!(bits < -40.0, "{items} items fail with a probability of 2^{bits:.1}");
            assert!(parameters.sparse() <= 1 << 16, "columns have indices of 16 bits");
            assert!(parameters.bin_limit() <= 1 << 16, "rows have indices of 16 bits");
        }
    }
}

#[test]
fn the_rate() {
    let rate = |items| parameters(items).size() as f64 / items as f64;
    assert!(rate(1 << 20) < 1.27);
    assert!(rate(1 << 16) < 1.27);
    assert!(rate(1 << 10) < 1.40);
    assert!((1 << 15..1 << 18).step_by(1000).all(|items| rate(items) < 1.28));
}

/// Tables, their digests, and what is decoded from them.
#[test]
fn vectors() {
    let published: Json =
        serde_json::from_str(include_str!("../../../../vectors/okvs/okvs.json")).unwrap();
    let tables: Vec<_> = [
        vector::<Gf128>(0),
        vector::<Gf128>(1),
        vector::<u64>(3),
        vector::<[u8; 10]>(3),
        vector::<Gf128>(3),
        vector::<Gf128>(1000),
        vector::<u64>(100_000),
        vector::<[u8; 10]>(100_000),
        vector::<Gf128>(100_000),
    ]
    .into();
    assert_eq!(published["tables"], json!(tables));
}

fn vector<V: Value>(count: usize) -> Json {
    let hex = |value: &V| hex::encode(bytemuck::bytes_of(value));
    let items = items(count);
    let values: Vec<V> = Stream::values(b"values", count);
    let table = encoded(&items, &values);
    let parameters = parameters(count);
    let bytes: &[u8] = bytemuck::cast_slice(&table);
    let foreign: Vec<u128> = (0..3).collect();
    let mut decoded = vec![V::zeroed(); 3];
    decode(&parameters, &SEED, &table, &foreign, &mut decoded).unwrap();
    let mut vector = json!({
        "items": count,
        "value_bytes": size_of::<V>(),
        "bins": parameters.bins(),
        "bin_size": parameters.bin_size(),
        "bin_limit": parameters.bin_limit(),
        "first_entries": table[..3].iter().map(hex).collect::<Vec<_>>(),
        "last_entries": table[table.len() - 3..].iter().map(hex).collect::<Vec<_>>(),
        "blake3": blake3::hash(bytes).to_hex().as_str(),
        "items_0_1_2_decode_to": decoded.iter().map(hex).collect::<Vec<_>>(),
    });
    if count <= 3 {
        let numbers: Vec<_> = items.iter().map(|item| hex::encode(item.to_le_bytes())).collect();
        vector["encoded_items"] = json!(numbers);
        vector["their_values"] = json!(values.iter().map(hex).collect::<Vec<_>>());
        vector["table"] = json!(hex::encode(bytes));
    }
    vector
}
