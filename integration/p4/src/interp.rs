//! Executes packets: parser, ingress, egress, deparser, over loaded tables and plugged-in externs.

use crate::ir::{Expr, HeaderId, Op, Program, Slot, Statement, ones};
use crate::tables::{Loaded, Tables};

/// What an extern is handed, as the card hands it to C: the frame and the words of metadata.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The frame as received.
    pub frame: &'a [u8],
    program: &'a Program,
    slots: &'a mut [u64],
    valid: &'a [bool],
}

impl Packet<'_> {
    /// A word of metadata; 0 where the program has none of that name.
    pub fn get(&self, name: &str) -> u64 {
        let slot = self.program.metadata.get(name);
        slot.map_or(0, |(slot, _)| self.slots[*slot])
    }

    /// Sets a word of metadata, cut to its width; without effect where there is none of that name.
    pub fn set(&mut self, name: &str, value: u64) {
        if let Some((slot, width)) = self.program.metadata.get(name) {
            self.slots[*slot] = value & ones(*width);
        }
    }

    /// Whether the header of this name (`hdr.tcp`) is valid.
    pub fn is_valid(&self, name: &str) -> bool {
        let headers = &self.program.headers;
        let header = headers.iter().position(|header| header.name == name);
        header.is_some_and(|header| self.valid[header])
    }
}

/// What the program's externs do. Here the host-compiled Micro-C is plugged in.
pub trait Externs {
    /// Runs the extern of this name.
    fn call(&mut self, name: &str, packet: &mut Packet<'_>);
}

impl<F: FnMut(&str, &mut Packet<'_>)> Externs for F {
    fn call(&mut self, name: &str, packet: &mut Packet<'_>) {
        self(name, packet);
    }
}

/// What became of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// The port it leaves by; `None`: dropped.
    pub egress: Option<u16>,
    /// The frame as it leaves.
    pub frame: Vec<u8>,
    /// The parser came to an end before the frame did.
    pub truncated: bool,
    /// Fields that were read although their header is not valid: what the card gives there is undefined.
    pub undefined_reads: u32,
}

/// A program with its tables.
#[derive(Debug)]
pub struct Machine<'a> {
    program: &'a Program,
    tables: &'a Tables,
    slots: Vec<u64>,
    valid: Vec<bool>,
    /// Elements extracted into each stack.
    extracted: Vec<usize>,
    dropped: bool,
    undefined_reads: u32,
    key: Vec<u64>,
}

/// Stands in metadata at first: the card does not zero it.
const GARBAGE: u64 = 0xdead_beef_dead_beef;

struct Run<'a, 'b> {
    machine: &'b mut Machine<'a>,
    frame: &'b [u8],
    externs: &'b mut dyn Externs,
}

impl<'a> Machine<'a> {
    /// A machine for this program; `tables` were loaded for it.
    pub fn new(program: &'a Program, tables: &'a Tables) -> Self {
        Self {
            program,
            tables,
            slots: vec![0; program.slots],
            valid: vec![false; program.headers.len()],
            extracted: vec![0; program.stacks.len()],
            dropped: false,
            undefined_reads: 0,
            key: Vec::new(),
        }
    }

    /// Sends a frame through the program.
    pub fn process(
        &mut self,
        frame: &[u8],
        ingress_port: u16,
        externs: &mut dyn Externs,
    ) -> Outcome {
        let program = self.program;
        self.valid.fill(false);
        self.extracted.fill(0);
        self.dropped = false;
        self.undefined_reads = 0;
        for (slot, width) in program.metadata.values() {
            self.slots[*slot] = GARBAGE & ones(*width);
        }
        let standard = program.standard;
        self.slots[standard.ingress_port] = ingress_port.into();
        self.slots[standard.egress_spec] = 0;
        self.slots[standard.egress_port] = 0;
        self.slots[standard.packet_length] = frame.len() as u64 & ones(32);

        let mut run = Run {
            machine: self,
            frame,
            externs,
        };
        let (parsed, truncated) = run.parse();
        run.statements(&program.ingress);
        if !run.machine.dropped {
            let port = run.machine.slots[standard.egress_spec];
            run.machine.slots[standard.egress_port] = port;
            run.statements(&program.egress);
        }
        let egress = (!self.dropped).then(|| self.slots[standard.egress_spec] as u16);
        Outcome {
            egress,
            frame: self.deparse(frame.get(parsed..).unwrap_or_default()),
            truncated,
            undefined_reads: self.undefined_reads,
        }
    }

    /// A word of metadata after the last frame; `None` where the program has none of that name.
    pub fn metadata(&self, name: &str) -> Option<u64> {
        let (slot, _) = self.program.metadata.get(name)?;
        Some(self.slots[*slot])
    }

