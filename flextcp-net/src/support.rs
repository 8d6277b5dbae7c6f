//! Other crates' traits for the types here.

#[cfg(all(feature = "axum", target_os = "linux", not(feature = "kernel")))]
mod axum;
#[cfg(feature = "hyper-util")]
pub(crate) mod hyper_util;
#[cfg(feature = "tokio-stream")]
pub(crate) mod incoming;
#[cfg(all(feature = "tokio-util", target_os = "linux", not(feature = "kernel")))]
mod tokio_util;
#[cfg(all(feature = "tonic", target_os = "linux", not(feature = "kernel")))]
mod tonic;
