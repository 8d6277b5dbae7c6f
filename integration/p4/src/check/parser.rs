//! The parser: its states, and that it ends.

use std::collections::HashMap;

use super::expr::Kind;
use super::{Bound, Checker, Place};
use crate::ast::{self, KeySet, Name, Transition};
use crate::ir::{Case, State, Statement, ones};
use crate::source::{Checked, Fault};

impl Checker {
    /// Checks the parser; returns its first state.
    pub(super) fn parser(&mut self, parser: ast::Parser) -> Checked<usize> {
        self.place = Place::Parser;
        self.names.push(HashMap::new());
        let wanted = [
            Bound::PacketIn,
            Bound::Headers("out"),
            Bound::Metadata,
            Bound::Standard,
        ];
        self.bind(parser.params, &wanted, &parser.name)?;
        let mut index = HashMap::new();
        for (number, state) in parser.states.iter().enumerate() {
            let name = &state.name;
            if ["accept", "reject"].contains(&name.text.as_str())
                || index.insert(name.text.clone(), number).is_some()
            {
                let message = format!("the state `{}` is there already", name.text);
                return Err(Fault::new(name.span, message));
            }
        }
        for state in &parser.states {
            let checked = self.state(state, &index)?;
            self.states.push(checked);
        }
        self.names.pop();
        self.parser_ends()?;
        index
            .get("start")
            .copied()
            .ok_or_else(|| Fault::new(parser.name.span, "a parser starts in the state `start`"))
    }

    fn state(&mut self, state: &ast::State, index: &HashMap<String, usize>) -> Checked<State> {
        let body = self.block(&state.body)?;
        let to = |name: &Name| match name.text.as_str() {
            "accept" => Ok(None),
            "reject" => Err(Fault::new(
                name.span,
                "what the card does with a rejected frame is not public: accept it and drop it in ingress",
            )),
            other => match index.get(other) {
                Some(number) => Ok(Some(*number)),
                None => Err(Fault::new(
                    name.span,
                    format!("there is no state `{other}`"),
                )),
            },
        };
        let (keys, cases) = match &state.transition {
            Transition::To(name) => {
                let to = to(name)?;
                let sets = Vec::new();
                (Vec::new(), vec![Case { sets, to }])
            }
            Transition::Select { keys, cases } => {
                let mut typed = Vec::new();
                let mut widths = Vec::new();
                for key in keys {
                    let checked = self.typed(key)?;
                    let Kind::Bit(width) = checked.kind else {
                        return Err(Fault::new(key.span, "select takes bits"));
                    };
                    typed.push(checked.expr);
                    widths.push(width);
                }
                let mut checked = Vec::new();
                for case in cases {
                    let sets = self.sets(case, &widths)?;
                    checked.push(Case {
                        sets,
                        to: to(&case.to)?,
                    });
                }
                let total = |case: &Case| case.sets.iter().all(|(_, mask)| *mask == 0);
                if !checked.iter().any(total) {
                    let message = "a select names every case: add default: accept;";
                    return Err(Fault::new(state.name.span, message));
                }
                (typed, checked)
            }
        };
        Ok(State {
            body,
            keys,
            cases,
            span: state.name.span,
        })
    }

    fn sets(&mut self, case: &ast::Case, widths: &[u32]) -> Checked<Vec<(u64, u64)>> {
        if let ([KeySet::Any], true) = (case.sets.as_slice(), widths.len() > 1) {
            return Ok(vec![(0, 0); widths.len()]);
        }
        if case.sets.len() != widths.len() {
            let message = format!("the select has {} keys", widths.len());
            return Err(Fault::new(case.span, message));
        }
        let mut sets = Vec::new();
        for (set, &width) in case.sets.iter().zip(widths) {
            sets.push(match set {
                KeySet::Any => (0, 0),
                KeySet::Value(value) => (self.fixed(value, width)?, ones(width)),
                KeySet::Masked(value, mask) => {
                    let mask = self.fixed(mask, width)?;
                    (self.fixed(value, width)? & mask, mask)
                }
            });
        }
        Ok(sets)
    }

    /// Every circle of states takes something from the packet, so that no packet keeps the parser busy for ever.
    fn parser_ends(&self) -> Checked<()> {
        const ON_PATH: u8 = 1;
        const DONE: u8 = 2;
        let extracts = |state: &State| {
            state.body.iter().any(|statement| {
                matches!(statement, Statement::Extract(_) | Statement::ExtractNext(_))
            })
        };
        let mut marks = vec![0; self.states.len()];
        for start in 0..self.states.len() {
            // Depth first without recursion: a state, and how many of its cases were followed.
            let mut path = vec![(start, 0)];
            while let Some((state, next)) = path.pop() {
                if marks[state] == DONE || extracts(&self.states[state]) {
                    marks[state] = DONE;
                    continue;
                }
                marks[state] = ON_PATH;
                let Some(case) = self.states[state].cases.get(next) else {
                    marks[state] = DONE;
                    continue;
                };
                path.push((state, next + 1));
                let Some(to) = case.to else { continue };
                if marks[to] == ON_PATH {
                    let message = "these states go in a circle without extracting anything";
                    return Err(Fault::new(self.states[to].span, message));
                }
                path.push((to, 0));
            }
        }
        Ok(())
    }
}
