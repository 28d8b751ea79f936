//! Walks directories level by level, in parallel where there are many, without recursion, so that no depth of
//! nesting can exhaust the stack. What is looked at and kept is the caller's business.

use std::ops::Range;

use rayon::prelude::*;

use crate::hash_error::HashError;

/// A directory that was visited: what the caller knew about it before, and what it found.
#[derive(Debug)]
pub(crate) struct Node<P, C> {
    pub(crate) place: P,
    pub(crate) contents: C,
    /// Where the directories in it stand in [`Walked::nodes`]; behind itself, always.
    pub(crate) children: Range<usize>,
}

/// All directories of a tree, upper levels first.
#[derive(Debug)]
pub(crate) struct Walked<P, C> {
    pub(crate) nodes: Vec<Node<P, C>>,
    /// The levels, from the root's down, as ranges of `nodes`.
    pub(crate) levels: Vec<Range<usize>>,
}

/// The places of all directories found so far, and of each the parent's position.
#[derive(Debug)]
pub(crate) struct Places<P>(Vec<(P, usize)>);

impl<P> Places<P> {
    /// Returns the place at `position`.
    pub(crate) fn get(&self, position: usize) -> &P {
        &self.0[position].0
    }

    /// Returns the place at `position` and those above it, up to the root.
    pub(crate) fn upwards(&self, position: usize) -> impl Iterator<Item = &P> {
        let mut next = Some(position);
        std::iter::from_fn(move || {
            let position = next?;
            let (place, parent) = &self.0[position];
            next = (*parent != position).then_some(*parent);
            Some(place)
        })
    }
}

/// How many directories, or entries of one, are looked at before the pool of threads is woken.
/// Starting it takes longer than to look at as many.
pub(crate) const FEW: usize = 128;

/// Visits `root` and every directory that the visits return, and does `then` with them: inside
/// the pool of threads if there are more than a [`FEW`], so that it is woken once and not for
/// every step.
///
/// `visit` is given the places found so far and the position of the one to visit; it returns what
/// it found and the places of the directories to visit next.
pub(crate) fn walk<P, C, V, T>(
    root: P,
    visit: V,
    then: impl FnOnce(Walked<P, C>) -> Result<T, HashError> + Send,
) -> Result<T, HashError>
where
    P: Send + Sync,
    C: Send,
    V: Fn(&Places<P>, usize) -> Result<(C, Vec<P>), HashError> + Sync,
    T: Send,
{
    let mut walk = Walk {
        places: Places(vec![(root, 0)]),
        found: Vec::new(),
        levels: Vec::new(),
        level: 0..1,
    };
    while !walk.level.is_empty() && walk.level.end <= FEW {
        let level = walk.level.clone();
        let visits = level.map(|position| visit(&walk.places, position));
        let visits = visits.collect::<Result<_, _>>()?;
        walk.advance(visits);
    }
    if walk.level.is_empty() {
        return then(walk.finish());
    }
    rayon::scope(|_| {
        while !walk.level.is_empty() {
            let level = walk.level.clone().into_par_iter();
            let visits = level.map(|position| visit(&walk.places, position));
            let visits = visits.collect::<Result<_, _>>()?;
            walk.advance(visits);
        }
        then(walk.finish())
    })
}

/// A walk on its way.
struct Walk<P, C> {
    places: Places<P>,
    found: Vec<(C, Range<usize>)>,
    levels: Vec<Range<usize>>,
    /// The places to visit next.
    level: Range<usize>,
}

impl<P, C> Walk<P, C> {
    /// Takes in what was found at the places of the level.
    fn advance(&mut self, visits: Vec<(C, Vec<P>)>) {
        let places = &mut self.places.0;
        for (position, (contents, below)) in self.level.clone().zip(visits) {
            let start = places.len();
            places.extend(below.into_iter().map(|place| (place, position)));
            self.found.push((contents, start..places.len()));
        }
        let next = self.level.end..places.len();
        self.levels.push(std::mem::replace(&mut self.level, next));
    }

    fn finish(self) -> Walked<P, C> {
        let nodes = self.places.0.into_iter().zip(self.found);
        let nodes = nodes.map(|((place, _), (contents, children))| Node {
            place,
            contents,
            children,
        });
        Walked {
            nodes: nodes.collect(),
            levels: self.levels,
        }
    }
}
