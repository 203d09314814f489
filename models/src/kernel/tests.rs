//! Every instruction set computes what the plain code computes, bit for bit, whatever the format, the number of rows and
//! their grouping; and the plain code computes what the file says.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::*;
use crate::gguf::TensorType;
use crate::sampler::uniform;

const TYPES: [TensorType; 11] = [
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::F16,
    TensorType::BF16,
    TensorType::F32,
];

fn random(seed: u64, count: usize) -> Vec<f32> {
    (0..count).map(|at| uniform(seed, 0, at as u64) as f32 - 0.5).collect()
}

/// A random matrix in a type: as candle quantizes it, its bytes and what they mean.
fn matrix(kind: TensorType, k: usize, n: usize) -> (Packed, Vec<f32>) {
    let weights = Tensor::from_vec(random(7, n * k), (n, k), &Device::Cpu).expect("a tensor");
    let tensor = QTensor::quantize(&weights, dtype(kind)).expect("quantizes");
    let meant = tensor.dequantize(&Device::Cpu).and_then(|meant| meant.flatten_all()?.to_vec1()).expect("dequantizes");
    let packed = Packed::pack(kind, &tensor.data().expect("bytes"), k, n).expect("packs");
    (packed, meant)
}

fn dtype(kind: TensorType) -> GgmlDType {
    kind.dtype()
}

#[expect(unsafe_code, reason = "nobody else has the rows")]
fn rows(count: usize, k: usize, isa: Isa) -> Rows {
    let mut rows = Rows::new(count, k);
    let shared = rows.shared();
    for row in 0..count {
        // SAFETY: there is one thread.
        unsafe {
            shared.values(row, 0..k).copy_from_slice(&random(100 + row as u64, k));
            shared.quantize(isa, row, 0..shared.blocks());
        }
    }
    rows
}

#[expect(unsafe_code, reason = "nobody else has the rows")]
fn product(isa: Isa, matrix: &Packed, rows: &mut Rows, wanted: std::ops::Range<usize>) -> Vec<Vec<u32>> {
    let mut out = vec![vec![0; matrix.tiles() * COLUMNS]; wanted.len()];
    // SAFETY: there is one thread.
    let view = unsafe { rows.shared().view(wanted.end) };
    multiply(isa, matrix, view, wanted.clone(), 0..matrix.tiles(), |row, tile, values| {
        let bits = values.map(f32::to_bits);
        out[row - wanted.start][tile * COLUMNS..][..COLUMNS].copy_from_slice(&bits);
    });
    out
}

#[test]
fn every_instruction_set_gives_the_plain_bits_alone_and_in_company() {
    for kind in TYPES {
        let (k, n) = (512, 70);
        let (packed, _) = matrix(kind, k, n);
        let plain = product(Isa::Plain, &packed, &mut rows(17, k, Isa::Plain), 0..17);
        for isa in Isa::available() {
            let mut rows = rows(17, k, isa);
            assert_eq!(product(isa, &packed, &mut rows, 0..17), plain, "{kind:?} with {}", isa.name());
            for (first, end) in [(0, 1), (3, 5), (4, 7), (2, 6), (6, 11), (5, 11), (9, 16)] {
                let some = product(isa, &packed, &mut rows, first..end);
                assert_eq!(some, plain[first..end], "rows {first}..{end} of {kind:?} with {}", isa.name());
            }
        }
    }
}

#[test]
fn a_product_is_what_the_weights_mean_within_the_quantization_of_the_activations() {
    for kind in TYPES {
        let (k, n) = (512, 40);
        let (packed, meant) = matrix(kind, k, n);
        let mut rows = rows(3, k, Isa::Plain);
        for (row, products) in product(Isa::Plain, &packed, &mut rows, 0..3).into_iter().enumerate() {
            let values = random(100 + row as u64, k);
            for (column, bits) in products[..n].iter().enumerate() {
                let weights = &meant[column * k..][..k];
                let exact: f64 = weights.iter().zip(&values).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                let error = (f64::from(f32::from_bits(*bits)) - exact).abs();
                // Activations are off by 1/254 of their block's largest at most, at random: 512 of them, of products of
                // about 0.3 × 0.002.
                assert!(error < 0.06, "{kind:?}: {} instead of {exact}", f32::from_bits(*bits));
            }
        }
    }
}

#[test]
fn a_column_reads_back_as_the_file_means_it() {
    for kind in TYPES {
        let (k, n) = (256, 37);
        let (packed, meant) = matrix(kind, k, n);
        let mut read = vec![0.0; k];
        for column in [0, 15, 16, 31, 32, 36] {
            packed.column(column, &mut read);
            for (read, meant) in read.iter().zip(&meant[column * k..]) {
                // K scales were rounded to half floats.
                assert!((read - meant).abs() <= meant.abs() / 1024.0 + 1e-3, "{kind:?}: {read} instead of {meant}");
            }
        }
    }
}

