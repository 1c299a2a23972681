//! What decides about a world.

use crate::scenario::Millis;
use crate::world::World;

/// A rule that looks at a world from time to time and changes the number of its workers.
pub trait Scaler {
    /// Time between two looks.
    fn period(&self) -> Millis;

    /// Looks, and acts: by [`World::scale`], [`World::park`] and [`World::unpark`].
    fn look(&mut self, world: &mut World);

    /// How the cluster chooses who goes when a number is lowered.
    fn victims(&self) -> Victims {
        Victims::Any
    }
}

/// Who goes first, among workers that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// As a `ReplicaSet` does without costs: any of those that are ready.
    Any,
    /// Those that the scaler has marked, and then any.
    Marked,
}
