//! Values as clients send and read them: types, text, binary. Pure: nothing is read or sent here.

pub(super) mod kinds;
pub(super) mod numeric;
pub(super) mod parameters;
pub(super) mod rows;
pub(super) mod time;
