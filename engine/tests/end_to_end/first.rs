//! A first run without anything: what `tollgate init` writes is followed as it says.

use crate::world::Ran;
use std::{path::Path, process::Stdio};
use tokio::process::Command;

async fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.current_dir(folder).args(arguments);
    command.env_remove("TOLLGATE_LOG").stdin(Stdio::null());
    Ran::of(arguments, command.output().await.unwrap())
}

async fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let ran = run(folder, arguments).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    ran.stdout
}

#[tokio::test]
async fn what_init_writes_runs_to_invoices() {
    let folder = tempfile::tempdir().unwrap();
    let said = succeed(folder.path(), &["init", "shop"]).await;
    assert_eq!(
        said,
        "wrote shop/tollgate.toml\n\
         wrote shop/definitions/usage.sql\n\
         wrote shop/definitions/prices.sql\n\
         wrote shop/definitions/model_rates.csv\n\
         wrote shop/events.ndjson\n\
         \n\
         Next:\n  \
         cd shop\n  \
         tollgate check                        what the definitions say\n  \
         tollgate run --until-end              reads events.ndjson into ./lake\n  \
         tollgate query \"SELECT event_id, status, reason FROM events WHERE status <> 'ok'\"\n  \
         tollgate invoice --period 2026-01     drafts; --finalize issues them\n\
         tollgate.toml says how to read a stream instead.\n"
    );
    let shop = folder.path().join("shop");
    let checked = succeed(&shop, &["check"]).await;
    assert!(checked.ends_with("ok\n"), "{checked}");
    let summary = succeed(&shop, &["run", "--until-end"]).await;
    for line in [
        "9 counted, 0 of them late",
        "1 repeats",
        "1 rejected",
        "0 conflicts",
    ] {
        assert!(summary.contains(line), "{summary}");
    }
    let query = "SELECT event_id, status, reason FROM events WHERE status <> 'ok'";
    assert_eq!(
        succeed(&shop, &["query", "--format", "csv", query]).await,
        "event_id,status,reason\nc5,rejected,\"field `input_tokens`: expected BIGINT, got a string (\"\"many\"\"); send a number \
         without quotes, or declare the column with OPTIONS (strings = 'true')\"\n"
    );
    // acme: 20.00, 200,000 × 0.000003 + 10,000 × 0.000015 = 0.75, 1,000,000 × 0.0000005 + 200,000 × 0.0000015 = 0.80, and
    // 0.99 for the third ticket. globex: 20.00, 40,000 × 0.0000005 + 10,000 × 0.0000015 = 0.035, and 0 for one ticket.
    assert_eq!(
        succeed(&shop, &["invoice", "--period", "2026-01"]).await,
        "draft        acme                                4 lines              22.54 USD\n\
         draft        globex                              3 lines              20.04 USD\n"
    );
    let audited = succeed(&shop, &["audit"]).await;
    assert!(
        audited.lines().all(|line| line.ends_with(", 0 differ")),
        "{audited}"
    );
}

#[tokio::test]
async fn init_writes_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("definitions")).unwrap();
    std::fs::write(path.join("definitions/mine.sql"), "-- mine").unwrap();
    let ran = run(path, &["init"]).await;
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(2),
            "error: ./definitions/mine.sql is there already, and init writes over nothing; name another folder: tollgate \
             init DIR\n"
        )
    );
    assert!(!path.join("tollgate.toml").exists());
    // Twice in one folder neither.
    succeed(path, &["init", "new"]).await;
    let ran = run(path, &["init", "new"]).await;
    assert_eq!(ran.code, Some(2), "{ran:#?}");
    assert!(
        ran.stderr
            .starts_with("error: new/tollgate.toml is there already"),
        "{ran:#?}"
    );
}
