//! Statements and expressions.

use super::Syntax;
use crate::ast::{Binary, Expr, ExprKind, Statement, Type, Unary};
use crate::source::{Checked, Fault};
use crate::token::Kind;

/// Operators by how tightly they bind, the loosest first. As in P4-16 and unlike C, `&`, `^` and `|` bind more tightly
/// than comparisons.
const LEVELS: [&[(&str, Binary)]; 9] = [
    &[("||", Binary::Or)],
    &[("&&", Binary::And)],
    &[("==", Binary::Equal), ("!=", Binary::NotEqual)],
    &[
        ("<", Binary::Less),
        ("<=", Binary::LessEqual),
        (">", Binary::Greater),
        (">=", Binary::GreaterEqual),
    ],
    &[("|", Binary::BitOr)],
    &[("^", Binary::BitXor)],
    &[("&", Binary::BitAnd)],
    &[("<<", Binary::ShiftLeft), (">>", Binary::ShiftRight)],
    &[("+", Binary::Add), ("-", Binary::Subtract)],
];

/// Operators in one statement.
const MAX_OPERATORS: usize = 400;

impl Syntax {
    /// `{ statements }`
    pub(super) fn block(&mut self) -> Checked<Vec<Statement>> {
        self.deeper(|this| {
            this.expect("{")?;
            let mut body = Vec::new();
            while !this.take("}") {
                body.push(this.statement()?);
            }
            Ok(body)
        })
    }

    pub(super) fn statement(&mut self) -> Checked<Statement> {
        self.refuse_left_out()?;
        self.operators = 0;
        if self.is("{") {
            return Ok(Statement::Block(self.block()?));
        }
        if self.is_word("if") {
            return self.deeper(Self::if_statement);
        }
        if self.starts_local() {
            let ty = self.type_ref()?;
            let name = self.name("the variable's name")?;
            if !self.take("=") {
                let message = "a variable starts with a value: write = 0";
                return Err(Fault::new(self.span(), message));
            }
            let value = self.expression()?;
            self.expect(";")?;
            return Ok(Statement::Local { ty, name, value });
        }
        let to = self.expression()?;
        if self.take(";") {
            if matches!(to.kind, ExprKind::Call(..)) {
                return Ok(Statement::Call(to));
            }
            return Err(Fault::new(to.span, "this statement does nothing"));
        }
        self.expect("=")?;
        if self.take("{") {
            let values = self.list("}")?;
            self.expect(";")?;
            return Ok(Statement::AssignList { to, values });
        }
        let value = self.expression()?;
        self.expect(";")?;
        Ok(Statement::Assign { to, value })
    }

    fn starts_local(&self) -> bool {
        let Kind::Word(word) = &self.token().kind else {
            return false;
        };
        let is_type = word == "bit" || word == "bool" || self.types.contains(word);
        is_type && !matches!(self.ahead(1), Kind::Mark("." | "=" | "(" | "["))
    }

    fn if_statement(&mut self) -> Checked<Statement> {
        self.advance();
        self.expect("(")?;
        let condition = self.expression()?;
        self.expect(")")?;
        let then = self.block()?;
        let otherwise = if !self.take_word("else") {
            Vec::new()
        } else if self.is_word("if") {
            vec![self.deeper(Self::if_statement)?]
        } else {
            self.block()?
        };
        Ok(Statement::If {
            condition,
            then,
            otherwise,
        })
    }

    pub(super) fn expression(&mut self) -> Checked<Expr> {
        self.deeper(|this| this.level(0))
    }

