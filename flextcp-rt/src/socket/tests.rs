//! Tests of the socket against a core that only takes notes.
