//! The host's half of `interface grants`.

use crate::{
    bindings::backstay::engine::{
        grants::{
            Credential, Host, HostConnection, HostConnectionWithStore, HostDirectory, HostDirectoryWithStore,
            HostProcess, HostProcessWithStore, HostWithStore, Level, TlsVerification,
        },
        types::{self, Error, FileAttributes, Node},
    },
    connection::Connection,
    directory::Directory,
    error::{EngineError, EngineErrorKind},
    limits, log_gate,
    ports::Body,
    process::Process,
    pump::{self, Companion},
    state::{HasState, State, not_granted},
    tls,
};
use std::{sync::Arc, time::Duration};
use wasmtime::{
    Result,
    component::{Access, Accessor, Resource, StreamReader},
};

type Answer<T> = Result<std::result::Result<T, Error>>;

/// An error of the contract is an answer; anything else traps.
pub(crate) fn answer<T>(result: std::result::Result<T, EngineError>) -> Answer<T> {
    Ok(result.map_err(Error::from))
}

/// What a handle stands for, cloned out of the store so that work can go on without it.
pub(crate) fn resource<T: 'static, R: Clone + Send + 'static>(
    accessor: &Accessor<T, HasState>,
    handle: &Resource<R>,
) -> Result<R> {
    accessor.with(|mut access| {
        let state = access.get();
        state.activity.note();
        Ok(state.table.get(handle)?.clone())
    })
}

/// The bytes of a plugin's stream; each chunk shows that the plugin works.
pub(crate) fn incoming<T: Send + 'static>(accessor: &Accessor<T, HasState>, body: StreamReader<u8>) -> Result<Body> {
    let activity = accessor.with(|mut access| access.get().activity.clone());
    Ok(activity.watch(accessor.with(|access| pump::incoming(access, body))?))
}

impl types::Host for State {}

impl Host for State {
    fn config(&mut self) -> Result<String> {
        Ok(self.context.config.clone())
    }

    fn login(&mut self, name: String) -> Answer<Credential> {
        answer(match self.context.grants.credentials.get(&name) {
            Some(grant) => Ok(Credential { user: grant.user.clone(), password: grant.password.reveal().to_owned() }),
            None => Err(not_granted("credential", "credentials", &name)),
        })
    }

    fn open_directory(&mut self, name: String) -> Answer<Resource<Directory>> {
        let Some(inner) = self.context.directories.get(&name).cloned() else {
            return answer(Err(not_granted("directory", "directories", &name)));
        };
        Ok(Ok(self.table.push(Directory(inner))?))
    }

    fn log(&mut self, level: Level, message: String) -> Result<()> {
        let level = match level {
            Level::Trace => log_gate::Level::Trace,
            Level::Debug => log_gate::Level::Debug,
            Level::Info => log_gate::Level::Info,
            Level::Warn => log_gate::Level::Warn,
            Level::Error => log_gate::Level::Error,
        };
        self.log.line(level, &message);
        Ok(())
    }

    fn progress(&mut self, phase: String, done: u64, total: Option<u64>) -> Result<()> {
        self.context.reporter.progress(&log_gate::printable(&phase, 64), done, total);
        Ok(())
    }

    fn now(&mut self) -> Result<u64> {
        Ok(State::now(self).as_micros())
    }

    fn random(&mut self, length: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length.min(limits::RANDOM_BYTES_MAX) as usize];
        getrandom::fill(&mut bytes).map_err(|error| wasmtime::format_err!("failed to get random bytes: {error}"))?;
        Ok(bytes)
    }
}

