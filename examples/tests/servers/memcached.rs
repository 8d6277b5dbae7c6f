//! The `memcached` program, and third-party clients.

use std::process::Command;

use async_memcached::{AsciiProtocol, Client, MetaProtocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Program, failing, have};

const MEMCACHED: &str = env!("CARGO_BIN_EXE_memcached");

/// Requests and their answers, in order, on one connection.
const TEXT: &[(&str, &str)] = &[
    ("get\r\n", "ERROR\r\n"),
    ("gat 10\r\n", "END\r\n"),
    (
        "gat abc foo\r\n",
        "CLIENT_ERROR invalid exptime argument\r\n",
    ),
    ("bogus\r\n", "ERROR\r\n"),
    ("\r\n", "ERROR\r\n"),
    ("GET foo\r\n", "ERROR\r\n"),
    ("get foo\n", "END\r\n"),
    ("set foo 0 0\r\n", "ERROR\r\n"),
    (
        "set foo 0 0 abc\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    (
        "set foo 0 0 -1\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    (
        "set foo abc 0 3\r\nabc\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    (
        "set foo 0 abc 3\r\nabc\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    (
        "set foo 0 0 3\r\nabcd\r\n",
        "CLIENT_ERROR bad data chunk\r\nERROR\r\n",
    ),
    ("set foo 4294967295 0 1\r\na\r\n", "STORED\r\n"),
    ("set foo 5 0 1 noreply\r\nb\r\n", ""),
    (
        "get foo bar foo\r\n",
        "VALUE foo 5 1\r\nb\r\nVALUE foo 5 1\r\nb\r\nEND\r\n",
    ),
    ("gets foo\r\n", "VALUE foo 5 1 2\r\nb\r\nEND\r\n"),
    ("add foo 0 0 1\r\nc\r\n", "NOT_STORED\r\n"),
    ("replace nope 0 0 1\r\nc\r\n", "NOT_STORED\r\n"),
    ("append nope 0 0 1\r\nc\r\n", "NOT_STORED\r\n"),
    ("append foo 0 0 1\r\nc\r\n", "STORED\r\n"),
    ("prepend foo 0 0 1\r\na\r\n", "STORED\r\n"),
    ("get foo\r\n", "VALUE foo 5 3\r\nabc\r\nEND\r\n"),
    (
        "cas foo 0 0 1 abc\r\nc\r\n",
        "CLIENT_ERROR bad command line format\r\n",
    ),
    ("cas foo 0 0 1 1\r\nc\r\n", "EXISTS\r\n"),
    ("cas foo 0 0 1 4\r\nc\r\n", "STORED\r\n"),
    ("cas nope 0 0 1 1\r\nc\r\n", "NOT_FOUND\r\n"),
    (
        "incr foo 1\r\n",
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    ("incr nope 1\r\n", "NOT_FOUND\r\n"),
    ("incr foo\r\n", "ERROR\r\n"),
    (
        "incr foo -1\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n",
    ),
    ("set n 0 0 2\r\n10\r\n", "STORED\r\n"),
    ("incr n 5\r\n", "15\r\n"),
    ("decr n 6\r\n", "9\r\n"),
    ("decr n 100\r\n", "0\r\n"),
    ("set n 0 0 20\r\n18446744073709551615\r\n", "STORED\r\n"),
    ("incr n 2\r\n", "1\r\n"),
    (
        "incr n 18446744073709551616\r\n",
        "CLIENT_ERROR invalid numeric delta argument\r\n",
    ),
    ("gats 100 n\r\n", "VALUE n 0 1 11\r\n1\r\nEND\r\n"),
    (
        "touch n abc\r\n",
        "CLIENT_ERROR invalid exptime argument\r\n",
    ),
    ("touch n -1\r\n", "TOUCHED\r\n"),
    ("touch n 10\r\n", "NOT_FOUND\r\n"),
    (
        "delete foo 1\r\n",
        "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
    ),
    ("delete foo 0\r\n", "DELETED\r\n"),
    ("delete foo noreply\r\n", ""),
    ("delete foo\r\n", "NOT_FOUND\r\n"),
    ("delete\r\n", "ERROR\r\n"),
    (
        "flush_all abc\r\n",
        "CLIENT_ERROR invalid exptime argument\r\n",
    ),
    ("flush_all 0\r\n", "OK\r\n"),
    ("flush_all noreply\r\n", ""),
    ("verbosity 1\r\n", "OK\r\n"),
    ("verbosity noreply\r\n", ""),
    ("verbosity\r\n", "ERROR\r\n"),
    ("stats items\r\n", "END\r\n"),
    ("stats bogus\r\n", "ERROR\r\n"),
    ("stats reset\r\n", "RESET\r\n"),
    ("shutdown\r\n", "ERROR: shutdown not enabled\r\n"),
];

const META: &[(&str, &str)] = &[
    ("mn\r\n", "MN\r\n"),
    ("mg\r\n", "ERROR\r\n"),
    ("mg foo v\r\n", "EN\r\n"),
    ("mg foo q\r\nmn\r\n", "MN\r\n"),
    ("mg foo k O123\r\n", "EN kfoo O123\r\n"),
    ("ms foo\r\n", "CLIENT_ERROR bad command line format\r\n"),
    ("ms foo abc\r\n", "CLIENT_ERROR bad command line format\r\n"),
    (
        "ms foo 2 T90 F5 c k O9 b\r\nhi\r\n",
        "CLIENT_ERROR error decoding key\r\n",
    ),
    ("ms foo 2 T90 F5 c k O9\r\nhi\r\n", "HD c1 kfoo O9\r\n"),
    (
        "ms foo 2\r\nhixx\r\n",
        "CLIENT_ERROR bad data chunk\r\nERROR\r\n",
    ),
    (
        "mg foo s v t f c k O77 h l\r\n",
        "VA 2 s2 t90 f5 c1 kfoo O77 h0 l0\r\nhi\r\n",
    ),
    ("mg foo h l u\r\n", "HD h1 l0\r\n"),
    ("mg foo v v\r\n", "CLIENT_ERROR duplicate flag\r\n"),
    ("mg foo !\r\n", "CLIENT_ERROR invalid flag\r\n"),
    (
        "mg foo O12345678901234567890123456789012\r\n",
        "CLIENT_ERROR opaque token too long\r\n",
    ),
    ("ms foo 2 ME\r\nhi\r\n", "NS\r\n"),
    ("ms bar 2 ME\r\nhi\r\n", "HD\r\n"),
    ("ms bar 2 MA\r\nho\r\n", "HD\r\n"),
    ("ms bar 2 MP\r\nhe\r\n", "HD\r\n"),
    ("mg bar v\r\n", "VA 6\r\nhehiho\r\n"),
    (
        "ms bar 2 MX\r\nho\r\n",
        "CLIENT_ERROR invalid mode for ms M token\r\n",
    ),
    (
        "ms bar 2 MSET\r\nho\r\n",
        "CLIENT_ERROR incorrect length for M token\r\n",
    ),
    ("ms baz 2 MR\r\nho\r\n", "NS\r\n"),
    ("ms baz 2 MA\r\nho\r\n", "NS\r\n"),
    ("ms baz 2 MA N30\r\nho\r\n", "HD\r\n"),
    ("mg baz t v\r\n", "VA 2 t30\r\nho\r\n"),
    ("ms foo 2 C99\r\nho\r\n", "EX\r\n"),
    ("ms nope 2 C1 c\r\nho\r\n", "NF c0\r\n"),
    ("ms foo 2 q\r\nhi\r\nmn\r\n", "MN\r\n"),
    ("ms foo 2 ME q\r\nhi\r\nmn\r\n", "NS\r\nMN\r\n"),
    (
        "ms foo 2 Tabc\r\nhi\r\n",
        "CLIENT_ERROR bad token in command line format\r\n",
    ),
    ("ms foo 2 T-1\r\nhi\r\n", "HD\r\n"),
    ("mg foo v\r\n", "EN\r\n"),
    ("ms foo 2 T0 E1000 c\r\nhi\r\n", "HD c1000\r\n"),
    ("mg foo t v c\r\n", "VA 2 t-1 c1000\r\nhi\r\n"),
    ("md foo C5\r\n", "EX\r\n"),
    // Serve stale: one client is told to renew, the others are told that it does.
    ("md foo I T30 E2000\r\n", "HD\r\n"),
    ("mg foo c t v\r\n", "VA 2 c2000 t30 W X\r\nhi\r\n"),
    ("mg foo c t v\r\n", "VA 2 c2000 t30 X Z\r\nhi\r\n"),
    ("ms foo 2 C1999 I c E2001\r\nho\r\n", "HD c2001\r\n"),
    ("mg foo c v\r\n", "VA 2 c2001 W X\r\nho\r\n"),
    ("ms foo 2 C2001 c E2002\r\nok\r\n", "HD c2002\r\n"),
    ("mg foo c v\r\n", "VA 2 c2002\r\nok\r\n"),
    ("md foo x\r\n", "HD\r\n"),
    ("mg foo v f s\r\n", "VA 0 f0 s0\r\n\r\n"),
    ("md foo q\r\nmn\r\n", "MN\r\n"),
    ("md foo k O4\r\n", "NF kfoo O4\r\n"),
    // Vivify on a miss.
    ("mg vivi N30 v t k s\r\n", "VA 0 t30 kvivi s0 W\r\n\r\n"),
    ("mg vivi N30 v t k\r\n", "VA 0 t30 kvivi Z\r\n\r\n"),
    ("ms vivi 2\r\nok\r\n", "HD\r\n"),
    ("mg vivi v t\r\n", "VA 2 t-1\r\nok\r\n"),
    // Recache before the end.
    ("ms rec 2 T30\r\nok\r\n", "HD\r\n"),
    ("mg rec R10 t v\r\n", "VA 2 t30\r\nok\r\n"),
    ("mg rec R60 t v\r\n", "VA 2 t30 W\r\nok\r\n"),
    ("mg rec R60 t v\r\n", "VA 2 t30 Z\r\nok\r\n"),
    ("mg rec T100 t v\r\n", "VA 2 t100 Z\r\nok\r\n"),
    ("ma cnt\r\n", "NF\r\n"),
    ("ma cnt N0\r\n", "HD\r\n"),
    ("ma cnt v\r\n", "VA 1\r\n1\r\n"),
    (
        "ma cnt E77 D5 v t c k O6\r\n",
        "VA 1 t-1 c77 kcnt O6\r\n6\r\n",
    ),
    ("ma cnt MD v\r\n", "VA 1\r\n5\r\n"),
    ("ma cnt M- D100 v\r\n", "VA 1\r\n0\r\n"),
    ("ma cnt2 N30 J13 v t\r\n", "VA 2 t30\r\n13\r\n"),
    (
        "ma cnt2 MX\r\n",
        "CLIENT_ERROR invalid mode for ma M token\r\n",
    ),
    ("ma cnt2 C1\r\n", "EX\r\n"),
    ("ma cnt2 q\r\nmn\r\n", "MN\r\n"),
    (
        "ma vivi\r\n",
        "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    ("me nope\r\n", "EN\r\n"),
    ("ms Zm9v 2 b\r\nhi\r\n", "HD\r\n"),
    ("mg foo v\r\n", "VA 2\r\nhi\r\n"),
    ("mg Zm9v b k v\r\n", "VA 2 kZm9v b\r\nhi\r\n"),
    ("mg Zm9vYmFy b k O1\r\n", "EN kZm9vYmFy b O1\r\n"),
    ("md Zm9v b\r\n", "HD\r\n"),
];

/// The end of every answer below; a version that is asked for shows where an answer ends.
async fn ask(stream: &mut TcpStream, request: &str) -> String {
    let with_end = format!("{request}version\r\n");
    stream.write_all(with_end.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if text.ends_with("\r\n")
            && let Some(start) = text.rfind("VERSION ")
        {
            return text[..start].to_owned();
        }
        assert_ne!(
            stream.read_buf(&mut answer).await.unwrap(),
            0,
            "{request:?}"
        );
    }
}

/// Equal, but for seconds that pass while the test runs: the tokens of `t` and `l`.
fn same(given: &str, expected: &str) -> bool {
    let (given, expected) = (given.split(' '), expected.split(' '));
    let seconds = |word: &str| -> Option<i64> {
        let number = word.strip_prefix(['t', 'l'])?;
        number.split("\r\n").next()?.parse().ok()
    };
    let rest = |word: &str| word.split_once("\r\n").map(|(_, rest)| rest.to_owned());
    given.clone().count() == expected.clone().count()
        && given
            .zip(expected)
            .all(|(a, b)| match (seconds(a), seconds(b)) {
                (Some(x), Some(y)) => (x - y).abs() <= 5 && rest(a) == rest(b),
                _ => a == b,
            })
}

#[tokio::test]
async fn answers_as_the_protocol_says() {
    for table in [TEXT, META] {
        let server = Program::start(MEMCACHED, &["--threads", "1"]);
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        for (request, answer) in table {
            let given = ask(&mut stream, request).await;
            assert!(
                same(&given, answer),
                "{request:?}: {given:?}, not {answer:?}"
            );
        }
        drop(stream);
        server.stop();
    }
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order() {
    let server = Program::start(MEMCACHED, &[]);
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let mut expected = String::new();
    let mut requests = String::new();
    for i in 0..20_000 {
        requests += &format!("set k{i} {i} 0 5 noreply\r\n{i:05}\r\nget k{i}\r\n");
        expected += &format!("VALUE k{i} {i} 5\r\n{i:05}\r\nEND\r\n");
    }
    requests += "quit\r\n";
    let mut answer = String::new();
    let (sent, received) = tokio::join!(
        write.write_all(requests.as_bytes()),
        read.read_to_string(&mut answer)
    );
    sent.unwrap();
    received.unwrap();
    assert!(answer == expected);
    server.stop();
}

#[tokio::test]
async fn stats_show_the_cache_and_the_network() {
    let server = Program::start(MEMCACHED, &["-m", "32"]);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    ask(&mut stream, "set k 0 0 5\r\nhello\r\nget k\r\nget nope\r\n").await;
    let stats = ask(&mut stream, "stats\r\n").await;
    for line in [
        "STAT curr_items 1",
        "STAT cmd_get 2",
        "STAT get_hits 1",
        "STAT get_misses 1",
        "STAT cmd_set 1",
        "STAT limit_maxbytes 33554432",
        "STAT curr_connections 1",
        "STAT connections.kernel 1",
        "STAT connections.offloaded 0",
        "STAT fast_path.bytes_in 0",
        "STAT slow_path.bytes_out 0",
    ] {
        assert!(stats.contains(&format!("{line}\r\n")), "{line}: {stats}");
    }
    assert!(stats.contains("STAT nic.kind "), "{stats}");
    let settings = ask(&mut stream, "stats settings\r\n").await;
    assert!(
        settings.contains("STAT maxbytes 33554432\r\n"),
        "{settings}"
    );
    let items = ask(&mut stream, "stats items\r\n").await;
    assert!(items.contains("STAT items:1:number 1\r\n"), "{items}");
    let slabs = ask(&mut stream, "stats slabs\r\n").await;
    assert!(slabs.contains("STAT active_slabs 1\r\n"), "{slabs}");
    drop(stream);
    server.stop();
}

#[test]
fn memccapable_finds_no_failure() {
    if !have("memccapable") {
        return;
    }
    let server = Program::start(MEMCACHED, &[]);
    let output = Command::new("memccapable")
        .args(["-a", "-h", "127.0.0.1", "-p"])
        .arg(server.address().port().to_string())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("All tests passed"), "{report}");
    server.stop();
}

#[test]
fn memcslap_runs_clean() {
    if !have("memcslap") {
        return;
    }
    let server = Program::start(MEMCACHED, &[]);
    let servers = format!("--servers={}", server.address());
    for test in ["set", "get", "mget"] {
        let output = Command::new("memcslap")
            .args([&servers, "--concurrency=4", "--execute-number=2000"])
            .arg(format!("--test={test}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{test}: {output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.trim().is_empty(), "{test}: {errors}");
    }
    server.stop();
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let server = Program::start(MEMCACHED, &[]);
    let taken = server.address().to_string();
    let error = failing(MEMCACHED, &["--kernel", "--listen", &taken]);
    assert!(
        error.contains(&taken) && error.contains("--listen"),
        "{error}"
    );
    let error = failing(MEMCACHED, &["--kernel", "-m", "8", "-I", "8"]);
    assert!(error.contains("-m") && error.contains("-I"), "{error}");
}

#[tokio::test]
async fn a_third_party_client_gets_what_it_stored() {
    let server = Program::start(MEMCACHED, &[]);
    let dsn = format!("tcp://{}", server.address());
    let mut client = Client::new(&dsn).await.unwrap();
    assert!(client.version().await.unwrap().starts_with("1.6"));

    let big = vec![b'x'; 1 << 20];
    client.set("big", &big[..], None, Some(3)).await.unwrap();
    let value = client.get("big").await.unwrap().unwrap();
    assert_eq!((value.flags, value.data), (Some(3), Some(big)));
    assert!(client.get("absent").await.unwrap().is_none());
    assert!(client.add("big", "again", None, None).await.is_err());

    let pairs: Vec<(String, String)> = (0..1000)
        .map(|i| (format!("key{i}"), format!("value{i}")))
        .collect();
    let borrowed: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let stored = client.set_multi(&borrowed, None, None).await.unwrap();
    assert!(stored.len() == 1000 && stored.values().all(Result::is_ok));
    let values = client
        .get_multi(pairs.iter().map(|(key, _)| key))
        .await
        .unwrap();
    assert_eq!(values.len(), 1000);
    for (value, (key, data)) in values.iter().zip(&pairs) {
        assert_eq!(value.key, key.as_bytes());
        assert_eq!(value.data.as_deref(), Some(data.as_bytes()));
    }

    client.set("n", "41", None, None).await.unwrap();
    assert_eq!(client.increment("n", 1).await.unwrap(), 42);
    assert_eq!(client.decrement("n", 50).await.unwrap(), 0);
    client.delete("n").await.unwrap();
    assert!(client.get("n").await.unwrap().is_none());

    let flags = ["c", "F9", "T100"];
    let stored = client
        .meta_set("m", "meta", false, Some(b"op"), Some(&flags[..]))
        .await
        .unwrap();
    let cas = stored.unwrap().cas.unwrap();
    let flags = ["v", "c", "f", "k"];
    let value = client
        .meta_get("m", false, None, Some(&flags[..]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(value.data.as_deref(), Some(&b"meta"[..]));
    assert_eq!((value.cas, value.flags), (Some(cas), Some(9)));
    client.meta_delete("m", false, None, None).await.unwrap();
    let gone = client.meta_get("m", true, None, Some(&["v"][..])).await;
    assert!(gone.unwrap().is_none());

    assert_eq!(
        client.stats().await.unwrap()["threads"].parse(),
        Ok(std::thread::available_parallelism().unwrap().get())
    );
    client.flush_all().await.unwrap();
    assert!(client.get("key1").await.unwrap().is_none());
    drop(client);
    server.stop();
}
