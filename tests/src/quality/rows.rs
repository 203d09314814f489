//! The logits of some positions, as the reference has them and as the engine has them.

use candle_core::{D, Device, Result, Tensor};
use halm_models::TokenId;

/// So many that what is computed on the way to a figure stays in the cache.
const LOGITS_AT_ONCE: usize = 1 << 19;

/// What one position says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// Minus the logarithm of the next token's probability: the reference's, the engine's.
    pub(super) surprise: Option<[f64; 2]>,
    /// KL(reference ‖ engine), nats.
    pub(super) divergence: f64,
    /// Mean absolute error, in the reference's standard deviations.
    pub(super) error: f64,
    /// The largest error, likewise.
    pub(super) error_max: f64,
    /// By how much the reference prefers its own likeliest token to the engine's, likewise; zero where they are one.
    pub(super) preference: f64,
}

/// Compares `[positions][vocabulary]` with the same; `next` are the tokens that follow.
pub(super) fn compare(theirs: &Tensor, ours: &Tensor, next: &[Option<TokenId>]) -> Result<Vec<Row>> {
    let at_once = LOGITS_AT_ONCE.div_ceil(theirs.dim(D::Minus1)?);
    let mut rows = Vec::new();
    for (at, next) in next.chunks(at_once).enumerate() {
        let some = |side: &Tensor| side.narrow(0, at * at_once, next.len());
        rows.extend(compare_some(&some(theirs)?, &some(ours)?, next)?);
    }
    Ok(rows)
}

fn compare_some(theirs: &Tensor, ours: &Tensor, next: &[Option<TokenId>]) -> Result<Vec<Row>> {
    let (theirs, ours) = (Logits::new(theirs)?, Logits::new(ours)?);
    let off = (&theirs.centred - &ours.centred)?;
    let expected = ((&theirs.exponentials * &off)?.sum(D::Minus1)? / &theirs.sum)?;
    let divergence = numbers(&(expected + (ours.sum.log()? - theirs.sum.log()?)?)?)?;
    let next_or_any: Vec<u32> = next.iter().map(|next| next.map_or(0, TokenId::get)).collect();
    let next_or_any = Tensor::new(next_or_any, &Device::Cpu)?;
    let (their_surprise, our_surprise) = (theirs.surprise(&next_or_any)?, ours.surprise(&next_or_any)?);

    let deviation = theirs.centred.sqr()?.mean(D::Minus1)?.sqrt()?;
    let off = off.abs()?;
    let error = numbers(&(off.mean(D::Minus1)? / &deviation)?)?;
    let error_max = numbers(&(off.max(D::Minus1)? / &deviation)?)?;
    let chosen = at(&theirs.centred, &ours.centred.argmax(D::Minus1)?)?;
    let preference = numbers(&((theirs.centred.max(D::Minus1)? - chosen)? / &deviation)?)?;

    let row = |at: usize| Row {
        surprise: next[at].map(|_| [their_surprise[at], our_surprise[at]]),
        divergence: divergence[at],
        error: error[at],
        error_max: error_max[at],
        preference: preference[at],
    };
    Ok((0..next.len()).map(row).collect())
}

/// One side's.
struct Logits {
    /// Less their mean.
    centred: Tensor,
    exponentials: Tensor,
    /// Of the exponentials of a position.
    sum: Tensor,
}

impl Logits {
    fn new(logits: &Tensor) -> Result<Self> {
        let centred = logits.broadcast_sub(&logits.mean_keepdim(D::Minus1)?)?;
        let exponentials = centred.exp()?;
        Ok(Self { sum: exponentials.sum(D::Minus1)?, centred, exponentials })
    }

    /// Minus the logarithms of these tokens' probabilities.
    fn surprise(&self, tokens: &Tensor) -> Result<Vec<f64>> {
        numbers(&(self.sum.log()? - at(&self.centred, tokens)?)?)
    }
}

/// One value of each row.
fn at(rows: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    rows.gather(&tokens.unsqueeze(1)?, 1)?.squeeze(1)
}

/// One number for each position, every one of which must be one.
fn numbers(values: &Tensor) -> Result<Vec<f64>> {
    let values: Vec<f64> = values.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
    assert!(values.iter().all(|value| value.is_finite()), "a logit is no number");
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(theirs: &[f32], ours: &[f32], next: u32) -> Row {
        let tensor = |logits: &[f32]| Tensor::from_slice(logits, (1, logits.len()), &Device::Cpu).expect("a row");
        compare(&tensor(theirs), &tensor(ours), &[Some(TokenId::from(next))]).expect("it compares").remove(0)
    }

    #[test]
    fn equal_logits_differ_in_nothing_whatever_is_added_to_all_of_them() {
        let logits = [1.0, 3.0, -2.0, 0.5];
        let row = row(&logits, &logits.map(|logit| logit + 7.0), 2);
        let [theirs, ours] = row.surprise.expect("a next token");
        assert!((theirs - ours).abs() < 1e-6 && row.divergence.abs() < 1e-6 && row.error_max < 1e-6);
        assert_eq!(row.preference, 0.0);
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        // Probabilities of 3/4 and 1/4, and the other way round.
        let row = row(&[3.0_f32.ln(), 0.0], &[0.0, 3.0_f32.ln()], 0);
        let [theirs, ours] = row.surprise.expect("a next token");
        assert!((theirs - (4.0_f64 / 3.0).ln()).abs() < 1e-6 && (ours - 4.0_f64.ln()).abs() < 1e-6);
        assert!((row.divergence - 0.5 * 3.0_f64.ln()).abs() < 1e-6, "{}", row.divergence);
        // Each of two logits is one standard deviation from their mean; the other side has them exchanged.
        assert!((row.error - 2.0).abs() < 1e-6 && (row.error_max - 2.0).abs() < 1e-6);
        assert!((row.preference - 2.0).abs() < 1e-6);
    }
}
