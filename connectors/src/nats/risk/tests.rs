use super::*;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What the `nats` command makes with `--defaults`: discard old, and no limit.
fn usual() -> Config {
    Config {
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        discard: DiscardPolicy::Old,
        ..Config::default()
    }
}

/// The risk, the problem and the advice of the only refused finding.
fn refusal(config: &Config) -> (Risk, String, String) {
    let found = find(config, WEEK);
    let refused: Vec<&Finding> = found.iter().filter(|f| f.risk.is_some()).collect();
    assert_eq!(refused.len(), 1, "{found:?}");
    let advice = advice("S", &refused);
    (refused[0].risk.unwrap(), refused[0].problem.clone(), advice)
}

fn is_safe(config: &Config) -> bool {
    find(config, WEEK).iter().all(|found| found.risk.is_none())
}

#[test]
fn a_stream_with_defaults_is_only_told_what_could_be_denied() {
    let found = find(&usual(), WEEK);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].risk, None);
    assert_eq!(
        advice("S", &[&found[0]]),
        "nats stream edit S --deny-delete --deny-purge"
    );
    let denied = Config {
        deny_delete: true,
        deny_purge: true,
        ..usual()
    };
    assert!(find(&denied, WEEK).is_empty());
}

#[test]
fn a_full_stream_must_refuse() {
    let old = Config {
        max_bytes: 1_000,
        max_messages: 5,
        ..usual()
    };
    let (risk, problem, advice) = refusal(&old);
    assert_eq!(risk, Risk::DiscardOld);
    assert!(
        problem.starts_with("discard is old with max_bytes 1000 and max_msgs 5, it must be new"),
        "{problem}"
    );
    assert_eq!(advice, "nats stream edit S --discard new");
    assert!(is_safe(&Config {
        discard: DiscardPolicy::New,
        ..old
    }));
}

#[test]
fn an_age_below_the_least_is_refused_and_the_least_is_not() {
    let aged = |max_age| Config { max_age, ..usual() };
    let (risk, problem, advice) = refusal(&aged(WEEK - Duration::from_nanos(1)));
    assert_eq!(risk, Risk::MaxAge);
    assert!(
        problem.starts_with("max_age is 604799.999999999s, it must be at least 7d"),
        "{problem}"
    );
    assert_eq!(advice, "nats stream edit S --max-age 7d");
    assert!(is_safe(&aged(WEEK)));
    assert!(is_safe(&aged(Duration::ZERO)), "unlimited");
}

#[test]
fn a_limit_for_each_subject_must_refuse_each_subject() {
    let limited = |discard, discard_new_per_subject| Config {
        max_messages_per_subject: 3,
        discard,
        discard_new_per_subject,
        ..usual()
    };
    for dropping in [DiscardPolicy::Old, DiscardPolicy::New] {
        let (risk, problem, advice) = refusal(&limited(dropping, false));
        assert_eq!(risk, Risk::MaxMsgsPerSubject);
        assert!(
            problem.starts_with("max_msgs_per_subject is 3, "),
            "{problem}"
        );
        assert_eq!(advice, "nats stream edit S --max-msgs-per-subject=-1");
    }
    assert!(is_safe(&limited(DiscardPolicy::New, true)));
}

#[test]
fn what_a_publisher_could_do_to_events_of_others_is_refused() {
    let (risk, _, advice) = refusal(&Config {
        allow_rollup: true,
        ..usual()
    });
    assert_eq!(
        (risk, advice.as_str()),
        (Risk::Rollup, "nats stream edit S --no-allow-rollup")
    );
    let (risk, _, advice) = refusal(&Config {
        allow_message_ttl: true,
        ..usual()
    });
    assert_eq!(risk, Risk::MsgTtl);
    assert!(
        advice.starts_with("allow_msg_ttl cannot be edited: "),
        "{advice}"
    );
}

#[test]
fn what_is_not_on_disk_and_what_is_a_copy_is_refused() {
    let (risk, ..) = refusal(&Config {
        storage: StorageType::Memory,
        ..usual()
    });
    assert_eq!(risk, Risk::Memory);
    let (risk, ..) = refusal(&Config {
        persist_mode: Some(PersistenceMode::Async),
        ..usual()
    });
    assert_eq!(risk, Risk::PersistAsync);
    assert!(is_safe(&Config {
        persist_mode: Some(PersistenceMode::Default),
        ..usual()
    }));
    let origin = Source {
        name: "ORIGIN".into(),
        ..Source::default()
    };
    let (risk, _, advice) = refusal(&Config {
        mirror: Some(origin.clone()),
        ..usual()
    });
    assert_eq!(risk, Risk::Mirror);
    assert_eq!(advice, "set stream = \"ORIGIN\" and read that one");
    let fed = Config {
        sources: Some(vec![origin]),
        ..usual()
    };
    assert!(is_safe(&fed));
    assert!(find(&fed, WEEK)[0].problem.contains("fed by ORIGIN"));
}

#[test]
fn several_problems_are_put_right_by_one_edit() {
    let config = Config {
        max_bytes: 1_000,
        max_age: Duration::from_secs(5_400),
        allow_message_ttl: true,
        ..usual()
    };
    let found = find(&config, WEEK);
    let refused: Vec<&Finding> = found.iter().filter(|f| f.risk.is_some()).collect();
    assert_eq!(
        advice("S", &refused),
        "nats stream edit S --discard new --max-age 7d; allow_msg_ttl cannot be edited: make a new \
         stream without it and publish to that"
    );
}

#[test]
fn a_risk_is_accepted_by_the_name_it_is_shown_with() {
    for risk in Risk::ALL {
        let read: Risk = serde_json::from_value(risk.to_string().into()).unwrap();
        assert_eq!(read, risk);
        assert_eq!(serde_json::to_value(risk).unwrap(), risk.to_string());
    }
    let error = serde_json::from_value::<Risk>("discard".into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`discard` is not a risk; there are memory, discard_old, max_age, max_msgs_per_subject, \
         msg_ttl, rollup, mirror, persist_async"
    );
}

#[test]
fn a_length_of_time_is_written_as_the_command_takes_it() {
    let shown = |seconds| span(Duration::from_secs(seconds));
    assert_eq!([shown(604_800), shown(129_600)], ["7d", "36h"]);
    assert_eq!([shown(5_400), shown(90), shown(0)], ["90m", "90s", "0s"]);
    assert_eq!(span(Duration::from_millis(250)), "0.25s");
}
