//! A process forks, as daemons do, and its child ends: with the exit handlers that it inherited, but with none of the
//! connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::exit;
use std::thread;
use std::time::Duration;

use flextcp_net::{TcpStream, TcpStreamExt as _};
use fork::Fork;
use integration::netns::{VethOptions, VethPair, require_privileges};
use integration::process::wait_for;
use integration::stack::on_devices;
use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMIT: Duration = Duration::from_secs(20);
const CODE: i32 = 7;

async fn ping(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
}

/// The exit code of a process that a fork made, whose end runs the exit handlers.
fn child_ends() -> Option<i32> {
    let child = match fork::fork().unwrap() {
        Fork::Child => exit(CODE),
        Fork::Parent(child) => Pid::from_raw(child).unwrap(),
    };
    let ended = wait_for(LIMIT, "the child to end", || {
        waitpid(Some(child), WaitOptions::NOHANG).unwrap()
    });
    let (_, status) = ended.unwrap();
    status.exit_status()
}

#[test]
fn a_child_that_ends_leaves_its_parents_connections_alone() {
    if !require_privileges("a_child_that_ends_leaves_its_parents_connections_alone") {
        return;
    }
    let pair = VethPair::new("fork", VethOptions::default()).unwrap();
    let any = SocketAddr::new(VethPair::B_V4, 0);
    let listener = pair.b.within(|| TcpListener::bind(any)).unwrap().unwrap();
    let at = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap()
    });

    on_devices(&pair.a, &[VethPair::DEVICE], async || {
        let mut stream = TcpStream::connect(at).await.unwrap();
        assert!(stream.is_accelerated(), "it fell back to the kernel");
        ping(&mut stream).await;
        assert_eq!(child_ends(), Some(CODE));
        ping(&mut stream).await;
    })
    .unwrap();
    assert_eq!(server.join().unwrap(), 8);
}
