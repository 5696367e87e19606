//! The whole system as processes on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream;
use sqlx::{Connection, PgConnection};
use testkit::{Nats, Postgres, Service, TestDatabase, Webhook, eventually, nats, postgres};
use todo_domain::Environment;
use tokio::time::Instant;

use crate::event::{Change, Receipt};
use crate::findings::{Findings, Known};
use crate::network::Network;
use crate::{Error, Load};

/// The environment of every drill, one that posts to the webhook.
pub(crate) const ENVIRONMENT: &str = "production";

/// How long a service may take to become ready on a busy machine.
const START_DEADLINE: Duration = Duration::from_mins(2);

/// How long an orderly stop may take.
const STOP_DEADLINE: Duration = Duration::from_mins(1);

/// An event that is still missing after this long without a delivery is lost. The longest pause is
/// the 30 s between two attempts to post a refused event.
const SILENCE: Duration = Duration::from_secs(90);

/// How often the webhook's requests are collected.
const GATHER: Duration = Duration::from_millis(50);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    todo_backend: PathBuf,
    broadcaster: PathBuf,
}

impl Programs {
    /// The programs in `folder`, where cargo put them.
    ///
    /// # Errors
    /// [`Error::NotBuilt`].
    pub fn in_folder(folder: &Path) -> Result<Self, Error> {
        let find = |name: &str| {
            let program = folder.join(name);
            if program.is_file() {
                Ok(program)
            } else {
                Err(Error::NotBuilt(program.display().to_string()))
            }
        };
        Ok(Self {
            todo_backend: find("todo-backend")?,
            broadcaster: find("broadcaster")?,
        })
    }
}

/// What a system consists of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many processes of todo-backend.
    pub backends: usize,
    /// How many processes of broadcaster.
    pub broadcasters: usize,
    /// How durable an acknowledged write is.
    pub durability: Durability,
    /// Whether the replicas reach the servers over networks that can fail.
    pub networks: bool,
    /// The limit of NATS's store, in the syntax of its configuration; by default, the disk's.
    pub nats_store: Option<&'static str>,
}

/// What a server has done before it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It has written everything to the kernel, which survives the death of processes.
    Process,
    /// PostgreSQL has it on disk, as in production; NATS syncs every two minutes, its default.
    Database,
    /// Both have it on disk.
    Everything,
}

impl Plan {
    /// One backend and two broadcasters.
    pub const PLAIN: Self = Self {
        backends: 1,
        broadcasters: 2,
        durability: Durability::Process,
        networks: true,
        nats_store: None,
    };
}

/// PostgreSQL, NATS, the webhook, and our services between them.
#[derive(Debug)]
pub struct System {
    /// The database server.
    pub postgres: Postgres,
    /// The broker.
    pub nats: Nats,
    /// Stands in for Slack.
    pub webhook: Webhook,
    /// The replicas of todo-backend.
    pub backends: Vec<Service>,
    /// The network between each backend and the servers.
    pub backend_networks: Vec<Network>,
    /// The replicas of broadcaster.
    pub broadcasters: Vec<Service>,
    /// The network between each broadcaster and NATS.
    pub broadcaster_networks: Vec<Network>,
    plan: Plan,
    programs: Programs,
    database: TestDatabase,
    receipts: Vec<Receipt>,
    refused: usize,
}

