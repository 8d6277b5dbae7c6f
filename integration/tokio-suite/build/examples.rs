//! The examples in the documentation of tokio's TCP types, as one test each.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The files of `src/net` that document what `flextcp_net` has to offer.
const FILES: &[&str] = &[
    "lookup_host.rs",
    "tcp/listener.rs",
    "tcp/socket.rs",
    "tcp/split.rs",
    "tcp/split_owned.rs",
    "tcp/stream.rs",
];

/// As many as tokio 1.54 has: fewer means that they are no longer found.
const AT_LEAST: usize = 53;

/// One fenced block.
struct Example {
    /// File and line: `stream_45`.
    name: String,
    code: String,
}

/// A module with every example of the tokio package at `package`, and a test that runs it against a peer.
///
/// # Errors
/// When a file cannot be read, or there are too few examples.
pub fn generate(package: &Path) -> Result<String, Box<dyn Error>> {
    let mut examples = Vec::new();
    for file in FILES {
        let path = package.join("src/net").join(file);
        let source = fs::read_to_string(&path)
            .map_err(|error| format!("tokio's source file {}: {error}", path.display()))?;
        let stem = path
            .file_stem()
            .ok_or("a file has a name")?
            .to_string_lossy()
            .into_owned();
        examples.extend(find(&stem, &source));
    }
    if examples.len() < AT_LEAST {
        return Err(format!(
            "{} examples in tokio's documentation, not {AT_LEAST}",
            examples.len()
        )
        .into());
    }
    let mut generated = String::new();
    for (index, example) in examples.iter().enumerate() {
        example.write(index + 1, &mut generated)?;
    }
    Ok(generated)
}

fn find(stem: &str, source: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut inside: Option<Example> = None;
    for (index, line) in source.lines().enumerate() {
        let Some(text) = line.trim_start().strip_prefix("///") else {
            continue;
        };
        let text = text.strip_prefix(' ').unwrap_or(text);
        if text.starts_with("```") {
            match inside.take() {
                Some(example) => found.push(example),
                None => {
                    let name = format!("{stem}_{}", index + 1);
                    inside = Some(Example {
                        name,
                        code: String::new(),
                    });
                }
            }
        } else if let Some(example) = &mut inside {
            // rustdoc does not show lines behind a `#`; an inner attribute has no place in a module.
            let line = text.trim_start();
            let line = line.strip_prefix("# ").unwrap_or(line);
            if !line.starts_with("#![") {
                example.code.push_str(line);
            }
            example.code.push('\n');
        }
    }
    found
}

impl Example {
    /// With a loopback address of its own, so that examples with the same port run at once, whatever else listens here.
    fn write(&self, number: usize, to: &mut String) -> Result<(), Box<dyn Error>> {
        let Self { name, code } = self;
        let code = code
            .replace("use tokio::net;", "use flextcp_net as net;")
            .replace("tokio::net::", "flextcp_net::")
            .replace("127.0.0.1", &format!("127.0.84.{number}"))
            .replace("new(127, 0, 0, 1)", &format!("new(127, 0, 84, {number})"))
            .replace("[::1]:8080", "[::1]:0");
        let role = if code.contains("[0u8; 12]") {
            // It is both ends itself.
            "Peer::None".to_owned()
        } else if let Some((_, rest)) = code.split_once("TcpStream::connect(\"").or_else(|| {
            let connects = code.contains("socket.connect(");
            code.split_once("addr = \"").filter(|_| connects)
        }) {
            let address = rest.split('"').next().unwrap_or_default();
            if code.contains("ready(Interest::READABLE | Interest::WRITABLE)") {
                format!("Peer::Resets({address:?})")
            } else if code.contains("set_zero_linger") {
                format!("Peer::Listens({address:?})")
            } else {
                format!("Peer::Talks({address:?})")
            }
        } else if let Some((_, rest)) = code
            .split_once("TcpListener::bind(\"")
            .filter(|_| code.contains(".accept()"))
        {
            let address = rest.split('"').next().unwrap_or_default();
            if code.contains("loop {") {
                format!("Peer::VisitsForEver({address:?})")
            } else {
                format!("Peer::Visits({address:?})")
            }
        } else {
            "Peer::None".to_owned()
        };
        let run = if code.contains("async fn dox()") {
            format!("block_on({name}::dox())")
        } else {
            format!("{name}::main()")
        };
        write!(
            to,
            "mod {name} {{\n{}\n}}\n\n#[test]\nfn {name}_runs() {{\n    run({role}, || {run}.map_err(|error| error.to_string()));\n}}\n\n",
            code.replace("async fn dox()", "pub(super) async fn dox()")
                .replace("async fn main()", "pub(super) async fn main()")
        )?;
        Ok(())
    }
}
