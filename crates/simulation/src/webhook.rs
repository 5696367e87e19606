//! A model of the webhook, which records what it receives and whether that was
//! allowed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broadcaster::webhook::{Answer, Failure, Post};
use service_kit::TraceParent;
use tokio::time::{Instant, sleep};

use crate::World;
use crate::replica::Process;
use crate::server::Change;

/// How long after its permission a post may still go out.
const MOMENT: Duration = Duration::from_millis(50);

/// How the webhook treats posts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Well,
    Failing,
    Hanging,
    /// 429, for this long.
    Limiting(Duration),
    /// It accepts the post, but the answer is lost.
    Mute,
}

#[derive(Debug, Default)]
pub(crate) struct Webhook {
    pub(crate) mood: Mood,
    /// Every event that was accepted, in order.
    pub(crate) accepted: Vec<Change>,
    /// When each process last began a post, or may begin the next.
    last: BTreeMap<u64, Instant>,
    not_before: BTreeMap<u64, Instant>,
    pub(crate) fault: Option<String>,
}

impl Webhook {
    fn judge(&mut self, process: u64, is_paced: bool, announced: Option<Instant>) {
        let now = Instant::now();
        let last = self.last.insert(process, now);
        if is_paced && last.is_some_and(|last| now - last < Duration::from_secs(1)) {
            self.fault = Some(format!("{process} posts twice within a second"));
        }
        let asked = self.not_before.get(&process).copied();
        if asked.max(announced).is_some_and(|until| now < until) {
            self.fault = Some(format!("{process} posts although it was asked to wait"));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) process: Arc<Process>,
    pub(crate) world: Arc<World>,
}

impl Post for Outlet {
    async fn post(&self, text: &str, _: Option<TraceParent>) -> Answer {
        let changes = Change::read(text);
        let failed = |status, text: &str| Failure {
            status,
            text: text.to_owned(),
        };
        let announced = {
            let server = self.world.server();
            // Ignores a pause that a process may have missed while posting.
            let noted = server.pause_noted.filter(|noted| noted.elapsed() > MOMENT);
            noted.and(server.pause_until)
        };
        let mood = {
            let mut webhook = self.world.webhook();
            webhook.judge(self.process.name, self.world.is_readable, announced);
            webhook.mood
        };
        let way = self.world.random().u64(1..30);
        sleep(Duration::from_millis(way)).await;
        self.world.note(format_args!(
            "{} posts {changes:?}: {mood:?}",
            self.process.name
        ));
        if changes.iter().any(|change| self.world.is_refused(*change)) {
            self.process.thawed().await;
            return Answer::Failed(failed(Some(500), "not this one"));
        }
        let answer = match mood {
            Mood::Failing => Answer::Failed(failed(Some(500), "")),
            Mood::Hanging => {
                sleep(Duration::from_secs(10)).await;
                Answer::Failed(failed(None, "no answer"))
            }
            Mood::Limiting(pause) => {
                let until = Instant::now() + pause;
                let mut webhook = self.world.webhook();
                webhook.not_before.insert(self.process.name, until);
                Answer::Limited(pause)
            }
            Mood::Mute => {
                self.world.accept(&changes);
                Answer::Failed(failed(None, "the connection was lost"))
            }
            Mood::Well => {
                self.world.accept(&changes);
                Answer::Delivered
            }
        };
        self.process.thawed().await;
        answer
    }
}
