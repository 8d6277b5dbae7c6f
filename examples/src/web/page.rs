//! The page at `/`.

use super::routes::ThisConnection;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>FlexTCP</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; font-weight: normal; }
th { color: #666; width: 12rem; }
code { background: #f4f4f4; padding: .1rem .3rem; }
.yes { color: #06703b; font-weight: 600; }
.no { color: #9a5b00; font-weight: 600; }
</style>
</head>
<body>
<h1>It works.</h1>
<p>This is an axum server on <code>flextcp_net</code>: the program is written for
<code>tokio::net</code>, the TCP below it runs on a NIC.</p>
<table>
"#;

/// The counters change under the reader's eyes: the page asks for them by itself.
const TAIL: &str = r#"</table>
<h2>This process</h2>
<table id="counters"><tr><td>see <a href="/stats">/stats</a></td></tr></table>
<h2>Try it</h2>
<table>
<tr><th><a href="/stats"><code>/stats</code></a></th><td>the counters as JSON</td></tr>
<tr><th><a href="/metrics"><code>/metrics</code></a></th><td>the counters as Prometheus reads them</td></tr>
<tr><th><a href="/connections"><code>/connections</code></a></th><td>who is connected, and which connections the NIC carries</td></tr>
<tr><th><a href="/bytes/1048576"><code>/bytes/1048576</code></a></th><td>that many bytes, always the same ones</td></tr>
<tr><th><code>/echo</code></th><td><code>curl -d hello URL/echo</code>: your bytes, back</td></tr>
<tr><th><code>/upload</code></th><td><code>curl -T FILE URL/upload</code>: size and SHA-256 of what arrived</td></tr>
</table>
<script>
async function show() {
  const s = await (await fetch("/stats")).json(), p = (x) => `${x.bytes_in} bytes in, ${x.bytes_out} bytes out`;
  const rows = [["NIC", s.nic.kind], ["Fast path", p(s.fast_path)], ["Slow path", p(s.slow_path)],
    ...s.nic.fallback.map((reason) => ["Why not", reason]),
    ["Open connections", `${s.connections.offloaded} on the NIC, ${s.connections.host} in the slow path, ${s.connections.kernel} on kernel sockets`]];
  document.getElementById("counters").replaceChildren(...rows.map((row) => {
    const tr = document.createElement("tr");
    tr.append(...row.map((text, i) => Object.assign(document.createElement(i ? "td" : "th"), { textContent: text })));
    return tr;
  }));
}
show(); setInterval(show, 2000);
</script>
</body>
</html>
"#;

/// The verdict is padded to this: to ab, a page whose length changes between requests is a failure.
const VERDICT_LEN: usize = 128;

pub(super) fn render(this: &ThisConnection) -> String {
    let verdict = match (this.offloaded, this.transport) {
        _ if this.accelerated && !this.offloaded => {
            "<span class=yes>FlexTCP's</span>: the slow path had it when this request came, \
             as right after a handshake; ask again"
        }
        (true, _) => {
            "<span class=yes>offloaded</span>: the NIC's fast path carries it, \
             the kernel's TCP does not see it"
        }
        (false, "kernel") => {
            "<span class=no>not offloaded</span>: --kernel asks for kernel sockets"
        }
        (false, _) => {
            "<span class=no>not offloaded</span>: a kernel socket has it; nic.fallback in /stats says why"
        }
    };
    format!(
        "{HEAD}\
         <tr><th>This connection</th><td>{verdict:<VERDICT_LEN$}</td></tr>\n\
         <tr><th>Protocol</th><td>{http}, {tls}</td></tr>\n\
         {TAIL}",
        http = this.http,
        tls = this.tls.unwrap_or("no TLS"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_as_long_on_the_nic_as_off_it() {
        let page = |offloaded, accelerated, transport| {
            render(&ThisConnection {
                offloaded,
                accelerated,
                transport,
                http: "HTTP/1.1".to_owned(),
                tls: None,
                peer: String::new(),
                local: None,
            })
        };
        let on = page(true, true, "flextcp");
        assert!(on.contains("class=yes"));
        assert_eq!(on.len(), page(false, true, "flextcp").len());
        assert_eq!(on.len(), page(false, false, "flextcp").len());
        assert_eq!(on.len(), page(false, false, "kernel").len());
    }
}
