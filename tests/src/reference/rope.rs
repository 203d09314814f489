//! Rotary positions: pairs of a head's values turn by an angle that grows with the position.

use candle_core::{D, Device, Result, Tensor};

/// Which values of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Each even one with the next.
    Neighbours,
    /// Each of the first half with its like in the second.
    Halves,
}

/// The angles of some positions: `[tokens][head / 2]`.
pub(super) struct Turns {
    cosines: Tensor,
    sines: Tensor,
}

impl Turns {
    /// Those of the first tokens. Pair `i` of `n` turns by `base^(-i/n)` a position.
    pub(super) fn new(tokens: usize, head: usize, base: f64) -> Result<Self> {
        let pairs = head / 2;
        let angle = |at: usize| (at / pairs) as f64 * base.powf(-((at % pairs) as f64) / pairs as f64);
        let table = |function: fn(f64) -> f64| {
            let values = (0..tokens * pairs).map(|at| function(angle(at)) as f32);
            Tensor::from_iter(values, &Device::Cpu)?.reshape((tokens, pairs))
        };
        Ok(Self { cosines: table(f64::cos)?, sines: table(f64::sin)? })
    }

    /// Turns `[heads][tokens][head]`.
    pub(super) fn turn(&self, values: &Tensor, pairs: Pairs) -> Result<Tensor> {
        let (heads, tokens, head) = values.dims3()?;
        let split = match pairs {
            Pairs::Neighbours => values.reshape((heads, tokens, head / 2, 2))?.transpose(2, 3)?,
            Pairs::Halves => values.reshape((heads, tokens, 2, head / 2))?,
        };
        let first = split.narrow(2, 0, 1)?.squeeze(2)?.contiguous()?;
        let second = split.narrow(2, 1, 1)?.squeeze(2)?.contiguous()?;
        let turned = [
            (first.broadcast_mul(&self.cosines)? - second.broadcast_mul(&self.sines)?)?,
            (first.broadcast_mul(&self.sines)? + second.broadcast_mul(&self.cosines)?)?,
        ];
        match pairs {
            Pairs::Neighbours => Tensor::stack(&turned, D::Minus1)?.reshape((heads, tokens, head)),
            Pairs::Halves => Tensor::cat(&turned, D::Minus1),
        }
    }
}
