//! The at-rest object format and key hierarchy of Claviger, version 1: pure, bytes in and bytes out
