//! The example servers as their users meet them: started as programs, used over sockets, stopped
//! by signals.

mod echo;
mod harness;
mod http;
mod http_client;
mod memcached;
