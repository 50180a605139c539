//! Unit tests of changes of membership.