impl<T: Send + 'static> HostWithStore<T> for HasState {
    async fn connect(accessor: &Accessor<T, Self>, endpoint: String) -> Answer<Resource<Connection>> {
        let found = accessor.with(|mut access| {
            let state = access.get();
            let grant = state.context.grants.endpoints.get(&endpoint).cloned();
            let grant = grant.ok_or_else(|| not_granted("endpoint", "endpoints", &endpoint))?;
            if Arc::strong_count(&state.connections) > limits::CONNECTIONS_MAX {
                return Err(EngineError::new(EngineErrorKind::Internal, "too many connections are open"));
            }
            Ok((grant, state.connections.clone()))
        });
        let dialled = match found {
            Ok((grant, open)) => Connection::dial(grant, open).await,
            Err(error) => Err(error),
        };
        match dialled {
            Ok(connection) => Ok(Ok(accessor.with(|mut access| access.get().table.push(connection))?)),
            Err(error) => answer(Err(error)),
        }
    }

    async fn run(accessor: &Accessor<T, Self>, tool: String, arguments: Vec<String>) -> Answer<Resource<Process>> {
        accessor.with(|mut access| {
            let state = access.get();
            let Some(program) = state.context.grants.tools.get(&tool) else {
                return answer(Err(not_granted("tool", "tools", &tool)));
            };
            if Arc::strong_count(&state.processes) > limits::PROCESSES_MAX {
                return answer(Err(EngineError::new(EngineErrorKind::Internal, "too many tools are running")));
            }
            match Process::start(&tool, program, &arguments, state.processes.clone()) {
                Ok(process) => Ok(Ok(state.table.push(process)?)),
                Err(error) => answer(Err(error)),
            }
        })
    }

    async fn sleep(_accessor: &Accessor<T, Self>, microseconds: u64) -> Result<()> {
        tokio::time::sleep(Duration::from_micros(microseconds).min(limits::SLEEP_MAX)).await;
        Ok(())
    }

    async fn stop_requested(accessor: &Accessor<T, Self>) -> Result<()> {
        let mut stop = accessor.with(|mut access| access.get().context.stop.clone());
        // A gone sender means that nobody can ask any more; then wait for ever.
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

impl HostConnection for State {
    fn drop(&mut self, handle: Resource<Connection>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostConnectionWithStore<T> for HasState {
    async fn read(accessor: &Accessor<T, Self>, this: Resource<Connection>, max: u32) -> Answer<Vec<u8>> {
        let connection = resource(accessor, &this)?;
        answer(connection.read(max).await)
    }

    async fn write(accessor: &Accessor<T, Self>, this: Resource<Connection>, bytes: Vec<u8>) -> Answer<()> {
        let connection = resource(accessor, &this)?;
        answer(connection.write(&bytes).await)
    }

    async fn start_tls(
        accessor: &Accessor<T, Self>,
        this: Resource<Connection>,
        verification: TlsVerification,
    ) -> Answer<Option<Vec<u8>>> {
        let connection = resource(accessor, &this)?;
        let verification = match verification {
            TlsVerification::None => tls::Verification::None,
            TlsVerification::Authority => tls::Verification::Authority,
            TlsVerification::Full => tls::Verification::Full,
        };
        answer(connection.start_tls(verification).await)
    }

    fn receive(
        mut access: Access<'_, T, Self>,
        this: Resource<Connection>,
    ) -> Result<(StreamReader<u8>, Companion<()>)> {
        let state = access.get();
        let activity = state.activity.clone();
        match state.table.get(&this)?.take_reader() {
            Some(reader) => pump::reading(&mut access, Noted { reader, activity }),
            None => Err(wasmtime::format_err!("the connection's incoming bytes were already taken")),
        }
    }
}

/// While this is held the host is at work for the plugin, which waits for it.
pub(crate) fn busy<T: 'static>(accessor: &Accessor<T, HasState>) -> Arc<()> {
    accessor.with(|mut access| access.get().activity.busy())
}

/// Notes that bytes moved, so that a plugin which follows a stream does not look stalled.
struct Noted<R> {
    reader: R,
    activity: crate::state::Activity,
}

impl<R: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Noted<R> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let read = std::pin::Pin::new(&mut self.reader).poll_read(cx, buf);
        if read.is_ready() {
            self.activity.note();
        }
        read
    }
}

