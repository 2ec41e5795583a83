//! Known answers that every [`SegmentAead`](crate::SegmentAead) backend must give.
