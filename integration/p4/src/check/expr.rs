//! Expressions: their widths, and which constants, fields and words they name.

use super::{Checker, Meaning, Member, Place};
use crate::ast::{self, Binary, ExprKind, Type, Unary};
use crate::ir::{Expr, HeaderId, Op, Slot, ones};
use crate::rules::CardRule;
use crate::source::{Checked, Fault, Span};

/// The type of an expression.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Bool,
    Bit(u32),
    /// A number without a width; it takes that of what it meets.
    Number,
}

impl Kind {
    fn written(self) -> String {
        match self {
            Self::Bool => "bool".to_owned(),
            Self::Bit(width) => format!("bit<{width}>"),
            Self::Number => "a number".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) kind: Kind,
}

impl Typed {
    fn bits(expr: Expr, width: u32) -> Self {
        let kind = Kind::Bit(width);
        Self { expr, kind }
    }

    fn truth(expr: Expr) -> Self {
        let kind = Kind::Bool;
        Self { expr, kind }
    }
}

/// What can be assigned to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) slot: Slot,
    pub(super) header: Option<HeaderId>,
    pub(super) width: u32,
}

impl Checker {
    /// A constant of `width` bits.
    pub(super) fn fixed(&mut self, expr: &ast::Expr, width: u32) -> Checked<u64> {
        match self.value(expr, width)? {
            Expr::Const(value) => Ok(value),
            _ => Err(Fault::new(expr.span, "expected a constant")),
        }
    }

    /// An expression of `width` bits.
    pub(super) fn value(&mut self, expr: &ast::Expr, width: u32) -> Checked<Expr> {
        let typed = self.typed(expr)?;
        match typed.kind {
            Kind::Bit(found) if found == width => Ok(typed.expr),
            Kind::Number => fit(typed.expr, width, expr.span),
            other => Err(Fault::new(
                expr.span,
                format!(
                    "expected bit<{width}>, found {}: write a cast",
                    other.written()
                ),
            )),
        }
    }

    /// A condition.
    pub(super) fn condition(&mut self, expr: &ast::Expr) -> Checked<Expr> {
        let typed = self.typed_in(expr, true)?;
        match typed.kind {
            Kind::Bool => Ok(typed.expr),
            other => Err(Fault::new(
                expr.span,
                format!("expected a condition, found {}", other.written()),
            )),
        }
    }

    pub(super) fn typed(&mut self, expr: &ast::Expr) -> Checked<Typed> {
        self.typed_in(expr, false)
    }

