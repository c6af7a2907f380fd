//! Who uses what in the demo's month. All names are made up.

use super::random::Random;

/// A customer of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Customer {
    /// The subject of its events.
    pub name: &'static str,
    /// Its share of all events, to be divided by the sum of all weights.
    pub(super) weight: u64,
    /// Of each hundred events, how many are agent tasks, and how many GPU usage. The rest are
    /// completions.
    pub(super) tasks: u64,
    pub(super) gpu: u64,
}

/// Shorthand, so that the list reads as a table.
const fn customer(name: &'static str, weight: u64, tasks: u64, gpu: u64) -> Customer {
    Customer {
        name,
        weight,
        tasks,
        gpu,
    }
}

/// Everyone, the largest first.
pub const CUSTOMERS: [Customer; 40] = [
    customer("northgate-bank", 190, 12, 3),
    customer("bluefin-labs", 160, 2, 22),
    customer("acme", 140, 18, 2),
    customer("halcyon-health", 120, 25, 4),
    customer("pixelforge", 105, 1, 38),
    customer("harbor-freightways", 90, 30, 0),
    customer("lumenary", 80, 5, 12),
    customer("oakhurst-legal", 74, 22, 0),
    customer("tidewater-energy", 68, 8, 16),
    customer("marigold-retail", 62, 40, 0),
    customer("quarrystone", 56, 6, 2),
    customer("junction-travel", 52, 45, 0),
    customer("ferncliff", 48, 4, 6),
    customer("saltmarsh-studios", 44, 0, 55),
    customer("brightwater", 41, 15, 3),
    customer("copperline", 38, 10, 5),
    customer("driftwood-games", 35, 3, 28),
    customer("everline-telecom", 33, 48, 0),
    customer("foxglove-bio", 30, 2, 34),
    customer("granite-peak", 28, 9, 2),
    customer("hollow-oak", 26, 14, 0),
    customer("ironbridge", 24, 7, 9),
    customer("juniper-works", 22, 11, 1),
    customer("kestrel-air", 20, 36, 0),
    customer("lakeshore-homes", 18, 28, 0),
    customer("meridian-maps", 17, 2, 18),
    customer("nightjar", 15, 5, 4),
    customer("orchard-lane", 14, 33, 0),
    customer("plainsong-audio", 13, 1, 42),
    customer("quillfeather", 12, 6, 0),
    customer("redwood-tutors", 11, 20, 0),
    customer("silverbirch", 10, 8, 2),
    customer("thistledown", 9, 12, 0),
    customer("umberfield", 8, 4, 7),
    customer("vantage-point", 7, 16, 0),
    customer("willowbrook", 6, 24, 0),
    customer("yarrow-and-sons", 5, 30, 0),
    customer("zephyr-sports", 4, 10, 3),
    customer("cinder-cone", 3, 0, 0),
    customer("globelight", 1, 50, 0),
];

/// The place of a customer in [`CUSTOMERS`], as often as its weight says.
pub(super) fn pick(random: &mut Random) -> usize {
    const WEIGHT: u64 = {
        let (mut sum, mut n) = (0, 0);
        while n < CUSTOMERS.len() {
            sum += CUSTOMERS[n].weight;
            n += 1;
        }
        sum
    };
    let mut left = random.below(WEIGHT);
    CUSTOMERS
        .iter()
        .position(|customer| match left.checked_sub(customer.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
        .expect("the number is below the sum of the weights")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_customer_has_its_own_name_and_shares_that_fit() {
        let names: BTreeSet<&str> = CUSTOMERS.iter().map(|customer| customer.name).collect();
        assert_eq!(names.len(), CUSTOMERS.len());
        assert!(
            CUSTOMERS
                .iter()
                .all(|c| c.weight > 0 && c.tasks + c.gpu <= 100)
        );
    }
}
