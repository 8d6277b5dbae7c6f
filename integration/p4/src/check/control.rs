//! Controls and the deparser.

use std::collections::HashMap;

use super::{Bound, Checker, Meaning, Place};
use crate::ast::{self, ExprKind};
use crate::ir::{Action, Expr, HeaderId, MatchKind, Param, Statement, Table};
use crate::rules::CardRule;
use crate::source::{Checked, Fault};

impl Checker {
    pub(super) fn control(
        &mut self,
        control: ast::Control,
        place: Place,
    ) -> Checked<Vec<Statement>> {
        self.place = place;
        self.names.push(HashMap::new());
        let wanted = [Bound::Headers("inout"), Bound::Metadata, Bound::Standard];
        self.bind(control.params, &wanted, &control.name)?;
        // The card's rules files know the two controls by these names, whatever they are called.
        let prefix = if place == Place::Ingress {
            "ingress"
        } else {
            "egress"
        };
        for action in control.actions {
            self.action(action, prefix)?;
        }
        for table in control.tables {
            self.table(table, prefix)?;
        }
        let body = self.block(&control.body)?;
        self.names.pop();
        Ok(body)
    }

    fn action(&mut self, action: ast::Action, prefix: &str) -> Checked<()> {
        self.names.push(HashMap::new());
        let mut params = Vec::new();
        for param in action.params {
            if param.direction.is_some() {
                let message = "parameters of an action come from the rules: without direction";
                return Err(Fault::new(param.ty.span, message));
            }
            self.refuse_nine_bits(&param.ty, &param.name)?;
            let width = self.bits(&param.ty)?;
            let slot = self.slots;
            self.slots += 1;
            params.push(Param {
                name: param.name.text.clone(),
                slot,
                width,
            });
            self.declare(param.name, Meaning::Slot(slot, width))?;
        }
        self.in_action = true;
        let body = self.block(&action.body)?;
        self.in_action = false;
        self.names.pop();
        self.actions.push(Action {
            name: format!("{prefix}::{}", action.name.text),
            params,
            body,
        });
        self.declare(action.name, Meaning::Action(self.actions.len() - 1))
    }

    /// Rule 9: the MAC's command is made valid only by tables that know the port.
    pub(super) fn check_mac_commands(&self) -> Checked<()> {
        let fault = |span| {
            let message = "valid on physical egress only: set it in an action of an egress table keyed on egress_port";
            Err(Fault::against(CardRule::MacCommandOnEgress, span, message))
        };
        for (action, span) in &self.mac_commands {
            let by_port = |table: &Table| {
                table.keys.iter().any(|key| {
                    let port = self.standard.egress_port;
                    key.kind == MatchKind::Exact
                        && matches!(key.expr, Expr::Slot(slot) if slot == port)
                })
            };
            let by_others = self.tables.iter().any(|table| {
                table.actions.iter().any(|(_, of)| *of == Some(*action)) && !by_port(table)
            });
            let as_default = self.tables.iter().any(|table| {
                table
                    .default
                    .as_ref()
                    .is_some_and(|(index, _)| table.actions[*index].1 == Some(*action))
            });
            let called = self.called.iter().any(|(of, _)| of == action);
            if by_others || as_default || called {
                return fault(*span);
            }
        }
        Ok(())
    }

    pub(super) fn deparser(&mut self, control: ast::Control) -> Checked<Vec<HeaderId>> {
        self.place = Place::Deparser;
        self.names.push(HashMap::new());
        let wanted = [Bound::PacketOut, Bound::Headers("in")];
        self.bind(control.params, &wanted, &control.name)?;
        if !(control.actions.is_empty() && control.tables.is_empty()) {
            return Err(Fault::new(control.name.span, "a deparser only emits"));
        }
        let mut emitted: Vec<HeaderId> = Vec::new();
        for statement in &control.body {
            let ast::Statement::Call(call) = statement else {
                return Err(Fault::new(control.name.span, "a deparser only emits"));
            };
            for header in self.emit(call)? {
                if emitted.contains(&header) {
                    let message = format!("{} is emitted twice", self.headers[header].name);
                    return Err(Fault::new(call.span, message));
                }
                emitted.push(header);
            }
        }
        if emitted.first() != Some(&0) {
            return Err(Fault::against(
                CardRule::MacCommandFirst,
                control.name.span,
                "the MAC's command is emitted first",
            ));
        }
        self.names.pop();
        Ok(emitted)
    }

    fn emit(&mut self, call: &ast::Expr) -> Checked<Vec<HeaderId>> {
        let wanted = || Fault::new(call.span, "write packet.emit(header);");
        let ExprKind::Call(callee, arguments) = &call.kind else {
            return Err(wanted());
        };
        let (ExprKind::Member(packet, method), [argument]) = (&callee.kind, arguments.as_slice())
        else {
            return Err(wanted());
        };
        if method.text != "emit" || !self.is(packet, |m| matches!(m, Meaning::PacketOut)) {
            return Err(wanted());
        }
        if self.is(argument, |m| matches!(m, Meaning::Headers)) {
            return Ok((0..self.headers.len()).collect());
        }
        if let Some(stack) = self.stack(argument) {
            let stack = &self.stacks[stack];
            return Ok((stack.first..stack.first + stack.len).collect());
        }
        self.header(argument)?
            .map(|header| vec![header])
            .ok_or_else(wanted)
    }
}
