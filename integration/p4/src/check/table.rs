//! Tables.

use super::{Checker, Meaning};
use crate::ast::{self, ExprKind};
use crate::ir::{Key, MatchKind, Table};
use crate::rules::CardRule;
use crate::source::{Checked, Fault};

use super::expr::Kind;

/// More rules than the card has memory for.
const MAX_SIZE: u64 = 1 << 24;

impl Checker {
    pub(super) fn table(&mut self, table: ast::Table, prefix: &str) -> Checked<()> {
        let name = table.name;
        let mut keys = Vec::new();
        for (expr, kind) in &table.keys {
            keys.push(self.key(expr, kind)?);
        }
        let mut actions = Vec::new();
        for action in &table.actions {
            if action.text == "NoAction" {
                actions.push((action.text.clone(), None));
                continue;
            }
            let Some(Meaning::Action(index)) = self.lookup(&action.text).cloned() else {
                let message = format!("there is no action `{}` before this line", action.text);
                return Err(Fault::new(action.span, message));
            };
            actions.push((self.actions[index].name.clone(), Some(index)));
        }
        if actions.is_empty() {
            return Err(Fault::new(name.span, "a table has actions"));
        }
        let default = match &table.default {
            None => None,
            Some((action, arguments)) => Some(self.default_of(&actions, action, arguments)?),
        };
        let size = match &table.size {
            None => 1024,
            Some(size) => {
                let value = self.fixed(size, 32)?;
                if value == 0 || value > MAX_SIZE {
                    let message = format!("a table has 1 to {MAX_SIZE} rules");
                    return Err(Fault::new(size.span, message));
                }
                value
            }
        };
        self.tables.push(Table {
            name: format!("{prefix}::{}", name.text),
            keys,
            actions,
            default,
            size: size as usize,
        });
        self.declare(name, Meaning::Table(self.tables.len() - 1))
    }

    fn default_of(
        &mut self,
        actions: &[(String, Option<usize>)],
        action: &ast::Name,
        arguments: &[ast::Expr],
    ) -> Checked<(usize, Vec<u64>)> {
        let wanted = match self.lookup(&action.text) {
            Some(Meaning::Action(index)) => Some(*index),
            _ if action.text == "NoAction" => None,
            _ => {
                let message = format!("there is no action `{}`", action.text);
                return Err(Fault::new(action.span, message));
            }
        };
        let Some(position) = actions.iter().position(|(_, of)| *of == wanted) else {
            let message = format!("`{}` is not in the table's actions", action.text);
            return Err(Fault::new(action.span, message));
        };
        let widths: Vec<u32> = wanted.map_or_else(Vec::new, |index| {
            let params = &self.actions[index].params;
            params.iter().map(|param| param.width).collect()
        });
        if widths.len() != arguments.len() {
            let message = format!("`{}` takes {} arguments", action.text, widths.len());
            return Err(Fault::new(action.span, message));
        }
        let values = arguments
            .iter()
            .zip(widths)
            .map(|(argument, width)| self.fixed(argument, width))
            .collect::<Checked<_>>()?;
        Ok((position, values))
    }

    fn key(&mut self, expr: &ast::Expr, kind: &ast::Name) -> Checked<Key> {
        let match_kind = match kind.text.as_str() {
            "exact" => MatchKind::Exact,
            "ternary" => MatchKind::Ternary,
            "header_valid" | "valid" => {
                let message =
                    "the card has no match kind header_valid: decide with isValid() in an if";
                return Err(Fault::against(CardRule::MatchKind, kind.span, message));
            }
            other => {
                let message = format!("`{other}` is not in the subset: exact or ternary");
                return Err(Fault::new(kind.span, message));
            }
        };
        let name = self.key_name(expr);
        let typed = self.typed(expr)?;
        let (Some(name), Kind::Bit(width)) = (name, typed.kind) else {
            let message = "a key is a field or a word, by its name";
            return Err(Fault::new(expr.span, message));
        };
        Ok(Key {
            name,
            expr: typed.expr,
            width,
            kind: match_kind,
            span: expr.span,
        })
    }

    /// What rules files call a key: words of user metadata become members of `scalars`.
    fn key_name(&self, expr: &ast::Expr) -> Option<String> {
        let ExprKind::Member(of, field) = &expr.kind else {
            return None;
        };
        if self.is(of, |m| matches!(m, Meaning::Metadata)) {
            let metadata = self.metadata_type.as_deref()?;
            return Some(format!("scalars.{metadata}@{}", field.text));
        }
        if self.is(of, |m| matches!(m, Meaning::Standard)) {
            return Some(format!("standard_metadata.{}", field.text));
        }
        match &of.kind {
            ExprKind::Member(_, header) => Some(format!("hdr.{}.{}", header.text, field.text)),
            _ => None,
        }
    }
}
