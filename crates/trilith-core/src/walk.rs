//! Walks directories in parallel, level by level, without recursion, so that no depth of
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

/// Visits `root` and every directory that the visits return.
///
/// `visit` is given the places found so far and the position of the one to visit; it returns what
/// it found and the places of the directories to visit next.
pub(crate) fn walk<P, C, V>(root: P, visit: V) -> Result<Walked<P, C>, HashError>
where
    P: Send + Sync,
    C: Send,
    V: Fn(&Places<P>, usize) -> Result<(C, Vec<P>), HashError> + Sync,
{
    let mut places = Places(vec![(root, 0)]);
    let mut found = Vec::new();
    let mut levels = Vec::new();
    let mut level = 0..1;
    while !level.is_empty() {
        let visits: Vec<_> = level
            .clone()
            .into_par_iter()
            .map(|position| visit(&places, position))
            .collect::<Result<_, _>>()?;
        for (position, (contents, below)) in level.clone().zip(visits) {
            let start = places.0.len();
            places
                .0
                .extend(below.into_iter().map(|place| (place, position)));
            found.push((contents, start..places.0.len()));
        }
        let end = level.end;
        levels.push(level);
        level = end..places.0.len();
    }
    let nodes = places.0.into_iter().zip(found);
    let nodes = nodes.map(|((place, _), (contents, children))| Node {
        place,
        contents,
        children,
    });
    Ok(Walked {
        nodes: nodes.collect(),
        levels,
    })
}