    fn typed_in(&mut self, expr: &ast::Expr, condition: bool) -> Checked<Typed> {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Number { value, width } => Ok(Typed {
                expr: Expr::Const(*value),
                kind: width.map_or(Kind::Number, Kind::Bit),
            }),
            ExprKind::Bool(value) => Ok(Typed::truth(Expr::Const((*value).into()))),
            ExprKind::Name(name) => match self.lookup(name) {
                Some(Meaning::Const(value, width)) => Ok(Typed {
                    expr: Expr::Const(*value),
                    kind: width.map_or(Kind::Number, Kind::Bit),
                }),
                Some(Meaning::Slot(slot, width)) => Ok(Typed::bits(Expr::Slot(*slot), *width)),
                Some(_) => Err(Fault::new(span, format!("`{name}` is no value"))),
                None => Err(Fault::new(span, format!("there is no `{name}` here"))),
            },
            ExprKind::Member(of, name) => self.member(of, name, condition),
            ExprKind::Index(..) => Err(Fault::new(span, "a header is no value: name its field")),
            ExprKind::Slice(of, high, low) => self.slice(of, high, low),
            ExprKind::Unary(op, of) => self.unary(*op, of, span, condition),
            ExprKind::Binary(op, left, right) => self.binary(*op, left, right, span, condition),
            ExprKind::Cast(ty, of) => self.cast(ty, of, span),
            ExprKind::Call(callee, arguments) => {
                let header = self.validity(callee, arguments)?;
                let Some(header) = header else {
                    return Err(Fault::new(span, "a call has no value"));
                };
                if condition {
                    return Ok(Typed::truth(Expr::Valid(header)));
                }
                let message =
                    "isValid() stands in a condition only: write if (h.isValid()) { ... }";
                Err(Fault::against(CardRule::ValidInConditions, span, message))
            }
        }
    }

    /// The header of `h.isValid()`.
    fn validity(
        &mut self,
        callee: &ast::Expr,
        arguments: &[ast::Expr],
    ) -> Checked<Option<HeaderId>> {
        let ExprKind::Member(of, method) = &callee.kind else {
            return Ok(None);
        };
        if method.text != "isValid" || !arguments.is_empty() {
            return Ok(None);
        }
        self.header(of)?
            .ok_or_else(|| Fault::new(of.span, "expected a header"))
            .map(Some)
    }

    /// The header instance that an expression names.
    pub(super) fn header(&mut self, expr: &ast::Expr) -> Checked<Option<HeaderId>> {
        match &expr.kind {
            ExprKind::Member(of, name) if self.is(of, |m| matches!(m, Meaning::Headers)) => {
                match self.members.get(&name.text) {
                    Some(Member::Header(header)) => Ok(Some(*header)),
                    Some(Member::Stack(_)) => Ok(None),
                    None => {
                        let message = format!("there is no header `{}`", name.text);
                        Err(Fault::new(name.span, message))
                    }
                }
            }
            ExprKind::Index(of, index) => {
                let Some(stack) = self.stack(of) else {
                    return Ok(None);
                };
                let index_value = self.fixed(index, 32)?;
                let (first, len) = (self.stacks[stack].first, self.stacks[stack].len);
                if index_value >= len as u64 {
                    let message = format!("the stack has {len} headers, counted from 0");
                    return Err(Fault::new(index.span, message));
                }
                Ok(Some(first + index_value as usize))
            }
            _ => Ok(None),
        }
    }

    /// The stack that an expression names.
    pub(super) fn stack(&self, expr: &ast::Expr) -> Option<usize> {
        let ExprKind::Member(of, name) = &expr.kind else {
            return None;
        };
        if !self.is(of, |m| matches!(m, Meaning::Headers)) {
            return None;
        }
        match self.members.get(&name.text) {
            Some(Member::Stack(stack)) => Some(*stack),
            _ => None,
        }
    }

    pub(super) fn is(&self, expr: &ast::Expr, wanted: impl Fn(&Meaning) -> bool) -> bool {
        match &expr.kind {
            ExprKind::Name(name) => self.lookup(name).is_some_and(wanted),
            _ => false,
        }
    }

    fn member(&mut self, of: &ast::Expr, name: &ast::Name, condition: bool) -> Checked<Typed> {
        if let ExprKind::Member(stack, last) = &of.kind
            && last.text == "last"
            && let Some(stack) = self.stack(stack)
        {
            if self.place != Place::Parser {
                return Err(Fault::new(last.span, "`last` is the parser's"));
            }
            let layout = &self.fields[self.stacks[stack].first];
            let Some(field) = layout.iter().position(|(field, _)| *field == name.text) else {
                return Err(Fault::new(
                    name.span,
                    format!("there is no field `{}`", name.text),
                ));
            };
            let width = layout[field].1;
            return Ok(Typed::bits(Expr::Last { stack, field }, width));
        }
        if name.text == "hit"
            && let ExprKind::Call(callee, arguments) = &of.kind
            && let ExprKind::Member(table, apply) = &callee.kind
            && apply.text == "apply"
            && let ExprKind::Name(table) = &table.kind
            && let Some(Meaning::Table(table)) = self.lookup(table)
        {
            if !condition || !arguments.is_empty() {
                let message = "a table is applied in a condition: if (table.apply().hit)";
                return Err(Fault::new(name.span, message));
            }
            return Ok(Typed::truth(Expr::Hit(*table)));
        }
        if name.text == "miss" {
            return Err(Fault::new(name.span, "write !table.apply().hit"));
        }
        let target = self.field(of, name)?;
        let expr = match target.header {
            Some(header) => Expr::Field(target.slot, header),
            None => Expr::Slot(target.slot),
        };
        Ok(Typed::bits(expr, target.width))
    }

    /// A field of a header, or a word of metadata.
    fn field(&mut self, of: &ast::Expr, name: &ast::Name) -> Checked<Target> {
        let unknown = || Fault::new(name.span, format!("there is no field `{}`", name.text));
        if let Some(header) = self.header(of)? {
            let layout = &self.fields[header];
            let field = layout
                .iter()
                .position(|(field, _)| *field == name.text)
                .ok_or_else(unknown)?;
            return Ok(Target {
                slot: self.headers[header].first_slot + field,
                header: Some(header),
                width: layout[field].1,
            });
        }
        if self.is(of, |m| matches!(m, Meaning::Metadata)) {
            let &(slot, width) = self.metadata.get(&name.text).ok_or_else(unknown)?;
            let header = None;
            return Ok(Target {
                slot,
                header,
                width,
            });
        }
        if self.is(of, |m| matches!(m, Meaning::Standard)) {
            let (slot, width) = match name.text.as_str() {
                "ingress_port" => (self.standard.ingress_port, 16),
                "egress_spec" => (self.standard.egress_spec, 16),
                "egress_port" => (self.standard.egress_port, 16),
                "packet_length" => (self.standard.packet_length, 32),
                stamp if stamp.contains("timestamp") || stamp.contains("tstamp") => {
                    let message = "timestamps are 64 bits wide and in intrinsic metadata, which the subset leaves out: read them in C";
                    return Err(Fault::against(CardRule::Timestamps, name.span, message));
                }
                _ => {
                    let message = "the subset has ingress_port, egress_spec, egress_port and packet_length of standard_metadata";
                    return Err(Fault::new(name.span, message));
                }
            };
            return Ok(Target {
                slot,
                header: None,
                width,
            });
        }
        match self.stack(of) {
            Some(_) => Err(Fault::new(
                of.span,
                "a stack has no fields: write [index], or .last in the parser",
            )),
            None => Err(Fault::new(
                of.span,
                "expected a header, the metadata or standard_metadata",
            )),
        }
    }

    /// What an assignment may have on its left.
    pub(super) fn target(&mut self, expr: &ast::Expr) -> Checked<Target> {
        match &expr.kind {
            ExprKind::Member(of, name) => self.field(of, name),
            ExprKind::Name(name) => match self.lookup(name) {
                Some(Meaning::Slot(slot, width)) => Ok(Target {
                    slot: *slot,
                    header: None,
                    width: *width,
                }),
                _ => Err(Fault::new(
                    expr.span,
                    format!("`{name}` cannot be assigned to"),
                )),
            },
            _ => Err(Fault::new(expr.span, "this cannot be assigned to")),
        }
    }

    /// The bounds of a slice of something `width` bits wide.
    pub(super) fn bounds(
        &mut self,
        high: &ast::Expr,
        low: &ast::Expr,
        width: u32,
    ) -> Checked<(u32, u32)> {
        let low_bit = self.fixed(low, 32)?;
        let high_bit = self.fixed(high, 32)?;
        if low_bit > high_bit || high_bit >= u64::from(width) {
            let message = format!("write [high:low] within bits {} to 0", width - 1);
            return Err(Fault::new(high.span, message));
        }
        Ok((high_bit as u32, low_bit as u32))
    }

    fn slice(&mut self, of: &ast::Expr, high: &ast::Expr, low: &ast::Expr) -> Checked<Typed> {
        let inner = self.typed(of)?;
        let Kind::Bit(width) = inner.kind else {
            return Err(Fault::new(of.span, "expected bits to slice"));
        };
        let (high, low) = self.bounds(high, low, width)?;
        let width = high - low + 1;
        let expr = Expr::Extract {
            of: Box::new(inner.expr),
            shift: low,
            mask: ones(width),
        };
        Ok(Typed::bits(fold(expr), width))
    }

    fn unary(&mut self, op: Unary, of: &ast::Expr, span: Span, condition: bool) -> Checked<Typed> {
        let inner = self.typed_in(of, condition && op == Unary::Not)?;
        match (op, inner.kind) {
            (Unary::Not, Kind::Bool) => Ok(Typed::truth(fold(Expr::Not(Box::new(inner.expr))))),
            (Unary::Not, other) => Err(Fault::new(
                span,
                format!("! takes a condition, found {}: compare it", other.written()),
            )),
            (_, Kind::Bit(width)) => {
                let of = Box::new(inner.expr);
                let expr = if op == Unary::Complement {
                    Expr::Complement(of, ones(width))
                } else {
                    Expr::Negate(of, ones(width))
                };
                Ok(Typed::bits(fold(expr), width))
            }
            (_, other) => Err(Fault::new(
                span,
                format!("expected bits, found {}: write its width", other.written()),
            )),
        }
    }

    fn binary(
        &mut self,
        op: Binary,
        left: &ast::Expr,
        right: &ast::Expr,
        span: Span,
        condition: bool,
    ) -> Checked<Typed> {
        if matches!(op, Binary::And | Binary::Or) {
            let a = self.typed_in(left, condition)?;
            let b = self.typed_in(right, condition)?;
            if a.kind != Kind::Bool || b.kind != Kind::Bool {
                let message = "&& and || take conditions: compare with 0";
                return Err(Fault::new(span, message));
            }
            return Ok(Typed::truth(combine(op, a.expr, b.expr, 1)));
        }
        let a = self.typed(left)?;
        let b = self.typed(right)?;
        if matches!(op, Binary::ShiftLeft | Binary::ShiftRight) {
            return shift(op, a, b, span, right.span);
        }
        let (a, b, kind) = match (a.kind, b.kind) {
            (Kind::Bit(x), Kind::Bit(y)) if x == y => (a.expr, b.expr, Kind::Bit(x)),
            (Kind::Bit(x), Kind::Number) => (a.expr, fit(b.expr, x, right.span)?, Kind::Bit(x)),
            (Kind::Number, Kind::Bit(y)) => (fit(a.expr, y, left.span)?, b.expr, Kind::Bit(y)),
            (Kind::Number, Kind::Number) => (a.expr, b.expr, Kind::Number),
            (Kind::Bool, Kind::Bool) if matches!(op, Binary::Equal | Binary::NotEqual) => {
                (a.expr, b.expr, Kind::Bool)
            }
            (x, y) => {
                let message = format!(
                    "the operands are {} and {}: write a cast",
                    x.written(),
                    y.written()
                );
                return Err(Fault::new(span, message));
            }
        };
        if op.is_comparison() {
            return Ok(Typed::truth(combine(op, a, b, 64)));
        }
        match kind {
            Kind::Bool => Err(Fault::new(span, "expected bits, found bool")),
            Kind::Bit(width) => Ok(Typed::bits(combine(op, a, b, width), width)),
            Kind::Number => {
                let expr = constant(op, &a, &b)
                    .ok_or_else(|| Fault::new(span, "the number leaves 0 to 2^64 - 1"))?;
                Ok(Typed {
                    expr,
                    kind: Kind::Number,
                })
            }
        }
    }

    fn cast(&mut self, ty: &ast::TypeRef, of: &ast::Expr, span: Span) -> Checked<Typed> {
        let to = match self.resolve(ty)? {
            Type::Bit(width) => width,
            other => {
                let message = format!("cannot cast to {}: compare instead", other.written());
                return Err(Fault::new(ty.span, message));
            }
        };
        let inner = self.typed(of)?;
        let from = match inner.kind {
            Kind::Number => return Ok(Typed::bits(fit(inner.expr, to, of.span)?, to)),
            Kind::Bit(from) => from,
            Kind::Bool => {
                let message = "a condition is no number: write if and assign";
                return Err(Fault::new(span, message));
            }
        };
        if to < from && self.significant(&inner.expr, from) > to {
            let message = format!(
                "bits may be cut off, which is undefined on the card: mask with & {:#x}, or slice",
                ones(to)
            );
            return Err(Fault::against(CardRule::NarrowingCast, span, message));
        }
        let expr = if to < from {
            Expr::Extract {
                of: Box::new(inner.expr),
                shift: 0,
                mask: ones(to),
            }
        } else {
            inner.expr
        };
        Ok(Typed::bits(fold(expr), to))
    }

    /// An upper bound on the bits that can be set in an expression of `width` bits.
    fn significant(&self, expr: &Expr, width: u32) -> u32 {
        let bits = |expr: &Expr| self.significant(expr, width);
        match expr {
            Expr::Const(value) => 64 - value.leading_zeros(),
            Expr::Extract { mask, .. } => 64 - mask.leading_zeros(),
            Expr::Binary {
                op, left, right, ..
            } => match (op, &**right) {
                (Op::BitAnd, _) => bits(left).min(bits(right)),
                (Op::BitOr | Op::BitXor, _) => bits(left).max(bits(right)),
                (Op::ShiftRight, Expr::Const(by)) => {
                    bits(left).saturating_sub(u32::try_from(*by).unwrap_or(64))
                }
                _ => width,
            },
            // A widening cast is no node of its own: fields know their width.
            Expr::Field(slot, header) => {
                let header = &self.headers[*header];
                header.widths[slot - header.first_slot]
            }
            _ => width,
        }
    }
}

