//! What every implementation of a seam promises, as checks that each of them must pass.

pub mod table;
