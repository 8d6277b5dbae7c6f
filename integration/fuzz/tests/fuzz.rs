//! Runs every target over its corpus (`__fuzz__/TARGET/corpus`) and over fresh random inputs.
//!
//! On stable Rust, in `cargo test`: `FLEXTCP_FUZZ_SECONDS` of fresh inputs for each target; without it 3, and 60 with
//! `FLEXTCP_FULL=1`. A failure prints the shortest input that it can be brought down to, and a seed for
//! `BOLERO_RANDOM_SEED`; an input that does not end is printed too, for `FLEXTCP_FUZZ_INPUT=HEX cargo test -p flextcp-fuzz TARGET`.
//! What a longer run finds belongs into the corpus.

use std::env;
use std::time::Duration;

use bolero::check;
use flextcp_fuzz::watch::{unhex, watched};
use flextcp_fuzz::{engine, fast, wire};

/// One input takes a millisecond; on a busy machine a few.
const LIMIT: Duration = Duration::from_secs(20);

fn time() -> Duration {
    let seconds = env::var("FLEXTCP_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let full = env::var("FLEXTCP_FULL").is_ok_and(|value| value == "1");
    Duration::from_secs(seconds.unwrap_or(if full { 60 } else { 3 }))
}

/// The one input that is asked for, if one is.
fn alone(target: fn(&[u8])) -> bool {
    let Ok(digits) = env::var("FLEXTCP_FUZZ_INPUT") else {
        return false;
    };
    target(&unhex(&digits).expect("FLEXTCP_FUZZ_INPUT is hexadecimal digits"));
    true
}

macro_rules! targets {
    ($($name:ident $max_len:literal $target:path;)*) => {$(
        #[test]
        fn $name() {
            if !alone($target) {
                check!(name = stringify!($name))
                    .with_max_len($max_len)
                    .with_test_time(time())
                    .for_each(watched(stringify!($name), LIMIT, $target));
            }
        }
    )*};
}

targets! {
    frame 256 wire::frame;
    options 64 wire::options;
    fast 1024 fast::run;
    engine 2048 engine::run;
}
