//! lifecycle

#![forbid(unsafe_code)]
