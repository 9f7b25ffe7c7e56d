//! docker-types

#![forbid(unsafe_code)]
