//! Random traffic.

use super::scene::{Scene, WARM_UP};
use crate::dice::Dice;
use crate::settings::Settings;
use crate::traffic::{Abort, FlowPlan, Reader, Script, Step, When};
use hopline_proto::flows::RESERVE_BYTES;
use std::time::Duration;

/// Draws 1 to 6 flows between the endpoints of a scene; these are the last of its nodes.
pub(super) fn draw(seed: u64, scene: &Scene, settings: &Settings) -> Vec<FlowPlan> {
    let mut dice = Dice::new(seed, 101);
    let count = dice.within(1, 6);
    let most_hops = 5.min(scene.relays as u64);
    // What the network carries until the faults are over, so that flows meet them under way.
    let seconds = scene.calm.as_secs().min(20);
    let volume = match settings.weather.bandwidth {
        0 => 4 << 20,
        bandwidth => (bandwidth * seconds / count).clamp(64 << 10, 4 << 20),
    };
    // A window a round trip is all that a chain carries.
    let round_trip = (settings.weather.delay.1 * 2 * 8).as_micros().max(1);
    let flows = &settings.flows;
    let window = flows.limits.window_bytes.min(flows.replay_bytes + RESERVE_BYTES);
    let carried = u128::from(window.min(settings.stream_window as u64));
    let carried = u64::try_from(carried * 20_000_000 / round_trip).unwrap_or(u64::MAX);
    let volume = volume.min(carried).max(1000);
    let first = scene.relays + scene.crowd;
    (0..count)
        .map(|_| {
            let origin = dice.place(scene.endpoints);
            let target = (origin + 1 + dice.place(scene.endpoints - 1)) % scene.endpoints;
            let (kind, scripts) = scripts(&mut dice, volume, scene.calm);
            let abort = dice.percent(10).then(|| {
                let most = u64::try_from(scene.calm.as_millis()).unwrap_or(u64::MAX);
                Abort { end: dice.place(2), after: dice.millis(1, most) }
            });
            let latest = if dice.percent(80) { 1500 } else { 6000 };
            let opens = WARM_UP + dice.millis(0, latest);
            FlowPlan {
                origin: first + origin,
                target: first + target,
                name: format!("t{}", first + target),
                hops: u8::try_from(dice.within(1, most_hops)).unwrap_or(1),
                opens,
                scripts,
                abort,
                kind,
            }
        })
        .collect()
}

fn scripts(dice: &mut Dice, volume: u64, calm: Duration) -> (&'static str, [Script; 2]) {
    let bytes = |dice: &mut Dice| volume >> dice.below(8);
    let now = When::After(Duration::ZERO);
    let once = |bytes| vec![Step { when: now, bytes }];
    let forth = Script::once;
    let readers = [reader(dice, volume), reader(dice, volume)];
    let [here, there] = readers;
    match dice.below(6) {
        0 => ("bulk", [forth(once(bytes(dice)), here), Script::silent(there)]),
        1 => ("bulk both ways", [forth(once(bytes(dice)), here), forth(once(bytes(dice)), there)]),
        2 => {
            let every = dice.log_millis(5, 400);
            let count = (calm.as_micros() / every.as_micros().max(1)).clamp(2, 300);
            let steps = |dice: &mut Dice| {
                (0..count).map(|_| Step { when: When::After(every), bytes: dice.within(1, 2000) }).collect()
            };
            ("trickle", [forth(steps(dice), here), forth(steps(dice), there)])
        }
        3 => {
            let (pause, count) = (dice.log_millis(1, 200), dice.within(2, 60));
            let (ask, answer) = (dice.within(1, 3000), dice.within(1, 30_000));
            ("request and response", conversation((ask, answer), pause, count, here, there))
        }
        4 => {
            // The origin is done at once; the target sends only after that.
            let count = bytes(dice);
            let back = vec![Step { when: When::Taken(100), bytes: count }];
            ("half-closed", [forth(once(100), here), forth(back, there)])
        }
        _ => {
            let bursts = dice.within(2, 5);
            let steps = |dice: &mut Dice| {
                (0..bursts)
                    .map(|_| Step {
                        when: When::After(dice.log_millis(100, 6000)),
                        bytes: bytes(dice) / bursts + 1,
                    })
                    .collect()
            };
            ("bursts with idle phases", [forth(steps(dice), here), forth(steps(dice), there)])
        }
    }
}

fn conversation(
    (ask, answer): (u64, u64),
    pause: Duration,
    count: u64,
    here: Reader,
    there: Reader,
) -> [Script; 2] {
    // A step that only waits, so that a request follows its answer and a pause.
    let asks = (0..count).flat_map(|n| {
        let after = Step { when: When::Taken(n * answer), bytes: 0 };
        [after, Step { when: When::After(pause), bytes: ask }]
    });
    let answers = (1..=count).map(|n| Step { when: When::Taken(n * ask), bytes: answer });
    [Script::once(asks.collect(), here), Script::once(answers.collect(), there)]
}

/// After steps were made smaller, nobody may wait for more than the other end sends: nobody waits.
pub(super) fn mend(flow: &mut FlowPlan) {
    for step in flow.scripts.iter_mut().flat_map(|script| &mut script.steps) {
        if matches!(step.when, When::Taken(_)) {
            step.when = When::Taken(0);
        }
    }
}

/// A slow one still takes all there is within half a minute.
fn reader(dice: &mut Dice, volume: u64) -> Reader {
    if dice.percent(75) {
        return Reader::Eager;
    }
    let pause = dice.log_millis(1, 100);
    let least = volume * u64::try_from(pause.as_millis()).unwrap_or(1) / 30_000;
    Reader::Slow {
        bytes: usize::try_from(dice.within(1000, 100_000).max(least)).unwrap_or(usize::MAX),
        pause,
    }
}