#[test]
fn the_functions_between_give_the_plain_bits() {
    let (x, y) = (random(1, 576), random(2, 576));
    let keys: Vec<f32> = random(3, 64 * KEYS);
    let values: Vec<f32> = random(4, 64 * KEYS);
    let all = |isa| {
        let mut out = vec![0.0; 576];
        let mut bits: Vec<u32> = Vec::new();
        norm(isa, &x, &y, 1e-5, &mut out);
        bits.extend(out.iter().map(|value| value.to_bits()));
        let mut there = x.clone();
        norm_in_place(isa, &mut there, &y, 1e-5);
        assert_eq!(there, out);
        silu_mul(isa, &x, &y, &mut out);
        bits.extend(out.iter().map(|value| value.to_bits()));
        gelu_mul(isa, &x, &y, &mut out);
        bits.extend(out.iter().map(|value| value.to_bits()));
        let mut head = x[..64].to_vec();
        rope_interleaved(isa, &mut head, &y[..32], &y[32..64]);
        rope_split(isa, &mut head, &y[..32], &y[32..64]);
        bits.extend(head.iter().map(|value| value.to_bits()));
        let mut means = vec![0.0; 7 * 64];
        let mut queries: Vec<_> =
            x.chunks(64).zip(means.chunks_mut(64)).map(|(query, out)| Query::new(query, out)).collect();
        for seen in [0..32, 0..32, 0..5, 3..9] {
            queries.iter_mut().for_each(|query| query.seen = seen.clone());
            attend(isa, &mut queries, &keys, &values);
        }
        queries.into_iter().for_each(Query::finish);
        bits.extend(means.iter().map(|value| value.to_bits()));
        bits
    };
    for isa in Isa::available() {
        assert_eq!(all(isa), all(Isa::Plain), "{}", isa.name());
    }
}

#[test]
fn attention_over_blocks_is_a_softmax_over_all_keys() {
    let query = random(5, 16);
    let (keys, values) = (random(6, 16 * 2 * KEYS), random(7, 16 * 2 * KEYS));
    let mut mean = vec![0.0; 16];
    let mut queries = [Query::new(&query, &mut mean)];
    queries[0].seen = 0..KEYS;
    attend(Isa::Plain, &mut queries, &keys[..16 * KEYS], &values[..16 * KEYS]);
    queries[0].seen = 0..7;
    attend(Isa::Plain, &mut queries, &keys[16 * KEYS..], &values[16 * KEYS..]);
    queries.into_iter().for_each(Query::finish);
    let score = |key: usize| -> f64 {
        let block = &keys[key / KEYS * 16 * KEYS..];
        (0..16).map(|d| f64::from(query[d]) * f64::from(block[d * KEYS + key % KEYS])).sum::<f64>().exp()
    };
    let weights: Vec<f64> = (0..KEYS + 7).map(score).collect();
    let total: f64 = weights.iter().sum();
    for (dimension, mean) in mean.iter().enumerate() {
        let value = |key: usize| f64::from(values[key * 16 + dimension]);
        let exact: f64 = weights.iter().enumerate().map(|(key, weight)| weight / total * value(key)).sum();
        assert!((f64::from(*mean) - exact).abs() < 1e-6, "{mean} instead of {exact}");
    }
}

#[test]
fn a_query_has_the_same_bits_alone_and_in_company() {
    for isa in Isa::available() {
        for dimension in [64, 80, 128, 24] {
            let (keys, values) = (random(8, dimension * KEYS), random(9, dimension * KEYS));
            let queries = random(10, 11 * dimension);
            // How much each sees of the second page.
            let ends = [32, 32, 32, 32, 32, 5, 32, 32, 0, 32, 32];
            let means = |some: std::ops::Range<usize>| {
                let mut means = vec![0.0; some.len() * dimension];
                let mut queries: Vec<_> = queries[some.start * dimension..some.end * dimension]
                    .chunks(dimension)
                    .zip(means.chunks_mut(dimension))
                    .map(|(query, out)| Query::new(query, out))
                    .collect();
                for page in 0..2 {
                    for (query, end) in queries.iter_mut().zip(&ends[some.clone()]) {
                        query.seen = 0..if page == 0 { KEYS } else { *end };
                    }
                    attend(isa, &mut queries, &keys, &values);
                }
                queries.into_iter().for_each(Query::finish);
                means.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let alone: Vec<u32> = (0..11).flat_map(|at| means(at..at + 1)).collect();
            for (first, end) in [(0, 11), (1, 5), (2, 5), (5, 7), (7, 11)] {
                let expected = &alone[first * dimension..end * dimension];
                assert_eq!(means(first..end), expected, "queries {first}..{end} of {dimension}, {}", isa.name());
            }
        }
    }
}
