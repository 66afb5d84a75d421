//! Stacks: what a file means, and what is next.
