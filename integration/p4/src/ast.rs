//! The program as written.

use crate::source::Span;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Span,
}

#[derive(Clone, Debug)]
pub(crate) enum Type {
    Bit(u32),
    Bool,
    Named(String),
}

#[derive(Clone, Debug)]
pub(crate) struct TypeRef {
    pub(crate) ty: Type,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) ty: TypeRef,
    /// Number of elements of a header stack.
    pub(crate) stack: Option<Expr>,
    pub(crate) name: Name,
}

#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) direction: Option<String>,
    pub(crate) ty: TypeRef,
    pub(crate) name: Name,
}

#[derive(Debug)]
pub(crate) enum Declaration {
    Const {
        ty: TypeRef,
        name: Name,
        value: Expr,
    },
    Typedef {
        ty: TypeRef,
        name: Name,
    },
    Header {
        name: Name,
        fields: Vec<Field>,
    },
    Struct {
        name: Name,
        fields: Vec<Field>,
    },
    Extern(Name),
    Parser(Parser),
    Control(Control),
    /// `V1Switch(A(), ...) main;`
    Package {
        span: Span,
        parts: Vec<Name>,
    },
}

#[derive(Debug)]
pub(crate) struct Parser {
    pub(crate) name: Name,
    pub(crate) params: Vec<Param>,
    pub(crate) states: Vec<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) name: Name,
    pub(crate) body: Vec<Statement>,
    pub(crate) transition: Transition,
}

#[derive(Debug)]
pub(crate) enum Transition {
    To(Name),
    Select { keys: Vec<Expr>, cases: Vec<Case> },
}

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) span: Span,
    pub(crate) sets: Vec<KeySet>,
    pub(crate) to: Name,
}

#[derive(Debug)]
pub(crate) enum KeySet {
    Any,
    Value(Expr),
    Masked(Expr, Expr),
}

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) name: Name,
    pub(crate) params: Vec<Param>,
    pub(crate) actions: Vec<Action>,
    pub(crate) tables: Vec<Table>,
    pub(crate) body: Vec<Statement>,
}

#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) name: Name,
    pub(crate) params: Vec<Param>,
    pub(crate) body: Vec<Statement>,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: Name,
    pub(crate) keys: Vec<(Expr, Name)>,
    pub(crate) actions: Vec<Name>,
    pub(crate) default: Option<(Name, Vec<Expr>)>,
    pub(crate) size: Option<Expr>,
}

#[derive(Debug)]
pub(crate) enum Statement {
    Assign {
        to: Expr,
        value: Expr,
    },
    /// `header = { a, b };`
    AssignList {
        to: Expr,
        values: Vec<Expr>,
    },
    Call(Expr),
    If {
        condition: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    Block(Vec<Self>),
    Local {
        ty: TypeRef,
        name: Name,
        value: Expr,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unary {
    Not,
    Complement,
    Negate,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    BitOr,
    BitXor,
    BitAnd,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
}

impl Binary {
    pub(crate) const fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessEqual
                | Self::Greater
                | Self::GreaterEqual
        )
    }

    pub(crate) const fn is_bitwise(self) -> bool {
        matches!(self, Self::BitOr | Self::BitXor | Self::BitAnd)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) span: Span,
    /// Written in parentheses.
    pub(crate) enclosed: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Number { value: u64, width: Option<u32> },
    Bool(bool),
    Name(String),
    Member(Box<Expr>, Name),
    Index(Box<Expr>, Box<Expr>),
    Slice(Box<Expr>, Box<Expr>, Box<Expr>),
    Unary(Unary, Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Cast(TypeRef, Box<Expr>),
    Call(Box<Expr>, Vec<Expr>),
}

impl Expr {
    pub(crate) const fn new(kind: ExprKind, span: Span) -> Self {
        Self {
            kind,
            span,
            enclosed: false,
        }
    }
}
