//! Sentences of the rules, one test each.
