//! A model of a Linux address space on which the blob's steps run in tests.
