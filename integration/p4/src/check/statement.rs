//! Statements.

use std::collections::HashMap;

use super::expr::Target;
use super::{Checker, Meaning, Place};
use crate::ast::{self, ExprKind, Type};
use crate::ir::{HeaderId, Statement, ones};
use crate::rules::CardRule;
use crate::source::{Checked, Fault, Span};

impl Checker {
    /// The statements of a block, in a scope of their own.
    pub(super) fn block(&mut self, body: &[ast::Statement]) -> Checked<Vec<Statement>> {
        self.names.push(HashMap::new());
        let mut checked = Vec::new();
        for statement in body {
            self.statement(statement, &mut checked)?;
        }
        self.names.pop();
        Ok(checked)
    }

    fn statement(&mut self, statement: &ast::Statement, out: &mut Vec<Statement>) -> Checked<()> {
        match statement {
            ast::Statement::Assign { to, value } => self.assign(to, value, out),
            ast::Statement::AssignList { to, values } => self.assign_list(to, values, out),
            ast::Statement::Call(call) => {
                let statement = self.call(call)?;
                out.extend(statement);
                Ok(())
            }
            ast::Statement::Block(body) => {
                let body = self.block(body)?;
                out.extend(body);
                Ok(())
            }
            ast::Statement::If {
                condition,
                then,
                otherwise,
            } => {
                if self.place == Place::Parser {
                    let message = "a parser decides with select";
                    return Err(Fault::new(condition.span, message));
                }
                if self.in_action {
                    let message = "an action has no if: decide in the apply block";
                    return Err(Fault::new(condition.span, message));
                }
                let span = condition.span;
                let condition = self.condition(condition)?;
                let then = self.block(then)?;
                let otherwise = self.block(otherwise)?;
                out.push(Statement::If {
                    condition,
                    then,
                    otherwise,
                    span,
                });
                Ok(())
            }
            ast::Statement::Local { ty, name, value } => {
                if self.place == Place::Parser {
                    let message = "a parser has no variables: use a word of metadata";
                    return Err(Fault::new(name.span, message));
                }
                if matches!(self.resolve(ty)?, Type::Bool) {
                    let message = "a variable is bit<N>: write if for conditions";
                    return Err(Fault::new(ty.span, message));
                }
                self.refuse_nine_bits(ty, name)?;
                let width = self.bits(ty)?;
                let value = self.value(value, width)?;
                let slot = self.slots;
                self.slots += 1;
                let span = name.span;
                self.declare(name.clone(), Meaning::Slot(slot, width))?;
                out.push(Statement::Set { slot, value, span });
                Ok(())
            }
        }
    }

    fn assign(
        &mut self,
        to: &ast::Expr,
        value: &ast::Expr,
        out: &mut Vec<Statement>,
    ) -> Checked<()> {
        if self.place == Place::Deparser {
            return Err(Fault::new(to.span, "a deparser only emits"));
        }
        let span = to.span;
        if let ExprKind::Slice(of, high, low) = &to.kind {
            let target = self.target(of)?;
            let (high, low) = self.bounds(high, low, target.width)?;
            let value = self.value(value, high - low + 1)?;
            out.push(Statement::SetSlice {
                slot: target.slot,
                header: target.header,
                low,
                mask: ones(high - low + 1),
                value,
                span,
            });
            return Ok(());
        }
        if let (Some(left), Some(right)) = (self.header(to)?, self.header(value)?) {
            let message = format!(
                "copy the fields of {} one by one into {}",
                self.headers[right].name, self.headers[left].name
            );
            return Err(Fault::new(span, message));
        }
        let target = self.target(to)?;
        if target.slot == self.standard.ingress_port
            || target.slot == self.standard.egress_port
            || target.slot == self.standard.packet_length
        {
            return Err(Fault::new(span, "the card sets this; write egress_spec"));
        }
        let value = self.value(value, target.width).map_err(|fault| {
            // p4c's ports have nine bits: say so instead of talking about casts.
            if target.slot == self.standard.egress_spec && fault.message.contains("bit<9>") {
                let message = "ports have 16 bits on the card: write bit<16>";
                return Fault::against(CardRule::PortWidth, fault.span, message);
            }
            fault
        })?;
        out.push(set(target, value, span));
        Ok(())
    }

    /// `header = { a, b };`
    fn assign_list(
        &mut self,
        to: &ast::Expr,
        values: &[ast::Expr],
        out: &mut Vec<Statement>,
    ) -> Checked<()> {
        let Some(header) = self.header(to)? else {
            return Err(Fault::new(to.span, "a list is assigned to a header"));
        };
        let (first, widths) = (
            self.headers[header].first_slot,
            self.headers[header].widths.clone(),
        );
        if values.len() != widths.len() {
            let message = format!("the header has {} fields", widths.len());
            return Err(Fault::new(to.span, message));
        }
        // As the language has it, assigning to a header makes it valid.
        self.note_validity(header, to.span)?;
        out.push(Statement::Valid(header, true));
        for (index, (value, width)) in values.iter().zip(widths).enumerate() {
            let value = self.value(value, width)?;
            let target = Target {
                slot: first + index,
                header: Some(header),
                width,
            };
            out.push(set(target, value, to.span));
        }
        Ok(())
    }

    fn call(&mut self, call: &ast::Expr) -> Checked<Option<Statement>> {
        let ExprKind::Call(callee, arguments) = &call.kind else {
            return Err(Fault::new(call.span, "expected a call"));
        };
        match &callee.kind {
            ExprKind::Name(name) => self.call_named(name, arguments, callee.span).map(Some),
            ExprKind::Member(of, method) => self.call_method(of, method, arguments),
            _ => Err(Fault::new(callee.span, "this cannot be called")),
        }
    }

