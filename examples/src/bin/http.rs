//! The HTTP example.
fn main() {}
