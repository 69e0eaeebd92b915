//! The distribution of Mann and Whitney's U with ties from its generating function, for many figures, where counting takes too long: exact to rounding (relative 1e-11), not an approximation. Where that would take too long as well, it says so and gives nothing.
//!
//! With scores k of N figures, the draws of m of them whose scores sum up to w are counted by the
//! coefficient of yᵐzʷ in ∏ (1 + y·zᵏ). On circles through the saddle point that is the chance
//! that draws made independently, each figure by a chance π of its own, are m in number and have
//! the sum w. A discrete Fourier transform gives it with a small relative error, however far out w
//! lies.
//!
//! Nearly all terms of the transform vanish, and are not looked at. At the angles φ of y and θ of
//! z a factor has the square 1 − 4·v·sin²((φ + θk)/2), where v = π(1 − π). So with V = Σ v and
//! S(θ) = Σ v·e^{iθk} the product is at most exp(Re(e^{iφ}S(θ)) − V), and any subset of the factors
//! bounds it likewise. Moreover d(θ) = √(2V − 2|S(θ)|) is a distance: that of the vector e^{iθk}
//! to the nearest one whose parts are all the same, by the weights v. From θ to θ + δ it therefore
//! changes by no more than |δ|·σ, where σ² = Σ v·(k − k̄)², and one look rules out a whole stretch
//! of angles.

use std::f64::consts::{PI, TAU};

use num_complex::Complex64;

use super::fourier::Tail;

/// Terms that are this many factors e below the greatest are left out.
const NEGLIGIBLE: f64 = 36.0;

/// So many factors are multiplied at the most: some 40 ms.
const MOST_WORK: usize = 36_000_000;

/// The least figures on either side: for Stirling's series, and because counting does the rest.
const LEAST: usize = 16;

/// Figures that are equal.
#[derive(Clone, Copy, Debug)]
struct Group {
    count: usize,
    /// The doubled midrank, less the lowest one and divided by what divides all of them; later
    /// from some middle.
    score: f64,
}

/// A group on the circles, where its factor is 1 at angle 0.
#[derive(Clone, Copy, Debug)]
struct Draw {
    group: Group,
    /// The chance of each of its figures to be drawn.
    chance: f64,
    /// Of the number that is drawn of them.
    variance: f64,
}

/// The circles through the saddle point of a sum, or near it.
struct Circles {
    /// Scores are counted from a middle from which the angles of y and z are independent.
    draws: Vec<Draw>,
    /// The number of figures that are drawn.
    drawn: f64,
    /// The sum of their scores.
    sum: f64,
    /// The logarithm of the radius of z; below 0.
    tilt: f64,
    /// The logarithm of what the chances on the circles are to be multiplied by.
    height: f64,
}

/// Angles of y, all around from −π.
struct Turn {
    step: f64,
    sines: Vec<f64>,
    cosines: Vec<f64>,
    /// e^{−imφ}: what picks the number that is drawn.
    drawn: Vec<Complex64>,
}

/// Neighbouring groups, whose factors bound the product of all.
struct Stretch<'a> {
    draws: &'a [Draw],
    variance: f64,
    /// The mean of their scores, by variance.
    centre: f64,
    /// The deviation of the sum of their scores, when it is known how many they are.
    deviation: f64,
}

/// The tail of twice the U of `drawn` figures up to `doubled`, where `ties` share each value of
/// all figures, by rising value. `None` when it would take too long.
pub(super) fn tail(ties: &[usize], drawn: usize, doubled: usize) -> Option<Tail> {
    let all: usize = ties.iter().sum();
    if drawn.min(all - drawn) < LEAST || ties.len() < 2 {
        return None;
    }
    let mut before = 0;
    let ranks = ties.iter().map(|&t| {
        before += t;
        2 * before - t - ties[0]
    });
    let ranks: Vec<usize> = ranks.collect();
    let unit = ranks.iter().fold(0, |a, &b| common_divisor(a, b));
    let groups = ties.iter().zip(&ranks).map(|(&count, &rank)| Group {
        count,
        score: (rank / unit) as f64,
    });
    // Doubled midranks sum up to 2·U + m·(m + 1), and the lowest is ties[0] + 1.
    let sum = (doubled + drawn * drawn).checked_sub(drawn * ties[0])? / unit;
    let circles = Circles::through(groups.collect(), drawn as f64, sum as f64);
    if circles.height < -800.0 {
        // Less than the smallest double.
        return Some(Tail {
            at_most: 0.0,
            at: 0.0,
        });
    }
    let found = circles.height.is_finite().then(|| circles.tail())?;
    found.filter(|tail| tail.at_most.is_finite())
}

