//! The pure decisions of a restore.
