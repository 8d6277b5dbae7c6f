//! Types, widths and the card's rules: from the program as written to one that can be executed.

mod control;
mod expr;
mod metadata;
mod parser;
mod statement;
mod table;

use std::collections::{BTreeMap, HashMap};

use crate::ast::{self, Declaration, Name, Type, TypeRef};
use crate::ir::{Action, Header, HeaderId, Program, Slot, Stack, Standard, State, Table};
use crate::rules::CardRule;
use crate::source::{Checked, Fault, Span};

/// Largest number of header instances and of slots.
const MAX_HEADERS: usize = 256;
const MAX_STACK: u64 = 64;

/// What a name stands for inside of a parser, control or action.
#[derive(Clone, Debug)]
enum Meaning {
    Const(u64, Option<u32>),
    /// The headers struct.
    Headers,
    Metadata,
    Standard,
    PacketIn,
    PacketOut,
    /// A parameter or variable.
    Slot(Slot, u32),
    Action(usize),
    Table(usize),
    Extern(usize),
}

#[derive(Clone, Debug)]
enum Member {
    Header(HeaderId),
    Stack(usize),
}

/// A type as declared.
enum Declared {
    Alias(Type),
    Header(Vec<(Name, u32)>),
    Struct(Vec<ast::Field>),
}

/// Where code stands: what it may do depends on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Parser,
    Ingress,
    Egress,
    Deparser,
}

pub(crate) struct Checker {
    types: HashMap<String, Declared>,
    names: Vec<HashMap<String, Meaning>>,
    slots: usize,
    standard: Standard,
    /// Field names of each header type's instances, by instance.
    fields: Vec<Vec<(String, u32)>>,
    headers: Vec<Header>,
    stacks: Vec<Stack>,
    members: HashMap<String, Member>,
    headers_type: Option<String>,
    metadata_type: Option<String>,
    metadata: BTreeMap<String, (Slot, u32)>,
    externs: Vec<String>,
    actions: Vec<Action>,
    tables: Vec<Table>,
    states: Vec<State>,
    place: Place,
    in_action: bool,
    /// Actions that set `nfp_mac_eg_cmd` valid, and where.
    mac_commands: Vec<(usize, Span)>,
    /// Actions called directly, and where.
    called: Vec<(usize, Span)>,
}

/// Checks a program.
pub(crate) fn check(declarations: Vec<Declaration>, end: Span) -> Checked<Program> {
    // Slots 0 to 3 are the standard metadata.
    let standard = Standard {
        ingress_port: 0,
        egress_spec: 1,
        egress_port: 2,
        packet_length: 3,
    };
    let checker = Checker {
        types: HashMap::new(),
        names: vec![HashMap::new()],
        slots: 4,
        standard,
        fields: Vec::new(),
        headers: Vec::new(),
        stacks: Vec::new(),
        members: HashMap::new(),
        headers_type: None,
        metadata_type: None,
        metadata: BTreeMap::new(),
        externs: Vec::new(),
        actions: Vec::new(),
        tables: Vec::new(),
        states: Vec::new(),
        place: Place::Parser,
        in_action: false,
        mac_commands: Vec::new(),
        called: Vec::new(),
    };
    checker.program(declarations, end)
}