impl Circles {
    fn through(mut groups: Vec<Group>, m: f64, sum: f64) -> Circles {
        let total = |groups: &[Group], of: &dyn Fn(&Group) -> f64| -> f64 {
            groups.iter().map(|g| g.count as f64 * of(g)).sum()
        };
        let all = total(&groups, &|_| 1.0);
        let (share, n) = (m / all, all - m);
        let mean = total(&groups, &|g| g.score) / all;
        groups.iter_mut().for_each(|group| group.score -= mean);
        let spread = (total(&groups, &|g| g.score * g.score) / all).sqrt();
        let sum = sum - m * mean;
        // The chances have the odds m/n·exp(level + tilt·score). From two deviations below the mean
        // on, the sum itself is to be what is expected; above, the tilt stays what it is there.
        let deviation = spread * (m * n / (all - 1.0)).sqrt();
        let target = sum + 0.5;
        let is_far = target < -2.0 * deviation;
        let widest = groups.iter().fold(0.0_f64, |b, g| b.max(g.score.abs()));
        let draws = |level: f64, tilt: f64| -> Vec<Draw> {
            let draw = |&group: &Group| {
                let chance = 1.0 / (1.0 + n / m * (-level - tilt * group.score).exp());
                Draw {
                    group,
                    chance,
                    variance: group.count as f64 * chance * (1.0 - chance),
                }
            };
            groups.iter().map(draw).collect()
        };
        let (mut level, mut tilt) = (0.0, -2.0 / deviation);
        let (mut now, mut centre);
        let mut steps = 0;
        loop {
            now = draws(level, tilt);
            let whole = Stretch::of(&now);
            centre = whole.centre;
            let expected = |of: &dyn Fn(&Group) -> f64| -> f64 {
                now.iter()
                    .map(|d| d.group.count as f64 * d.chance * of(&d.group))
                    .sum()
            };
            let off = expected(&|_| 1.0) - m;
            let far = match is_far {
                true => expected(&|g| g.score - centre) - (target - m * centre),
                false => 0.0,
            };
            steps += 1;
            let is_near =
                off.abs() < 0.01 * whole.variance.sqrt() && far.abs() < 0.01 * whole.deviation;
            // Any circles do; these are the best.
            if is_near || steps == 100 {
                break;
            }
            // Newton's method, in steps that change no odds by more than a factor e.
            let by_tilt = -far / whole.deviation.powi(2);
            let by_level = -off / whole.variance - by_tilt * centre;
            let size = 1.0_f64.max(by_level.abs() + by_tilt.abs() * widest);
            (level, tilt) = (level + by_level / size, tilt + by_tilt / size);
        }
        let height = total(&groups, &|g| log_mean(share, level + tilt * g.score))
            - m * level
            - tilt * sum
            - log_binomial(m, n);
        now.iter_mut().for_each(|draw| draw.group.score -= centre);
        Circles {
            draws: now,
            drawn: m,
            sum: sum - m * centre,
            tilt,
            height,
        }
    }

