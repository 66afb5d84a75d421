//! Allocations of one service per value of an attribute, for a spread, for a limit or to keep hosts apart. Nodes
//! without the attribute count as one value: what is not known to be apart is taken to be together.

use skep_model::placement::Spread;

use crate::column::{Column, MISSING};

/// Millionths of the whole: shares are compared as integers.
const WHOLE: u64 = 1_000_000;

/// What the counts are held against.
enum Aim {
    /// No more than this per value.
    Most(u32),
    /// All the same, with at most this much more than the least.
    Even(Option<u32>),
    /// So many millionths by value, with at most this much more than the share.
    Shares(Vec<u64>, Option<u32>),
}

pub(crate) struct Domain<'a> {
    column: Option<&'a Column>,
    counts: Vec<u32>,
    total: u64,
    aim: Aim,
    /// Values with a node that no rule refuses: only those can be behind.
    is_open: Vec<bool>,
    /// The least count of an open value and how many have it; kept only where there is a skew.
    least: (u32, usize),
}

impl<'a> Domain<'a> {
    fn new(column: Option<&'a Column>, aim: Aim) -> Self {
        let values = column.map_or(1, Column::len);
        Self {
            column,
            counts: vec![0; values],
            total: 0,
            aim,
            is_open: vec![false; values],
            least: (0, 0),
        }
    }

    pub(crate) fn limit(column: Option<&'a Column>, most: u32) -> Self {
        Self::new(column, Aim::Most(most))
    }

    /// Counts, held against nothing.
    pub(crate) fn tally(column: Option<&'a Column>) -> Self {
        Self::new(column, Aim::Even(None))
    }

    /// `lacks`: there is a node without the attribute.
    pub(crate) fn spread(column: Option<&'a Column>, spread: &Spread, lacks: bool) -> Self {
        if spread.percent.is_empty() {
            return Self::new(column, Aim::Even(spread.max_skew));
        }
        let mut shares = vec![None; column.map_or(1, Column::len)];
        for (value, percent) in &spread.percent {
            if let Some(number) = column.and_then(|column| column.number(value)) {
                shares[number as usize] = Some(u64::from(*percent) * WHOLE / 100);
            }
        }
        let in_use = column.into_iter().flat_map(Column::in_use);
        let in_use = in_use.chain(lacks.then_some(MISSING));
        let rest = in_use
            .filter(|value| shares[*value as usize].is_none())
            .count();
        let named: u64 = spread.percent.values().map(|one| u64::from(*one)).sum();
        let left = (100 - named.min(100)) * WHOLE / 100 / rest.max(1) as u64;
        let shares = shares.into_iter().map(|share| share.unwrap_or(left));
        Self::new(column, Aim::Shares(shares.collect(), spread.max_skew))
    }

    pub(crate) fn value(&self, ordinal: u32) -> u32 {
        self.column.map_or(MISSING, |column| column.of(ordinal))
    }

    /// How many are counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How many values there can be.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(crate) fn text(&self, value: u32) -> Option<&'a str> {
        self.column?.text(value)
    }

    pub(crate) fn count_of(&self, value: u32) -> u32 {
        self.counts[value as usize]
    }

    pub(crate) fn has_skew(&self) -> bool {
        matches!(self.aim, Aim::Even(Some(_)) | Aim::Shares(_, Some(_)))
    }

    /// A node that no rule refuses has this value.
    pub(crate) fn open(&mut self, ordinal: u32) {
        let value = self.value(ordinal) as usize;
        if !std::mem::replace(&mut self.is_open[value], true) {
            self.find_least();
        }
    }

    pub(crate) fn count(&mut self, ordinal: u32, by: u32) {
        let value = self.value(ordinal) as usize;
        let before = self.counts[value];
        self.counts[value] += by;
        self.total += u64::from(by);
        if self.is_open[value] && before == self.least.0 {
            self.least.1 -= 1;
            if self.least.1 == 0 {
                self.find_least();
            }
        }
    }

    fn find_least(&mut self) {
        let counts = self.counts.iter().zip(&self.is_open);
        let open = counts
            .filter(|(_, is_open)| **is_open)
            .map(|(count, _)| *count);
        let least = open.clone().min().unwrap_or(0);
        self.least = (least, open.filter(|count| *count == least).count());
    }

    /// The less, the further behind a value is: of equal shares its count; else its count and half
    /// of the next one over its share, which divides as Sainte-Laguë's rule does.
    pub(crate) fn level(&self, value: u32) -> u64 {
        let count = u64::from(self.counts[value as usize]);
        match &self.aim {
            Aim::Most(_) => 0,
            Aim::Even(_) => count,
            Aim::Shares(shares, _) => match shares[value as usize] {
                0 => (u64::MAX >> 1) + count,
                share => (2 * count + 1) * WHOLE * 1_000 / share,
            },
        }
    }

    /// Whether the limit is reached.
    pub(crate) fn is_full(&self, value: u32) -> bool {
        matches!(self.aim, Aim::Most(most) if self.counts[value as usize] >= most)
    }

    /// Whether one more would be more than the skew allows.
    pub(crate) fn breaks_skew(&self, value: u32) -> bool {
        let next = u64::from(self.counts[value as usize]) + 1;
        match &self.aim {
            Aim::Even(Some(skew)) => next > u64::from(self.least.0) + u64::from(*skew),
            Aim::Shares(shares, Some(skew)) => {
                let fair = ((self.total + 1) * shares[value as usize]).div_ceil(WHOLE);
                next > fair + u64::from(*skew)
            }
            _ => false,
        }
    }
}
