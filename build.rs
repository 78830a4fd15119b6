//! Nothing to build on the host.
fn main() {}
