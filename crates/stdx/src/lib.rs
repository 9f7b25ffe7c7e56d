//! stdx

#![forbid(unsafe_code)]