    fn deparse(&self, rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(rest.len() + 128);
        for &index in &self.program.emitted {
            if !self.valid[index] {
                continue;
            }
            let header = &self.program.headers[index];
            let mut bits = BitWriter::default();
            for (field, width) in header.widths.iter().enumerate() {
                bits.put(&mut out, self.slots[header.first_slot + field], *width);
            }
        }
        out.extend_from_slice(rest);
        out
    }
}

/// Bits to bytes, the most significant first; headers have whole bytes.
#[derive(Default)]
struct BitWriter {
    pending: u128,
    bits: u32,
}

impl BitWriter {
    fn put(&mut self, out: &mut Vec<u8>, value: u64, width: u32) {
        self.pending = self.pending << width | u128::from(value & ones(width));
        self.bits += width;
        while self.bits >= 8 {
            self.bits -= 8;
            out.push((self.pending >> self.bits) as u8);
        }
    }
}

impl Run<'_, '_> {
    /// Returns the bytes taken, and whether the frame ended too early.
    fn parse(&mut self) -> (usize, bool) {
        let program = self.machine.program;
        let mut offset = 0;
        let mut state = program.start;
        // Every circle of states extracts, so that this ends; the bound is for the eye.
        for _ in 0..=self.frame.len() * program.states.len() + program.states.len() {
            let current = &program.states[state];
            for statement in &current.body {
                let taken = match statement {
                    Statement::Extract(header) => self.extract(*header, &mut offset),
                    Statement::ExtractNext(stack) => self.extract_next(*stack, &mut offset),
                    other => {
                        self.statement(other);
                        true
                    }
                };
                if !taken {
                    return (offset, true);
                }
            }
            self.machine.key.clear();
            for key in &current.keys {
                let value = evaluate(key, &mut View::of(self.machine));
                self.machine.key.push(value);
            }
            let machine = &*self.machine;
            let matches = |sets: &[(u64, u64)]| {
                let mut pairs = sets.iter().zip(&machine.key);
                pairs.all(|((value, mask), key)| key & mask == *value)
            };
            let case = current.cases.iter().find(|case| matches(&case.sets));
            match case.and_then(|case| case.to) {
                Some(to) => state = to,
                None => break,
            }
        }
        (offset, false)
    }

    fn extract(&mut self, index: HeaderId, offset: &mut usize) -> bool {
        let header = &self.machine.program.headers[index];
        let Some(bytes) = self.frame.get(*offset..*offset + header.bytes) else {
            return false;
        };
        let (mut pending, mut bits, mut bytes) = (0u128, 0, bytes.iter());
        for (field, &width) in header.widths.iter().enumerate() {
            while bits < width {
                // The widths add up to the bytes.
                let byte = bytes.next().copied().unwrap_or_default();
                pending = pending << 8 | u128::from(byte);
                bits += 8;
            }
            bits -= width;
            self.machine.slots[header.first_slot + field] = (pending >> bits) as u64 & ones(width);
        }
        *offset += header.bytes;
        self.machine.valid[index] = true;
        true
    }

    fn extract_next(&mut self, index: usize, offset: &mut usize) -> bool {
        let stack = &self.machine.program.stacks[index];
        let next = self.machine.extracted[index];
        if next == stack.len || !self.extract(stack.first + next, offset) {
            return false;
        }
        self.machine.extracted[index] += 1;
        true
    }

    fn statements(&mut self, body: &[Statement]) {
        for statement in body {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Set { slot, value, .. } => {
                self.machine.slots[*slot] = self.evaluate(value);
            }
            Statement::SetField {
                slot,
                header,
                value,
                ..
            } => {
                let value = self.evaluate(value);
                if self.machine.valid[*header] {
                    self.machine.slots[*slot] = value;
                }
            }
            Statement::SetSlice {
                slot,
                header,
                low,
                mask,
                value,
                ..
            } => {
                let value = self.evaluate(value);
                if header.is_none_or(|header| self.machine.valid[header]) {
                    let before = self.machine.slots[*slot];
                    self.machine.slots[*slot] = before & !(mask << low) | value << low;
                }
            }
            Statement::Valid(header, valid) => self.machine.valid[*header] = *valid,
            Statement::If {
                condition,
                then,
                otherwise,
                ..
            } => {
                let branch = if self.evaluate(condition) != 0 {
                    then
                } else {
                    otherwise
                };
                self.statements(branch);
            }
            Statement::Apply { table } => {
                self.apply(*table);
            }
            Statement::Act {
                action, arguments, ..
            } => {
                let action = &self.machine.program.actions[*action];
                for (param, argument) in action.params.iter().zip(arguments) {
                    self.machine.slots[param.slot] = self.evaluate(argument);
                }
                self.statements(&action.body);
            }
            Statement::Extern(index) => {
                let program = self.machine.program;
                let mut packet = Packet {
                    frame: self.frame,
                    program,
                    slots: &mut self.machine.slots,
                    valid: &self.machine.valid,
                };
                self.externs.call(&program.externs[*index], &mut packet);
            }
            Statement::Drop => self.machine.dropped = true,
            // The parser runs these itself.
            Statement::Extract(_) | Statement::ExtractNext(_) => {}
        }
    }

