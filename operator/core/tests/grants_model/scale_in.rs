//! An operator lowers a Deployment.

use poolwright_core::grants::{Mark, mark};

use crate::operator::{Act, Operator, View, uid};
use crate::world::{World, Write, say};

/// A scale-in as it was planned.
pub struct ScaleIn {
    branch: usize,
    rv: u64,
    to: u32,
    marks: [Option<Mark>; 2],
}

impl ScaleIn {
    pub fn new(world: &World, view: &View, branch: usize, fewer: u32) -> Option<Self> {
        let version = view.branches.get(branch)?.deployment?;
        let holder = uid(world.branches[branch].holder);
        let noted = |pool: usize| mark(&view.pools[pool].as_ref()?.pool, &holder);
        Some(Self {
            branch,
            rv: version.rv,
            to: version.replicas.checked_sub(fewer)?,
            marks: [noted(0), noted(1)],
        })
    }

    pub fn step(self, act: &mut Act, operator: &mut Operator) -> Option<Self> {
        say!(act.world, "scale in d{} to {}", self.branch, self.to);
        let write = Write::Replicas {
            branch: self.branch,
            rv: self.rv,
            replicas: self.to,
            permits: Vec::new(),
        };
        if act.send(write) {
            operator.scale_ins.insert(self.branch, self.marks);
        }
        None
    }
}
