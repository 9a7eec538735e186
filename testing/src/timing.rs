//! Ours beside a peer, in turn, so that a machine whose speed drifts shows in neither: medians of pairs, never a verdict.

use std::time::Instant;

/// A table of figures, printed as they are found.
pub struct Table {
    rounds: usize,
    /// What one unit of the figures is in seconds, and its name.
    unit: (f64, &'static str),
}

impl Table {
    /// A table of milliseconds.
    pub fn milliseconds(rounds: usize) -> Self {
        Self::start(rounds, (1e-3, "ms"))
    }

    /// A table of seconds.
    pub fn seconds(rounds: usize) -> Self {
        Self::start(rounds, (1.0, "s"))
    }

    fn start(rounds: usize, unit: (f64, &'static str)) -> Self {
        println!(
            "\n| what | ours, {unit} | peer, {unit} | ratio | aim |\n|---|---|---|---|---|",
            unit = unit.1
        );
        Self { rounds, unit }
    }

    /// Times both in turn, in seconds as they give them, after one round that does not count; prints the medians and the
    /// median of the pairs' ratios.
    pub fn pairs(&self, what: &str, aim: &str, ours: impl FnMut() -> f64, peer: impl FnMut() -> f64) {
        self.pairs_counting(1, what, aim, ours, peer);
    }

    /// The same without a round that does not count, for what takes minutes and has been done before.
    pub fn pairs_at_once(&self, what: &str, aim: &str, ours: impl FnMut() -> f64, peer: impl FnMut() -> f64) {
        self.pairs_counting(0, what, aim, ours, peer);
    }

    fn pairs_counting(
        &self,
        warm: usize,
        what: &str,
        aim: &str,
        mut ours: impl FnMut() -> f64,
        mut peer: impl FnMut() -> f64,
    ) {
        for _ in 0..warm {
            ours();
            peer();
        }
        let pairs: Vec<(f64, f64)> = (0..self.rounds).map(|_| (ours(), peer())).collect();
        let of = |part: fn(&(f64, f64)) -> f64| median(pairs.iter().map(part));
        self.row(what, of(|it| it.0), Some((of(|it| it.1), of(|it| it.0 / it.1))), aim);
    }

    /// The median of ours alone.
    pub fn alone(&self, what: &str, aim: &str, mut ours: impl FnMut() -> f64) {
        self.row(what, median((0..self.rounds).map(|_| ours())), None, aim);
    }

    fn row(&self, what: &str, ours: f64, peer: Option<(f64, f64)>, aim: &str) {
        let figure =
            |seconds: f64| format!("{:.*}", if self.unit.0 < 1.0 { 1 } else { 2 }, seconds / self.unit.0);
        let (peer, ratio) = match peer {
            None => ("–".to_owned(), "–".to_owned()),
            Some((peer, ratio)) => (figure(peer), format!("{ratio:.2}")),
        };
        println!("| {what} | {} | {peer} | {ratio} | {aim} |", figure(ours));
    }
}

/// The middle one.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How many seconds `act` takes.
pub fn seconds<T>(act: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    std::hint::black_box(act());
    begun.elapsed().as_secs_f64()
}
