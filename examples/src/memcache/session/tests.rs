use super::*;
use crate::listener::Transport;
use crate::memcache::store::Settings;
use crate::stop::Stop;

fn session() -> Session {
    let settings = Settings {
        memory: 64 << 20,
        item_max: 1 << 20,
    };
    let info = ServerInfo::new(Transport::Kernel, 1, "test".to_owned(), Stop::new());
    Session::new(Arc::new(Store::new(settings)), Arc::new(info))
}

#[test]
fn answers_every_complete_request_and_keeps_the_rest() {
    let mut session = session();
    let mut output = Vec::new();
    let input = b"set a 0 0 1\r\nx\r\nget a\r\nset b 0 0 5\r\nhel";
    let (done, progress) = session.process(input, &mut output);
    assert_eq!(output, b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(&input[done..], b"set b 0 0 5\r\nhel");
    assert_eq!(
        progress,
        Progress::NeedMore(b"set b 0 0 5\r\nhello\r\n".len())
    );
}

/// The answers do not depend on how the requests are cut into reads.
#[test]
fn any_cut_gives_the_same_answers() {
    let requests =
        b"set a 1 0 5\r\nhello\r\nappend a 0 0 2\r\n\r\n\r\ngets a\r\nset big 0 0 2000000\r\n";
    let mut requests = requests.to_vec();
    requests.resize(requests.len() + 2_000_000, b'x');
    requests.extend_from_slice(b"\r\nms m 2 c T0\r\nhi\r\nmg m v\r\nbogus\r\nversion\r\n");
    let run = |cut: usize| {
        let mut session = session();
        let mut output = Vec::new();
        let mut pending: Vec<u8> = Vec::new();
        for chunk in requests.chunks(cut) {
            pending.extend_from_slice(chunk);
            let (done, progress) = session.process(&pending, &mut output);
            assert!(matches!(progress, Progress::NeedMore(_)));
            pending.drain(..done);
        }
        assert!(pending.is_empty());
        String::from_utf8(output).unwrap()
    };
    let whole = run(usize::MAX);
    assert!(whole.contains("VALUE a 1 7 2\r\nhello\r\n\r\n"), "{whole}");
    assert!(whole.contains("SERVER_ERROR object too large"), "{whole}");
    for cut in [1, 2, 3, 7, 1000, 4096] {
        assert_eq!(run(cut), whole, "{cut}");
    }
}

#[test]
fn stops_for_a_full_output_and_goes_on() {
    let mut session = session();
    let mut output = Vec::new();
    let mut input = b"set a 0 0 100000\r\n".to_vec();
    input.resize(input.len() + 100_000, b'x');
    input.extend_from_slice(b"\r\n");
    for _ in 0..20 {
        input.extend_from_slice(b"get a\r\n");
    }
    let (mut done, mut progress) = session.process(&input, &mut output);
    let mut rounds = 1;
    let mut total = output.len();
    while progress == Progress::Full {
        output.clear();
        let (more, next) = session.process(&input[done..], &mut output);
        done += more;
        progress = next;
        total += output.len();
        rounds += 1;
    }
    assert_eq!(done, input.len());
    assert!(rounds > 3);
    let value = b"VALUE a 0 100000\r\n\r\nEND\r\n".len() + 100_000;
    assert_eq!(total, b"STORED\r\n".len() + 20 * value);
}

#[test]
fn a_line_without_end_is_refused() {
    let mut output = Vec::new();
    let (_, progress) = session().process(&[b'x'; MAX_LINE + 1], &mut output);
    assert_eq!(progress, Progress::Quit);
    assert_eq!(output, b"CLIENT_ERROR line too long\r\n");
}

#[test]
fn numbers_print_as_they_parse() {
    for value in [0, 9, 10, 4_294_967_295, u64::MAX] {
        let mut output = Vec::new();
        push_number(&mut output, value);
        assert_eq!(output, value.to_string().as_bytes());
        assert_eq!(number::<u64>(&output), Some(value));
    }
    for wrong in ["", "-1", "+1", "1 ", "99999999999999999999"] {
        assert_eq!(number::<u64>(wrong.as_bytes()), None, "{wrong}");
    }
}

/// Any bytes: no panic, and no request is looked at twice.
#[test]
fn survives_noise() {
    let mut state = 7_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize
    };
    let words: [&[u8]; 24] = [
        b"set",
        b"get",
        b"cas",
        b"mg",
        b"ms",
        b"md",
        b"ma",
        b"me",
        b"mn",
        b"k",
        b"0",
        b"1",
        b"-1",
        b"18446744073709551615",
        b"noreply",
        b"b",
        b"v",
        b"T1",
        b"MA",
        b"N0",
        b" ",
        b"\r\n",
        b"\n",
        b"\xff\0",
    ];
    for _ in 0..200 {
        let mut input = Vec::new();
        for _ in 0..200 {
            input.extend_from_slice(words[random() % words.len()]);
            if random() % 2 == 0 {
                input.push(b' ');
            }
        }
        let mut output = Vec::new();
        let (done, _) = session().process(&input, &mut output);
        assert!(done <= input.len());
    }
}
