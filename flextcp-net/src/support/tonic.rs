//! tonic's server over our streams: `Server::serve_with_incoming` with a
//! [`TcpListenerStream`](crate::TcpListenerStream). Its client takes a [`FlexConnector`](crate::FlexConnector).

use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::TcpStream;

impl Connected for TcpStream {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo {
            local_addr: self.local_addr().ok(),
            remote_addr: self.peer_addr().ok(),
        }
    }
}
