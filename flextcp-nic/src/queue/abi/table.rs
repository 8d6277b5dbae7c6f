//! What a description of shared words is made of: modules of constants that also list themselves.

/// One constant of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Rust name, and with the table's prefix the C name.
    pub name: &'static str,
    /// Value: for layouts, the index of a word.
    pub value: u32,
    /// What it is.
    pub doc: &'static str,
}

/// Constants that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Name of the Rust module.
    pub name: &'static str,
    /// What C names start with, after `FX_`.
    pub prefix: &'static str,
    /// What they are.
    pub doc: &'static str,
    /// The constants.
    pub items: &'static [Item],
}

macro_rules! tables {
    ($(
        $(#[doc = $doc:literal])*
        $module:ident $prefix:literal {
            $($(#[doc = $item_doc:literal])* $name:ident = $value:expr;)*
        }
    )*) => {
        $(
            $(#[doc = $doc])*
            pub mod $module {
                #[allow(unused_imports)]
                use super::*;
                $($(#[doc = $item_doc])* pub const $name: u32 = $value;)*
                /// This table.
                pub const TABLE: $crate::queue::abi::Table = $crate::queue::abi::Table {
                    name: stringify!($module),
                    prefix: $prefix,
                    doc: concat!($($doc, "\n",)*),
                    items: &[$($crate::queue::abi::Item { name: stringify!($name), value: $name, doc: concat!($($item_doc, "\n",)*) },)*],
                };
            }
        )*
        /// The tables of this file, in order.
        pub(super) const TABLES: &[$crate::queue::abi::Table] = &[$($module::TABLE,)*];
    };
}

pub(super) use tables;
