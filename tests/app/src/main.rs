//! An app that misbehaves on request: end-to-end tests run it in containers and tell it by
//! environment (see `settings`) how to fail. It is a correct HTTP server in everything that it
//! was not told to do wrong, so that a failed request is never its own accident.

mod echo;
mod faults;
mod http;
mod settings;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use settings::Settings;

/// Wrong settings: unlike any code that a test would ask for.
const EXIT_BAD_SETTINGS: u8 = 64;

fn main() -> ExitCode {
    let settings = match Settings::from_env(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("test app: {error}");
            return ExitCode::from(EXIT_BAD_SETTINGS);
        }
    };
    if let Some(code) = settings.exit_at_once {
        eprintln!("test app: told to exit at once with {code}");
        return ExitCode::from(code);
    }
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("test app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(settings: Settings) -> anyhow::Result<()> {
    // First of all: PID 1 gets no signal that it has no handler for, not even during the delay.
    let mut sigterm = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut sigint = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let settings = Arc::new(settings);
    faults::start(&settings);
    if !settings.start_delay.is_zero() {
        println!("starting in {:?}", settings.start_delay);
        tokio::select! {
            () = tokio::time::sleep(settings.start_delay) => {}
            () = stop_asked(&settings, &mut sigterm, &mut sigint) => return Ok(()),
        }
    }
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("listening on {}", settings.listen))?;
    println!(
        "version {} listening on {}",
        settings.version, settings.listen
    );

    let graceful = GracefulShutdown::new();
    let stop = stop_asked(&settings, &mut sigterm, &mut sigint);
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    eprintln!("test app: accept: {error}");
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let _ = stream.set_nodelay(true);
        let settings = settings.clone();
        if settings.echo {
            tokio::spawn(async move { echo::talk(&settings, stream).await });
            continue;
        }
        let service = hyper::service::service_fn(move |request| {
            let settings = settings.clone();
            async move { Ok::<_, std::convert::Infallible>(http::answer(&settings, request).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new()).http1_only();
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let watched = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // A client that goes away is the client's business.
            let _ = watched.await;
        });
    }
    drop(listener);
    println!("stopping: finishing {} connections", graceful.count());
    graceful.shutdown().await;
    println!("stopped");
    Ok(())
}

/// Completes when the app was told to stop and does not ignore it.
async fn stop_asked(settings: &Settings, sigterm: &mut Signal, sigint: &mut Signal) {
    loop {
        tokio::select! {
            _ = sigterm.recv() => {}
            _ = sigint.recv() => {}
        }
        if !settings.ignore_sigterm {
            return;
        }
        println!("SIGTERM ignored, as told");
    }
}
