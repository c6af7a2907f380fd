//! One meter: its SQL planned once, split into partial, reduce and finish.
