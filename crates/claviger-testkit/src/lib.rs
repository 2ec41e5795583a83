//! Parts for tests only: a lying provider, fault plans, fixed clock, seeded randomness, canaries
