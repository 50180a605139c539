//! Tests of transactions, by kind.
