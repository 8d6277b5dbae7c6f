//! Rules files, in the vendor's JSON, as far as public samples show it:
//!
//! ```json
//! { "tables": { "ingress::flows": {
//!     "rules": [ { "name": "one", "match": { "hdr.ipv4.source": { "value": "10.0.0.1" } },
//!                  "action": { "type": "ingress::flow", "data": { "queue": { "value": "1" } } } } ],
//!     "default_rule": { "name": "none", "action": { "type": "ingress::drop" } } } } }
//! ```
//!
//! A ternary match has a `mask` beside its `value`; of several rules that match, the first in the file wins.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde_json::{Map, Value};

use crate::ir::{MatchKind, Program, Table, ones};

/// Why rules are refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadRules {
    /// Where: table, then rule.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for BadRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for BadRules {}

/// One rule's action, as loaded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Loaded {
    /// Place in the table's list of actions.
    pub(crate) action: usize,
    pub(crate) arguments: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
struct TableRules {
    exact: HashMap<Box<[u64]>, Loaded>,
    /// Value and mask for each key.
    ternary: Vec<(Vec<(u64, u64)>, Loaded)>,
    default: Option<Loaded>,
}

/// The rules of all tables of a program.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Vec<TableRules>,
}

impl Tables {
    /// No rules but the defaults that the program names itself.
    pub fn new(program: &Program) -> Self {
        let default = |table: &Table| {
            let (action, arguments) = table.default.clone()?;
            Some(Loaded { action, arguments })
        };
        let tables = program
            .tables
            .iter()
            .map(|table| TableRules {
                default: default(table),
                ..TableRules::default()
            })
            .collect();
        Self { tables }
    }

    /// Loads the rules in `text`.
    ///
    /// # Errors
    /// No JSON, or a table, key, action or value that the program does not have.
    pub fn load(program: &Program, text: &str) -> Result<Self, BadRules> {
        let place = || "rules".to_owned();
        let value: Value = serde_json::from_str(text).map_err(|error| BadRules {
            place: place(),
            message: format!("no JSON: {error}"),
        })?;
        Self::from_json(program, &value)
    }

    /// Loads rules.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_json(program: &Program, value: &Value) -> Result<Self, BadRules> {
        let mut this = Self::new(program);
        let at = |place: &str, message: String| BadRules {
            place: place.to_owned(),
            message,
        };
        let Some(tables) = value.get("tables").and_then(Value::as_object) else {
            return Err(at("rules", "expected { \"tables\": { ... } }".to_owned()));
        };
        for (name, rules) in tables {
            let Some(index) = program.tables.iter().position(|table| table.name == *name) else {
                return Err(at(name, "the program has no such table".to_owned()));
            };
            let table = &program.tables[index];
            let loaded = &mut this.tables[index];
            if let Some(default) = rules.get("default_rule") {
                let rule = action(program, table, default);
                loaded.default = Some(rule.map_err(|message| at(name, message))?);
            }
            let empty = Vec::new();
            let list = match rules.get("rules") {
                None => &empty,
                Some(Value::Array(list)) => list,
                Some(_) => return Err(at(name, "\"rules\" is a list".to_owned())),
            };
            for rule in list {
                let label = rule.get("name").and_then(Value::as_str).unwrap_or("?");
                let place = format!("{name}, rule {label}");
                let result = add(program, table, loaded, rule);
                result.map_err(|message| at(&place, message))?;
            }
        }
        Ok(this)
    }

    /// The rule for a key, or the default; and whether a rule matched.
    pub(crate) fn find(&self, table: usize, key: &[u64]) -> (Option<&Loaded>, bool) {
        let Some(table) = self.tables.get(table) else {
            return (None, false);
        };
        if let Some(rule) = table.exact.get(key) {
            return (Some(rule), true);
        }
        let matches = |sets: &[(u64, u64)]| {
            let mut pairs = sets.iter().zip(key);
            pairs.all(|((value, mask), key)| key & mask == *value)
        };
        match table.ternary.iter().find(|(sets, _)| matches(sets)) {
            Some((_, rule)) => (Some(rule), true),
            None => (table.default.as_ref(), false),
        }
    }
}