    fn level(&mut self, level: usize) -> Checked<Expr> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.level(level + 1)?;
        loop {
            let span = self.span();
            let operator = operators.iter().find(|(mark, _)| self.is(mark));
            let Some(&(_, operator)) = operator else {
                if level + 1 == LEVELS.len() {
                    self.refuse_operators()?;
                }
                return Ok(left);
            };
            // A chain is as deep a tree as nested brackets.
            self.operators += 1;
            if self.operators > MAX_OPERATORS {
                return Err(Fault::new(span, "the expression is too long"));
            }
            self.advance();
            let right = self.level(level + 1)?;
            if operator.is_comparison() {
                for side in [&left, &right] {
                    let ExprKind::Binary(inner, ..) = side.kind else {
                        continue;
                    };
                    if !side.enclosed && (inner.is_bitwise() || inner.is_comparison()) {
                        let message = "put the operand in brackets: P4 and C bind it differently";
                        return Err(Fault::new(side.span, message));
                    }
                }
            }
            let kind = ExprKind::Binary(operator, Box::new(left), Box::new(right));
            left = Expr::new(kind, span);
        }
    }

    fn refuse_operators(&self) -> Checked<()> {
        for (mark, why) in [
            ("*", "the card multiplies in C only"),
            ("/", "the card does not divide"),
            ("%", "the card does not divide"),
            ("?", "write if and else"),
            ("++", "write shifts and |"),
        ] {
            if self.is(mark) {
                let message = format!("the operator {mark} is not in the subset: {why}");
                return Err(Fault::new(self.span(), message));
            }
        }
        Ok(())
    }

    fn unary(&mut self) -> Checked<Expr> {
        let span = self.span();
        for (mark, operator) in [
            ("!", Unary::Not),
            ("~", Unary::Complement),
            ("-", Unary::Negate),
        ] {
            if self.take(mark) {
                let of = self.deeper(Self::unary)?;
                return Ok(Expr::new(ExprKind::Unary(operator, Box::new(of)), span));
            }
        }
        if self.is("(") && self.starts_cast() {
            self.advance();
            let ty = self.type_ref()?;
            self.expect(")")?;
            let of = self.deeper(Self::unary)?;
            return Ok(Expr::new(ExprKind::Cast(ty, Box::new(of)), span));
        }
        self.postfix()
    }

    fn starts_cast(&self) -> bool {
        match self.ahead(1) {
            Kind::Word(word) if word == "bit" || word == "bool" => true,
            Kind::Word(word) => {
                self.types.contains(word) && matches!(self.ahead(2), Kind::Mark(")"))
            }
            _ => false,
        }
    }

    fn postfix(&mut self) -> Checked<Expr> {
        let mut expr = self.primary()?;
        for _ in 0..super::MAX_DEPTH {
            let span = self.span();
            let kind = if self.take(".") {
                let name = self.name("a member")?;
                if name.text == "lookahead" || name.text == "advance" {
                    let message = format!(
                        "`{}` is not in the subset: extract into a header",
                        name.text
                    );
                    return Err(Fault::new(name.span, message));
                }
                // A member is named by its own place, which is where people look.
                let span = name.span;
                expr = Expr::new(ExprKind::Member(Box::new(expr), name), span);
                continue;
            } else if self.take("[") {
                let high = self.expression()?;
                if self.take(":") {
                    let low = self.expression()?;
                    self.expect("]")?;
                    ExprKind::Slice(Box::new(expr), Box::new(high), Box::new(low))
                } else {
                    self.expect("]")?;
                    ExprKind::Index(Box::new(expr), Box::new(high))
                }
            } else if self.take("(") {
                ExprKind::Call(Box::new(expr), self.list(")")?)
            } else {
                return Ok(expr);
            };
            expr = Expr::new(kind, span);
        }
        Err(Fault::new(self.span(), "the expression is too long"))
    }

    fn primary(&mut self) -> Checked<Expr> {
        let span = self.span();
        let kind = match self.token().kind.clone() {
            Kind::Number { value, width } => {
                self.advance();
                ExprKind::Number { value, width }
            }
            Kind::Word(word) => {
                self.refuse_left_out()?;
                self.advance();
                match word.as_str() {
                    "true" => ExprKind::Bool(true),
                    "false" => ExprKind::Bool(false),
                    _ => ExprKind::Name(word),
                }
            }
            Kind::Mark("(") => {
                self.advance();
                let mut inner = self.expression()?;
                self.expect(")")?;
                inner.enclosed = true;
                return Ok(inner);
            }
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(Expr::new(kind, span))
    }
}

impl Type {
    /// How it is written.
    pub(crate) fn written(&self) -> String {
        match self {
            Self::Bit(width) => format!("bit<{width}>"),
            Self::Bool => "bool".to_owned(),
            Self::Named(name) => name.clone(),
        }
    }
}
