//! Publishers in processes of their own, which can be killed.

use crate::lab::{Lab, PLAIN, ann, counter, publisher, run, set_policy, store_in};
use pointsman_control::db::Db;
use pointsman_control::publish::key;
use pointsman_model::fleet::Cause;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

const DATABASE: &str = "POINTSMAN_TEST_DATABASE";
const DIRECTORY: &str = "POINTSMAN_TEST_DIRECTORY";
const FIRST: &str = "POINTSMAN_TEST_FIRST";
const TIMES: &str = "POINTSMAN_TEST_TIMES";
/// What the publisher looks at in debug builds.
const DIE_AT: &str = "POINTSMAN_CONTROL_DIE_AT";

/// A process that publishes.
pub(crate) struct Process {
    child: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Publishes `times` times. With `first`, it sets a policy before each: a counter with this
    /// priority, then with the next. `die_at` is a step at which it kills itself.
    pub(crate) fn start(lab: &Lab, first: Option<u32>, times: u32, die_at: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child::publishes", "--exact", "--ignored", "--nocapture"])
            .env(DATABASE, &lab.place.url)
            .env(DIRECTORY, lab.directory())
            .env(FIRST, first.map_or(String::new(), |first| first.to_string()))
            .env(TIMES, times.to_string())
            .env_remove(DIE_AT)
            .stdout(Stdio::piped());
        if let Some(step) = die_at {
            command.env(DIE_AT, step);
        }
        let mut child = command.spawn().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, told }
    }

    /// Waits for the next line that it tells of itself; `None`: it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        self.told
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("CHILD ").map(|(_, line)| line.to_owned()))
    }

    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        while self.line().is_some() {}
        self.child.wait().unwrap()
    }
}

#[test]
#[ignore = "it is a helper that runs in a process of its own"]
fn publishes() {
    let said = |name| std::env::var(name).unwrap();
    let directory = PathBuf::from(said(DIRECTORY));
    run(async move {
        let db = Db::open(&said(DATABASE), 2).await.unwrap();
        let signing = key::load(&db, &directory.join("fleet.key"), 1).await.unwrap();
        let store = store_in(&directory.join("blobs"));
        let publisher = publisher(db.clone(), store, signing);
        println!("CHILD ready");
        for time in 0..said(TIMES).parse().unwrap() {
            if let Ok(first) = said(FIRST).parse::<u32>() {
                set_policy(&db, "count", counter("eth0", first + time)).await;
            }
            let report = publisher.publish(PLAIN, ann(), Cause::Request).await.unwrap();
            println!("CHILD {:?}", report.snapshot.map(|snapshot| snapshot.number));
        }
    });
}
