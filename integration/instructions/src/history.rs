//! `docs/results/instructions.csv`: a line for each case each time it was recorded, the newest last.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

const HEAD: &str = "date,note,case,instructions";

/// One count.
pub(crate) struct Entry {
    pub(crate) date: String,
    pub(crate) note: String,
    pub(crate) case: String,
    pub(crate) instructions: u32,
}

/// All that was recorded.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) entries: Vec<Entry>,
}

impl History {
    pub(crate) fn read(file: &Path) -> Result<Self, Box<dyn Error>> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text?,
        };
        let entries = text.lines().skip(1).map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let [date, note, case, instructions] = fields[..] else {
                return Err(format!("{}: four fields, not {line:?}", file.display()).into());
            };
            Ok(Entry {
                date: date.to_owned(),
                note: note.to_owned(),
                case: case.to_owned(),
                instructions: instructions.parse()?,
            })
        });
        Ok(Self {
            entries: entries.collect::<Result<_, Box<dyn Error>>>()?,
        })
    }

    pub(crate) fn write(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let mut text = format!("{HEAD}\n");
        for entry in &self.entries {
            let _ = writeln!(
                text,
                "{},{},{},{}",
                entry.date, entry.note, entry.case, entry.instructions
            );
        }
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(fs::write(file, text)?)
    }

    /// What was last recorded for a case.
    pub(crate) fn last(&self, case: &str) -> Option<u32> {
        self.entries
            .iter()
            .rev()
            .find(|entry| entry.case == case)
            .map(|entry| entry.instructions)
    }
}
