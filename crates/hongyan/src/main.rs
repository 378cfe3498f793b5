//! hongyan
fn main() {}
