use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::{Postgres, TestDatabase};
use crate::{Error, ReservedPort, Service};

/// Where Debian installs it, which not everybody has on `PATH`.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// A PgBouncer in front of one database.
#[derive(Debug)]
pub struct Pooler {
    service: Service,
    url: String,
    _port: ReservedPort,
    /// Its configuration.
    _folder: TempDir,
}

impl Pooler {
    /// Starts one in front of `database` of `server` with a `pool_mode`. It may not accept
    /// connections yet.
    ///
    /// # Errors
    /// [`Error::Io`] where PgBouncer is not installed.
    pub fn start(server: &Postgres, database: &TestDatabase, mode: &str) -> Result<Self, Error> {
        let port = ReservedPort::reserve()?;
        let folder = tempfile::tempdir().map_err(Error::io("create a temporary folder"))?;
        let name = database.name();
        let config = format!(
            "[databases]\n\
             {name} = host=127.0.0.1 port={} user=postgres\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {}\n\
             unix_socket_dir =\n\
             auth_type = any\n\
             pool_mode = {mode}\n",
            server.port(),
            port.number(),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, config).map_err(Error::io("write the configuration of PgBouncer"))?;
        // Its own account must be able to read it.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))
            .map_err(Error::io("open a folder to others"))?;
        let debian = Path::new(DEBIAN);
        let program = if debian.exists() {
            debian
        } else {
            Path::new("pgbouncer")
        };
        let mut pooler = Service::builder(program);
        // It refuses to run as root.
        if rustix::process::getuid().is_root() {
            pooler = pooler.arg("-u").arg("nobody");
        }
        Ok(Self {
            service: pooler.arg(&file).spawn()?,
            url: format!("postgres://postgres@127.0.0.1:{}/{name}", port.number()),
            _port: port,
            _folder: folder,
        })
    }

    /// The URL of the database through it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.service.stderr()
    }
}
