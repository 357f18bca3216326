//! How the runtime is set up: only what the contract needs is switched on.

use crate::limits::EPOCH_TICK;
use wasmtime::{Config, Engine};

/// The runtime. Its settings are part of the key that compiled plugins are kept under.
pub(crate) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.wasm_component_model_async(true);
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// Moves the engine's epoch on until it is dropped, so that running plugins yield.
pub(crate) struct Ticker {
    stop: std::sync::mpsc::Sender<()>,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let (stop, stopped) = std::sync::mpsc::channel();
        let engine = engine.weak();
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(EPOCH_TICK) {
                match engine.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => break,
                }
            }
        })?;
        Ok(Self { stop })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // A thread that is gone already needs no telling.
        let _ = self.stop.send(());
    }
}