impl System {
    /// Starts the system and waits until all of it is ready.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(programs: &Programs, plan: Plan) -> Result<Self, Error> {
        let mut system = Self::start_servers(programs, plan).await?;
        for _ in 0..plan.backends {
            system.add_backend().await?;
        }
        for _ in 0..plan.broadcasters {
            system.add_broadcaster().await?;
        }
        Ok(system)
    }

    /// The output of all services, one after the other.
    pub(crate) fn logs(&self) -> String {
        let services = self.backends.iter().chain(&self.broadcasters);
        services
            .map(|service| service.stdout() + &service.stderr())
            .collect()
    }

    /// Starts only the servers.
    pub(crate) async fn start_servers(programs: &Programs, plan: Plan) -> Result<Self, Error> {
        let settings = match plan.durability {
            Durability::Process => &[],
            Durability::Database | Durability::Everything => postgres::DURABLE,
        };
        let postgres = Postgres::start_with(settings).await?;
        let sync = (plan.durability == Durability::Everything).then_some(nats::SYNC_ALWAYS);
        let store = plan
            .nats_store
            .map(|most| format!("max_file_store: {most}"));
        let jetstream = [sync.map(ToOwned::to_owned), store].into_iter().flatten();
        let jetstream = jetstream.collect::<Vec<_>>().join(", ");
        Ok(Self {
            database: postgres.empty_database().await?,
            postgres,
            nats: Nats::start_with_jetstream(&jetstream).await?,
            webhook: Webhook::start()?,
            backends: Vec::new(),
            backend_networks: Vec::new(),
            broadcasters: Vec::new(),
            broadcaster_networks: Vec::new(),
            plan,
            programs: programs.clone(),
            receipts: Vec::new(),
            refused: 0,
        })
    }

    /// Starts a todo-backend.
    pub(crate) async fn add_backend(&mut self) -> Result<(), Error> {
        let network = self
            .network(&[self.postgres.port(), self.nats.port()])
            .await?;
        let backend = Service::builder(&self.programs.todo_backend)
            .env("MIGRATE_ON_START", "true")
            .env("DATABASE_URL", network.url(self.database.url()))
            .env("POD_NAMESPACE", ENVIRONMENT)
            .env("NATS_URL", network.url(&self.nats.url()))
            .env("SHUTDOWN_DELAY_SECONDS", "0")
            .start_deadline(START_DEADLINE);
        self.backends.push(backend.start().await?);
        self.backend_networks.push(network);
        Ok(())
    }

    /// Starts another todo-backend on `database`, which must exit at once with `advice`.
    pub(crate) async fn must_not_start(&self, database: &str, advice: &str) -> Result<(), Error> {
        let backend = Service::builder(&self.programs.todo_backend)
            .arg("--migrate")
            .env("DATABASE_URL", database)
            .env("POD_NAMESPACE", ENVIRONMENT)
            .env("NATS_URL", self.nats.url())
            .spawn()?;
        let status = backend.wait(STOP_DEADLINE).await?;
        let said = backend.stdout() + &backend.stderr();
        if status.success() || !said.contains(advice) {
            return Err(Error::Unexpected(format!("{status} after {said}")));
        }
        Ok(())
    }

    /// Starts a broadcaster.
    pub(crate) async fn add_broadcaster(&mut self) -> Result<(), Error> {
        let network = self.network(&[self.nats.port()]).await?;
        let broadcaster = Service::builder(&self.programs.broadcaster)
            .env("POD_NAMESPACE", ENVIRONMENT)
            .env("NATS_URL", network.url(&self.nats.url()))
            .env("FORWARD_TO_EXTERNAL_SERVICE", "true")
            .env("SLACK_WEBHOOK_URL", self.webhook.url())
            .env("MESSAGE_FORMAT", "json")
            .start_deadline(START_DEADLINE);
        self.broadcasters.push(broadcaster.start().await?);
        self.broadcaster_networks.push(network);
        Ok(())
    }

    async fn network(&self, ports: &[u16]) -> Result<Network, Error> {
        let ports = if self.plan.networks { ports } else { &[] };
        Ok(Network::to(ports).await?)
    }

    /// Starts clients that use all backends.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn load(&self, rate: Option<u32>) -> Result<Load, Error> {
        let url = |backend: &Service| backend.url("/todos/");
        let backends: Vec<String> = self.backends.iter().map(url).collect();
        Load::start(&backends, rate)
    }

    /// Stops `load`, waits until everything is delivered or deliveries stop, and compares. The
    /// webhook accepts the refused events once all others are delivered.
    ///
    /// # Errors
    /// As [`Load::stop`]; [`testkit::Error::Deadline`] when all is delivered but the outbox or the
    /// stream still holds an event.
    pub async fn settle(&mut self, load: Load, known: Known) -> Result<Findings, Error> {
        let changes = load.stop().await?;
        if known.refused.is_some() {
            let others = changes.iter();
            let others = others.filter(|change| !known.excuses(&change.event));
            let others: Vec<_> = others.cloned().collect();
            let waiting = self.until_delivered(&others, known).await.lost();
            if waiting > 0 {
                let found = format!("{waiting} other events wait for a refused todo");
                return Err(Error::Unexpected(found));
            }
            self.webhook.answer_alike();
        }
        let mut findings = self.until_delivered(&changes, known).await;
        if findings.lost() == 0 {
            // Duplicates arrive late.
            self.idle().await?;
            findings = self.compare(&changes, known);
        }
        Ok(findings)
    }

    /// Waits until `changes` are delivered, or deliveries stop.
    async fn until_delivered(&mut self, changes: &[Change], known: Known) -> Findings {
        let mut findings = self.compare(changes, known);
        let mut heard_at = Instant::now();
        while findings.lost() > 0 && heard_at.elapsed() < SILENCE {
            tokio::time::sleep(GATHER).await;
            if self.gather() > 0 {
                heard_at = Instant::now();
                findings = self.compare(changes, known);
            }
        }
        findings
    }

    fn compare(&mut self, changes: &[Change], known: Known) -> Findings {
        self.gather();
        Findings::of(changes, &self.receipts, known)
    }

    /// Collects the requests to the webhook and returns how many it accepted.
    pub(crate) fn gather(&mut self) -> usize {
        let requests = self.webhook.take();
        let before = self.receipts.len();
        self.receipts
            .extend(requests.iter().filter_map(Receipt::read));
        let accepted = self.receipts.len() - before;
        self.refused += requests.len() - accepted;
        accepted
    }

    /// How many of the collected requests the webhook did not accept.
    pub(crate) fn refused(&self) -> usize {
        self.refused
    }

    /// Waits until the outbox is empty and every event in the stream is acknowledged.
    async fn idle(&self) -> Result<(), Error> {
        let settled = eventually(SILENCE, async || {
            let waiting = self.outbox_depth().await.map_err(|e| e.to_string())?;
            let open = self.unacknowledged().await.map_err(|e| e.to_string())?;
            if waiting == 0 && open == 0 {
                Ok(())
            } else {
                Err(format!(
                    "{waiting} events in the outbox, {open} in the stream"
                ))
            }
        });
        Ok(settled.await?)
    }

    pub(crate) async fn database(&self) -> Result<PgConnection, Error> {
        Ok(PgConnection::connect(self.database.url()).await?)
    }

    /// How many events wait to be published.
    pub(crate) async fn outbox_depth(&self) -> Result<i64, Error> {
        let mut database = self.database().await?;
        let depth = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&mut database)
            .await?;
        database.close().await?;
        Ok(depth)
    }

    /// How many events the broadcasters have not acknowledged, delivered to them or not.
    async fn unacknowledged(&self) -> Result<u64, Error> {
        let stream = self.stream(environment().stream()).await?;
        let consumer = stream.consumer_info(environment().broadcaster_consumer());
        let info = consumer.await.map_err(Error::nats)?;
        Ok(info.num_pending + info.num_ack_pending as u64)
    }

    /// How many dead letters there are.
    pub(crate) async fn dead_letters(&self) -> Result<u64, Error> {
        let stream = self.stream(environment().dead_letter_stream()).await?;
        Ok(stream.cached_info().state.messages)
    }

    pub(crate) async fn stream(&self, name: String) -> Result<jetstream::stream::Stream, Error> {
        let stream = self.jetstream().await?.get_stream(name).await;
        stream.map_err(Error::nats)
    }

    /// A connection for the drill itself.
    pub(crate) async fn jetstream(&self) -> Result<jetstream::Context, Error> {
        let client = async_nats::connect(self.nats.url()).await;
        Ok(jetstream::new(client.map_err(Error::nats)?))
    }

    /// The index of the backend that is the relay's leader.
    pub(crate) async fn relay(&self) -> Result<usize, Error> {
        find(&self.backends, "relay_held", |held| held > 0.0).await
    }

    /// The index of the active broadcaster. Requires that an event has been delivered.
    pub(crate) async fn active(&self) -> Result<usize, Error> {
        find(&self.broadcasters, "broadcaster_active", |active| {
            active > 0.0
        })
        .await
    }
}

/// The environment of every drill.
pub(crate) fn environment() -> Environment {
    ENVIRONMENT
        .parse()
        .expect("`production` is a valid environment")
}

/// Stops a service gracefully.
pub(crate) async fn terminate(service: &Service) -> Result<(), Error> {
    let status = service.terminate(STOP_DEADLINE).await?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Unexpected(format!("the stop ended with {status}")))
    }
}

/// Waits for the first of `services` whose `metric` `is_wanted`.
async fn find(
    services: &[Service],
    metric: &str,
    is_wanted: impl Fn(f64) -> bool,
) -> Result<usize, Error> {
    let http = service_kit::http::client("drill", Duration::from_secs(10))?;
    let found = eventually(START_DEADLINE, async || {
        for (index, service) in services.iter().enumerate() {
            let page = http.get(service.admin_url("/metrics")).send().await;
            let Ok(page) = page else { continue };
            let page = page.text().await.unwrap_or_default();
            if value(&page, metric).is_some_and(&is_wanted) {
                return Ok(index);
            }
        }
        Err(format!("no service has the wanted {metric}"))
    });
    Ok(found.await?)
}

/// The value of a metric without labels.
fn value(page: &str, metric: &str) -> Option<f64> {
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
}
