use super::*;

const NOW: u64 = 1_900_000_000;

fn store() -> Store {
    Store::new(Settings {
        memory: 64 << 20,
        item_max: 1 << 20,
    })
}

fn put<'a>(key: &'a [u8], value: &'a [u8], mode: Mode) -> Put<'a> {
    Put {
        key,
        value,
        flags: 0,
        expiry: Expiry::Never,
        mode,
        cas: None,
        new_cas: None,
        invalidate: false,
        vivify: None,
    }
}

fn value(store: &Store, key: &[u8], now: u64) -> Option<Bytes> {
    store.get(key, now, true, |item| item.value.clone())
}

#[test]
fn items_expire_at_their_second() {
    let store = store();
    let mut request = put(b"k", b"v", Mode::Set);
    request.expiry = Expiry::from_client(10, NOW);
    store.put(&request, NOW);
    assert!(value(&store, b"k", NOW + 9).is_some());
    assert!(value(&store, b"k", NOW + 10).is_none());
    assert_eq!(store.totals(NOW).items, 0);
}

#[test]
fn a_delayed_flush_spares_what_is_stored_after_it() {
    let store = store();
    store.put(&put(b"old", b"v", Mode::Set), NOW);
    store.flush(Some(NOW + 5));
    assert!(value(&store, b"old", NOW + 4).is_some());
    store.put(&put(b"new", b"v", Mode::Set), NOW + 5);
    assert!(value(&store, b"old", NOW + 5).is_none());
    assert!(value(&store, b"new", NOW + 6).is_some());
    store.flush(None);
    assert!(value(&store, b"new", NOW + 6).is_none());
}

#[test]
fn the_memory_limit_holds() {
    let store = Store::new(Settings {
        memory: 1 << 20,
        item_max: 64 << 10,
    });
    let payload = vec![7; 10_000];
    for i in 0..1000_u32 {
        store.put(&put(&i.to_le_bytes(), &payload, Mode::Set), NOW);
    }
    let totals = store.totals(NOW);
    assert!(totals.bytes <= 1 << 20, "{totals:?}");
    assert!(totals.items > 70, "{totals:?}");
    assert_eq!(totals.counters.evictions + totals.items, 1000);
    assert_eq!(value(&store, &999_u32.to_le_bytes(), NOW).unwrap(), payload);
}

#[test]
fn nothing_grows_beyond_the_item_limit() {
    let store = store();
    let half = vec![1; 600 << 10];
    let stored = store.put(&put(b"k", &half, Mode::Set), NOW);
    assert!(matches!(stored, PutOutcome::Stored { .. }));
    let grown = store.put(&put(b"k", &half, Mode::Append), NOW);
    assert_eq!(grown, PutOutcome::TooLarge);
    assert_eq!(value(&store, b"k", NOW).unwrap().len(), half.len());
}

#[test]
fn numbers_parse_as_memcached_parses_them() {
    assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
    assert_eq!(parse_number(b" 10"), Some(10));
    assert_eq!(parse_number(b"5  "), Some(5));
    for wrong in ["", " ", "-1", "+1", "1x", "18446744073709551616"] {
        assert_eq!(parse_number(wrong.as_bytes()), None, "{wrong:?}");
    }
}