fn shift(op: Binary, a: Typed, b: Typed, span: Span, by: Span) -> Checked<Typed> {
    let Kind::Bit(width) = a.kind else {
        if let (Kind::Number, Some(expr)) = (a.kind, constant(op, &a.expr, &b.expr)) {
            let kind = Kind::Number;
            return Ok(Typed { expr, kind });
        }
        return Err(Fault::new(span, "expected bits to shift"));
    };
    match b.expr {
        Expr::Const(distance) if distance < u64::from(width) => {
            Ok(Typed::bits(combine(op, a.expr, b.expr, width), width))
        }
        Expr::Const(_) => {
            let message = format!("{width} bits are shifted by less than {width}");
            Err(Fault::new(by, message))
        }
        _ => Err(Fault::new(by, "the distance of a shift is a constant")),
    }
}

fn fit(expr: Expr, width: u32, span: Span) -> Checked<Expr> {
    match expr {
        Expr::Const(value) if value <= ones(width) => Ok(expr),
        Expr::Const(value) => Err(Fault::new(
            span,
            format!("{value} does not fit in {width} bits"),
        )),
        // Numbers without a width are constants.
        other => Ok(other),
    }
}

/// Exact arithmetic on numbers without a width.
fn constant(op: Binary, a: &Expr, b: &Expr) -> Option<Expr> {
    let (Expr::Const(a), Expr::Const(b)) = (a, b) else {
        return None;
    };
    let value = match op {
        Binary::Add => a.checked_add(*b)?,
        Binary::Subtract => a.checked_sub(*b)?,
        Binary::BitOr => a | b,
        Binary::BitXor => a ^ b,
        Binary::BitAnd => a & b,
        Binary::ShiftLeft if *b < u64::from(a.leading_zeros()) => a << b,
        Binary::ShiftRight if *b < 64 => a >> b,
        _ => return None,
    };
    Some(Expr::Const(value))
}

