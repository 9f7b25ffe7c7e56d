//! node

#![forbid(unsafe_code)]
