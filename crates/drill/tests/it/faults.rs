//! Each fault strikes the real programs while clients make changes. Every acknowledged change must
//! reach the webhook, in the order of its todo, soon after the end of the fault, and twice only if
//! a process died between a delivery and its record.

use drill::{Scale, Scenario};

use crate::programs::programs;

async fn survive(name: &str) {
    let scenario = Scenario::ALL.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.unwrap();
    let mut findings = scenario.play(&programs(), Scale::SHORT).await.unwrap();
    let logs = std::mem::take(&mut findings.logs);
    assert!(logs.is_empty(), "{logs}\n{findings:?}");
}

macro_rules! survive {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                survive($name).await;
            }
        )+

        #[test]
        fn every_scenario_is_played() {
            let all: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name).collect();
            assert_eq!([$($name),+].as_slice(), all);
        }
    };
}

survive! {
    without_faults_every_change_is_delivered_once:
        "nothing is broken",
    a_flood_of_changes_is_delivered_in_order:
        "clients make as many changes as they can",
    a_restart_of_nats_loses_nothing:
        "NATS is restarted",
    an_outage_of_nats_loses_nothing:
        "NATS is killed and restarted later",
    a_lost_nats_store_is_refilled:
        "NATS loses its store while the webhook is down",
    an_older_nats_store_gets_the_missing_events:
        "NATS comes back with an older store",
    events_wait_while_the_nats_account_is_full:
        "the account of NATS is full",
    a_removed_stream_is_recreated:
        "the stream of events is removed",
    a_stream_recreated_by_an_operator_is_refilled:
        "the stream of events is recreated",
    a_removed_consumer_is_recreated:
        "the consumer is removed",
    a_removed_bucket_and_dead_letter_stream_are_recreated:
        "the bucket and the dead letters are removed",
    poison_messages_become_dead_letters:
        "messages arrive that are not todos",
    events_survive_a_webhook_that_answers_500:
        "the webhook answers 500",
    events_survive_a_webhook_that_refuses_connections:
        "the webhook refuses connections",
    events_survive_a_webhook_that_hangs:
        "the webhook hangs",
    events_wait_for_retry_after:
        "the webhook answers 429, Retry-After: 2",
    a_retry_after_of_zero_still_delays:
        "the webhook answers 429, Retry-After: 0",
    a_retry_after_in_the_past_still_delays:
        "the webhook answers 429 with a date in the past",
    a_todo_that_is_always_refused_does_not_block_others:
        "one todo is always refused, NATS is restarted",
    a_killed_broadcaster_resumes_where_it_was:
        "the broadcaster is killed and restarted later",
    a_stopped_broadcaster_resumes_where_it_was:
        "the broadcaster is stopped and restarted later",
    a_standby_takes_over_from_a_killed_broadcaster:
        "the active one of 3 broadcasters is killed",
    a_standby_takes_over_from_a_frozen_broadcaster:
        "the active one of 3 broadcasters is frozen",
    a_standby_takes_over_from_a_broadcaster_that_is_cut_off:
        "the active one of 3 broadcasters is cut off",
    a_killed_backend_loses_no_acknowledged_change:
        "the backend is killed and restarted later",
    a_restarted_backend_publishes_waiting_events:
        "the backend is stopped while events wait",
    a_standby_takes_over_from_a_killed_relay:
        "the relay is killed, then its successor",
    a_standby_takes_over_from_a_relay_whose_machine_vanished:
        "the relay's machine vanishes, connections open",
    connections_dropped_by_the_network_are_replaced:
        "the network forgets all connections",
    killing_postgresql_loses_no_acknowledged_change:
        "PostgreSQL is killed and restarted later",
    changes_succeed_after_postgresql_was_read_only:
        "PostgreSQL is read-only for a while",
    an_unreadable_outbox_row_blocks_nothing:
        "a row of the outbox cannot be read",
    a_backend_without_privileges_exits_and_names_the_grants:
        "a backend is started without privileges",
    a_backend_behind_shared_sessions_exits_and_names_the_setting:
        "a backend is started behind a shared session",
}
