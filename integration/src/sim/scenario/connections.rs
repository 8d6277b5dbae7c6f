//! Connections, and what the applications at their ends do.

use std::time::Duration;

use flextcp_rt::options::{KeepAlive, SocketOptions};

use super::hosts::CONGESTION;
use super::{AppPlan, ConnectionPlan, Ending, Mode, Rng};

pub(super) fn connections(rng: &mut Rng, hosts: usize) -> Vec<ConnectionPlan> {
    let count = match rng.below(20) {
        0 => rng.range(20..=50),
        1..=3 => rng.range(6..=16),
        _ => rng.range(1..=5),
    };
    let v6 = rng.chance(0.3);
    // What all connections of a scenario write together decides how long it takes to play.
    let budget = rng.magnitude(20_000..=3_000_000);
    let spread = rng.pick(&[0, 10_000, 1_000_000, 5_000_000]);
    // Many SYNs at one moment, and their retransmissions, meet a full queue each time.
    let spread = if count > 5 {
        spread.max(500 * count)
    } else {
        spread
    };
    (0..count)
        .map(|_| {
            let client = rng.range(1..=hosts as u64 - 1) as usize;
            let (client, server) = match rng.below(8) {
                0 => (0, client),
                _ => (client, 0),
            };
            let share = budget / count;
            let simultaneous = rng.chance(0.05);
            let (client_app, server_app) = apps(rng, share);
            ConnectionPlan {
                at: Duration::from_micros(rng.range(0..=spread)),
                client,
                server,
                v6: v6 != rng.chance(0.1),
                simultaneous,
                client_app,
                server_app,
            }
        })
        .collect()
}

/// Both applications of a connection that moves about `bytes`.
fn apps(rng: &mut Rng, bytes: u64) -> (AppPlan, AppPlan) {
    let mut client = app(rng, bytes);
    let mut server = app(rng, bytes);
    match rng.below(6) {
        // A request and its answer, again and again.
        0 => {
            client.mode = Mode::Ask;
            client.send = client.send.min(200_000);
            client.write = 1..=rng.magnitude(1..=4_000);
            let rounds = 300;
            client.send = client.send.min(rounds * (*client.write.end() / 2).max(1));
            server.mode = Mode::Answer;
            server.send = client.send;
            server.ending = Ending::Last;
        }
        1 => {
            server.mode = Mode::Answer;
            server.send = client.send;
        }
        2 => client.send = rng.below(1_000),
        3 => server.send = 0,
        4 => client.send = 0,
        _ => {}
    }
    (client, server)
}

fn app(rng: &mut Rng, bytes: u64) -> AppPlan {
    let send = rng.magnitude(1..=bytes.max(2));
    let write = match rng.below(4) {
        // Small writes, but not too many.
        0 => {
            let least = (send / 1_000).max(1);
            least..=least + rng.magnitude(1..=2_000)
        }
        1 => 1_448..=1_448,
        2 => 1..=65_536,
        _ => 65_536..=65_536,
    };
    let think = match rng.below(8) {
        0 => {
            let writes = (send / write.end()).max(1);
            let most = Duration::from_secs(20) / u32::try_from(writes).unwrap_or(u32::MAX);
            rng.time(Duration::from_micros(1)..=most.max(Duration::from_micros(1)))
        }
        _ => Duration::ZERO,
    };
    let stalls = match rng.below(6) {
        0 => vec![(
            rng.below(bytes),
            rng.time(Duration::from_millis(1)..=Duration::from_secs(90)),
        )],
        _ => Vec::new(),
    };
    AppPlan {
        mode: Mode::Stream,
        send,
        write,
        think,
        read: rng
            .pick(&[1_u64..=65_536, 65_536..=65_536, 100..=3_000].each_ref())
            .clone(),
        stalls,
        ending: match rng.below(12) {
            0 => Ending::Reset(rng.range(0..=send)),
            1 => Ending::Close,
            2 => Ending::CloseAt(rng.range(0..=bytes)),
            3..=5 => Ending::Last,
            _ => Ending::Shutdown,
        },
        options: options(rng),
    }
}

fn options(rng: &mut Rng) -> SocketOptions {
    SocketOptions {
        nodelay: rng.chance(0.3),
        // Every connection learns in the end that its peer is gone.
        keepalive: Some(KeepAlive {
            time: rng.time(Duration::from_secs(5)..=Duration::from_secs(60)),
            interval: rng.time(Duration::from_secs(2)..=Duration::from_secs(10)),
            count: 9,
        }),
        recv_buffer: rng
            .chance(0.1)
            .then(|| rng.magnitude(2_048..=1 << 20) as u32),
        send_buffer: rng
            .chance(0.1)
            .then(|| rng.magnitude(4_096..=1 << 20) as u32),
        maxseg: rng.chance(0.05).then(|| rng.range(88..=1_460) as u16),
        congestion: rng.chance(0.2).then(|| rng.pick(&CONGESTION)),
        ..SocketOptions::default()
    }
}

/// Sees to it that the two applications do not wait for each other for ever, and come to where they are to end.
pub(super) fn settle(connection: &mut ConnectionPlan) {
    let (client, server) = (&mut connection.client_app, &mut connection.server_app);
    if client.ending == Ending::Last && server.ending == Ending::Last {
        client.ending = Ending::Shutdown;
    }
    for app in [&mut *client, &mut *server] {
        if app.mode != Mode::Stream {
            // A pause in each of hundreds of rounds is a long time, and one after each byte of many longer still.
            let writes = u32::try_from(app.send / app.write.start()).unwrap_or(u32::MAX);
            app.think = app
                .think
                .min(Duration::from_millis(50))
                .min(Duration::from_secs(1_800) / writes.max(1));
        }
    }
    // Who answers can only be done when the other is.
    if server.mode == Mode::Answer {
        server.ending = Ending::Last;
        if client.ending == Ending::Last {
            client.ending = Ending::Shutdown;
        }
    }
}