impl HostDirectory for State {
    fn drop(&mut self, handle: Resource<Directory>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostDirectoryWithStore<T> for HasState {
    fn entries(
        mut access: Access<'_, T, Self>,
        this: Resource<Directory>,
        path: String,
    ) -> Result<(StreamReader<Node>, Companion<()>)> {
        let directory = access.get().table.get(&this)?.clone();
        pump::later(&mut access, async move {
            let nodes = directory.entries(&path).await?;
            Ok(nodes.into_iter().map(Node::from).collect())
        })
    }

    async fn stat(accessor: &Accessor<T, Self>, this: Resource<Directory>, path: String) -> Answer<Option<Node>> {
        let directory = resource(accessor, &this)?;
        answer(directory.stat(&path).await.map(|node| node.map(Node::from)))
    }

    fn read(
        mut access: Access<'_, T, Self>,
        this: Resource<Directory>,
        path: String,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(StreamReader<u8>, Companion<u64>)> {
        let state = access.get();
        state.activity.note();
        let body = state.table.get(&this)?.read(&path, offset, length);
        let body = state.activity.watch(body);
        pump::counted(&mut access, body)
    }

    async fn write(
        accessor: &Accessor<T, Self>,
        this: Resource<Directory>,
        path: String,
        attributes: FileAttributes,
        body: StreamReader<u8>,
    ) -> Answer<u64> {
        let directory = resource(accessor, &this)?;
        let body = incoming(accessor, body)?;
        answer(match attributes.try_into() {
            Ok(attributes) => directory.write(&path, attributes, body).await,
            Err(error) => Err(error),
        })
    }

    async fn create(
        accessor: &Accessor<T, Self>,
        this: Resource<Directory>,
        path: String,
        attributes: FileAttributes,
    ) -> Answer<()> {
        let directory = resource(accessor, &this)?;
        answer(match attributes.try_into() {
            Ok(attributes) => directory.create(&path, attributes).await,
            Err(error) => Err(error),
        })
    }

    async fn link(accessor: &Accessor<T, Self>, this: Resource<Directory>, path: String, volume: String) -> Answer<()> {
        let directory = resource(accessor, &this)?;
        answer(directory.link(&path, &volume).await)
    }

    async fn remove(accessor: &Accessor<T, Self>, this: Resource<Directory>, path: String) -> Answer<()> {
        let directory = resource(accessor, &this)?;
        answer(directory.remove(&path).await)
    }

    async fn rename(accessor: &Accessor<T, Self>, this: Resource<Directory>, from: String, to: String) -> Answer<()> {
        let directory = resource(accessor, &this)?;
        answer(directory.rename(&from, &to).await)
    }
}

impl HostProcess for State {
    fn stderr_tail(&mut self, this: Resource<Process>, max: u32) -> Result<String> {
        Ok(self.table.get(&this)?.stderr_tail(max))
    }

    fn terminate(&mut self, this: Resource<Process>) -> Result<()> {
        self.table.get(&this)?.terminate();
        Ok(())
    }

    fn drop(&mut self, handle: Resource<Process>) -> Result<()> {
        self.table.delete(handle)?.terminate();
        Ok(())
    }
}

impl<T: Send + 'static> HostProcessWithStore<T> for HasState {
    async fn stdin(accessor: &Accessor<T, Self>, this: Resource<Process>, body: StreamReader<u8>) -> Answer<u64> {
        let process = resource(accessor, &this)?;
        let body = incoming(accessor, body)?;
        answer(process.feed(body).await)
    }

    fn stdout(mut access: Access<'_, T, Self>, this: Resource<Process>) -> Result<(StreamReader<u8>, Companion<()>)> {
        let state = access.get();
        let activity = state.activity.clone();
        match state.table.get(&this)?.take_stdout() {
            Some(reader) => pump::reading(&mut access, Noted { reader, activity }),
            None => Err(wasmtime::format_err!("the tool's standard output was already taken")),
        }
    }

    async fn wait(accessor: &Accessor<T, Self>, this: Resource<Process>) -> Answer<i32> {
        let process = resource(accessor, &this)?;
        answer(process.wait().await)
    }
}
