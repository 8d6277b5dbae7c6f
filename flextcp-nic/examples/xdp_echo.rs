//! Raw AF_XDP echo over a veth link of a network namespace made here: what the port costs without TCP.
//!
//! `sudo cargo run --release -p flextcp-nic --example xdp_echo`

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("AF_XDP is Linux's");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::net::SocketAddr;
    use std::process::Command;
    use std::time::{Duration, Instant as Clock};

    use flextcp_nic::port::xdp::{XdpConfig, XdpInterface, XdpMode, XdpPort};
    use flextcp_nic::port::{Port, TxFrame, TxOffload};
    use flextcp_nic::time::Instant;
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    const RUN: Duration = Duration::from_secs(1);

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        // SAFETY: only the network namespace is unshared, no memory or descriptor table.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
        ip("link add left type veth peer name right")?;
        ip("link set left up")?;
        ip("link set right up")?;
        println!("mode     bytes  outstanding     echoes/s  µs/echo");
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let config = XdpConfig {
                mode,
                ..XdpConfig::default()
            };
            let left = XdpInterface::attach("left", config.clone())?;
            let right = XdpInterface::attach("right", config)?;
            let ends: [SocketAddr; 2] = ["10.0.0.1:1000".parse()?, "10.0.0.2:2000".parse()?];
            left.steering().own(ends[0])?;
            right.steering().own(ends[1])?;
            let mut ports = [left.queue(0)?, right.queue(0)?];
            for (payload, outstanding) in [(64, 1), (64, 32), (1400, 32)] {
                let rate = echo(&mut ports, ends, payload, outstanding)?;
                let micros = 1e6 / rate;
                println!("{mode:<8?} {payload:>5}  {outstanding:>11}  {rate:>11.0}  {micros:>7.2}");
            }
        }
        Ok(())
    }

    fn ip(arguments: &str) -> Result<(), Box<dyn Error>> {
        let status = Command::new("ip").args(arguments.split(' ')).status()?;
        status
            .success()
            .then_some(())
            .ok_or_else(|| format!("ip {arguments}: {status}").into())
    }

    /// Echoes a second, both ends from this thread.
    fn echo(
        [left, right]: &mut [XdpPort; 2],
        [from, to]: [SocketAddr; 2],
        payload: usize,
        outstanding: u64,
    ) -> Result<f64, Box<dyn Error>> {
        let request = frame(from, to, payload);
        let reply = frame(to, from, payload);
        let (start, mut sent, mut done) = (Clock::now(), 0, 0);
        while start.elapsed() < RUN {
            while sent < done + outstanding {
                left.transmit(Instant::ZERO, whole(&request))?;
                sent += 1;
            }
            left.flush(Instant::ZERO)?;
            for _ in 0..right.receive(Instant::ZERO, 256, &mut |_| ())? {
                right.transmit(Instant::ZERO, whole(&reply))?;
            }
            right.flush(Instant::ZERO)?;
            done += left.receive(Instant::ZERO, 256, &mut |_| ())? as u64;
        }
        let rate = done as f64 / start.elapsed().as_secs_f64();
        // The next run starts with empty rings.
        while done < sent {
            for _ in 0..right.receive(Instant::ZERO, 256, &mut |_| ())? {
                right.transmit(Instant::ZERO, whole(&reply))?;
            }
            right.flush(Instant::ZERO)?;
            done += left.receive(Instant::ZERO, 256, &mut |_| ())? as u64;
            if start.elapsed() > 10 * RUN {
                return Err("frames were lost".into());
            }
        }
        Ok(rate)
    }

    const fn whole(bytes: &[u8]) -> TxFrame<'_> {
        let offload = TxOffload {
            checksum: false,
            segment: None,
        };
        TxFrame {
            header: bytes,
            payload: [&[], &[]],
            offload,
        }
    }

    /// Ethernet, IPv4 and TCP headers with nothing in them but what steering reads.
    fn frame(from: SocketAddr, to: SocketAddr, payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 54 + payload];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[23] = 6;
        for (place, end) in [(26, from), (30, to)] {
            if let SocketAddr::V4(end) = end {
                frame[place..place + 4].copy_from_slice(&end.ip().octets());
            }
        }
        frame[34..36].copy_from_slice(&from.port().to_be_bytes());
        frame[36..38].copy_from_slice(&to.port().to_be_bytes());
        frame
    }
}
