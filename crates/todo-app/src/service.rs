//! The service: from its configuration to its running tasks.

use prometheus_client::registry::Registry;
use service_kit::health::Readiness;
use service_kit::http::{listen, serve, without_secrets};
use service_kit::{BuildInfo, Lifecycle, TaskError, admin};
use tracing::info;
use verify::Target;

use crate::config::{Command, Config};
use crate::{App, Backend};

/// Starts the command that `config` selects.
///
/// # Errors
/// If a port is taken or the picture's folder cannot be used.
pub async fn start(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    match &config.command {
        Command::Serve => serve_pages(config, lifecycle).await,
        Command::WatchBackend => watch_backend(&config, lifecycle),
        Command::Verify { pages, within } => {
            let mut target = Target::at(pages.as_str())?;
            target.todos = verify::base(config.app.backend_url.join("todos/")?.as_str())?;
            verify::check(&target, *within, &mut |what| {
                info!(step = what, "verifying");
            })
            .await?;
            lifecycle.finish();
            Ok(())
        }
    }
}

/// Readiness depends on nothing else: without the backend the pages say so, and
/// without the picture's origin they show a placeholder.
async fn serve_pages(config: Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    let mut registry = Registry::default();
    let app = App::new(&config.app, &mut registry).await?;
    app.spawn(lifecycle);
    let readiness = Readiness::new(lifecycle.shutdown());
    serve_admin(&config, readiness, registry, lifecycle)?;

    let listener = listen(config.listen_addr)?;
    info!(
        environment = %config.app.environment,
        address = %listener.local_addr()?,
        "serving"
    );
    let budget = lifecycle.budget();
    let router = app.routes(budget.clone(), lifecycle.shutdown());
    lifecycle.spawn(
        "pages",
        serve(
            listener,
            router,
            budget,
            lifecycle.shutdown(),
            lifecycle.delay(),
        ),
    );
    Ok(())
}

fn watch_backend(config: &Config, lifecycle: &mut Lifecycle) -> Result<(), TaskError> {
    let backend = Backend::new(&config.app.backend_url, None)?;
    let readiness = Readiness::new(lifecycle.shutdown()).check("backend", move || {
        let backend = backend.clone();
        async move { backend.health().await }
    });
    serve_admin(config, readiness, Registry::default(), lifecycle)?;
    let backend = without_secrets(&config.app.backend_url);
    info!(backend, "watching the backend");
    let shutdown = lifecycle.shutdown();
    lifecycle.spawn("watch", async move {
        shutdown.cancelled().await;
        Ok(())
    });
    Ok(())
}

fn serve_admin(
    config: &Config,
    readiness: Readiness,
    registry: Registry,
    lifecycle: &mut Lifecycle,
) -> Result<(), TaskError> {
    let build = BuildInfo {
        name: "todo-app",
        version: env!("CARGO_PKG_VERSION"),
        revision: config.runtime.source_revision.clone(),
    };
    admin::start(config.admin_addr, build, readiness, registry, lifecycle)?;
    Ok(())
}