fn combine(op: Binary, left: Expr, right: Expr, width: u32) -> Expr {
    let op = match op {
        Binary::Or => Op::Or,
        Binary::And => Op::And,
        Binary::Equal => Op::Equal,
        Binary::NotEqual => Op::NotEqual,
        Binary::Less => Op::Less,
        Binary::LessEqual => Op::LessEqual,
        Binary::Greater => Op::Greater,
        Binary::GreaterEqual => Op::GreaterEqual,
        Binary::BitOr => Op::BitOr,
        Binary::BitXor => Op::BitXor,
        Binary::BitAnd => Op::BitAnd,
        Binary::ShiftLeft => Op::ShiftLeft,
        Binary::ShiftRight => Op::ShiftRight,
        Binary::Add => Op::Add,
        Binary::Subtract => Op::Subtract,
    };
    fold(Expr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
        mask: ones(width),
    })
}

/// Evaluates what is constant.
fn fold(expr: Expr) -> Expr {
    let known = |expr: &Expr| matches!(expr, Expr::Const(_));
    let all_known = match &expr {
        Expr::Not(of) | Expr::Complement(of, _) | Expr::Negate(of, _) => known(of),
        Expr::Extract { of, .. } => known(of),
        Expr::Binary { left, right, .. } => known(left) && known(right),
        _ => false,
    };
    if all_known {
        Expr::Const(crate::interp::constant(&expr))
    } else {
        expr
    }
}