    fn call_named(
        &mut self,
        name: &str,
        arguments: &[ast::Expr],
        span: Span,
    ) -> Checked<Statement> {
        if matches!(self.place, Place::Parser | Place::Deparser) {
            let message = "parser and deparser call methods of packet and headers only";
            return Err(Fault::new(span, message));
        }
        match (name, self.lookup(name).cloned()) {
            ("mark_to_drop", None) => {
                if arguments.is_empty() {
                    return Ok(Statement::Drop);
                }
                let message = "the card's mark_to_drop() takes no argument";
                Err(Fault::against(CardRule::DropArguments, span, message))
            }
            ("NoAction", None) => {
                let message = "NoAction stands in a table's list of actions only";
                Err(Fault::against(CardRule::NoActionInTables, span, message))
            }
            (_, Some(Meaning::Extern(index))) => {
                if arguments.is_empty() {
                    return Ok(Statement::Extern(index));
                }
                let message = "an extern takes no arguments: write words of metadata before";
                Err(Fault::against(CardRule::ExternArguments, span, message))
            }
            (_, Some(Meaning::Action(_))) if self.in_action => {
                Err(Fault::new(span, "an action calls no other action"))
            }
            (_, Some(Meaning::Action(action))) => {
                let widths: Vec<u32> = self.actions[action]
                    .params
                    .iter()
                    .map(|param| param.width)
                    .collect();
                if arguments.len() != widths.len() {
                    let message = format!("`{name}` takes {} arguments", widths.len());
                    return Err(Fault::new(span, message));
                }
                let arguments = arguments
                    .iter()
                    .zip(widths)
                    .map(|(argument, width)| self.value(argument, width))
                    .collect::<Checked<_>>()?;
                self.called.push((action, span));
                Ok(Statement::Act {
                    action,
                    arguments,
                    span,
                })
            }
            _ => Err(Fault::new(
                span,
                format!("there is no action or extern `{name}` before this line"),
            )),
        }
    }

    fn call_method(
        &mut self,
        of: &ast::Expr,
        method: &ast::Name,
        arguments: &[ast::Expr],
    ) -> Checked<Option<Statement>> {
        let span = method.span;
        let none = |what: &str| {
            if arguments.is_empty() {
                Ok(())
            } else {
                Err(Fault::new(span, format!("{what} takes no argument")))
            }
        };
        match method.text.as_str() {
            "apply" => {
                let ExprKind::Name(name) = &of.kind else {
                    return Err(Fault::new(of.span, "expected a table"));
                };
                let Some(Meaning::Table(table)) = self.lookup(name).cloned() else {
                    return Err(Fault::new(of.span, format!("there is no table `{name}`")));
                };
                none("apply()")?;
                if self.in_action {
                    let message = "an action applies no table";
                    return Err(Fault::new(span, message));
                }
                Ok(Some(Statement::Apply { table }))
            }
            "extract" if self.is(of, |m| matches!(m, Meaning::PacketIn)) => {
                self.extract(arguments, span).map(Some)
            }
            "setValid" | "setInvalid" => {
                none("it")?;
                if matches!(self.place, Place::Parser | Place::Deparser) {
                    let message = "headers are made valid in ingress and egress";
                    return Err(Fault::new(span, message));
                }
                let Some(header) = self.header(of)? else {
                    return Err(Fault::new(of.span, "expected a header"));
                };
                let valid = method.text == "setValid";
                if valid {
                    self.note_validity(header, span)?;
                }
                Ok(Some(Statement::Valid(header, valid)))
            }
            "isValid" => {
                let message = "isValid() stands in a condition";
                Err(Fault::against(CardRule::ValidInConditions, span, message))
            }
            "push_front" | "pop_front" => {
                let message = "headers of a stack are neither pushed nor popped in the subset";
                Err(Fault::new(span, message))
            }
            other => Err(Fault::new(
                span,
                format!("the subset has no method `{other}`"),
            )),
        }
    }

    fn extract(&mut self, arguments: &[ast::Expr], span: Span) -> Checked<Statement> {
        let [argument] = arguments else {
            let message = "extract takes one header; the subset has no varbit";
            return Err(Fault::new(span, message));
        };
        if let ExprKind::Member(of, next) = &argument.kind
            && let Some(stack) = self.stack(of)
        {
            if next.text == "next" {
                return Ok(Statement::ExtractNext(stack));
            }
            return Err(Fault::new(next.span, "write .next"));
        }
        match self.header(argument)? {
            Some(0) => Err(Fault::against(
                CardRule::MacCommandOnEgress,
                span,
                "frames do not arrive with the MAC's command",
            )),
            Some(header) => Ok(Statement::Extract(header)),
            None => Err(Fault::new(
                argument.span,
                "expected a header, or .next of a stack",
            )),
        }
    }

    /// Notes that `nfp_mac_eg_cmd`, the first header, becomes valid here.
    fn note_validity(&mut self, header: HeaderId, span: Span) -> Checked<()> {
        if header != 0 {
            return Ok(());
        }
        if !self.in_action || self.place != Place::Egress {
            let message = "valid on physical egress only: set it in an action of an egress table keyed on egress_port";
            return Err(Fault::against(CardRule::MacCommandOnEgress, span, message));
        }
        // The action is appended to the list when it is done.
        self.mac_commands.push((self.actions.len(), span));
        Ok(())
    }
}

const fn set(target: Target, value: crate::ir::Expr, span: Span) -> Statement {
    let slot = target.slot;
    match target.header {
        None => Statement::Set { slot, value, span },
        Some(header) => Statement::SetField {
            slot,
            header,
            value,
            span,
        },
    }
}