impl Checker {
    fn program(mut self, declarations: Vec<Declaration>, end: Span) -> Checked<Program> {
        let mut parsers = Vec::new();
        let mut controls = Vec::new();
        let mut package = None;
        for declaration in declarations {
            match declaration {
                Declaration::Const { ty, name, value } => self.constant(&ty, name, &value)?,
                Declaration::Typedef { ty, name } => {
                    self.refuse_nine_bits(&ty, &name)?;
                    let ty = self.resolve(&ty)?;
                    self.declare_type(name, Declared::Alias(ty))?;
                }
                Declaration::Header { name, fields } => self.header_type(name, fields)?,
                Declaration::Struct { name, fields } => {
                    self.declare_type(name, Declared::Struct(fields))?;
                }
                Declaration::Extern(name) => {
                    self.externs.push(name.text.clone());
                    self.declare(name, Meaning::Extern(self.externs.len() - 1))?;
                }
                Declaration::Parser(parser) => parsers.push(parser),
                Declaration::Control(control) => controls.push(control),
                Declaration::Package { span, parts } => {
                    if package.replace((span, parts)).is_some() {
                        return Err(Fault::new(span, "there is one V1Switch"));
                    }
                }
            }
        }
        let Some((span, parts)) = package else {
            let message = "no V1Switch(Parser(), VerifyChecksum(), Ingress(), Egress(), ComputeChecksum(), Deparser()) main;";
            return Err(Fault::new(end, message));
        };
        let [parser, verify, ingress, egress, compute, deparser] = parts.as_slice() else {
            let message = "V1Switch takes a parser and five controls: verify, ingress, egress, compute, deparser";
            return Err(Fault::new(span, message));
        };
        let parser = take(&mut parsers, parser, |parser| &parser.name, "parser")?;
        let mut control = |name| take(&mut controls, name, |control| &control.name, "control");
        let verify = control(verify)?;
        let ingress = control(ingress)?;
        let egress = control(egress)?;
        let compute = control(compute)?;
        let deparser = control(deparser)?;
        if let Some(unused) = parsers.first() {
            return Err(Fault::new(unused.name.span, "this parser is not used"));
        }
        if let Some(unused) = controls.first() {
            return Err(Fault::new(unused.name.span, "this control is not used"));
        }

        let start = self.parser(parser)?;
        for empty in [verify, compute] {
            if !(empty.body.is_empty() && empty.actions.is_empty() && empty.tables.is_empty()) {
                let message = "checksums are the MAC's and the extern's: leave this control empty";
                return Err(Fault::new(empty.name.span, message));
            }
        }
        let ingress = self.control(ingress, Place::Ingress)?;
        let egress = self.control(egress, Place::Egress)?;
        let emitted = self.deparser(deparser)?;
        self.check_mac_commands()?;
        let program = Program {
            slots: self.slots,
            standard: self.standard,
            headers: self.headers,
            stacks: self.stacks,
            metadata: self.metadata,
            externs: self.externs,
            actions: self.actions,
            tables: self.tables,
            states: self.states,
            start,
            ingress,
            egress,
            emitted,
        };
        metadata::check(&program)?;
        Ok(program)
    }

