//! The network between nodes and the private one of environments, as people look at it: who reaches whom, what
//! has which address, and whether another pool of addresses would do. Changes nothing by itself.

pub(crate) mod check;
pub(crate) mod pool;
pub(crate) mod show;