    /// Applies a table: whether a rule matched.
    fn apply(&mut self, index: usize) -> bool {
        let program = self.machine.program;
        let table = &program.tables[index];
        let mut key = std::mem::take(&mut self.machine.key);
        key.clear();
        for part in &table.keys {
            key.push(self.evaluate(&part.expr));
        }
        let tables = self.machine.tables;
        let (rule, hit): (Option<&Loaded>, bool) = tables.find(index, &key);
        self.machine.key = key;
        if let Some(rule) = rule
            && let Some((_, Some(action))) = table.actions.get(rule.action)
        {
            let action = &program.actions[*action];
            for (param, value) in action.params.iter().zip(&rule.arguments) {
                self.machine.slots[param.slot] = *value;
            }
            self.statements(&action.body);
        }
        hit
    }

    fn evaluate(&mut self, expr: &Expr) -> u64 {
        match expr {
            Expr::Hit(table) => self.apply(*table).into(),
            Expr::Not(of) => (self.evaluate(of) == 0).into(),
            Expr::Binary {
                op: Op::And,
                left,
                right,
                ..
            } => (self.evaluate(left) != 0 && self.evaluate(right) != 0).into(),
            Expr::Binary {
                op: Op::Or,
                left,
                right,
                ..
            } => (self.evaluate(left) != 0 || self.evaluate(right) != 0).into(),
            // Everything else applies no table.
            _ => evaluate(expr, &mut View::of(self.machine)),
        }
    }
}

/// What an expression without side effects looks at.
struct View<'a> {
    program: Option<&'a Program>,
    slots: &'a [u64],
    valid: &'a [bool],
    extracted: &'a [usize],
    undefined_reads: &'a mut u32,
}

impl<'a> View<'a> {
    fn of(machine: &'a mut Machine<'_>) -> Self {
        View {
            program: Some(machine.program),
            slots: &machine.slots,
            valid: &machine.valid,
            extracted: &machine.extracted,
            undefined_reads: &mut machine.undefined_reads,
        }
    }

    fn field(&mut self, slot: Slot, header: HeaderId) -> u64 {
        if self.valid.get(header) == Some(&true) {
            self.slots[slot]
        } else {
            *self.undefined_reads += 1;
            0
        }
    }

    fn last(&mut self, stack: usize, field: usize) -> u64 {
        let extracted = self.extracted.get(stack).copied().unwrap_or_default();
        let (Some(program), Some(last)) = (self.program, extracted.checked_sub(1)) else {
            *self.undefined_reads += 1;
            return 0;
        };
        let header = program.stacks[stack].first + last;
        self.field(program.headers[header].first_slot + field, header)
    }
}

/// The value of an expression of constants.
pub(crate) fn constant(expr: &Expr) -> u64 {
    let mut undefined_reads = 0;
    let mut view = View {
        program: None,
        slots: &[],
        valid: &[],
        extracted: &[],
        undefined_reads: &mut undefined_reads,
    };
    evaluate(expr, &mut view)
}

fn evaluate(expr: &Expr, view: &mut View<'_>) -> u64 {
    match expr {
        Expr::Const(value) => *value,
        Expr::Slot(slot) => view.slots[*slot],
        Expr::Field(slot, header) => view.field(*slot, *header),
        Expr::Last { stack, field } => view.last(*stack, *field),
        Expr::Valid(header) => view.valid[*header].into(),
        Expr::Not(of) => (evaluate(of, view) == 0).into(),
        Expr::Complement(of, mask) => !evaluate(of, view) & mask,
        Expr::Negate(of, mask) => evaluate(of, view).wrapping_neg() & mask,
        Expr::Extract { of, shift, mask } => evaluate(of, view) >> shift & mask,
        Expr::Binary {
            op,
            left,
            right,
            mask,
        } => {
            let a = evaluate(left, view);
            let b = evaluate(right, view);
            let value = match op {
                Op::Or => (a != 0 || b != 0).into(),
                Op::And => (a != 0 && b != 0).into(),
                Op::Equal => (a == b).into(),
                Op::NotEqual => (a != b).into(),
                Op::Less => (a < b).into(),
                Op::LessEqual => (a <= b).into(),
                Op::Greater => (a > b).into(),
                Op::GreaterEqual => (a >= b).into(),
                Op::BitOr => a | b,
                Op::BitXor => a ^ b,
                Op::BitAnd => a & b,
                // The checker sees to it that distances are smaller than 64.
                Op::ShiftLeft => a.wrapping_shl(b as u32),
                Op::ShiftRight => a.wrapping_shr(b as u32),
                Op::Add => a.wrapping_add(b),
                Op::Subtract => a.wrapping_sub(b),
            };
            value & mask
        }
        // Only conditions apply tables, and they are evaluated by the run.
        Expr::Hit(_) => 0,
    }
}