    fn declare(&mut self, name: Name, meaning: Meaning) -> Checked<()> {
        // There is always a scope: the first is never closed.
        let Some(scope) = self.names.last_mut() else {
            return Ok(());
        };
        let text = name.text.clone();
        if scope.insert(name.text, meaning).is_some() {
            let message = format!("`{text}` is declared twice");
            return Err(Fault::new(name.span, message));
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<&Meaning> {
        self.names.iter().rev().find_map(|scope| scope.get(name))
    }

    fn declare_type(&mut self, name: Name, declared: Declared) -> Checked<()> {
        if self.types.insert(name.text.clone(), declared).is_some() {
            let message = format!("the type `{}` is declared twice", name.text);
            return Err(Fault::new(name.span, message));
        }
        Ok(())
    }

    /// Follows typedefs.
    fn resolve(&self, ty: &TypeRef) -> Checked<Type> {
        let Type::Named(name) = &ty.ty else {
            return Ok(ty.ty.clone());
        };
        match self.types.get(name) {
            Some(Declared::Alias(alias)) => Ok(alias.clone()),
            Some(_) => Ok(ty.ty.clone()),
            None if is_builtin_type(name) => Ok(ty.ty.clone()),
            None => Err(Fault::new(
                ty.span,
                format!("there is no type `{name}` before this line"),
            )),
        }
    }

    /// The bits of a scalar type.
    fn bits(&self, ty: &TypeRef) -> Checked<u32> {
        match self.resolve(ty)? {
            Type::Bit(width) => Ok(width),
            other => Err(Fault::new(
                ty.span,
                format!("expected bit<N>, found {}", other.written()),
            )),
        }
    }

    /// p4c's port type is the one thing that nine bits are used for.
    fn refuse_nine_bits(&self, ty: &TypeRef, name: &Name) -> Checked<()> {
        if name.text.to_ascii_lowercase().contains("port") && matches!(ty.ty, Type::Bit(9)) {
            let message = "ports have 16 bits on the card: write bit<16>";
            return Err(Fault::against(CardRule::PortWidth, ty.span, message));
        }
        Ok(())
    }

    fn constant(&mut self, ty: &TypeRef, name: Name, value: &ast::Expr) -> Checked<()> {
        let width = self.bits(ty)?;
        let value = self.fixed(value, width)?;
        self.declare(name, Meaning::Const(value, Some(width)))
    }

    fn header_type(&mut self, name: Name, fields: Vec<ast::Field>) -> Checked<()> {
        let mut resolved = Vec::new();
        let mut bits = 0;
        for field in fields {
            if field.stack.is_some() {
                return Err(Fault::new(field.name.span, "a header holds no stack"));
            }
            let width = self.bits(&field.ty)?;
            if resolved
                .iter()
                .any(|(other, _): &(Name, u32)| other.text == field.name.text)
            {
                let message = format!("the field `{}` is declared twice", field.name.text);
                return Err(Fault::new(field.name.span, message));
            }
            bits += width;
            resolved.push((field.name, width));
        }
        if bits == 0 || bits % 8 != 0 {
            let message = format!("a header has whole bytes, this one has {bits} bits");
            return Err(Fault::new(name.span, message));
        }
        self.declare_type(name, Declared::Header(resolved))
    }

    /// Lays the headers struct out, once.
    fn use_headers(&mut self, ty: &TypeRef) -> Checked<()> {
        let Type::Named(name) = &ty.ty else {
            return Err(Fault::new(ty.span, "expected the struct of headers"));
        };
        if let Some(known) = &self.headers_type {
            return if known == name {
                Ok(())
            } else {
                Err(Fault::new(ty.span, format!("the headers are {known}")))
            };
        }
        let Some(Declared::Struct(fields)) = self.types.remove(name) else {
            let message = format!("expected the struct of headers, found {name}");
            return Err(Fault::new(ty.span, message));
        };
        for (index, field) in fields.iter().enumerate() {
            let Type::Named(of) = &field.ty.ty else {
                return Err(Fault::new(field.ty.span, "expected a header type"));
            };
            let Some(Declared::Header(layout)) = self.types.get(of) else {
                let message = format!("expected a header type, found {of}");
                return Err(Fault::new(field.ty.span, message));
            };
            let layout: Vec<_> = layout
                .iter()
                .map(|(name, width)| (name.text.clone(), *width))
                .collect();
            if index == 0 {
                mac_command_first(field, of, &layout)?;
            }
            self.lay_out(field, layout)?;
        }
        if fields.is_empty() {
            return Err(Fault::new(ty.span, "there are no headers"));
        }
        self.types.insert(name.clone(), Declared::Struct(fields));
        self.headers_type = Some(name.clone());
        Ok(())
    }

    fn lay_out(&mut self, field: &ast::Field, layout: Vec<(String, u32)>) -> Checked<()> {
        let len = match &field.stack {
            None => 1,
            Some(size) => {
                let len = self.fixed(size, 32)?;
                if !(1..=MAX_STACK).contains(&len) {
                    let message = format!("a stack has 1 to {MAX_STACK} headers");
                    return Err(Fault::new(size.span, message));
                }
                len as usize
            }
        };
        let first = self.headers.len();
        if first + len > MAX_HEADERS {
            let message = format!("more than {MAX_HEADERS} headers");
            return Err(Fault::new(field.name.span, message));
        }
        let widths: Vec<u32> = layout.iter().map(|(_, width)| *width).collect();
        let bytes = widths.iter().sum::<u32>() as usize / 8;
        for index in 0..len {
            let name = match field.stack {
                None => format!("hdr.{}", field.name.text),
                Some(_) => format!("hdr.{}[{index}]", field.name.text),
            };
            self.headers.push(Header {
                name,
                first_slot: self.slots,
                widths: widths.clone(),
                bytes,
            });
            self.fields.push(layout.clone());
            self.slots += widths.len();
        }
        let member = if field.stack.is_some() {
            self.stacks.push(Stack { first, len });
            Member::Stack(self.stacks.len() - 1)
        } else {
            Member::Header(first)
        };
        if self
            .members
            .insert(field.name.text.clone(), member)
            .is_some()
        {
            let message = format!("the header `{}` is declared twice", field.name.text);
            return Err(Fault::new(field.name.span, message));
        }
        Ok(())
    }

    /// Lays the metadata struct out, once.
    fn use_metadata(&mut self, ty: &TypeRef) -> Checked<()> {
        let Type::Named(name) = &ty.ty else {
            return Err(Fault::new(ty.span, "expected the struct of metadata"));
        };
        if let Some(known) = &self.metadata_type {
            return if known == name {
                Ok(())
            } else {
                Err(Fault::new(ty.span, format!("the metadata is {known}")))
            };
        }
        let Some(Declared::Struct(fields)) = self.types.remove(name) else {
            let message = format!("expected the struct of metadata, found {name}");
            return Err(Fault::new(ty.span, message));
        };
        if fields.len() > 64 {
            return Err(Fault::new(ty.span, "more than 64 words of metadata"));
        }
        for field in &fields {
            if field.stack.is_some() {
                return Err(Fault::new(field.name.span, "metadata holds no stack"));
            }
            let width = self.bits(&field.ty)?;
            let slot = self.slots;
            self.slots += 1;
            let text = field.name.text.clone();
            if self.metadata.insert(text, (slot, width)).is_some() {
                let message = format!("`{}` is declared twice", field.name.text);
                return Err(Fault::new(field.name.span, message));
            }
        }
        self.types.insert(name.clone(), Declared::Struct(fields));
        self.metadata_type = Some(name.clone());
        Ok(())
    }

    /// Declares what every parser and control is handed; `wanted` are the kinds, by position.
    fn bind(&mut self, params: Vec<ast::Param>, wanted: &[Bound], name: &Name) -> Checked<()> {
        if params.len() != wanted.len() {
            let message = format!("`{}` takes {} parameters", name.text, wanted.len());
            return Err(Fault::new(name.span, message));
        }
        for (param, bound) in params.into_iter().zip(wanted) {
            let (direction, meaning) = match bound {
                Bound::PacketIn => (None, Meaning::PacketIn),
                Bound::PacketOut => (None, Meaning::PacketOut),
                Bound::Headers(direction) => (Some(*direction), Meaning::Headers),
                Bound::Metadata => (Some("inout"), Meaning::Metadata),
                Bound::Standard => (Some("inout"), Meaning::Standard),
            };
            match bound {
                Bound::PacketIn => self.named(&param.ty, "packet_in")?,
                Bound::PacketOut => self.named(&param.ty, "packet_out")?,
                Bound::Standard => self.named(&param.ty, "standard_metadata_t")?,
                Bound::Headers(_) => self.use_headers(&param.ty)?,
                Bound::Metadata => self.use_metadata(&param.ty)?,
            }
            if param.direction.as_deref() != direction {
                let written = direction.unwrap_or("no direction");
                let message = format!("this parameter has {written}");
                return Err(Fault::new(param.ty.span, message));
            }
            self.declare(param.name, meaning)?;
        }
        Ok(())
    }

    fn named(&self, ty: &TypeRef, wanted: &str) -> Checked<()> {
        match &ty.ty {
            Type::Named(name) if name == wanted => Ok(()),
            other => Err(Fault::new(
                ty.span,
                format!("expected {wanted}, found {}", other.written()),
            )),
        }
    }
}

/// The parameters of V1Switch's parts.
#[derive(Clone, Copy)]
enum Bound {
    PacketIn,
    PacketOut,
    Headers(&'static str),
    Metadata,
    Standard,
}

fn is_builtin_type(name: &str) -> bool {
    ["packet_in", "packet_out", "standard_metadata_t"].contains(&name)
}

fn mac_command_first(field: &ast::Field, of: &str, layout: &[(String, u32)]) -> Checked<()> {
    let widths: Vec<u32> = layout.iter().map(|(_, width)| *width).collect();
    if of != "nfp_mac_eg_cmd_t" || widths != [1, 1, 1, 29] || field.stack.is_some() {
        let message = "the first header is nfp_mac_eg_cmd_t { bit l3Sum; bit l4Sum; bit tsMark; bit<29> ignore; }";
        return Err(Fault::against(
            CardRule::MacCommandFirst,
            field.name.span,
            message,
        ));
    }
    Ok(())
}

fn take<T>(
    parts: &mut Vec<T>,
    wanted: &Name,
    name: impl Fn(&T) -> &Name,
    what: &str,
) -> Checked<T> {
    match parts.iter().position(|part| name(part).text == wanted.text) {
        Some(index) => Ok(parts.remove(index)),
        None => {
            let message = format!("there is no {what} `{}`, or it is used twice", wanted.text);
            Err(Fault::new(wanted.span, message))
        }
    }
}