    fn tail(&self) -> Option<Tail> {
        let stretches = self.stretches();
        let Stretch {
            variance,
            deviation,
            ..
        } = stretches[0];
        let widest = self
            .draws
            .iter()
            .fold(0.0_f64, |b, d| b.max(d.group.score.abs()));
        // What lies a period further adds to the sum: e⁻³⁷ of it, as in the transform without ties.
        let period = (17.0 * deviation)
            .max(reach(widest, deviation.powi(2)))
            .max(-37.0 / self.tilt);
        let period = 2.0 * (period / 2.0).ceil() + 41.0;
        let turn = Turn::of(&self.draws, self.drawn, variance);
        let step = TAU / period;
        let negligible = (2.0 * NEGLIGIBLE).sqrt();
        let (mut at_most, mut at) = (0.0, 0.0);
        let (mut frequency, mut work) = (0.0, 0);
        while frequency <= period / 2.0 {
            let angle = step * frequency;
            // The small ones are looked at first, for they see furthest.
            let seen = stretches.iter().rev().find_map(|stretch| {
                work += 3 * stretch.draws.len() + 200;
                let beyond = stretch.distance(angle) - negligible;
                (beyond > 0.0).then(|| beyond / (stretch.deviation * step))
            });
            if work > MOST_WORK {
                return None;
            }
            if let Some(seen) = seen {
                frequency += seen.floor() + 1.0;
                continue;
            }
            let (value, factors) = self.product(angle, &turn);
            work += factors;
            let term = value * Complex64::cis(-angle * self.sum);
            let weight = if frequency == 0.0 { 1.0 } else { 2.0 };
            at += weight * term.re;
            // 1 − z, without the loss that subtracting would bring.
            let radius = self.tilt.exp();
            let rest = 2.0 * radius * (angle / 2.0).sin().powi(2) - self.tilt.exp_m1();
            at_most += weight * (term / Complex64::new(rest, -radius * angle.sin())).re;
            frequency += 1.0;
        }
        let scale = self.height.exp() / period;
        Some(Tail {
            at_most: at_most * scale,
            at: at * scale,
        })
    }

    /// The mean over all angles of y of what the factors come to at this angle of z, and how many
    /// factors that took.
    fn product(&self, angle: f64, turn: &Turn) -> (Complex64, usize) {
        let turned = |draw: &Draw| Complex64::cis(angle * draw.group.score);
        let turned: Vec<Complex64> = self.draws.iter().map(turned).collect();
        let all = turned.iter().zip(&self.draws);
        let sum: Complex64 = all.map(|(turned, draw)| turned * draw.variance).sum();
        let variance: f64 = self.draws.iter().map(|draw| draw.variance).sum();
        // Around the angle at which the bound is greatest, as far as it is not negligible.
        let furthest = ((variance - NEGLIGIBLE) / sum.norm()).max(-1.0);
        if furthest > 1.0 {
            return (Complex64::ZERO, 0);
        }
        let middle = turn.cosines.len() / 2;
        let most = ((furthest.acos() / turn.step) as usize).min(middle);
        let near = middle - most..=middle + most;
        let (sines, cosines) = (&turn.sines[near.clone()], &turn.cosines[near.clone()]);
        let back = Complex64::cis(-sum.arg());
        // Powers by squaring, of all factors together.
        let (mut re, mut im) = (vec![1.0; sines.len()], vec![0.0; sines.len()]);
        let mut factors = 0;
        let largest = self.draws.iter().map(|draw| draw.group.count).max();
        for bit in (0..=largest.unwrap_or(1).ilog2()).rev() {
            for (re, im) in re.iter_mut().zip(&mut im) {
                (*re, *im) = (*re * *re - *im * *im, 2.0 * *re * *im);
            }
            for (draw, turned) in self.draws.iter().zip(&turned) {
                if draw.group.count >> bit & 1 == 0 {
                    continue;
                }
                let (stay, go) = (1.0 - draw.chance, turned * back * draw.chance);
                let values = re.iter_mut().zip(&mut im);
                for ((re, im), (sin, cos)) in values.zip(sines.iter().zip(cosines)) {
                    let by_re = stay + go.re * cos - go.im * sin;
                    let by_im = go.re * sin + go.im * cos;
                    (*re, *im) = (*re * by_re - *im * by_im, *re * by_im + *im * by_re);
                }
                factors += 1;
            }
            factors += 1;
        }
        let values = re.iter().zip(&im).zip(&turn.drawn[near]);
        let sum: Complex64 = values
            .map(|((&re, &im), drawn)| Complex64::new(re, im) * drawn)
            .sum();
        let forth = Complex64::cis(-back.arg() * self.drawn);
        (
            sum * forth / turn.cosines.len() as f64,
            factors * sines.len(),
        )
    }

