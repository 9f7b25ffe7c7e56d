//! oci-types

#![forbid(unsafe_code)]
