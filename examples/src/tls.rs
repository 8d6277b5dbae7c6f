//! Certificates and the TLS side of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// Where the server's certificate comes from.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Made at start, signed by itself, for `localhost` and these addresses.
    SelfSigned(Vec<SocketAddr>),
    /// A certificate chain and its key, both PEM.
    Files {
        /// The chain, the server's own certificate first.
        cert: PathBuf,
        /// The private key (PKCS #8, PKCS #1 or SEC 1).
        key: PathBuf,
    },
}

/// Why TLS cannot be served; the text names the file and the fix.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// Makes the acceptor; `alpn` are the protocols offered, best first.
///
/// # Errors
///
/// [`TlsError`] when a file cannot be read or does not hold what it should, or when the key does
/// not belong to the certificate.
pub fn acceptor(identity: &Identity, alpn: &[&str]) -> Result<TlsAcceptor, TlsError> {
    let (chain, key) = match identity {
        Identity::SelfSigned(addresses) => self_signed(addresses)?,
        Identity::Files { cert, key } => (read_chain(cert)?, read_key(key)?),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| {
            TlsError(format!(
                "cannot use this certificate and key together: {error}; --cert takes the chain \
                 with the server's own certificate first, --key the private key of that one"
            ))
        })?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type CertAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn self_signed(addresses: &[SocketAddr]) -> Result<CertAndKey, TlsError> {
    let mut names = vec!["localhost".to_owned()];
    let loopback: [IpAddr; 2] = [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
    for ip in loopback
        .into_iter()
        .chain(addresses.iter().map(SocketAddr::ip))
    {
        let name = ip.to_string();
        if !ip.is_unspecified() && !names.contains(&name) {
            names.push(name);
        }
    }
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| TlsError(format!("cannot make a self-signed certificate: {error}")))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |what: String| {
        TlsError(format!(
            "cannot read the certificate chain {} (--cert): {what}",
            path.display()
        ))
    };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(
            "it holds no `BEGIN CERTIFICATE` section; a PEM file is needed".to_owned(),
        ));
    }
    Ok(chain)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        TlsError(format!(
            "cannot read the private key {} (--key): {error}; an unencrypted PEM file is needed",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    fn files(cert: &Path, key: &Path) -> Result<(), String> {
        let identity = Identity::Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        acceptor(&identity, &["h2"])
            .map(drop)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn files_are_used_and_mistakes_are_named() {
        let names = vec!["localhost".to_owned()];
        let one = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let other = rcgen::generate_simple_self_signed(names).unwrap();
        let cert = file(&one.cert.pem());
        let key = file(&one.signing_key.serialize_pem());
        let other_key = file(&other.signing_key.serialize_pem());
        let empty = file("");

        assert_eq!(files(cert.path(), key.path()), Ok(()));
        let mixed = files(cert.path(), other_key.path()).unwrap_err();
        assert!(
            mixed.contains("--key the private key of that one"),
            "{mixed}"
        );
        let none = files(empty.path(), key.path()).unwrap_err();
        assert!(none.contains("--cert") && none.contains("PEM"), "{none}");
        let no_key = files(cert.path(), empty.path()).unwrap_err();
        assert!(no_key.contains("--key"), "{no_key}");
        let absent = files(Path::new("/nonexistent/cert.pem"), key.path()).unwrap_err();
        assert!(absent.contains("/nonexistent/cert.pem"), "{absent}");
    }

    #[test]
    fn a_self_signed_identity_needs_nothing() {
        let addresses = vec![([0, 0, 0, 0], 443).into(), ([192, 0, 2, 7], 443).into()];
        acceptor(&Identity::SelfSigned(addresses), &["h2", "http/1.1"]).unwrap();
    }
}