    /// All groups, and fewer and fewer from their middle, as long as they bound anything.
    fn stretches(&self) -> Vec<Stretch<'_>> {
        let mut stretch = Stretch::of(&self.draws);
        let mut stretches = Vec::new();
        while stretches.is_empty() || stretch.variance > 1.4 * NEGLIGIBLE {
            let (mut draws, quarter) = (stretch.draws, stretch.variance / 4.0);
            let mut left = quarter;
            while let [first, rest @ ..] = draws
                && left > 0.0
            {
                left -= first.variance;
                draws = rest;
            }
            left = quarter;
            while let [rest @ .., last] = draws
                && left > 0.0
            {
                left -= last.variance;
                draws = rest;
            }
            stretches.push(stretch);
            stretch = Stretch::of(draws);
        }
        stretches
    }
}

impl Turn {
    /// In steps so fine that they tell `drawn` figures from all other numbers that have a chance.
    fn of(draws: &[Draw], drawn: f64, variance: f64) -> Turn {
        let all: usize = draws.iter().map(|draw| draw.group.count).sum();
        let side = (reach(1.0, variance) / 2.0)
            .ceil()
            .min((all / 2 + 1) as f64);
        let step = TAU / (2.0 * side + 1.0);
        let angles = (0..=2 * side as usize).map(|at| (at as f64 - side) * step);
        let (sines, cosines) = angles.clone().map(f64::sin_cos).unzip();
        Turn {
            step,
            sines,
            cosines,
            drawn: angles.map(|angle| Complex64::cis(-angle * drawn)).collect(),
        }
    }
}

impl Stretch<'_> {
    fn of(draws: &[Draw]) -> Stretch<'_> {
        let sum =
            |of: &dyn Fn(&Draw) -> f64| -> f64 { draws.iter().map(|d| d.variance * of(d)).sum() };
        let variance = sum(&|_| 1.0);
        let centre = sum(&|draw| draw.group.score) / variance;
        Stretch {
            draws,
            variance,
            centre,
            deviation: sum(&|draw| (draw.group.score - centre).powi(2)).sqrt(),
        }
    }

    /// √(2V − 2|S|) at an angle of z.
    fn distance(&self, angle: f64) -> f64 {
        // From one score to the next it is a few whole steps, always the same few.
        const FEW: usize = 32;
        let mut known = [Complex64::ZERO; FEW];
        let (mut turned, mut sum) = (Complex64::ONE, Complex64::ZERO);
        let mut before = self.draws.first().map_or(0.0, |draw| draw.group.score);
        for draw in self.draws {
            let step = (draw.group.score - before).round();
            before = draw.group.score;
            turned *= match known.get_mut(step as usize) {
                Some(by) => {
                    if *by == Complex64::ZERO {
                        *by = Complex64::cis(angle * step);
                    }
                    *by
                }
                None => Complex64::cis(angle * step),
            };
            sum += draw.variance * turned;
        }
        (2.0 * (self.variance - sum.norm())).max(0.0).sqrt()
    }
}

/// How far off its mean a sum of independent terms, each within `widest` of its mean, is with a
/// negligible chance (Bernstein's inequality).
fn reach(widest: f64, variance: f64) -> f64 {
    let third = widest * NEGLIGIBLE / 3.0;
    third + (third * third + 2.0 * NEGLIGIBLE * variance).sqrt()
}

/// ln(1 − share + share·exp(x)).
fn log_mean(share: f64, x: f64) -> f64 {
    match x > 0.0 {
        true => x + ((1.0 - share) * (-x).exp_m1()).ln_1p(),
        false => (share * x.exp_m1()).ln_1p(),
    }
}

/// The logarithm of the chance that of m + n draws, each with the chance m/(m + n), it is m that
/// hit: by Stirling's series, which is exact to the last digit from [`LEAST`] on.
fn log_binomial(m: f64, n: f64) -> f64 {
    let rest = |n: f64| {
        let s = 1.0 / (n * n);
        (1.0 / 12.0 - s * (1.0 / 360.0 - s * (1.0 / 1260.0 - s * (1.0 / 1680.0 - s / 1188.0)))) / n
    };
    ((m + n) / (2.0 * PI * m * n)).ln() / 2.0 + rest(m + n) - rest(m) - rest(n)
}

fn common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => common_divisor(b, a % b),
    }
}
