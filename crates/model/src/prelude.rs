//! What every file of the model sees.

pub(crate) use crate::*;
