//! Controls: actions, tables and the apply block.

use super::Syntax;
use crate::ast::{Action, Control, Expr, Name, Table};
use crate::source::{Checked, Fault};

impl Syntax {
    pub(super) fn control(&mut self) -> Checked<Control> {
        let name = self.name("the control's name")?;
        let params = self.params()?;
        self.expect("{")?;
        let mut control = Control {
            name,
            params,
            actions: Vec::new(),
            tables: Vec::new(),
            body: Vec::new(),
        };
        loop {
            self.refuse_left_out()?;
            if self.take_word("action") {
                control.actions.push(self.action()?);
            } else if self.take_word("table") {
                control.tables.push(self.table()?);
            } else if self.take_word("apply") {
                control.body = self.block()?;
                self.expect("}")?;
                return Ok(control);
            } else if self.is("}") {
                let message = "a control ends with its apply block: write apply { }";
                return Err(Fault::new(self.span(), message));
            } else {
                return Err(self.unexpected("action, table or apply"));
            }
        }
    }

    fn action(&mut self) -> Checked<Action> {
        let name = self.name("the action's name")?;
        let params = self.params()?;
        let body = self.block()?;
        Ok(Action { name, params, body })
    }

    fn table(&mut self) -> Checked<Table> {
        let name = self.name("the table's name")?;
        let mut table = Table {
            name,
            keys: Vec::new(),
            actions: Vec::new(),
            default: None,
            size: None,
        };
        self.expect("{")?;
        while !self.take("}") {
            self.refuse_left_out()?;
            let property = self.name("key, actions, default_action or size")?;
            self.expect("=")?;
            match property.text.as_str() {
                "key" => table.keys = self.keys()?,
                "actions" => table.actions = self.table_actions()?,
                "default_action" => {
                    table.default = Some(self.default_action()?);
                    self.expect(";")?;
                }
                "size" => {
                    table.size = Some(self.expression()?);
                    self.expect(";")?;
                }
                other => {
                    let message = format!("the subset has no table property `{other}`");
                    return Err(Fault::new(property.span, message));
                }
            }
        }
        Ok(table)
    }

    fn keys(&mut self) -> Checked<Vec<(Expr, Name)>> {
        self.expect("{")?;
        let mut keys = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            let kind = self.name("exact or ternary")?;
            self.expect(";")?;
            keys.push((key, kind));
        }
        Ok(keys)
    }

    fn table_actions(&mut self) -> Checked<Vec<Name>> {
        self.expect("{")?;
        let mut actions = Vec::new();
        while !self.take("}") {
            self.refuse_left_out()?;
            actions.push(self.name("an action")?);
            self.expect(";")?;
        }
        Ok(actions)
    }

    fn default_action(&mut self) -> Checked<(Name, Vec<Expr>)> {
        let name = self.name("an action")?;
        let arguments = if self.take("(") {
            self.list(")")?
        } else {
            Vec::new()
        };
        Ok((name, arguments))
    }
}
