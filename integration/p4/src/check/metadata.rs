//! The card does not zero user metadata: on every path, that of a frame that ends early too, each word is written
//! before it is read.

use crate::ir::{Expr, Program, Slot, State, Statement, Table};
use crate::rules::CardRule;
use crate::source::{Checked, Fault, Span};

/// Words written so far, one bit each.
type Written = u64;

struct Analysis<'a> {
    program: &'a Program,
    /// Words by slot: the name, for messages.
    words: Vec<Option<(u32, &'a str)>>,
}

pub(super) fn check(program: &Program) -> Checked<()> {
    let mut words = vec![None; program.slots];
    for (bit, (name, (slot, _))) in program.metadata.iter().enumerate() {
        words[*slot] = Some((bit as u32, name.as_str()));
    }
    let analysis = Analysis { program, words };
    let parsed = analysis.parser()?;
    let after = analysis.statements(&program.ingress, parsed)?;
    analysis.statements(&program.egress, after)?;
    Ok(())
}

impl Analysis<'_> {
    /// What is written when the parser ends, wherever it does.
    fn parser(&self) -> Checked<Written> {
        let states = &self.program.states;
        let mut before: Vec<Written> = vec![Written::MAX; states.len()];
        let mut reached = vec![false; states.len()];
        let mut pending = vec![self.program.start];
        let mut end = Written::MAX;
        before[self.program.start] = 0;
        reached[self.program.start] = true;
        // Sets only shrink, at most 64 times each.
        while let Some(index) = pending.pop() {
            let after = self.state(&states[index], before[index], &mut end)?;
            for case in &states[index].cases {
                let Some(to) = case.to else {
                    end &= after;
                    continue;
                };
                let known = before[to];
                before[to] &= after;
                if before[to] != known || !reached[to] {
                    reached[to] = true;
                    pending.push(to);
                }
            }
        }
        Ok(end)
    }

    fn state(&self, state: &State, mut written: Written, end: &mut Written) -> Checked<Written> {
        for statement in &state.body {
            if matches!(statement, Statement::Extract(_) | Statement::ExtractNext(_)) {
                *end &= written;
            }
            written = self.statement(statement, written)?;
        }
        for key in &state.keys {
            self.read(key, written, state.span)?;
        }
        Ok(written)
    }

    fn statements(&self, body: &[Statement], mut written: Written) -> Checked<Written> {
        for statement in body {
            written = self.statement(statement, written)?;
        }
        Ok(written)
    }

    fn statement(&self, statement: &Statement, written: Written) -> Checked<Written> {
        match statement {
            Statement::Set { slot, value, span } => {
                self.read(value, written, *span)?;
                Ok(written | self.bit(*slot))
            }
            Statement::SetField { value, span, .. } => {
                self.read(value, written, *span)?;
                Ok(written)
            }
            Statement::SetSlice {
                slot, value, span, ..
            } => {
                self.read(value, written, *span)?;
                // The other bits stay as they are, so they must be something.
                self.read(&Expr::Slot(*slot), written, *span)?;
                Ok(written)
            }
            Statement::Act {
                action,
                arguments,
                span,
            } => {
                for argument in arguments {
                    self.read(argument, written, *span)?;
                }
                self.statements(&self.program.actions[*action].body, written)
            }
            Statement::Apply { table } => self.apply(&self.program.tables[*table], written),
            Statement::If {
                condition,
                then,
                otherwise,
                span,
            } => {
                let written = self.read(condition, written, *span)?;
                let then = self.statements(then, written)?;
                let otherwise = self.statements(otherwise, written)?;
                Ok(then & otherwise)
            }
            // What C writes is not seen here: P4 gives it a value before.
            Statement::Extern(_)
            | Statement::Drop
            | Statement::Valid(..)
            | Statement::Extract(_)
            | Statement::ExtractNext(_) => Ok(written),
        }
    }

    /// Any of a table's actions may run, or none.
    fn apply(&self, table: &Table, written: Written) -> Checked<Written> {
        for key in &table.keys {
            self.read(&key.expr, written, key.span)?;
        }
        let mut after = Written::MAX;
        for (_, action) in &table.actions {
            after &= match action {
                Some(action) => self.statements(&self.program.actions[*action].body, written)?,
                None => written,
            };
        }
        Ok(if table.default.is_some() {
            after
        } else {
            written
        })
    }

    /// Checks what an expression reads; returns what is written after it, since it may apply a table.
    fn read(&self, expr: &Expr, written: Written, span: Span) -> Checked<Written> {
        match expr {
            Expr::Slot(slot) => {
                if let Some((bit, name)) = self.words[*slot]
                    && written & 1 << bit == 0
                {
                    let message = format!(
                        "metadata is not zero at first: `{name}` is read here but not written on every path before"
                    );
                    return Err(Fault::against(CardRule::UnsetMetadata, span, message));
                }
                Ok(written)
            }
            Expr::Hit(table) => self.apply(&self.program.tables[*table], written),
            Expr::Not(of) | Expr::Complement(of, _) | Expr::Negate(of, _) => {
                self.read(of, written, span)
            }
            Expr::Extract { of, .. } => self.read(of, written, span),
            Expr::Binary { left, right, .. } => {
                let after = self.read(left, written, span)?;
                // The right side may not run: what it writes does not count.
                self.read(right, after, span)?;
                Ok(after)
            }
            Expr::Const(_) | Expr::Field(..) | Expr::Last { .. } | Expr::Valid(_) => Ok(written),
        }
    }

    fn bit(&self, slot: Slot) -> Written {
        self.words[slot].map_or(0, |(bit, _)| 1 << bit)
    }
}
