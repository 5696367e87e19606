//! Each fault strikes the real programs while clients make changes. Every acknowledged change must
//! reach the webhook, in the order of its todo, and twice only where a process died between the
//! delivery and its note.

use drill::{Scale, Scenario};

use crate::programs::programs;

async fn survive(scenario: &Scenario) {
    let mut system = scenario.set_up(&programs()).await.unwrap();
    let findings = scenario.play(&mut system, Scale::SHORT).await.unwrap();
    assert!(
        findings.keep_the_promise(scenario.duplicates),
        "{}: {findings:?}",
        scenario.name
    );
}

macro_rules! survive {
    ($($test:ident: $scenario:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                survive(&Scenario::$scenario).await;
            }
        )+

        #[test]
        fn every_scenario_is_played() {
            let played = [$(Scenario::$scenario.name),+];
            let all: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name).collect();
            assert_eq!(played.as_slice(), all);
        }
    };
}

survive! {
    without_a_fault_every_change_is_delivered_once: CALM,
    a_restart_of_nats_loses_nothing: NATS_RESTARTED,
    an_outage_of_nats_loses_nothing: NATS_DOWN,
    a_webhook_that_answers_500_gets_everything_later: WEBHOOK_FAILS,
    a_webhook_that_asks_for_a_pause_gets_everything_after_it: WEBHOOK_LIMITS,
    a_webhook_that_refuses_gets_everything_later: WEBHOOK_REFUSES,
    a_webhook_that_hangs_gets_everything_later: WEBHOOK_HANGS,
    a_killed_broadcaster_goes_on_where_it_was: BROADCASTER_KILLED,
    a_stopped_broadcaster_goes_on_where_it_was: BROADCASTER_STOPPED,
    another_broadcaster_takes_over_from_a_killed_one: ONE_OF_SEVERAL_KILLED,
    a_killed_backend_has_lost_no_acknowledged_change: BACKEND_KILLED,
    a_stopped_backend_publishes_what_waits_when_it_is_back: BACKEND_STOPPED_WITH_EVENTS_WAITING,
    a_kill_of_postgresql_loses_no_acknowledged_change: POSTGRES_KILLED,
    a_standby_takes_over_from_a_killed_relay: TWO_RELAYS,
    poison_is_put_aside_and_the_rest_is_delivered: POISON,
}
