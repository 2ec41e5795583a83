//! Clock and randomness as values that are passed in
