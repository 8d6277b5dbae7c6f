//! The page at `/`.

use super::routes::ThisConnection;
use crate::stats::{PathStats, Stats};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>FlexTCP</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; font-weight: normal; }
th { color: #666; }
code { background: #f4f4f4; padding: .1rem .3rem; }
.yes { color: #06703b; font-weight: 600; }
.no { color: #9a5b00; font-weight: 600; }
</style>
</head>
<body>
"#;

const TAIL: &str = r#"<h2>Try it</h2>
<table>
<tr><td><a href="/stats"><code>/stats</code></a></td><td>the counters as JSON</td></tr>
<tr><td><a href="/bytes/1048576"><code>/bytes/1048576</code></a></td><td>that many bytes, always the same ones</td></tr>
<tr><td><code>curl -d hello URL/echo</code></td><td>your bytes, back</td></tr>
<tr><td><code>curl -T FILE URL/upload</code></td><td>size and SHA-256 of what arrived</td></tr>
</table>
</body>
</html>
"#;

pub(super) fn render(stats: &Stats, this: &ThisConnection) -> String {
    let verdict = match (this.offloaded, this.transport) {
        (true, _) => {
            "<span class=yes>offloaded</span>: the NIC's fast path carries it, \
             the kernel's TCP does not see it"
        }
        (false, "kernel") => {
            "<span class=no>not offloaded</span>: --kernel asks for kernel sockets"
        }
        (false, _) => {
            "<span class=no>not offloaded</span>: it runs in the slow path or on a kernel socket \
             (the log says why)"
        }
    };
    let path = |name: &str, path: &PathStats| {
        format!(
            "<tr><th>{name}<td>{} bytes in, {} bytes out\n",
            path.bytes_in, path.bytes_out
        )
    };
    let connections = &stats.connections;
    format!(
        "{HEAD}<h1>It works.</h1>\n\
         <p>This is an axum server on <code>flextcp_net</code>: the program is written for \
         <code>tokio::net</code>, the TCP below it runs on a NIC.</p>\n\
         <table>\n\
         <tr><th>This connection<td>{verdict}\n\
         <tr><th>Protocol<td>{http}, {tls}\n\
         <tr><th>NIC<td>{nic}\n\
         <tr><th>Open connections<td>{offloaded} on the NIC, {host} in the slow path, {kernel} on \
         kernel sockets\n\
         {fast}{slow}\
         </table>\n{TAIL}",
        http = this.http,
        tls = this.tls.unwrap_or("no TLS"),
        nic = stats.nic.kind,
        offloaded = connections.offloaded,
        host = connections.host,
        kernel = connections.kernel,
        fast = path("Fast path", &stats.fast_path),
        slow = path("Slow path", &stats.slow_path),
    )
}
