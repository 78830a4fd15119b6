//! armrest
fn main() {}
