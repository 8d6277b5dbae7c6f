//! The host side of FlexTCP.
