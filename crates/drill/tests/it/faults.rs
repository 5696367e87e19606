//! Each fault strikes the real programs while clients make changes. Every acknowledged change must
//! reach the webhook, in the order of its todo, soon after the fault is over, and twice only where a
//! process died between the delivery and its note.

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
    without_a_fault_every_change_is_delivered_once:
        "nothing is broken",
    a_flood_of_changes_is_delivered_in_order:
        "clients make as many changes as they can",
    a_restart_of_nats_loses_nothing:
        "NATS is restarted",
    an_outage_of_nats_loses_nothing:
        "NATS is killed and away",
    a_lost_store_of_nats_is_filled_again:
        "NATS loses its store while the webhook is down",
    an_older_store_of_nats_gets_what_it_lacks:
        "NATS comes back with an older store",
    a_full_account_of_nats_makes_events_wait:
        "the account of NATS is full",
    a_stream_that_is_removed_is_made_again:
        "the stream of events is removed",
    a_stream_that_is_made_anew_is_noticed:
        "the stream of events is made anew",
    a_consumer_that_is_removed_is_made_again:
        "the consumer is removed",
    a_bucket_and_dead_letters_that_are_removed_are_made_again:
        "the bucket and the dead letters are removed",
    poison_is_put_aside_and_the_rest_is_delivered:
        "messages come that are no todos",
    a_webhook_that_answers_500_gets_everything_later:
        "the webhook answers 500",
    a_webhook_that_refuses_gets_everything_later:
        "the webhook refuses connections",
    a_webhook_that_hangs_gets_everything_later:
        "the webhook hangs",
    a_webhook_that_asks_for_a_pause_gets_everything_after_it:
        "the webhook answers 429, Retry-After: 2",
    a_pause_of_zero_seconds_is_a_pause:
        "the webhook answers 429, Retry-After: 0",
    a_pause_until_a_date_that_is_past_is_a_pause:
        "the webhook answers 429 with a date that is past",
    a_todo_that_is_refused_for_ever_holds_up_no_other_one:
        "one todo is refused for ever, NATS is restarted",
    a_killed_broadcaster_goes_on_where_it_was:
        "the broadcaster is killed and away",
    a_stopped_broadcaster_goes_on_where_it_was:
        "the broadcaster is stopped and away",
    a_standby_takes_over_from_a_killed_broadcaster:
        "the active one of 3 broadcasters is killed",
    a_standby_takes_over_from_a_frozen_broadcaster:
        "the active one of 3 broadcasters is frozen",
    a_standby_takes_over_from_a_broadcaster_that_is_cut_off:
        "the active one of 3 broadcasters is cut off",
    a_killed_backend_has_lost_no_acknowledged_change:
        "the backend is killed and away",
    a_stopped_backend_publishes_what_waits_when_it_is_back:
        "the backend is stopped while events wait",
    a_standby_takes_over_from_a_killed_relay:
        "the relay is killed, then its successor",
    a_standby_takes_over_from_a_relay_whose_machine_vanished:
        "the relay's machine vanishes, connections open",
    connections_that_the_network_forgot_are_replaced:
        "the network forgets all connections",
    a_kill_of_postgresql_loses_no_acknowledged_change:
        "PostgreSQL is killed and away",
    a_postgresql_that_was_read_only_takes_changes_afterwards:
        "PostgreSQL is read-only for a while",
    a_row_that_cannot_be_read_holds_up_nothing:
        "a row of the outbox cannot be read",
    a_backend_without_privileges_ends_with_what_to_grant:
        "a backend is started without privileges",
    a_backend_behind_a_shared_session_ends_with_what_to_change:
        "a backend is started behind a shared session",
}
