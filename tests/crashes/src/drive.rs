//! One run: clients on a store, under a plan, until they are done or dead.

use crate::job::{Place, Surroundings};
use crate::ledger::Ledger;
use crate::plan::{Decision, Luck, Plan, View};
use crate::scenario::Scenario;
use crate::seed::Seed;
use crate::stage::stage;
use crate::world::{AUDITOR, Fault, Medium, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest that nobody asks for anything: longer than every pause there is.
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// How a run went.
pub struct Run {
    /// What must not be, and is.
    pub broken: Vec<String>,
    /// Requests that happened.
    pub steps: usize,
    /// All that happened.
    pub trace: Vec<String>,
    /// The plan gave up: nothing was looked at.
    pub abandoned: bool,
    /// What is left.
    pub world: Arc<World>,
    /// Who looked.
    pub auditor: Surroundings,
}

/// Runs a scenario under a plan, and looks at what is left; `works_on` says whether somebody goes on there and looks again,
/// which is most of what a case costs.
pub fn run(scenario: &Scenario, medium: Medium, plan: &mut dyn Plan, works_on: bool) -> Run {
    // Made on a runtime of its own.
    stage(scenario.before);
    let runtime = crate::stage::runtime();
    // On this thread: a copy's work cannot be shown to be fit for another.
    let clients = tokio::task::LocalSet::new();
    let run = clients.block_on(&runtime, run_here(scenario, medium, plan, works_on));
    // Threads of dead processes wait for what never comes.
    runtime.shutdown_background();
    run
}

async fn run_here(scenario: &Scenario, medium: Medium, plan: &mut dyn Plan, works_on: bool) -> Run {
    let stage = stage(scenario.before);
    let mut world = World::new(medium, stage.objects.clone(), scenario.jobs.len(), stage.now);
    (world.page, world.lag) = (scenario.page, scenario.lag);
    let world = Arc::new(world);
    let mut promises = stage.promises.clone();
    promises.torn = scenario.weather.tears;
    let ledger = Arc::new(Ledger::new(promises));
    let surroundings = |client, maker| Surroundings {
        client,
        maker,
        world: Arc::clone(&world),
        place: Place::First,
        keys: stage.keys.clone(),
        second: stage.second.clone(),
        ledger: Arc::clone(&ledger),
    };
    let faults = scenario.weather.faults;
    let mut clients: Vec<JoinHandle<()>> = Vec::new();
    for (client, job) in scenario.jobs.iter().enumerate() {
        clients.push(tokio::task::spawn_local(surroundings(client, client as u64).run(*job, faults)));
    }
    let (steps, abandoned) = drive(&world, &ledger, plan, &clients).await;
    for (client, task) in clients.iter().enumerate() {
        task.abort();
        ledger.leaves(client);
    }
    world.kill_all();
    world.let_stragglers_arrive();
    let auditor = surroundings(AUDITOR, 0);
    let mut broken = match abandoned {
        true => Vec::new(),
        false => crate::scenario::aftermath(scenario, &auditor, works_on).await,
    };
    broken.splice(0..0, ledger.snapshot().violations);
    Run { broken, steps, trace: world.steps(), abandoned, world, auditor }
}

/// Answers how many requests happened, and whether the plan gave up.
async fn drive(world: &World, ledger: &Ledger, plan: &mut dyn Plan, clients: &[JoinHandle<()>]) -> (usize, bool) {
    let mut step = 0;
    let mut silence = Duration::ZERO;
    let kill = |client: usize, steps_late| {
        world.kill(client, steps_late);
        clients[client].abort();
        ledger.leaves(client);
    };
    loop {
        // The clock moves only when nobody has anything left to do but to wait for us.
        let tick = if silence.is_zero() { Duration::from_millis(1) } else { Duration::from_millis(50) };
        tokio::time::sleep(tick).await;
        let waiting = world.waiting();
        if waiting.is_empty() {
            let over = clients.iter().enumerate().all(|(client, task)| task.is_finished() || !world.is_alive(client));
            if over {
                if let Some(keeps) = plan.at_end() {
                    world.kill_all();
                    cut_power(world, keeps);
                }
                return (step, false);
            }
            silence += tick;
            if silence > SILENCE_MAX {
                ledger.violated("somebody waits for nothing");
                return (step, false);
            }
            continue;
        }
        silence = Duration::ZERO;
        let decision = plan.next(&View { waiting: &waiting, step });
        step += usize::from(!matches!(decision, Decision::Wait(_)));
        match decision {
            Decision::Run { at, fault, steps_late } => world.release(at, fault, steps_late),
            Decision::Kill { at, steps_late } => kill(waiting[at].client, steps_late),
            Decision::RunAndKill { at } => {
                world.release(at, Fault::None, 0);
                kill(waiting[at].client, None);
            }
            Decision::CutPower { run, keeps } => {
                if let Some(at) = run {
                    world.release(at, Fault::None, 0);
                }
                world.kill_all();
                cut_power(world, keeps);
                return (step, false);
            }
            Decision::Wait(long) => {
                world.note(format!("{long:?} pass"));
                tokio::time::sleep(long).await;
            }
            Decision::Abandon => return (step, true),
        }
    }
}

fn cut_power(world: &World, keeps: Luck) {
    let mut seed = Seed::new(if let Luck::Some(seed) = keeps { seed } else { 0 });
    world.cut_power(|newer| match keeps {
        Luck::None => false,
        Luck::All => true,
        Luck::Newest => newer == 0,
        Luck::Some(_) => seed.one_in(2),
    });
}
