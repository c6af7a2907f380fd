//! Events of a month that come when it is over and billed.

use super::{
    Batch, DAY_US, Expected, MonthSettings,
    event::{Content, Event},
};
use crate::cli::demo::generator::{customers::CUSTOMERS, random::Random, text::Times};

/// They happened on two days, a day before the month ended: its last events have closed their windows, and a month later an id of then is
/// not forgotten.
const DAYS: u64 = 2;
const DAYS_BEFORE_END: i64 = 3;

/// So many events of each customer, in messages of at most [`MonthSettings::batch`], and what they amount to.
pub fn stragglers(settings: &MonthSettings, each: u64) -> (Vec<Batch>, Expected) {
    // Another series than the month's own: an id that came before would be a repeat.
    let mut random = Random::new(!settings.seed);
    let mut expected = Expected::nothing(settings.days());
    let mut events = Vec::new();
    let start_us = settings.end_us - DAYS_BEFORE_END * DAY_US;
    for place in (0..each).flat_map(|_| 0..CUSTOMERS.len()) {
        let after_us = random.below(DAYS * DAY_US.unsigned_abs()).cast_signed();
        let event = Event {
            id: random.next_u128(),
            customer: place,
            time_us: start_us + after_us,
            content: Content::of(&CUSTOMERS[place], &mut random),
        };
        expected.usage[place][settings.day_of(event.time_us)] += event.content.usage();
        events.push(event);
    }
    expected.events = events.len() as u64;
    expected.counted = expected.events;
    expected.late = expected.events;
    (in_messages(&events, settings.batch), expected)
}

fn in_messages(events: &[Event], batch: usize) -> Vec<Batch> {
    let mut times = Times::new();
    let message = |events: &[Event]| {
        let mut message = Batch::empty();
        for event in events {
            message.append(event, &mut times);
        }
        message
    };
    events.chunks(batch.max(1)).map(message).collect()
}
