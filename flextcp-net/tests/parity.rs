//! The same calls, one per method and trait of the surface, compiled and run against both crates.

mod tokio_net {
    use tokio::net;
    include!("parity/surface.rs");
}

mod flextcp {
    use flextcp_net as net;
    include!("parity/surface.rs");
}
