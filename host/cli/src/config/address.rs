//! Where a database listens.

use std::{fmt, net::Ipv6Addr, path::PathBuf, str::FromStr};

/// Longest host name that DNS carries.
const HOST_BYTES_MAX: usize = 253;

/// `host:port`, `[v6]:port` or `/unix/socket/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A name or an address, and a port. Version 6 addresses are kept without brackets.
    Tcp {
        /// What to resolve.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// The absolute path of a socket.
    Unix(PathBuf),
}

/// Not an address.
#[derive(Debug, thiserror::Error)]
#[error("`{}` is not an address: {reason}", text.escape_default())]
pub(crate) struct InvalidAddress {
    text: String,
    reason: &'static str,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let refuse = |reason| Err(InvalidAddress { text: text.chars().take(200).collect(), reason });
        if text.starts_with('/') {
            return if text.contains('\0') || text.ends_with('/') {
                refuse("a socket's path ends with its name")
            } else {
                Ok(Self::Unix(PathBuf::from(text)))
            };
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return refuse("it has no port (write host:port, [v6]:port or /path/of/a/socket)");
        };
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return refuse("the port must be a number from 1 to 65535"),
        };
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return match inner.parse::<Ipv6Addr>() {
                Ok(_) => Ok(Self::Tcp { host: inner.to_owned(), port }),
                Err(_) => refuse("what stands in brackets is not a version 6 address"),
            };
        }
        if host.contains(':') {
            return refuse("a version 6 address goes in brackets: [::1]:5432");
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(plain) {
            return refuse("the host must be a DNS name or an IP address");
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_written() {
        for good in ["127.0.0.1:5432", "db.example.com:1", "[::1]:5432", "/run/postgresql/.s.PGSQL.5432", "my_db:65535"]
        {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "db",
            "db:0",
            "db:65536",
            "db:x",
            ":5432",
            "::1:5432",
            "[db]:5432",
            "a b:1",
            "a/b:1",
            "/run/",
            "user@h:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?} was taken");
        }
    }
}