fn add(
    program: &Program,
    table: &Table,
    loaded: &mut TableRules,
    rule: &Value,
) -> Result<(), String> {
    if loaded.exact.len() + loaded.ternary.len() >= table.size {
        return Err(format!("the table has room for {} rules", table.size));
    }
    let Some(matches) = rule.get("match").and_then(Value::as_object) else {
        return Err("expected \"match\": { ... }".to_owned());
    };
    let unknown = matches
        .keys()
        .find(|name| !table.keys.iter().any(|key| key.name == **name));
    if let Some(name) = unknown {
        let known: Vec<_> = table.keys.iter().map(|key| key.name.as_str()).collect();
        return Err(format!("no key {name}: the table has {}", known.join(", ")));
    }
    let sets = table
        .keys
        .iter()
        .map(|key| match matches.get(&key.name) {
            Some(value) => {
                set(value, key.width, key.kind).map_err(|m| format!("{}: {m}", key.name))
            }
            None if key.kind == MatchKind::Ternary => Ok((0, 0)),
            None => Err(format!("{} is missing", key.name)),
        })
        .collect::<Result<Vec<_>, String>>()?;
    let action = action(program, table, rule)?;
    if table.keys.iter().all(|key| key.kind == MatchKind::Exact) {
        let key: Box<[u64]> = sets.iter().map(|(value, _)| *value).collect();
        if loaded.exact.insert(key, action).is_some() {
            return Err("another rule has the same match".to_owned());
        }
    } else {
        loaded.ternary.push((sets, action));
    }
    Ok(())
}

fn set(value: &Value, width: u32, kind: MatchKind) -> Result<(u64, u64), String> {
    let number = |name: &str| match value.get(name) {
        None => Ok(None),
        Some(value) => parse(value, width).map(Some),
    };
    let Some(found) = number("value")? else {
        return Err("expected { \"value\": ... }".to_owned());
    };
    match (kind, number("mask")?) {
        (MatchKind::Exact, None) => Ok((found, ones(width))),
        (MatchKind::Exact, Some(_)) => Err("an exact match has no mask".to_owned()),
        (MatchKind::Ternary, mask) => {
            let mask = mask.unwrap_or_else(|| ones(width));
            Ok((found & mask, mask))
        }
    }
}

fn action(program: &Program, table: &Table, rule: &Value) -> Result<Loaded, String> {
    let empty = Map::new();
    let action = rule.get("action");
    let Some(name) = action.and_then(|a| a.get("type")).and_then(Value::as_str) else {
        return Err("expected \"action\": { \"type\": ... }".to_owned());
    };
    let data = match action.and_then(|a| a.get("data")) {
        None => &empty,
        Some(Value::Object(data)) => data,
        Some(_) => return Err("\"data\" is { name: { \"value\": ... } }".to_owned()),
    };
    let position = table.actions.iter().position(|(of, _)| of == name);
    let Some(position) = position else {
        let known: Vec<_> = table.actions.iter().map(|(of, _)| of.as_str()).collect();
        return Err(format!(
            "no action {name}: the table has {}",
            known.join(", ")
        ));
    };
    let params = match table.actions[position].1 {
        Some(action) => program.actions[action].params.as_slice(),
        None => &[],
    };
    let unknown = data
        .keys()
        .find(|name| !params.iter().any(|param| param.name == **name));
    if let Some(unknown) = unknown {
        return Err(format!("{name} takes no {unknown}"));
    }
    let arguments = params
        .iter()
        .map(|param| {
            let value = data.get(&param.name).and_then(|value| value.get("value"));
            let value = value.ok_or_else(|| format!("{name} needs {}", param.name))?;
            parse(value, param.width).map_err(|m| format!("{}: {m}", param.name))
        })
        .collect::<Result<_, String>>()?;
    Ok(Loaded {
        action: position,
        arguments,
    })
}

/// A number as rules files write it: decimal or hexadecimal, an IPv4 address, or a port: `p0` of the card, `v0.1` a
/// virtual function.
fn parse(value: &Value, width: u32) -> Result<u64, String> {
    let wrong = || format!("{value} is no number, address or port (p0, v0.1)");
    let number = match value {
        Value::Number(number) => number.as_u64().ok_or_else(wrong)?,
        Value::String(text) => parse_text(text).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    if number > ones(width) {
        return Err(format!("{value} does not fit in {width} bits"));
    }
    Ok(number)
}

/// The first virtual function's port.
const VF_BASE: u64 = 0x300;

fn parse_text(text: &str) -> Option<u64> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    if let Some(function) = text.strip_prefix("v0.") {
        let function: u8 = function.parse().ok()?;
        return Some(VF_BASE + u64::from(function));
    }
    if let Some(port) = text.strip_prefix('p') {
        let port: u8 = port.parse().ok()?;
        return Some(port.into());
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some(address.to_bits().into());
    }
    text.parse().ok()
}
